"""Records of a run for `verify`, and what it says of them."""

import json


def outcomes(report, claim):
    return {outcome.id: outcome for outcome in report.claims[claim]}


def put(path, result):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"result": result}))


def ratio(value, low, high, finished=1.0, candidates=100):
    own = {"listwise": 1.0, "pointwise": finished}
    rows = [
        {"method": method, "n": n, "finished": own[method]}
        for method, n in (("listwise", 10), ("pointwise", 10), ("listwise", 6), ("pointwise", 6))
    ]
    rows.append({"method": "listwise, prefetch", "n": 10, "finished": 0.0})  # no part of the ratio
    found = {"value": value, "low": low, "high": high}
    return {"ratio": found, "rows": rows, "candidates": candidates}
