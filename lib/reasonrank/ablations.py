"""What each part of the recipe adds (Table 3 in small): variants, and how far each stays behind the whole.

A variant is a point of a sweep whose settings differ in the part that is left out (data/ablations.yaml). A difference
is the whole recipe's NDCG@10 minus the variant's, in percentage points: above 0 the part helps, as it does in every
row of the paper.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from statistics import fmean
from typing import Any

import pandas as pd
from pydantic import Field

from . import paper
from .evaluation import mean_interval, this_run
from .settings import Strict
from .stages import ROOT
from .sweeps import PerQuery, Point, percent, point_name, require_same

RECORDS = {
    "real collections": ROOT / "data" / "records" / "ablations.json",
    "collections that a program makes": ROOT / "data" / "records" / "worked-ablations.json",
}
"""The tables of the sweeps whose results the project shows, by what was searched."""
WHOLE = "whole recipe"


class Variant(Strict):
    """A recipe with a part left out, or a system (`of`) of such a recipe; data/ablations.yaml says more."""

    variant: str
    paper: str
    changes: dict[str, Any] = Field(default_factory=dict)
    system: str = "SFT + RL"
    of: str = ""

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
def variants() -> tuple[Variant, ...]:
    """The variants of data/ablations.yaml. ValueError naming file and key for a malformed one."""
    return paper.load(ROOT / "data" / "ablations.yaml", tuple[Variant, ...])


def changes(names: Iterable[str] | str = "all") -> dict[str, dict[str, Any]]:
    """What the runs of a sweep over `variant` change, by variant: the whole recipe, then `names` ("all": each that
    has a run of its own). ValueError for a name that is none."""
    own = {WHOLE: {}} | {variant.variant: variant.changes for variant in variants() if variant.changes}
    chosen = list(own) if names == "all" else [WHOLE, *names]
    if odd := [name for name in chosen if name not in own]:
        raise ValueError(f"variant: {odd[0]!r}: expected {', '.join(own)}")
    return {name: own[name] for name in chosen}


def comparisons(points: Iterable[Point]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The whole recipe against each variant, over the seeds that both have; and the variants that were not run.

    Takes the points of a sweep over `variant` (and `seed`) among `points`. ValueError where two of them differ in
    more than the variant's changes.
    """
    runs: dict[str, dict[int, Point]] = {}
    for point in points:
        if set(point.parameters) == {"variant"}:
            runs.setdefault(point_name(point.parameters), {})[point.seed] = point
    whole, found, missing = runs.get(point_name({"variant": WHOLE}), {}), [], []
    for variant in variants():
        other = runs.get(point_name({"variant": variant.run}), {})
        systems = this_run("SFT + RL"), this_run(variant.system)
        both = [(whole[seed], other[seed]) for seed in sorted(whole.keys() & other.keys())]
        both = [pair for pair in both if all(s in p.scores for s, p in zip(systems, pair, strict=True))]
        for first, second in both:
            require_same(first, second, changes()[variant.run])
        pairs = {a.seed: (a.scores[systems[0]], b.scores[systems[1]]) for a, b in both}
        row = {"variant": variant.variant, "paper": variant.published}
        if pairs:
            found.append(row | compare(pairs))
        else:
            missing.append(row | {"reason": "not run yet"})
    return found, missing


def compare(pairs: Mapping[int, tuple[PerQuery, PerQuery]]) -> dict[str, Any]:
    """The whole recipe minus a variant. `pairs`: the scores of the two by seed, all of the same queries.

    Returns `value` with `low` and `high` (mean over collections of their means over queries, in percentage points;
    95 % interval of a paired bootstrap over queries, each query's difference a mean over seeds), `n` (queries),
    `seeds` and `by_seed` (the value of each). The interval does not hold the spread between seeds; `by_seed`
    shows it. `whole_ndcg` and `variant_ndcg`: those of the two in percent.
    """
    queries = {name: list(values) for name, values in next(iter(pairs.values()))[0].items()}
    differences = [
        [fmean(whole[name][qid] - other[name][qid] for whole, other in pairs.values()) for qid in qids]
        for name, qids in queries.items()
    ]
    interval = mean_interval(differences, seed=0)
    wholes, others = ([percent(scores) for scores in side] for side in zip(*pairs.values(), strict=True))
    return {
        "whole_ndcg": fmean(wholes),
        "variant_ndcg": fmean(others),
        "value": 100 * interval.value,
        "low": 100 * interval.low,
        "high": 100 * interval.high,
        "n": sum(map(len, queries.values())),
        "seeds": list(pairs),
        "by_seed": [a - b for a, b in zip(wholes, others, strict=True)],
    }


def lines(result: Mapping[str, Any]) -> list[str]:
    """A sentence on each variant of a sweep's result, whose interval decides whether it points anywhere, and why others
    are not run."""
    found = []
    for row in result["comparisons"]:
        seeds = f"{len(row['seeds'])} seed{'s' if len(row['seeds']) > 1 else ''}"
        same = "the same direction as in the paper"
        verdict = same if (row["value"] > 0) == (row["paper"] > 0) else "the opposite of the paper"
        if row["low"] <= 0 <= row["high"]:
            verdict = "not to be told apart from no difference"
        found.append(
            f"Whole recipe against {row['variant']}: {row['value']:+.1f} points (95 % interval {row['low']:+.1f} to "
            f"{row['high']:+.1f}; n = {row['n']} queries, {seeds}), {row['paper']:+.2f} in the paper: {verdict}."
        )
    return found + [f"{row['variant']}: not run ({row['reason']})" for row in result["not_run"]]


def frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """`comparisons` as a table: NDCG@10 in percent; differences in percentage points, the whole recipe minus the
    variant, with their intervals."""
    cells = {
        row["variant"]: {
            "n": row["n"],
            "whole recipe": f"{row['whole_ndcg']:.1f}",
            "this variant": f"{row['variant_ndcg']:.1f}",
            "difference": f"{row['value']:+.1f} [{row['low']:+.1f}, {row['high']:+.1f}]",
            "by seed": ", ".join(f"{value:+.1f}" for value in row["by_seed"]),
            "paper": f"{row['paper']:+.1f}",
        }
        for row in rows
    }
    return pd.DataFrame.from_dict(cells, orient="index").rename_axis("variant")
