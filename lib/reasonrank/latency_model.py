"""Why one way to rerank is faster: a model of the time with three constants of a machine and a model.

seconds = prompt tokens * prefill + output tokens * (step / batch + token)

`step` is what a decoding step takes whatever its batch (the weights are read once for all sequences in it), `token`
what each sequence adds to it. Windows that wait for one another leave the batch emptier: that is where listwise
reranking loses, and prompts and chains, of which it has fewer, are where it wins.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
import yaml
from scipy.optimize import nnls

from . import paper
from .rerank import windows


@dataclass(frozen=True)
class TimeModel:
    """The constants in seconds: of a prompt token, of a decoding step, of an output token in it."""

    prefill: float
    step: float
    token: float

    def parts(self, point: Mapping[str, float], full: float = 64) -> dict[str, float]:
        """Seconds of a measurement (`prompt` and `output` tokens, mean `batch`) by what takes them.

        "waiting": what decoding takes longer than with a batch of `full` sequences.
        """
        steps = point["output"] / max(full, point["batch"])
        waiting = self.step * (point["output"] / point["batch"] - steps)
        reading, decoding = self.prefill * point["prompt"], self.step * steps + self.token * point["output"]
        return {"reading prompts": reading, "decoding": decoding, "waiting": waiting}

    def seconds(self, point: Mapping[str, float]) -> float:
        return sum(self.parts(point).values())


def fit(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The model of every second point (least squares of relative errors, no constant under 0), tested on the others.

    `points`: see `latency.Timed.points`. Returns its constants as `model`, the points as `rows` with `predicted`
    seconds and `used` (to fit), and `error`: median of |predicted / measured - 1| over those not used. ValueError for
    fewer than six points.
    """
    if len(points) < 6:
        raise ValueError(f"{len(points)} measurements; a fit and its test need 6 or more")
    work = np.array([[p["prompt"], p["output"] / p["batch"], p["output"]] for p in points])
    seconds = np.array([point["seconds"] for point in points])
    used = np.arange(len(points)) % 2 == 0
    model = TimeModel(*map(float, nnls((work / seconds[:, None])[used], np.ones(used.sum()))[0]))
    predicted = [model.seconds(point) for point in points]
    rows = [{**p, "predicted": t, "used": bool(u)} for p, t, u in zip(points, predicted, used, strict=True)]
    error = float(np.median(np.abs(predicted / seconds - 1)[~used]))
    return {"model": asdict(model), "rows": rows, "error": error}


def explained(found: Mapping[str, Any], top: int, full: float) -> list[dict[str, Any]]:
    """Where the seconds of a query go by a fitted model (see `fit`), a row for each method, all together and alone.

    Of the measurements with `top` candidates and lengths of their own: `method`, `where` (as "ours, together"), tokens
    and measured seconds of a query, mean batch, and `TimeModel.parts`; `full`: see there.
    """
    model, groups, rows = TimeModel(**found["model"]), defaultdict(list), []
    for row in found["rows"]:
        if (row["lengths"], row["top"]) == ("own", top):
            groups[row["mode"], row["method"]].append(row)
    for (mode, method), own in groups.items():
        n, steps = sum(row["n"] for row in own), sum(row["output"] / row["batch"] for row in own)
        query = {key: sum(row[key] for row in own) / n for key in ("prompt", "output", "seconds")}
        query["batch"] = n * query["output"] / steps
        rows.append({"method": method, "where": f"ours, {mode}", **query, **model.parts(query, full)})
    return rows


@cache
def _sheet() -> tuple[dict[str, Any], int, int]:
    """The paper's GPUs in `data/paper/rates.yaml`, parameters of their model, and bytes of a token in its KV cache."""
    from .preflight import cache_bytes, config_of, parameters

    rate = yaml.safe_load((paper.DATA / "rates.yaml").read_text(encoding="utf-8"))["a800"]
    config = config_of(rate["model"])
    return rate, parameters(config, None)[1], cache_bytes(config)


def on_gpus(context: float) -> TimeModel:
    """The model for the paper's 7B on its GPUs, from their data sheet.

    An operation per parameter and token is a multiplication and an addition; a step reads all weights, and a sequence
    in it its keys and values of `context` tokens. Each GPU has its share of the queries.
    """
    rate, count, cached = _sheet()
    compute = 2 * count / (rate["tflops"] * 1e12 * rate["tflops_share"])
    bandwidth = rate["bandwidth_tb"] * 1e12 * rate["bandwidth_share"]
    constants = (compute, 2 * count / bandwidth, compute + cached * context / bandwidth)
    return TimeModel(*(seconds / rate["gpus"] for seconds in constants))


def predicted(lengths: Mapping[str, Sequence[int]], top: int = 100) -> list[dict[str, Any]]:
    """The paper's study by `on_gpus`, a row a method: seconds of a query, all queries together, and their parts.

    `lengths`: of outputs, see `latency.declared`; `top`: candidates, in windows of 20 by 10. `even`: output tokens of
    an answer with which the method would take as long as listwise.
    """
    rate, rows = _sheet()[0], []
    passage = (rate["window_tokens"] - rate["frame_tokens"]) / 20
    asked = {"listwise": (len(windows(top, 20, 10)), rate["window_tokens"], 1)}
    asked["pointwise"] = (top, rate["frame_tokens"] + passage, top)
    for method, (calls, prompt, side_by_side) in asked.items():
        mean = float(np.mean(lengths[method]))
        model = on_gpus(prompt + mean / 2)
        batch = min(rate["sequences"], max(1, rate["queries"] * side_by_side / rate["gpus"]))
        point = {"prompt": calls * prompt, "output": calls * mean, "batch": batch}
        row = {"method": method, "top": top, **point, "seconds": model.seconds(point)}
        even = break_even(model, (rows or [row])[0]["seconds"], point) / calls
        rows.append(row | model.parts(point, rate["sequences"]) | {"even": even})
    return rows


def break_even(model: TimeModel, seconds: float, point: Mapping[str, float]) -> float:
    """Output tokens with which a measurement of the prompt tokens and batch of `point` would take `seconds`."""
    return (seconds - model.prefill * point["prompt"]) / (model.step / point["batch"] + model.token)
