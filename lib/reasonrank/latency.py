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
from typing import Any, Literal

import numpy as np

from .evaluation import Interval, bootstrap
from .rerank import RerankedRun, Reranker

Clock = Literal["seconds", "engine_seconds"]
_WORK = ("calls", "prompt_tokens", "output_tokens")
_LISTS = ("seconds", "engine_seconds", *_WORK)
DRAWS = 2000


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


async def measure(
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
