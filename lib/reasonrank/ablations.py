"""What each part of the recipe adds (Table 3 in small): variants, and how far each stays behind the whole.

A variant is a point of a sweep whose settings differ in the part that is left out (data/ablations.yaml). A difference
is the whole recipe's NDCG@10 minus the variant's, in percentage points: above 0 the part helps, as it does in every
row of the paper.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import pandas as pd
from pydantic import Field, model_validator

from . import paper
from .evaluation import mean_interval, this_run
from .settings import Strict
from .stages import ROOT, read_json
from .sweeps import PerQuery, Point, point_name, require_same

FILE = ROOT / "data" / "ablations.yaml"
RECORD = ROOT / "data" / "records" / "ablations.json"
"""The table of the sweep whose result the project shows."""
WHOLE = "whole recipe"
Outcome = Literal["same direction", "opposite direction", "not to be told apart"]


class Variant(Strict):
    """A recipe with a part left out, or a system (`of`) of such a recipe; data/ablations.yaml says more."""

    variant: str
    paper: str
    changes: dict[str, Any] = Field(default_factory=dict)
    system: str = "SFT + RL"
    of: str = ""

    @model_validator(mode="after")
    def _of_alone(self) -> Variant:
        if self.of and self.changes:
            raise ValueError("of: a system of another variant's run has no changes of its own")
        return self

    @property
    def run(self) -> str:
        """Whose run holds its system: its own, or another variant's, or the whole recipe's."""
        return self.of or (self.variant if self.changes else WHOLE)

    @property
    def published(self) -> float:
        """The paper's difference in the same unit: ReasonRank (7B) minus this row of Table 3."""
        table = paper.tables()["table3_6"]
        return round(table.row("ReasonRank (7B)").avg - table.row(self.paper).avg, 2)


@cache
def variants(file: Path = FILE) -> tuple[Variant, ...]:
    """The variants of data/ablations.yaml. ValueError naming file and key for a malformed one."""
    found = paper.load(file, tuple[Variant, ...])
    own = {variant.variant for variant in found if variant.changes}
    if odd := [variant for variant in found if variant.of and variant.of not in own]:
        known = ", ".join(sorted(own))
        raise ValueError(f"{file}: {odd[0].variant}: of: {odd[0].of!r}: expected one of {known}")
    return found


def changes(names: Iterable[str] | str = "all") -> dict[str, dict[str, Any]]:
    """What the runs of a sweep over `variant` change, by variant: the whole recipe, then `names` ("all": each that
    has a run of its own). ValueError for a name that is none."""
    own = {variant.variant: variant.changes for variant in variants() if variant.changes}
    chosen = list(own) if names == "all" else [name for name in names if name != WHOLE]
    if odd := [name for name in chosen if name not in own]:
        raise ValueError(f"variant: {odd[0]!r}: expected {WHOLE}, {', '.join(own)}")
    return {WHOLE: {}} | {name: own[name] for name in chosen}


def comparisons(points: Iterable[Point]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The whole recipe against each variant, over the seeds that both have; and the variants that were not run.

    Takes the points of a sweep over `variant` (and `seed`) among `points`. ValueError where two of them differ in
    more than the variant's changes.
    """
    own = [point for point in points if set(point.parameters) == {"variant"}]

    def of(run: str, system: str) -> dict[int, Point]:
        """The points of a run that have a system, by seed."""
        slug = point_name({"variant": run}).partition("=")[2]
        having = [point for point in own if this_run(system) in point.scores]
        return {point.seed: point for point in having if point.parameters["variant"] == slug}

    found, missing = [], []
    for variant in variants():
        whole, other = of(WHOLE, "SFT + RL"), of(variant.run, variant.system)
        row = {"variant": variant.variant, "paper": variant.published}
        if not (seeds := sorted(whole.keys() & other.keys())):
            missing.append(row | {"reason": "not run yet"})
            continue
        for seed in seeds:
            require_same(whole[seed], other[seed], changes()[variant.run])
        sides = [
            {seed: side[seed].scores[this_run(system)] for seed in seeds}
            for side, system in ((whole, "SFT + RL"), (other, variant.system))
        ]
        found.append(row | compare(*sides))
    return found, missing


def compare(whole: Mapping[int, PerQuery], variant: Mapping[int, PerQuery]) -> dict[str, Any]:
    """The whole recipe minus a variant, by seed of the runs; both have the same seeds and queries.

    Returns `value` with `low` and `high` (mean over collections of their means over queries, in percentage points;
    95 % interval of a paired bootstrap over queries, each query's difference a mean over seeds), `n` (queries),
    `seeds` and `by_seed` (the value of each). The interval does not hold the spread between seeds; `by_seed`
    shows it. `whole_ndcg` and `variant_ndcg`: those of the two in percent.
    """
    first = next(iter(whole.values()))
    groups = [
        [fmean(whole[seed][name][qid] - variant[seed][name][qid] for seed in whole) for qid in first[name]]
        for name in first
    ]
    interval = mean_interval(groups, seed=0)
    own, other = (
        [100 * fmean(fmean(values.values()) for values in by_name.values()) for by_name in side.values()]
        for side in (whole, variant)
    )
    return {
        "whole_ndcg": fmean(own),
        "variant_ndcg": fmean(other),
        "value": 100 * interval.value,
        "low": 100 * interval.low,
        "high": 100 * interval.high,
        "n": sum(map(len, groups)),
        "seeds": list(whole),
        "by_seed": [a - b for a, b in zip(own, other, strict=True)],
    }


def recorded(file: Path = RECORD) -> dict[str, Any]:
    """`comparisons` and `not_run` of the sweep in data/records."""
    return read_json(file)["result"]


def outcome(row: Mapping[str, Any]) -> Outcome:
    """Whether a comparison points where the paper's does; the interval decides whether it points at all."""
    if row["low"] <= 0 <= row["high"]:
        return "not to be told apart"
    return "same direction" if (row["value"] > 0) == (row["paper"] > 0) else "opposite direction"


def lines(result: Mapping[str, Any]) -> list[str]:
    """A sentence on each variant of a sweep's result, and why others are not run."""
    verdicts = {
        "same direction": "the same direction as in the paper",
        "opposite direction": "the opposite of the paper",
        "not to be told apart": "not to be told apart from no difference",
    }
    found = []
    for row in result["comparisons"]:
        seeds = f"{len(row['seeds'])} seed{'s' if len(row['seeds']) > 1 else ''}"
        found.append(
            f"Whole recipe against {row['variant']}: {row['value']:+.1f} points (95 % interval {row['low']:+.1f} to "
            f"{row['high']:+.1f}; n = {row['n']} queries, {seeds}), {row['paper']:+.2f} in the paper: "
            f"{verdicts[outcome(row)]}."
        )
    return found + [f"{row['variant']}: not run ({row['reason']})" for row in result["not_run"]]


def frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """`comparisons` as a table: NDCG@10 in percent; differences in percentage points, the whole recipe minus the
    variant, with their intervals."""
    table = pd.DataFrame(
        {
            "variant": row["variant"],
            "n": row["n"],
            "whole recipe": f"{row['whole_ndcg']:.1f}",
            "this variant": f"{row['variant_ndcg']:.1f}",
            "difference": f"{row['value']:+.1f} [{row['low']:+.1f}, {row['high']:+.1f}]",
            "by seed": ", ".join(f"{value:+.1f}" for value in row["by_seed"]),
            "paper": f"{row['paper']:+.1f}",
        }
        for row in rows
    )
    return table.set_index("variant") if len(table) else table
