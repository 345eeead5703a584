"""Scoring of runs through ir-measures."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import ir_measures
import numpy as np

from ..runs import Qrels


@dataclass(frozen=True)
class Scores:
    """Means and values for each query, in 0..1, by measure."""

    mean: dict[str, float]
    per_query: dict[str, dict[str, float]]


def evaluate(
    run: Mapping[str, Sequence[str]],
    qrels: Qrels,
    measures: Sequence[str] = ("nDCG@10",),
    queries: Literal["judged", "run"] = "judged",
    excluded: Mapping[str, Collection[str]] | None = None,
) -> Scores:
    """Score a run (query id -> document ids, best first) by judgements.

    `measures`: names of ir-measures, as "nDCG@10" or "R@100". `queries="judged"`: the mean is over all judged
    queries, and one that the run lacks counts 0; `"run"`: over the judged queries of the run, as in the
    authors' released code. `excluded` documents are taken out first. What is scored is the order of the run, without
    ties. Raises ValueError for an unknown measure or choice of queries, a document that comes twice for a query, and
    a run of which no query is judged.
    """
    parsed = {}
    for name in measures:
        try:
            parsed[name] = ir_measures.parse_measure(name)
        except (NameError, SyntaxError, ValueError) as error:
            raise ValueError(f"measure {name!r}: not one of ir-measures ({error})") from None
        if parsed[name].params.get("cutoff", 1) < 1:
            raise ValueError(f"measure {name!r}: expected a cut-off of 1 or more")
    if queries not in ("judged", "run"):
        raise ValueError(f"queries is {queries!r}; expected 'judged' or 'run'")
    both = [qid for qid in run if qid in qrels]
    if not both and (run or not qrels or queries == "run"):
        examples = f"run: {list(run)[:3]}, judgements: {list(qrels)[:3]}"
        raise ValueError(f"no query of the run is judged; query ids of the two begin with {examples}")
    scored = {}
    for qid in both:
        banned = set((excluded or {}).get(qid, ()))
        kept = [docid for docid in run[qid] if docid not in banned]
        if len(set(kept)) < len(kept):
            raise ValueError(f"query {qid!r}: a document comes twice in its ranking")
        if kept:
            scored[qid] = {docid: float(len(kept) - rank) for rank, docid in enumerate(kept)}
    qids = qrels if queries == "judged" else both
    judged = {qid: qrels[qid] for qid in qids if qrels[qid]}
    per_query = {name: dict.fromkeys(qids, 0.0) for name in parsed}
    for name, measure in parsed.items():
        for value in ir_measures.iter_calc([measure], judged, scored):
            per_query[name][value.query_id] = float(value.value)
    return Scores({name: float(np.mean(list(own.values()))) for name, own in per_query.items()}, per_query)
