"""Scoring of runs through ir-measures, intervals over queries, and paired tests."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import ir_measures
import numpy as np

from .runs import Qrels

DEFAULT_MEASURES = ("nDCG@10",)


@dataclass(frozen=True)
class Scores:
    """Means and values for each query, in 0..1, by measure; `removed` counts excluded documents left out."""

    mean: dict[str, float]
    per_query: dict[str, dict[str, float]]
    removed: int = 0


def evaluate(
    run: Mapping[str, Sequence[str]],
    qrels: Qrels,
    measures: Sequence[str] = DEFAULT_MEASURES,
    queries: Literal["judged", "run"] = "judged",
    excluded: Mapping[str, Collection[str]] | None = None,
) -> Scores:
    """Score a run (query id -> document ids, best first) by judgements.

    `measures`: names of ir-measures, as "nDCG@10" or "R@100". `queries="judged"`: the mean is over all judged
    queries, and one that the run lacks counts 0; `"run"`: over the judged queries of the run, as in the
    authors' released code. `excluded` documents are taken out of the rankings first. The order of the run is
    what is scored: scores are made from it, strictly decreasing, so that no tie is left to the tool. Raises
    ValueError for an unknown measure or choice of queries, a document that comes twice for a query, and a run
    of which no query is judged.
    """
    names = {name: _measure(name) for name in measures}
    qids = _select(run, qrels, queries)
    kept, removed = _kept({qid: run[qid] for qid in qids if qid in run}, excluded or {})
    scored = {qid: _scores(qid, docids) for qid, docids in kept.items() if docids}
    judged = {qid: qrels[qid] for qid in qids if qrels[qid]}
    per_query = {name: dict.fromkeys(qids, 0.0) for name in names}
    for name, measure in names.items():
        for value in ir_measures.iter_calc([measure], judged, scored):
            per_query[name][value.query_id] = float(value.value)
    mean = {name: float(np.mean(list(values.values()))) for name, values in per_query.items()}
    return Scores(mean, per_query, removed)


def _measure(name: str) -> ir_measures.Measure:
    try:
        measure = ir_measures.parse_measure(name)
    except (NameError, SyntaxError, ValueError) as error:
        raise ValueError(f"measure {name!r}: not one of ir-measures ({error})") from None
    if measure.params.get("cutoff", 1) < 1:
        raise ValueError(f"measure {name!r}: expected a cut-off of 1 or more")
    return measure


def _select(run: Mapping[str, Sequence[str]], qrels: Qrels, queries: str) -> list[str]:
    """Ids of the queries that the mean is over."""
    if queries not in ("judged", "run"):
        raise ValueError(f"queries is {queries!r}; expected 'judged' or 'run'")
    common = [qid for qid in run if qid in qrels]
    if not qrels or (run and not common) or (queries == "run" and not common):
        examples = f"run: {list(run)[:3]}, judgements: {list(qrels)[:3]}"
        raise ValueError(f"no query of the run is judged; query ids of the two begin with {examples}")
    return list(qrels) if queries == "judged" else common


def _kept(
    run: Mapping[str, Sequence[str]], excluded: Mapping[str, Collection[str]]
) -> tuple[dict[str, list[str]], int]:
    kept = {}
    for qid, docids in run.items():
        banned = set(excluded.get(qid, ()))
        kept[qid] = [docid for docid in docids if docid not in banned]
    return kept, sum(len(run[qid]) - len(kept[qid]) for qid in run)


def _scores(qid: str, docids: Sequence[str]) -> dict[str, float]:
    scores = {docid: float(len(docids) - rank) for rank, docid in enumerate(docids)}
    if len(scores) != len(docids):
        raise ValueError(f"query {qid!r}: a document comes twice in its ranking")
    return scores


def bootstrap_interval(
    values: Sequence[float], seed: int, n_boot: int = 10_000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over queries: its low and high end, in the unit of `values`.

    Raises ValueError for no values, one that is not finite, or a level outside (0, 1).
    """
    sample = np.asarray(values, dtype=float)
    if sample.size == 0 or not np.isfinite(sample).all():
        raise ValueError(f"expected finite values of one query or more, got {sample.size} with {sample[:3]}")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; expected a number between 0 and 1")
    rng = np.random.default_rng(seed)
    means = [sample[rng.integers(sample.size, size=sample.size)].mean() for _ in range(n_boot)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class PairedTest:
    """Mean difference a - b over n queries, its 95 % bootstrap interval, and the p-value against 0."""

    difference: float
    low: float
    high: float
    p_value: float
    n: int


def paired_test(
    a: Mapping[str, float], b: Mapping[str, float], seed: int, n_perm: int = 10_000
) -> PairedTest:
    """Paired randomisation test of two systems' values by query, two-sided, by flipping signs at random.

    The p-value is (1 + the flips with a mean at least as far from 0) / (1 + `n_perm`), so never 0. Raises
    ValueError where the two were not scored on the same queries.
    """
    if set(a) != set(b):
        odd = sorted(set(a) ^ set(b))
        raise ValueError(f"the two differ in {len(odd)} queries, as {odd[:3]}; expected the same queries")
    differences = np.array([a[qid] - b[qid] for qid in a], dtype=float)
    low, high = bootstrap_interval(differences, seed)
    observed = abs(differences.mean())
    rng = np.random.default_rng(seed)
    flips = [(differences * rng.choice([-1.0, 1.0], differences.size)).mean() for _ in range(n_perm)]
    extreme = int((np.abs(flips) >= observed - 1e-12).sum())
    p_value = (1 + extreme) / (1 + n_perm)
    return PairedTest(float(differences.mean()), low, high, p_value, differences.size)
