"""Checks beside the published tables (data/paper/checks.yaml), and how our figure of each is come by.

A way returns what was measured or raises `Missing` with what is not there. None loads a model: they compute
from the metrics, from published inputs, or from records of runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from . import paper, runs
from .evaluation import evaluate
from .rerank.schedule import windows
from .rewards import multi_view_reward
from .sources.benchmarks import RUN, differing
from .sources.folder import hashes
from .stages import read_json


class Published(paper.Strict):
    """A row of Table 3 that a small run is shown beside: the printed average without that part."""

    table: str
    system: str


class Check(paper.Strict):
    """A check; data/paper/checks.yaml says what `kind` and `scale` mean.

    `way`: the computation of our figure; `part`, `at` and `record` (under the folder of records) say of what.
    `paper` and `tolerance` are in `unit`. `required`: a record that is not there is an error.
    """

    id: str
    claim: str = Field(pattern=r"^(C\d+|exact)$")
    text: str
    way: Literal[
        "golden_rewards",
        "window_schedule",
        "printed_averages",
        "table5_total",
        "worked_example",
        "ablation",
        "latency",
        "record",
    ]
    kind: Literal["value", "direction"]
    scale: Literal["paper", "small"] = "paper"
    paper: float
    unit: str
    tolerance: float = Field(default=0.0, ge=0)
    needs: paper.Needs
    part: str = ""
    at: str = ""
    record: str = ""
    required: bool = False
    published: Published | None = None


class Pinned(paper.Strict):
    """Published inputs of one BRIGHT set: queries, candidates of each, SHA-256 of each file's text."""

    queries: int
    candidates: int
    files: dict[str, str]


@dataclass(frozen=True)
class Inputs:
    """Where checks find what they need; None where it was not given."""

    records: Path
    bright: Path | None = None
    golden: Path | None = None


@dataclass(frozen=True)
class Measured:
    """Our figure, its 95 % interval where there is one, what it was counted over, and a remark."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    note: str = ""


class Missing(Exception):
    """A check that cannot be made; the message says what is missing. `record`: it is a record."""

    def __init__(self, what: str, record: bool = False):
        super().__init__(what)
        self.record = record


@cache
def checks() -> tuple[Check, ...]:
    """What is checked beside the tables. ValueError for an id that comes twice."""
    found = paper.load(paper.DATA / "checks.yaml", tuple[Check, ...])
    ids = [check.id for check in found]
    if twice := {name for name in ids if ids.count(name) > 1}:
        raise ValueError(f"checks.yaml: {sorted(twice)} stand there twice")
    return found


@cache
def pinned() -> dict[str, Pinned]:
    """Pinned inputs by BRIGHT set, for those sets whose published files have been seen."""
    return paper.load(paper.DATA / "inputs.yaml", dict[str, Pinned])


def measure(check: Check, inputs: Inputs) -> Measured:
    """Our figure for a check. Raises Missing; ValueError naming the file for a record that is malformed."""
    return WAYS[check.way](check, inputs)


def retriever(name: str, folder: Path) -> Measured:
    """NDCG@10 in percent of the published first stage on a BRIGHT set, scored as the authors do.

    `folder` holds `<name>/reasonir_gpt4cot_top100.run` and `qrels.txt`, gzipped or not. Rows whose id holds a
    blank are dropped, equal scores ordered as trec_eval does, the mean is over the queries of the run.
    Raises Missing where the set is not there, ValueError where queries, candidates or excluded documents are
    not as they must be.
    """
    place = folder / name
    files = [
        path for file in (RUN, "qrels.txt") for path in (place / file, place / f"{file}.gz") if path.is_file()
    ]
    if len(files) != 2:
        raise Missing(f"{RUN} and qrels.txt of {name} (--bright)")
    qrels, whole = runs.read_qrels(files[1]), runs.read_trec(files[0])
    note = _check_inputs(name, place, files, whole, qrels)
    run = runs.read_trec(files[0], lenient_ids=False, ties="trec_eval")
    scores = evaluate(run, qrels, queries="run")
    return Measured(100 * scores.mean["nDCG@10"], n=len(scores.per_query["nDCG@10"]), note=note)


def _check_inputs(name: str, place: Path, files: list[Path], run: runs.Run, qrels: runs.Qrels) -> str:
    """A remark where a file is not the pinned one; ValueError where the run cannot be the published one."""
    for path in (*place.glob("excluded.txt"), *place.glob("excluded.txt.gz")):
        for qid, docids in runs.read_excluded(path).items():
            if found := docids & set(run.get(qid, ())):
                raise ValueError(f"{files[0]}: query {qid!r} ranks {min(found)!r}, which is excluded")
    expected = pinned().get(name)
    if expected is None:
        return "inputs not pinned"
    counts = dict(Counter(map(len, run.values())))
    if counts != {expected.candidates: expected.queries} or run.keys() != qrels.keys():
        raise ValueError(
            f"{files[0]}: expected {expected.queries} judged queries of {expected.candidates} candidates "
            f"each; found queries by their number of candidates {counts}, judged queries {len(qrels)}"
        )
    odd = differing(hashes(place, files), expected.files)
    return f"not the published file: {', '.join(odd)}" if odd else ""


def golden_rewards(check: Check, inputs: Inputs) -> Measured:
    """The largest difference to the rewards that the authors' released code gives."""
    if inputs.golden is None:
        raise Missing("golden data not given (--golden)")
    cases = runs.read_jsonl(inputs.golden)
    if not cases:
        raise ValueError(f"{inputs.golden}: holds no case")
    keys = ("completion", "gold_ranking", "relevant", "num_passages", "reward")
    for number, case in enumerate(cases, start=1):
        if missing := [key for key in keys if key not in case]:
            raise ValueError(f"{inputs.golden}, case {number}: lacks {', '.join(missing)}")
    return Measured(max(abs(_reward(case) - case["reward"]) for case in cases), n=len(cases))


def _reward(case: dict[str, Any]) -> float:
    labels = {key: case[key] for key in ("gold_ranking", "num_passages")}
    return multi_view_reward(case["completion"], relevant=set(case["relevant"]), **labels)


def window_schedule(check: Check, inputs: Inputs) -> Measured:
    """Windows over the paper's 100 candidates; none where they are not where they should be."""
    schedule = windows(100, 20, 10)
    as_printed = schedule == [(start, start + 20) for start in range(80, -1, -10)]
    return Measured(float(len(schedule) if as_printed else 0), n=1)


def printed_averages(check: Check, inputs: Inputs) -> Measured:
    """The largest difference between a printed average and the mean of its row."""
    printed = [row for table in paper.tables().values() for row in table.rows if row.values and row.avg]
    gaps = [abs(sum(row.values) / len(row.values) - row.avg) for row in printed]
    return Measured(max(gaps), n=len(gaps))


def table5_total(check: Check, inputs: Inputs) -> Measured:
    """The sum of Table 5."""
    counts = [row.values[0] for row in paper.tables()["table5"].rows if row.values]
    return Measured(sum(counts), n=len(counts))


def worked_example(check: Check, inputs: Inputs) -> Measured:
    """NDCG@10 of the example of section 4.2 with relevant passages at the ranks that `part` names."""
    example = paper.facts().worked_example
    (case,) = [case for case in example.cases if " and ".join(map(str, case.ranks)) == check.part]
    return Measured(case.ndcg(example.window), n=1)


def record(check: Check, inputs: Inputs) -> Measured:
    """The `value`, `low`, `high` and `n` at `at` of a record's result."""
    body, place = _result_of(check, inputs), f"{check.record}, result.{check.at}"
    return _measured(body.get(check.at), place)


def ablation(check: Check, inputs: Inputs) -> Measured:
    """What a part of the recipe adds in a small run: the row of `part` among the record's `comparisons`.

    A row has `variant` (as "only SFT"), `value` (NDCG@10 in percent, whole recipe minus this one), `low`, `high`
    (95 % interval) and `n` (queries).
    """
    rows = _result_of(check, inputs).get("comparisons", [])
    found = [row for row in rows if row.get("variant") == check.part]
    if not found:
        raise Missing(f"{check.record}: no comparison with {check.part!r}", record=True)
    return _measured(found[0], f"{check.record}, comparison {check.part!r}")


def latency(check: Check, inputs: Inputs) -> Measured:
    """How many times as long pointwise takes; Missing where the two had other token limits."""
    body = _result_of(check, inputs)
    measured = _measured(body.get("ratio"), f"{check.record}, result.ratio", counted=False)
    limits = body.get("limits", {})
    own, other = limits.get("listwise_tokens"), limits.get("pointwise_tokens")
    if own is None or own != other:
        text = f"equal token limits; the record has {own} a window and {other} a passage"
        raise Missing(f"{text}, and a ratio of {_with_interval(measured)}")
    n = sum(row["n"] for row in body.get("rows", []) if row.get("method") == "listwise")
    return Measured(measured.value, measured.low, measured.high, n)


def _with_interval(measured: Measured) -> str:
    return f"{measured.value:.2f} ({measured.low:.2f} to {measured.high:.2f})"


def find_record(folder: Path, name: str) -> Path:
    """A record in a folder of records (`default/06.json`) or of a run (`06/record.json`); else Missing."""
    for path in (folder / name, folder / Path(name).stem / "record.json"):
        if path.is_file():
            return path
    raise Missing(f"record {name}", record=True)


def result(path: Path) -> dict[str, Any]:
    """The `result` of a record; ValueError naming the file where it has none."""
    body = read_json(path)
    if not isinstance(body, dict) or not isinstance(body.get("result"), dict):
        raise ValueError(f"{path}: expected a record with the key 'result'")
    return body["result"]


def _result_of(check: Check, inputs: Inputs) -> dict[str, Any]:
    return result(find_record(inputs.records, check.record))


def _measured(row: Any, place: str, counted: bool = True) -> Measured:
    keys = ("value", "low", "high", "n") if counted else ("value", "low", "high")
    if not isinstance(row, dict) or any(not isinstance(row.get(key), int | float) for key in keys):
        raise ValueError(f"{place}: expected numbers for {', '.join(keys)}, got {row!r:.80}")
    return Measured(*(row[key] for key in keys))


WAYS: dict[str, Callable[[Check, Inputs], Measured]] = {
    "golden_rewards": golden_rewards,
    "window_schedule": window_schedule,
    "printed_averages": printed_averages,
    "table5_total": table5_total,
    "worked_example": worked_example,
    "ablation": ablation,
    "latency": latency,
    "record": record,
}
