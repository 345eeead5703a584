"""How long reranking takes: the protocol of the latency study (paper, Figures 1 and 5).

A reranker is warmed up, then gets the queries one by one, for the latency that one user sees, and then all
together, for the throughput of a batch. What earlier queries left in the engine's prefix cache is dropped
before each of the two.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np

from .rerank.base import RerankedRun, Reranker

Clock = Literal["seconds", "engine_seconds"]


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % bootstrap interval over queries."""

    value: float
    low: float
    high: float


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

    def quantile(self, q: float, clock: Clock = "seconds", resamples: int = 2000, seed: int = 0) -> Interval:
        """Seconds per query at quantile `q` in 0..1 (0.5: p50, 0.95: p95), queries one by one."""
        values = np.array(getattr(self, clock))
        draws = values[_resamples(len(values), resamples, seed)]
        return _interval(np.quantile(values, q), np.quantile(draws, q, axis=1))

    @property
    def throughput(self) -> float:
        """Queries per second, all together."""
        return len(self.qids) / self.together_seconds

    def summary(self) -> dict[str, Any]:
        """The figures of a record or a table's row; calls and tokens are means per query."""
        means = {name: float(np.mean(getattr(self, name))) for name in _PER_QUERY}
        return {
            "name": self.name,
            "queries": len(self.qids),
            "p50_seconds": asdict(self.quantile(0.5)),
            "p95_seconds": asdict(self.quantile(0.95)),
            "p50_engine_seconds": asdict(self.quantile(0.5, "engine_seconds")),
            "p95_engine_seconds": asdict(self.quantile(0.95, "engine_seconds")),
            **means,
            "queries_per_second": self.throughput,
            "together_seconds": self.together_seconds,
            "together_engine_seconds": self.together_engine_seconds,
            "counts": self.counts,
        }


_PER_QUERY = ("calls", "prompt_tokens", "output_tokens")


async def measure(
    reranker: Reranker,
    run: Mapping[str, Sequence[str]],
    queries: Mapping[str, str],
    texts: Mapping[str, str],
    *,
    name: str,
    top: int | None = None,
    warmup: int = 1,
) -> LatencyResult:
    """Time `reranker` on the queries of `run`; `warmup` of them run beforehand, untimed.

    Arguments as for `Reranker.rerank_run`. Raises ValueError for a run without queries.
    """
    if not run:
        raise ValueError("the run has no query to measure")
    for qid in islice(run, warmup):
        await reranker.rerank_run({qid: run[qid]}, queries, texts, top)
    await asyncio.to_thread(reranker.engine.reset_prefix_cache)
    single = [await reranker.rerank_run({qid: run[qid]}, queries, texts, top) for qid in run]
    await asyncio.to_thread(reranker.engine.reset_prefix_cache)
    together = await reranker.rerank_run(run, queries, texts, top)
    return LatencyResult(
        name=name,
        qids=list(run),
        **{
            field: [getattr(one, field) for one in single]
            for field in ("seconds", "engine_seconds", *_PER_QUERY)
        },
        counts=_counts(single),
        together_seconds=together.seconds,
        together_engine_seconds=together.engine_seconds,
    )


def ratio(
    a: LatencyResult, b: LatencyResult, clock: Clock = "seconds", resamples: int = 2000, seed: int = 0
) -> Interval:
    """Median seconds per query of `a` by that of `b`: over 1 means that `b` is faster, so many times.

    The interval is a paired bootstrap: each resample takes the same queries from both. Raises ValueError
    where the two were not measured on the same queries in the same order.
    """
    if a.qids != b.qids:
        raise ValueError(f"{a.name} and {b.name} were measured on different queries")
    left, right = np.array(getattr(a, clock)), np.array(getattr(b, clock))
    rows = _resamples(len(left), resamples, seed)
    draws = np.median(left[rows], axis=1) / np.median(right[rows], axis=1)
    return _interval(np.median(left) / np.median(right), draws)


def _counts(results: Sequence[RerankedRun]) -> dict[str, int]:
    statuses = dict.fromkeys(status for result in results for status in result.counts)
    return {status: sum(result.counts.get(status, 0) for result in results) for status in statuses}


def _resamples(n: int, resamples: int, seed: int) -> np.ndarray:
    """Indices of bootstrap samples: (resamples, n)."""
    return np.random.default_rng(seed).integers(n, size=(resamples, n))


def _interval(value: float, draws: np.ndarray) -> Interval:
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(float(value), float(low), float(high))
