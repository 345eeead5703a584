"""How long reranking takes: the protocol of the latency study (paper, Figures 1 and 5).

A reranker is warmed up, then gets the queries one by one, for the latency that one user sees, and then all
together, for the throughput of a batch. What earlier queries left in the engine's prefix cache is dropped
before each of the two.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from . import evaluation
from .engines import Engine
from .evaluation import MEASURE, Interval, TestSet, bootstrap
from .profiles import Profile
from .rerank import RerankedRun, Reranker, run_sync
from .rerank.strategies import STRATEGIES

Clock = Literal["seconds", "engine_seconds"]
_WORK = ("calls", "prompt_tokens", "output_tokens")
_LISTS = ("seconds", "engine_seconds", *_WORK)
DRAWS = 2000
METHODS = {"listwise": "sliding", "pointwise": "pointwise"}
"""A method of the study -> its strategy."""


@dataclass(frozen=True)
class LatencyResult:
    """What a reranker took for each query, one by one, and for all of them together.

    Lists are aligned with `qids`. `seconds`: end to end; `engine_seconds`: generation alone, the time in
    which the engine had work. `counts`: answers by status in the one-by-one pass.
    """

    name: str
    qids: list[str]
    seconds: list[float]
    engine_seconds: list[float]
    calls: list[int]
    prompt_tokens: list[int]
    output_tokens: list[int]
    counts: dict[str, int]
    together_seconds: float
    together_engine_seconds: float

    def quantile(self, q: float, clock: Clock = "seconds", seed: int = 0) -> Interval:
        """Seconds per query at quantile `q` in 0..1 (0.5: p50, 0.95: p95), queries one by one, 95 % interval."""
        return bootstrap([getattr(self, clock)], partial(np.quantile, q=q), seed, DRAWS)

    def row(self, collection: str) -> dict[str, Any]:
        """A row of the study's table; times in seconds per query, calls and tokens as means per query."""
        p50 = self.quantile(0.5)
        return {
            "collection": collection,
            "method": self.name,
            "n": len(self.qids),
            "p50": p50.value,
            "p50_low": p50.low,
            "p50_high": p50.high,
            "p95": self.quantile(0.95).value,
            "generation_seconds": self.quantile(0.5, "engine_seconds").value,
            **{field: float(np.mean(getattr(self, field))) for field in _WORK},
            "together_seconds": self.together_seconds / len(self.qids),
        }


def measure(engine: Engine, settings: Profile, test: TestSet, method: str) -> LatencyResult:
    """Time "listwise" or "pointwise" reranking of a test set over an open engine, as the profile's `latency` says.

    Errors as for `time_queries`.
    """
    own, around = settings.latency, settings.evaluation
    limit = own.listwise_tokens if method == "listwise" else own.pointwise_tokens
    reranker = evaluation.reranker(settings, engine, METHODS[method], limit)
    calls = STRATEGIES[METHODS[method]].calls(own.top, around.window, around.step)
    protocol = {"name": method, "top": own.top, "calls": calls, "warmup": own.warmup}
    return run_sync(time_queries(reranker, test.run, test.queries, test.collection.texts(), **protocol))


async def time_queries(
    reranker: Reranker,
    run: Mapping[str, Sequence[str]],
    queries: Mapping[str, str],
    texts: Mapping[str, str],
    *,
    name: str,
    top: int,
    calls: tuple[int, int],
    warmup: int = 1,
) -> LatencyResult:
    """Time `reranker` on the first `top` candidates of each query; `warmup` queries run beforehand, untimed.

    `calls`: the fewest and the most requests that a query should take, as `rerank.strategies` has them, without
    retries (a constrained answer may take two each). Other arguments as for `Reranker.rerank_run`. Raises
    ValueError for a run without queries, a query with fewer than `top` candidates, and one that took other than
    the expected requests.
    """
    if not run:
        raise ValueError("the run has no query to measure")
    for qid, docids in run.items():
        if len(docids) < top:
            raise ValueError(
                f"query {qid!r} has {len(docids)} candidates; expected {top} or more, as `top` asks"
            )
    for qid in islice(run, warmup):
        await reranker.rerank_run({qid: run[qid]}, queries, texts, top)
    await asyncio.to_thread(reranker.engine.reset_prefix_cache)
    single = [await reranker.rerank_run({qid: run[qid]}, queries, texts, top) for qid in run]
    await asyncio.to_thread(reranker.engine.reset_prefix_cache)
    together = await reranker.rerank_run(run, queries, texts, top)
    most = calls[1] * (2 if getattr(reranker, "constrained", False) else 1)
    for qid, one in zip(run, single, strict=True):
        if not calls[0] <= one.calls - one.retries <= most:
            expected = f"expected {calls[0]} to {most} for {top} candidates"
            raise ValueError(
                f"{name}, query {qid!r}: {one.calls - one.retries} requests to the engine; {expected}"
            )
    return LatencyResult(
        name=name,
        qids=list(run),
        **{field: [getattr(one, field) for one in single] for field in _LISTS},
        counts=_counts(single),
        together_seconds=together.seconds,
        together_engine_seconds=together.engine_seconds,
    )


def ratio(a: LatencyResult, b: LatencyResult, clock: Clock = "seconds", seed: int = 0) -> Interval:
    """Median seconds per query of `a` by that of `b`: over 1 means that `b` is faster, so many times.

    The 95 % interval is a paired bootstrap: each draw takes the same queries from both. Raises ValueError where the
    two were not measured on the same queries in the same order.
    """
    if a.qids != b.qids:
        raise ValueError(f"{a.name} and {b.name} were measured on different queries")

    def medians(left: np.ndarray, right: np.ndarray, axis: int) -> np.ndarray:
        return np.median(left, axis=axis) / np.median(right, axis=axis)

    return bootstrap([getattr(a, clock), getattr(b, clock)], medians, seed, DRAWS, paired=True)


def pool(results: Sequence[LatencyResult]) -> LatencyResult:
    """Measurements on several collections as one, for a ratio over all of them."""
    return LatencyResult(
        name=results[0].name,
        qids=[f"{number}/{qid}" for number, result in enumerate(results) for qid in result.qids],
        **{field: [value for result in results for value in getattr(result, field)] for field in _LISTS},
        counts=_counts(results),
        together_seconds=sum(result.together_seconds for result in results),
        together_engine_seconds=sum(result.together_engine_seconds for result in results),
    )


def _counts(results: Sequence[RerankedRun | LatencyResult]) -> dict[str, int]:
    return dict(sum((Counter(result.counts) for result in results), Counter()))


def strategy_rows(settings: Profile, weights: str | Path) -> list[dict[str, Any]]:
    """What each strategy of `rerank.strategies` costs over a few queries: a row each, with NDCG@10 in 0..1.

    `finished`: share of answers that were neither truncated nor malformed; `n`: queries. Seconds are of one run over
    all of them. Queries, candidates and token limits are those of the profile's `latency`.
    """
    own, around, rows = settings.latency, settings.evaluation, []
    queries = own.strategy_queries
    sets = {c: evaluation.test_set(settings, c, "test", queries, own.top) for c in own.collections}
    with evaluation.open_reranker(settings, weights) as opened:
        for name, strategy in STRATEGIES.items():
            limit = own.pointwise_tokens if name == "pointwise" else own.listwise_tokens
            opened.engine.reset_prefix_cache()
            found = evaluation.rerank_sets(
                evaluation.reranker(settings, opened.engine, name, limit), sets, own.top
            )
            values = [
                evaluation.evaluate(found[c].run, test.qrels, excluded=test.collection.excluded).mean[MEASURE]
                for c, test in sets.items()
            ]
            counts, took = evaluation.answer_counts(found.values()), evaluation.cost(found.values())
            least, most = strategy.calls(own.top, around.window, around.step)
            row = {"strategy": name, "calls per query": f"{least}" if least == most else f"{least} to {most}"}
            row |= {key: took[key] for key in (*_WORK, "seconds")}
            row |= {"finished": (counts["ok"] + counts["repaired"]) / counts["n"]}
            rows.append(
                row | {"ndcg": float(np.mean(values)), "n": sum(len(test.queries) for test in sets.values())}
            )
    return rows
