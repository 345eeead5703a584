"""Where a model's chain is right: of a run's windows that hold the relevant passage, those with the right working.

    python benchmarks/workings.py RUN [--out data/records/worked/workings.json]

For a run of notebook 05 on the collections that a program makes, whose queries have one right working each. Reads
the traces that the run keeps of each system. Prints the shares, and writes a record, with the settings and the hardware
of the evaluation.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import binomtest

from reasonrank import sources, stages, traces
from reasonrank.answers import NONE
from reasonrank.sources.worked import Worked, Working
from reasonrank.teachers.offline import worked_chain


def is_right(text: str, working: Working) -> bool:
    """Whether an answer has exactly the steps of a working, in its teacher's form."""
    return worked_chain(working, ()).removesuffix(NONE) in text


def count(rows: Iterable[traces.Row], collections: dict[str, Worked]) -> list[dict[str, Any]]:
    """A row for each collection and for all of them, over windows that hold the relevant passage.

    `windows`, `right` (the working is right), `on_top` (and the relevant passage comes first), `none` (the chain says
    that no passage fits), `on_top_wrong` (it comes first, though the working is wrong).
    """
    found = []
    for row in rows:
        name, _, qid = row["qid"].partition("/")
        for window in row["windows"]:
            if relevant := set(window["docids"]) & set(row["relevant"]):
                right = is_right(window["text"], collections[name].workings[qid])
                first = window["docids"][window["ranking"][0] - 1] in relevant
                own = {"right": right, "on_top": right and first, "on_top_wrong": first and not right}
                found.append({"collection": name, "windows": 1, **own, "none": NONE in window["text"]})
    frame = pd.DataFrame(found)
    total = frame.assign(collection="all")
    counted = pd.concat([frame, total]).groupby("collection", sort=False).sum()
    return json.loads(counted.reset_index().to_json(orient="records"))


def share(hits: int, n: int) -> str:
    """A share in percent with its 95 % interval (Wilson), or "-" of nothing."""
    if not n:
        return "-"
    low, high = binomtest(hits, n).proportion_ci(method="wilson")
    return f"{100 * hits / n:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    stage = options.run / "05_gpu_evaluation"
    record = stages.read_json(stage / "record.json")
    collections = {name: sources.load(name) for name in record["config"]["collections"]}
    result = {}
    for system in record["result"]["systems"][1:]:  # the first is the retriever
        rows = traces.read(stage / traces.of_system(system))
        result[system.removesuffix(" (this run)")] = count(rows, collections)
    for name, rows in result.items():
        shares = [f"{row['collection']} {share(row['right'], row['windows'])}" for row in rows]
        print(f"{name}: right workings in percent: {', '.join(shares)}")
    if options.out:
        kept = {key: record[key] for key in ("config", "seed", "versions", "commit", "hardware", "created")}
        stages.write_json(options.out, {"stage": "workings", **kept, "result": result})


if __name__ == "__main__":
    main()
