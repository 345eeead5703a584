"""How long reranking takes: the protocol of the latency study (paper, Figures 1 and 5).

A reranker is warmed up, then gets the queries one by one, for the latency that one user sees, and then all
together, for the throughput of a batch. What earlier queries left in the engine's prefix cache is dropped
before each of the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from . import evaluation
from .engines import Engine
from .evaluation import Interval, TestSet, bootstrap
from .rerank import RerankedRun
from .rerank.strategies import STRATEGIES
from .settings import Profile

WORK = ("calls", "prompt_tokens", "output_tokens")
DRAWS = 2000
METHODS = {"listwise": "sliding", "pointwise": "pointwise"}
"""A method of the study -> its strategy."""


@dataclass(frozen=True)
class LatencyResult:
    """What a method took: `single`, for each query by itself, and `together`, seconds for all of them at once."""

    name: str
    single: Mapping[str, RerankedRun]
    together: float

    def each(self, field: str = "seconds") -> list[float]:
        """A field of `RerankedRun` for each query by itself, as "seconds" (end to end) or "engine_seconds"
        (generation alone, the time in which the engine had work)."""
        return [getattr(one, field) for one in self.single.values()]

    def quantile(self, q: float, field: str = "seconds") -> Interval:
        """A field at quantile `q` in 0..1 (0.5: p50, 0.95: p95) of queries one by one, with its 95 % interval."""
        return bootstrap([self.each(field)], partial(np.quantile, q=q), 0, DRAWS)

    def row(self, collection: str) -> dict[str, Any]:
        """A row of the study's table; times in seconds per query, calls and tokens as means per query."""
        p50 = self.quantile(0.5)
        return {
            **{"collection": collection, "method": self.name, "n": len(self.single)},
            **{"p50": p50.value, "p50_low": p50.low, "p50_high": p50.high},
            "p95": self.quantile(0.95).value,
            "generation_seconds": self.quantile(0.5, "engine_seconds").value,
            **{field: float(np.mean(self.each(field))) for field in WORK},
            "together_seconds": self.together / len(self.single),
        }


def measure(engine: Engine, settings: Profile, test: TestSet, method: str) -> LatencyResult:
    """Time "listwise" or "pointwise" reranking of a test set over an open engine, as the profile's `latency` says.

    ValueError for a query with fewer than `latency.top` candidates, and one that took other
    than the requests of its strategy, retries aside (a constrained answer may take two).
    """
    own, around = settings.latency, settings.evaluation
    limit = own.listwise_tokens if method == "listwise" else own.pointwise_tokens
    reranker = evaluation.capped(evaluation.reranker(settings, engine, METHODS[method], limit), test)
    texts = test.collection.texts()
    for qid, docids in test.run.items():
        if len(docids) < own.top:
            raise ValueError(
                f"query {qid!r} has {len(docids)} candidates; expected {own.top}, the profile's top"
            )

    def rerank(*qids: str) -> RerankedRun:
        run = {qid: test.run[qid] for qid in qids}
        return reranker.rerank_run_sync(run, test.queries, texts, own.top)

    for qid in islice(test.run, own.warmup):
        rerank(qid)
    engine.reset_prefix_cache()
    single = {qid: rerank(qid) for qid in test.run}
    engine.reset_prefix_cache()
    together = rerank(*test.run)
    least, most = STRATEGIES[METHODS[method]].calls(own.top, around.window, around.step)
    most *= 2 if getattr(reranker, "constrained", False) else 1
    for qid, one in single.items():
        if not least <= one.calls - one.retries <= most:
            expected = f"expected {least} to {most} for {own.top} candidates"
            raise ValueError(f"{method}, query {qid!r}: {one.calls - one.retries} requests; {expected}")
    return LatencyResult(method, single, together.seconds)


def ratio(a: LatencyResult, b: LatencyResult) -> Interval:
    """Median seconds per query of `a` by that of `b`: over 1 means that `b` is faster, so many times.

    The 95 % interval is a paired bootstrap: each draw takes the same queries from both. Raises ValueError where the
    two were not measured on the same queries in the same order.
    """
    if list(a.single) != list(b.single):
        raise ValueError(f"{a.name} and {b.name} were measured on different queries")

    def medians(left: np.ndarray, right: np.ndarray, axis: int) -> np.ndarray:
        return np.median(left, axis=axis) / np.median(right, axis=axis)

    return bootstrap([a.each(), b.each()], medians, 0, DRAWS, paired=True)


def pool(results: Sequence[LatencyResult]) -> LatencyResult:
    """Measurements on several collections as one, for a ratio over all of them."""
    single = {f"{n}/{qid}": one for n, result in enumerate(results) for qid, one in result.single.items()}
    return LatencyResult(results[0].name, single, sum(result.together for result in results))


def strategy_rows(settings: Profile, weights: str | Path) -> list[dict[str, Any]]:
    """What each strategy of `rerank.strategies` costs over a few queries: a row each, with NDCG@10 in 0..1.

    `finished`: share of answers that were neither truncated nor malformed; `n`: queries. Seconds are of one run over
    all of them. Queries, candidates and token limits are those of the profile's `latency`.
    """
    own, around, rows = settings.latency, settings.evaluation, []
    queries = own.strategy_queries
    sets = evaluation.test_sets(settings, own.collections, "test", queries, own.top)
    with evaluation.open_reranker(settings, weights) as opened:
        for name, strategy in STRATEGIES.items():
            limit = own.pointwise_tokens if name == "pointwise" else own.listwise_tokens
            opened.engine.reset_prefix_cache()
            reranker = evaluation.reranker(settings, opened.engine, name, limit)
            found = evaluation.rerank_sets(reranker, sets, own.top)
            values = [list(sets[c].ndcg(done.run).values()) for c, done in found.items()]
            counts, took = evaluation.answer_counts(found.values()), evaluation.cost(found.values())
            calls = dict.fromkeys(map(str, strategy.calls(own.top, around.window, around.step)))
            row = {"strategy": name, "calls per query": " to ".join(calls)}
            row |= {key: took[key] for key in (*WORK, "seconds")}
            row |= {"finished": (counts["ok"] + counts["repaired"]) / counts["n"]}
            rows.append(
                row | {"ndcg": float(np.mean(list(map(np.mean, values)))), "n": sum(map(len, values))}
            )
    return rows
