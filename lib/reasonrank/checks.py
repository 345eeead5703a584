"""The ways in which our figures are measured, for `verify`. None loads a model: they compute from the metrics, from
published inputs, or from records of runs. A way returns our figure, or raises `Missing` with what is not there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from . import paper, runs
from .evaluation import evaluate
from .metrics import ndcg
from .paper import Check
from .rerank import windows
from .rewards import multi_view_reward
from .settings import Strict, checked
from .sources.benchmarks import RUN
from .sources.folder import hashes
from .stages import ROOT, read_json

RECORDS = ROOT / "data" / "records"
QUERIES, CANDIDATES = 16, 100  # from which on a ratio of seconds is held against the paper's
FINISHED = 0.9  # share of answers that end by themselves, likewise


class Measured(BaseModel):
    """Our figure, its 95 % interval where there is one, what it was counted over, and a remark.

    `partial`: why it is no test of the printed figure, where it is none.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    note: str = ""
    partial: str = ""


class Interval(Measured):
    """A figure of a small run, which has an interval."""

    low: float
    high: float


class Compared(Interval):
    """The whole recipe against a variant of it; `paper`: the same difference in Table 3."""

    paper: float


class Golden(Strict):
    """A case of the authors' released reward."""

    kind: str = ""
    completion: str
    gold_ranking: list[int]
    relevant: set[int]
    num_passages: int = Field(ge=1)
    reward: float


class Missing(Exception):
    """A check that cannot be made; the message says what is missing."""


class MissingRecord(Missing):
    """What is missing is a record."""


@dataclass(frozen=True)
class Inputs:
    """Where checks find what they need; None where it was not given."""

    records: Path = RECORDS
    bright: Path | None = None
    golden: Path | None = None

    def result(self, name: str) -> dict[str, Any]:
        """The result of a record in a folder of records (`default/06.json`) or of a run (`06/record.json`).

        Raises Missing; ValueError naming the file where it has none.
        """
        for path in (self.records / name, self.records / Path(name).stem / "record.json"):
            if path.is_file():
                return read_result(path)
        raise MissingRecord(f"record {name}")


def read_result(path: Path) -> dict[str, Any]:
    """The `result` of a record; ValueError naming the file where it has none."""
    record = checked(read_json(path), dict[str, Any], str(path))
    return checked(record.get("result"), dict[str, Any], f"{path}, result")


def retriever(place: Path) -> Measured | None:
    """NDCG@10 in percent of the published first stage on the BRIGHT set of a folder, scored as the authors do.

    It holds `reasonir_gpt4cot_top100.run` and `qrels.txt`, gzipped or not; None where it does not. Rows whose id
    holds a blank are dropped, equal scores ordered as trec_eval does, the mean is over the queries of the run. Raises
    ValueError where queries, candidates or excluded documents are not as they must be.
    """
    named = (place / f"{file}{end}" for file in (RUN, "qrels.txt") for end in ("", ".gz"))
    files = [path for path in named if path.is_file()]
    if len(files) != 2:
        return None
    whole, qrels = runs.read_trec(files[0]), runs.read_qrels(files[1])
    for path in place.glob("excluded.txt*"):
        for qid, docids in runs.read_excluded(path).items():
            if found := docids & set(whole.get(qid, ())):
                raise ValueError(f"{files[0]}: query {qid!r} ranks {min(found)!r}, which is excluded")
    note = "inputs not pinned"
    if expected := paper.load(paper.DATA / "inputs.yaml", dict[str, dict[str, Any]]).get(place.name):
        counts, pinned = dict(Counter(map(len, whole.values()))), expected["files"]
        if counts != {expected["candidates"]: expected["queries"]} or whole.keys() != qrels.keys():
            raise ValueError(
                f"{files[0]}: expected {expected['queries']} judged queries of {expected['candidates']} candidates "
                f"each; found queries by their number of candidates {counts}, judged queries {len(qrels)}"
            )
        odd = [file for file, digest in hashes(place, files).items() if pinned.get(file, digest) != digest]
        note = f"not the published file: {', '.join(odd)}" if odd else "" if pinned else note
    scores = evaluate(runs.read_trec(files[0], lenient_ids=False, ties="trec_eval"), qrels, queries="run")
    return Measured(value=100 * scores.mean["nDCG@10"], n=len(scores.per_query["nDCG@10"]), note=note)


def golden_rewards(check: Check, inputs: Inputs) -> Measured:
    """The largest difference to the rewards that the authors' released code gives."""
    if inputs.golden is None:
        raise Missing("golden data not given (--golden)")
    gaps = []
    for place, row in runs.objects(inputs.golden):
        case = checked(row, Golden, place)
        labels = case.model_dump(include={"gold_ranking", "relevant", "num_passages"})
        try:
            gaps.append(abs(multi_view_reward(case.completion, **labels) - case.reward))
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
    if not gaps:
        raise ValueError(f"{inputs.golden}: holds no case")
    return Measured(value=max(gaps), n=len(gaps))


def window_schedule(check: Check, inputs: Inputs) -> Measured:
    """Windows over the paper's 100 candidates; none where they are not where they should be."""
    schedule = windows(100, 20, 10)
    as_printed = schedule == [(start, start + 20) for start in range(80, -1, -10)]
    return Measured(value=len(schedule) if as_printed else 0, n=1)


def printed_averages(check: Check, inputs: Inputs) -> Measured:
    """The largest difference between a printed average and the mean of its row."""
    printed = [row for table in paper.tables().values() for row in table.rows if row.values and row.avg]
    gaps = [abs(sum(row.values) / len(row.values) - row.avg) for row in printed]
    return Measured(value=max(gaps), n=len(gaps))


def table5_total(check: Check, inputs: Inputs) -> Measured:
    """The sum of Table 5."""
    counts = [row.values[0] for row in paper.tables()["table5"].rows]
    return Measured(value=sum(counts), n=len(counts))


def worked_example(check: Check, inputs: Inputs) -> Measured:
    """NDCG@10 of the example of section 4.2 with relevant passages at the ranks that `part` names."""
    window = range(1, paper.facts().worked_example.window + 1)
    return Measured(value=ndcg(list(window), set(map(int, check.part.split(" and "))), k=10), n=1)


def record(check: Check, inputs: Inputs) -> Measured:
    """The `value`, `low`, `high` and `n` at `part` of a record's result."""
    found = inputs.result(check.record).get(check.part)
    return checked(found, Interval, f"{check.record}, result.{check.part}")


def ablation(check: Check, inputs: Inputs) -> Measured:
    """What a part of the recipe adds in a small run: `value`, `low`, `high` and `n` of the row among the record's
    `comparisons` whose `variant` is `part`; its `paper`, the difference in Table 3, is noted."""
    found = inputs.result(check.record).get("comparisons", [])
    for row in checked(found, list[dict[str, Any]], f"{check.record}, result.comparisons"):
        if row.get("variant") == check.part:
            own = checked(row, Compared, f"{check.record}, comparison {check.part!r}")
            return own.model_copy(update={"note": f"paper, 7B: {own.paper:+.2f}"})
    raise MissingRecord(f"{check.record}: no comparison with {check.part!r}")


def latency(check: Check, inputs: Inputs) -> Measured:
    """A ratio of seconds by `record`, over its queries; Missing where it is of fewer queries or candidates than say
    something, or answers of one of the two methods were cut at their limit."""
    ratio, result = record(check, inputs), inputs.result(check.record)
    found = f"a ratio of {ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"
    rows = checked(result.get("rows"), list[dict[str, Any]], f"{check.record}, result.rows")
    rows = [row for row in rows if row.get("method") in ("listwise", "pointwise")]
    n, top = sum(row.get("n", 0) for row in rows if row["method"] == "listwise"), result.get("candidates", 0)
    if n < QUERIES or top < CANDIDATES:
        asked = f"{QUERIES} queries of {CANDIDATES} candidates"
        raise Missing(f"{asked}; the record has {n} of {top}, and {found}")
    for row in rows:
        if (share := row.get("finished", 0)) < FINISHED:
            ended = f"{100 * share:.0f} % of the {row['method']} answers did"
            asked = f"answers that end before their limit (at least {FINISHED:.0%})"
            raise Missing(f"{asked}; {ended}, and {found}")
    return ratio.model_copy(update={"n": n})


_COMPUTED = (golden_rewards, window_schedule, printed_averages, table5_total, worked_example)
WAYS: dict[str, Callable[[Check, Inputs], Measured]] = {
    way.__name__: way for way in (*_COMPUTED, record, ablation, latency)
}
