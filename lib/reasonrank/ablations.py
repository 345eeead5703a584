"""What each part of the recipe adds (Table 3 in small): variants, and how far each stays behind the whole.

A difference is the whole recipe's NDCG@10 minus the variant's, in percentage points: above 0 the part helps, as
it does in every row of the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from . import paper
from .evaluation import MEASURE, evaluate, mean_interval, run_file, this_run
from .runs import read_qrels, read_trec
from .stages import ROOT, read_json, stage_file

FILE = ROOT / "data" / "ablations.yaml"
RECORD = ROOT / "data" / "records" / "ablations.json"
"""Of the batch whose result the project shows."""
STAGES = ("01_synthesis", "02_filtering", "03_sft", "04_rl", "05_gpu_evaluation")
SECTIONS = {"filtering": "02_filtering", "prompting": "03_sft", "sft": "03_sft", "rl": "04_rl"}
"""Section of a profile -> the first stage that reads it."""
WHOLE = "whole recipe"
SYSTEM = "SFT + RL"
PerQuery = dict[str, dict[str, float]]
"""Collection -> query id -> NDCG@10 in 0..1."""
BySeed = dict[int, PerQuery]
Outcome = Literal["same direction", "opposite direction", "not to be told apart"]


class Variant(paper.Strict):
    """A recipe with a part left out, or a system (`of`) of such a recipe; data/ablations.yaml says more."""

    variant: str
    paper: str
    changes: dict[str, Any] = Field(default_factory=dict)
    datasets: tuple[str, ...] = ()
    system: str = SYSTEM
    of: str = ""

    @model_validator(mode="after")
    def _known_sections(self) -> Variant:
        odd = [key for key in self.changes if key.partition(".")[0] not in SECTIONS]
        if odd:
            raise ValueError(f"changes: {odd[0]}: expected a setting of {', '.join(SECTIONS)}")
        if self.of and (self.changes or self.datasets):
            raise ValueError("of: a system of another variant's run has no changes of its own")
        return self

    @property
    def run(self) -> str:
        """Whose run holds its system: its own, or another variant's, or the whole recipe's."""
        return self.of or (self.variant if self.own_stages else WHOLE)

    @property
    def own_stages(self) -> tuple[str, ...]:
        """The notebooks that this variant runs; earlier stages are the whole recipe's."""
        if self.datasets:
            return STAGES[1:]
        starts = [STAGES.index(SECTIONS[key.partition(".")[0]]) for key in self.changes]
        return STAGES[min(starts) :] if starts else ()

    @property
    def published(self) -> float:
        """The paper's difference in the same unit: ReasonRank (7B) minus this row of Table 3."""
        table = paper.tables()["table3_6"]
        return round(table.row("ReasonRank (7B)").avg - table.row(self.paper).avg, 2)


@cache
def variants(file: Path = FILE) -> tuple[Variant, ...]:
    """The variants of data/ablations.yaml. ValueError naming file and key for a malformed one."""
    found = paper.load(file, tuple[Variant, ...])
    own = {variant.variant for variant in found if not variant.of}
    if odd := [variant for variant in found if variant.of and variant.of not in own]:
        raise ValueError(
            f"{file}: {odd[0].variant}: of: {odd[0].of!r}: expected one of {', '.join(sorted(own))}"
        )
    return found


def systems(run: str) -> list[str]:
    """The systems that notebook 05 has to evaluate in a run ("whole recipe" or a variant's), in its order."""
    wanted = {SYSTEM, *(variant.system for variant in variants() if variant.run == run)}
    return [name for name in ("SFT", SYSTEM) if name in wanted]


def recorded(file: Path = RECORD) -> dict[str, Any]:
    """The result of the batch that was copied to data/records; one in which nothing was run where there is none."""
    if file.is_file():
        return read_json(file)["result"]
    return {"comparisons": [], "not_run": [not_run(variant) for variant in variants()]}


def record_files(file: Path = RECORD) -> list[Path]:
    """What `recorded` reads: one file, or none."""
    return [file] if file.is_file() else []


def not_run(variant: Variant) -> dict[str, Any]:
    """The row of a variant without a comparison."""
    return {"variant": variant.variant, "paper": variant.published, "reason": "not run yet"}


def per_query(run_dir: Path, system: str = SYSTEM) -> PerQuery:
    """NDCG@10 of a system on each test query of a run, from the runs and judgements that notebook 05 kept.

    Raises FileNotFoundError where there is no evaluation; ValueError where it lacks the system, and where the
    values are not those that it recorded.
    """
    file = stage_file(run_dir, "05_gpu_evaluation", "record.json")
    scores = read_json(file)["result"]["scores"]
    label = this_run(system)
    recorded = {row["collection"]: row["ndcg"] for row in scores if row["system"] == label}
    if not recorded:
        raise ValueError(f"{file}: no system {label!r}; it has {sorted({row['system'] for row in scores})}")
    recorded.pop("average")
    found = {}
    for name, mean in recorded.items():
        run, qrels = file.parent / "runs" / run_file(name, label), file.parent / f"runs/{name}.qrels"
        found[name] = evaluate(read_trec(run), read_qrels(qrels)).per_query[MEASURE]
        own = np.mean(list(found[name].values()))
        if abs(own - mean) > 1e-6:
            raise ValueError(
                f"{run}: NDCG@10 {own:.6f}, but the record has {mean:.6f}; run notebook 05 again"
            )
    return found


def earlier(file: Path, config: Mapping[str, Any]) -> dict[str, BySeed]:
    """What an earlier batch recorded of each query, by "run: system" and seed, so that other seeds can be added.

    `config`: the settings of the batch it is added to. ValueError where the record was made with others, or has no
    values of queries.
    """
    body = read_json(file)
    if odd := [key for key, value in config.items() if body.get("config", {}).get(key) != value]:
        raise ValueError(f"{file}: config: {odd[0]} is another one; expected a batch with the same settings")
    if "per_query" not in body.get("result", {}):
        raise ValueError(f"{file}: result: no per_query; expected the record of a batch of ablations")
    return {
        name: {int(seed): values for seed, values in by_seed.items()}
        for name, by_seed in body["result"]["per_query"].items()
    }


def compare(
    whole: Mapping[int, PerQuery], variant: Mapping[int, PerQuery], draw_seed: int, draws: int = 10_000
) -> dict[str, Any]:
    """The whole recipe minus a variant, by seed of the runs; both have the same seeds and queries.

    Returns `value` with `low` and `high` (mean over collections of their means over queries, in percentage points;
    95 % interval of a paired bootstrap over queries, each query's difference a mean over seeds), `n` (queries),
    `seeds` and `by_seed` (the value of each). The interval does not hold the spread between seeds; `by_seed`
    shows it. `whole_ndcg` and `variant_ndcg`: those of the two in percent. ValueError where seeds or queries differ.
    """
    if list(whole) != list(variant) or not whole:
        raise ValueError(f"seeds {list(whole)} and {list(variant)}; expected the same ones, at least one")
    differences = [_differences(whole[seed], variant[seed]) for seed in whole]
    if any(set(other) != set(differences[0]) for other in differences):
        raise ValueError("the seeds differ in their queries; expected the same ones")
    names = list(dict.fromkeys(name for name, _ in differences[0]))
    groups = [
        [float(np.mean([d[key] for d in differences])) for key in differences[0] if key[0] == name]
        for name in names
    ]
    mean = mean_interval(groups, draw_seed, draws)
    own, other = (np.array([_average(values) for values in side.values()]) for side in (whole, variant))
    return {
        "whole_ndcg": 100 * float(own.mean()),
        "variant_ndcg": 100 * float(other.mean()),
        "value": 100 * mean.value,
        "low": 100 * mean.low,
        "high": 100 * mean.high,
        "n": sum(map(len, groups)),
        "seeds": list(whole),
        "by_seed": (100 * (own - other)).tolist(),
    }


def _average(values: PerQuery) -> float:
    """Mean over collections of their means over queries."""
    return float(np.mean([np.mean(list(queries.values())) for queries in values.values()]))


def _differences(whole: PerQuery, variant: PerQuery) -> dict[tuple[str, str], float]:
    """(collection, query id) -> whole minus variant."""
    first, second = (
        {(c, q): value for c, values in side.items() for q, value in values.items()}
        for side in (whole, variant)
    )
    if set(first) != set(second):
        odd = sorted(set(first) ^ set(second))
        raise ValueError(f"the two differ in {len(odd)} queries, as {odd[:3]}; expected the same queries")
    return {key: first[key] - second[key] for key in first}


def outcome(row: Mapping[str, Any]) -> Outcome:
    """Whether a comparison points where the paper's does; the interval decides whether it points at all."""
    if row["low"] <= 0 <= row["high"]:
        return "not to be told apart"
    return "same direction" if (row["value"] > 0) == (row["paper"] > 0) else "opposite direction"


def sentence(row: Mapping[str, Any]) -> str:
    """One sentence on a row of `comparisons`, with figures, interval, n and the outcome."""
    interval = f"95 % interval {row['low']:+.1f} to {row['high']:+.1f}"
    over = f"n = {row['n']} queries, {len(row['seeds'])} seed{'s' if len(row['seeds']) > 1 else ''}"
    verdict = {
        "same direction": "the same direction as in the paper",
        "opposite direction": "the opposite of the paper",
        "not to be told apart": "not to be told apart from no difference",
    }[outcome(row)]
    return (
        f"Whole recipe against {row['variant']}: {row['value']:+.1f} points ({interval}; {over}), "
        f"{row['paper']:+.2f} in the paper: {verdict}."
    )


def lines(result: Mapping[str, Any]) -> list[str]:
    """A sentence on each variant of a batch's result, and why others are not run."""
    missing = (f"{row['variant']}: not run ({row['reason']})" for row in result["not_run"])
    return [*map(sentence, result["comparisons"]), *missing]


def frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """What each part of the recipe adds, as a table of a batch's `comparisons`.

    NDCG@10 in percent and differences in percentage points, the whole recipe minus the variant.
    """
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
