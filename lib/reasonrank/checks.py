"""The claims of the paper and the ways in which each is measured (data/paper/claims.yaml and checks.yaml).

A way returns our figure or raises `Missing` with what is not there. None loads a model: they compute from the
metrics, from published inputs, or from records of runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from . import paper, runs
from .evaluation import evaluate
from .metrics import ndcg
from .rerank.schedule import windows
from .rewards import multi_view_reward
from .sources.benchmarks import RUN
from .sources.folder import hashes
from .stages import ROOT, read_json

RECORDS = ROOT / "data" / "records"


class Claim(paper.Strict):
    """A claim, what it takes at the paper's scale, and `rows`: table -> systems whose figures it is about."""

    id: str = Field(pattern=r"^C\d+$")
    text: str
    source: str
    paper: str
    needs: str
    rows: dict[str, tuple[str, ...]] = Field(default_factory=dict)


class Check(paper.Strict):
    """A check, or a printed figure; data/paper/checks.yaml says what `way`, `kind`, `scale`, `part` and `record` mean.

    `paper`, `tolerance` and `noise` (between two honest runs; `noise_text`: where it is from) are in `unit`.
    `required`: a record that is not there is an error. `beside`: the row of Table 3 without this part of the recipe,
    shown beside a small run.
    """

    id: str
    claim: str = ""
    text: str
    way: str = "published"
    kind: Literal["value", "direction"] = "value"
    scale: Literal["paper", "small"] = "paper"
    paper: float
    unit: str
    tolerance: float = Field(default=0.0, ge=0)
    noise: float = Field(default=0.0, ge=0)
    noise_text: str = ""
    needs: paper.Needs
    part: str = ""
    record: str = ""
    required: bool = False
    beside: str = ""


class Golden(paper.Strict):
    """A case of the authors' released reward."""

    kind: str = ""
    completion: str
    gold_ranking: list[int]
    relevant: set[int]
    num_passages: int = Field(ge=1)
    reward: float


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


class Missing(Exception):
    """A check that cannot be made; the message says what is missing."""

    record = False


class MissingRecord(Missing):
    """What is missing is a record."""

    record = True


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
    body = read_json(path)
    if not isinstance(body, dict) or not isinstance(body.get("result"), dict):
        raise ValueError(f"{path}: expected a record with the key 'result'")
    return body["result"]


@cache
def claims() -> tuple[Claim, ...]:
    """C1 to C7."""
    return paper.load(paper.DATA / "claims.yaml", tuple[Claim, ...])


@cache
def checks() -> tuple[Check, ...]:
    """What is checked beside the tables."""
    return paper.load(paper.DATA / "checks.yaml", tuple[Check, ...])


def retriever(name: str, folder: Path) -> Measured | None:
    """NDCG@10 in percent of the published first stage on a BRIGHT set, scored as the authors do.

    `folder` holds `<name>/reasonir_gpt4cot_top100.run` and `qrels.txt`, gzipped or not; None where it does not. Rows
    whose id holds a blank are dropped, equal scores ordered as trec_eval does, the mean is over the queries of the
    run. Raises ValueError where queries, candidates or excluded documents are not as they must be.
    """
    place = folder / name
    named = (place / f"{file}{end}" for file in (RUN, "qrels.txt") for end in ("", ".gz"))
    files = [path for path in named if path.is_file()]
    if len(files) != 2:
        return None
    qrels, whole = runs.read_qrels(files[1]), runs.read_trec(files[0])
    for path in (*place.glob("excluded.txt"), *place.glob("excluded.txt.gz")):
        for qid, docids in runs.read_excluded(path).items():
            if found := docids & set(whole.get(qid, ())):
                raise ValueError(f"{files[0]}: query {qid!r} ranks {min(found)!r}, which is excluded")
    expected = paper.load(paper.DATA / "inputs.yaml", dict[str, dict[str, Any]]).get(name)
    counts, note = dict(Counter(map(len, whole.values()))), "inputs not pinned"
    if expected:
        queries, candidates = expected["queries"], expected["candidates"]
        if counts != {candidates: queries} or whole.keys() != qrels.keys():
            raise ValueError(
                f"{files[0]}: expected {queries} judged queries of {candidates} candidates each; found queries "
                f"by their number of candidates {counts}, judged queries {len(qrels)}"
            )
        pinned = expected["files"]
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
        case = paper.checked(row, Golden, place)
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
    return paper.checked(found, Interval, f"{check.record}, result.{check.part}")


def ablation(check: Check, inputs: Inputs) -> Measured:
    """What a part of the recipe adds in a small run: the row of `part` among the record's `comparisons`.

    A row has `variant` (as "only SFT"), `value` (NDCG@10 in percent, whole recipe minus this one), `low`, `high`
    (95 % interval) and `n` (queries).
    """
    found = inputs.result(check.record).get("comparisons", [])
    for row in paper.checked(found, list[dict[str, Any]], f"{check.record}, result.comparisons"):
        if row.get("variant") == check.part:
            return paper.checked(row, Interval, f"{check.record}, comparison {check.part!r}")
    raise MissingRecord(f"{check.record}: no comparison with {check.part!r}")


def latency(check: Check, inputs: Inputs) -> Measured:
    """A ratio of seconds by `record`, over its queries; Missing where it is of fewer queries or candidates than say
    something, or answers of one of the two methods were cut at their limit."""
    ratio, result = record(check, inputs), inputs.result(check.record)
    found = f"a ratio of {ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"
    rows = paper.checked(result.get("rows"), list[dict[str, Any]], f"{check.record}, result.rows")
    rows = [row for row in rows if row.get("method") in ("listwise", "pointwise")]
    n, top = sum(row.get("n", 0) for row in rows if row["method"] == "listwise"), result.get("candidates", 0)
    if n < QUERIES or top < CANDIDATES:
        asked = f"{QUERIES} queries of {CANDIDATES} candidates"
        raise Missing(f"{asked}; the record has {n} of {top}, and {found}")
    for row in rows:
        if row.get("finished", 0) < FINISHED:
            ended = f"{100 * row.get('finished', 0):.0f} % of the {row['method']} answers did"
            raise Missing(
                f"answers that end before their limit (at least {FINISHED:.0%}); {ended}, and {found}"
            )
    return ratio.model_copy(update={"n": n})


QUERIES, CANDIDATES = 16, 100  # from which on a ratio of seconds is held against the paper's
FINISHED = 0.9  # share of answers that end by themselves, likewise

_COMPUTED = (golden_rewards, window_schedule, printed_averages, table5_total, worked_example)
WAYS: dict[str, Callable[[Check, Inputs], Measured]] = {
    way.__name__: way for way in (*_COMPUTED, record, ablation, latency)
}
