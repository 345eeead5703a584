"""Systems compared on test collections: first-stage runs, scores with intervals, paired tests, traces to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .engines import PRESETS, Engine, open_engine
from .evaluation import bootstrap_interval, evaluate, paired_test
from .latency import LatencyResult
from .profiles import Profile
from .rerank import strategies
from .rerank.base import Progress, RerankedRun, Reranker
from .rerank.window import WindowTrace
from .retrieval import first_stage
from .runs import Qrels, Run
from .sources import Collection, load

STATES = ("ok", "repaired", "truncated", "malformed")
MEASURE = "nDCG@10"


@dataclass(frozen=True)
class TestSet:
    """Queries of one split of a collection with their first-stage run and judgements."""

    __test__ = False  # no test case, whatever pytest makes of the name

    collection: Collection
    stage: str
    queries: dict[str, str]
    run: Run
    qrels: Qrels


def test_set(settings: Profile, name: str, split: str = "test", queries: int | None = None) -> TestSet:
    """The first `queries` (None: all) judged queries of a split, with the first-stage run the profile names."""
    collection = load(name)
    chosen = {qid: collection.queries[qid].text for qid in collection.ids(split, queries)}
    stages = settings.evaluation.first_stage
    stage = stages.get(name, stages["default"])
    run = first_stage(stage, collection, chosen, settings.evaluation.top)
    return TestSet(collection, stage, chosen, run, {qid: collection.qrels[qid] for qid in chosen})


test_set.__test__ = False


def dev_sets(settings: Profile) -> dict[str, TestSet]:
    """The dev queries of each collection of the profile, as many as `evaluation.queries` (None: all)."""
    return {
        name: test_set(settings, name, "dev", settings.evaluation.queries) for name in settings.collections
    }


@contextmanager
def open_reranker(
    settings: Profile,
    weights: str | Path,
    strategy: str | None = None,
    max_tokens: int | None = None,
    adapter: Path | None = None,
) -> Iterator[Reranker]:
    """An engine for `weights` (a folder or a model's name), with a LoRA `adapter` (a folder) or without,
    and a reranker over it, with the profile's settings.

    The engine, `reranker.engine`, is closed at the end. Other arguments as for `reranker`.
    """
    model = settings.model
    options = {"dtype": model.dtype, "max_model_len": model.max_length, "seed": settings.seed}
    options["adapter"] = adapter
    if settings.evaluation.engine in ("auto", "vllm") and settings.hardware.vllm_tensor_parallel > 1:
        options["tensor_parallel_size"] = settings.hardware.vllm_tensor_parallel
    with open_engine(settings.evaluation.engine, str(weights), **options) as engine:
        yield reranker(settings, engine, strategy, max_tokens)


def reranker(
    settings: Profile, engine: Engine, strategy: str | None = None, max_tokens: int | None = None
) -> Reranker:
    """A reranker over an open engine, with the profile's settings.

    `strategy`: see `rerank.strategies`; None: the profile's `evaluation.strategy`. `max_tokens` of an answer
    (of a chain, for pointwise); None: the profile's `evaluation.max_tokens`. Raises ValueError for an unknown
    strategy.
    """
    own = settings.evaluation
    limit = max_tokens or own.max_tokens
    return strategies.build(
        strategy or own.strategy,
        engine,
        **settings.prompting.model_dump(),
        max_length=settings.model.max_length - limit,
        overlong=own.overlong,
        window=own.window,
        step=own.step,
        sampling=replace(PRESETS[own.sampling], max_tokens=limit, seed=settings.seed),
        max_in_flight=own.max_in_flight,
        retry=own.retry,
        constrained=own.constrained,
    )


def listwise(settings: Profile, engine: Engine, max_tokens: int | None = None) -> Reranker:
    """The paper's reranker: sliding windows with reasoning, whatever strategy the profile names."""
    return reranker(settings, engine, "sliding", max_tokens)


def pointwise(settings: Profile, engine: Engine, max_tokens: int | None = None) -> Reranker:
    """A pointwise reasoner over the same engine (the way of Rank1), for the latency study."""
    return reranker(settings, engine, "pointwise", max_tokens)


def rerank_sets(
    reranker: Reranker, sets: Mapping[str, TestSet], top: int | None = None, progress: Progress | None = None
) -> dict[str, RerankedRun]:
    """Rerank the first `top` documents (None: all) of each collection's run; by the collection's name."""
    return {
        name: reranker.rerank_run_sync(
            test.run, test.queries, test.collection.texts(), top=top, progress=progress
        )
        for name, test in sets.items()
    }


def score_rows(
    runs: Mapping[str, Mapping[str, Run]], sets: Mapping[str, TestSet], *, seed: int, bootstrap: int
) -> list[dict[str, Any]]:
    """NDCG@10 of each system on each collection and on average over collections.

    `runs`: system -> collection -> run; the first system is the one that the others are tested against. Values
    are in 0..1; `low`, `high`: 95 % bootstrap interval over queries; `difference`, `p_value`: paired
    randomisation test against the first system.
    """
    rows, values = [], {}
    for name, test in sets.items():
        for system, by_collection in runs.items():
            scores = evaluate(by_collection[name], test.qrels, excluded=test.collection.excluded)
            values[name, system] = scores.per_query[MEASURE]
    systems = list(runs)
    for name, test in sets.items():
        for system in systems:
            own, base = values[name, system], values[name, systems[0]]
            low, high = bootstrap_interval(list(own.values()), seed=seed, n_boot=bootstrap)
            row = {"collection": name, "scenario": test.collection.scenario, "system": system, "n": len(own)}
            row |= {"ndcg": float(np.mean(list(own.values()))), "low": low, "high": high}
            rows.append(row | _tested(own, base, system == systems[0], seed))
    for system in systems:
        groups = [list(values[name, system].values()) for name in sets]
        base = [list(values[name, systems[0]].values()) for name in sets]
        row = {"collection": "average", "scenario": "all", "system": system, "n": sum(map(len, groups))}
        row |= _average(groups, base, system == systems[0], seed, bootstrap)
        rows.append(row)
    return rows


def _tested(own: dict[str, float], base: dict[str, float], is_base: bool, seed: int) -> dict[str, Any]:
    if is_base:
        return {"difference": None, "p_value": None}
    test = paired_test(own, base, seed=seed)
    return {"difference": test.difference, "p_value": test.p_value}


def mean_over_collections(groups: Sequence[Sequence[float]], seed: int, draws: int) -> dict[str, float]:
    """Mean over collections of their means, with its 95 % interval: queries are resampled within each collection.

    `groups`: values of the queries of each collection. Returns `ndcg`, `low`, `high`.
    """
    rng = np.random.default_rng(seed)
    arrays = [np.asarray(group) for group in groups]
    resampled = np.mean([a[rng.integers(len(a), size=(draws, len(a)))].mean(axis=1) for a in arrays], axis=0)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return {"ndcg": float(np.mean([a.mean() for a in arrays])), "low": float(low), "high": float(high)}


def _average(
    groups: Sequence[Sequence[float]], base: Sequence[Sequence[float]], is_base: bool, seed: int, draws: int
) -> dict[str, Any]:
    """`mean_over_collections`, tested against `base` with signs flipped within each collection."""
    result = mean_over_collections(groups, seed, draws)
    if is_base:
        return result | {"difference": None, "p_value": None}
    rng = np.random.default_rng(seed)
    differences = [np.asarray(a) - np.asarray(b) for a, b in zip(groups, base, strict=True)]
    observed = float(np.mean([d.mean() for d in differences]))
    flipped = np.mean(
        [(rng.choice([-1, 1], size=(draws, len(d))) * d).mean(axis=1) for d in differences], axis=0
    )
    extreme = int((np.abs(flipped) >= abs(observed) - 1e-12).sum())
    return result | {"difference": observed, "p_value": (extreme + 1) / (draws + 1)}


def answer_row(system: str, results: Sequence[RerankedRun]) -> dict[str, Any]:
    """How many answers of a system were ok, repaired, truncated and malformed."""
    counts = {state: sum(result.counts.get(state, 0) for result in results) for state in STATES}
    return {"system": system, **counts, "n": sum(counts.values())}


def token_row(system: str, results: Sequence[RerankedRun]) -> dict[str, Any]:
    """What a system took (model calls, tokens, seconds end to end and in the engine) and what was cut for it."""
    work = ("calls", "prompt_tokens", "output_tokens", "seconds", "engine_seconds")
    policies = ("retries", "shortened", "capped_passages", "capped_queries")
    return {
        "system": system,
        **{field: sum(getattr(result, field) for result in results) for field in work + policies},
    }


def strategy_row(
    strategy: str, results: Mapping[str, RerankedRun], sets: Mapping[str, TestSet]
) -> dict[str, Any]:
    """A row of the comparison of strategies: calls and tokens in all, seconds in all, NDCG@10 with its n.

    `results`, `sets`: by collection. NDCG@10 in 0..1 is the mean over all n queries of all collections;
    `finished`: share of answers that were neither truncated nor malformed (pointwise: nor undecided).
    """
    took = token_row(strategy, list(results.values()))
    counts = sum((Counter(result.counts) for result in results.values()), Counter())
    values = [
        value
        for name, result in results.items()
        for value in evaluate(result.run, sets[name].qrels, excluded=sets[name].collection.excluded)
        .per_query[MEASURE]
        .values()
    ]
    fields = ("calls", "prompt_tokens", "output_tokens", "seconds")
    return {
        "strategy": strategy,
        **{field: took[field] for field in fields},
        "finished": (counts["ok"] + counts["repaired"]) / max(1, counts.total()),
        "ndcg": float(np.mean(values)),
        "n": len(values),
    }


def describe_windows(
    query: str,
    traces: Sequence[WindowTrace],
    texts: Mapping[str, str],
    relevant: Mapping[str, int],
    width: int = 90,
) -> str:
    """The reasoning of one query, window by window, as a person can read it; `+` marks relevant passages."""
    lines = [f"query: {' '.join(query.split())}"]
    for number, trace in enumerate(traces, start=1):
        lines += ["", f"window {number}: ranks {trace.start + 1} to {trace.end}, answer {trace.status}"]
        for place, docid in enumerate(trace.docids, start=1):
            mark = "+" if relevant.get(docid, 0) > 0 else " "
            lines.append(f"  {mark} [{place}] {' '.join(texts[docid].split())[:width]}")
        lines.append(f"  reasoning: {' '.join(trace.answer.reasoning.split()) or '(none)'}")
        lines.append("  ranking:   " + " > ".join(f"[{i}]" for i in trace.answer.ranking))
    return "\n".join(lines)


def latency_row(name: str, method: str, result: LatencyResult) -> dict[str, Any]:
    """A row of the latency study; times in seconds per query, calls and tokens as means per query."""
    p50, p95 = result.quantile(0.5), result.quantile(0.95)
    return {
        "collection": name,
        "method": method,
        "n": len(result.qids),
        "p50": p50.value,
        "p50_low": p50.low,
        "p50_high": p50.high,
        "p95": p95.value,
        "generation_seconds": result.quantile(0.5, "engine_seconds").value,
        "calls": float(np.mean(result.calls)),
        "prompt_tokens": float(np.mean(result.prompt_tokens)),
        "output_tokens": float(np.mean(result.output_tokens)),
        "together_seconds": result.together_seconds / len(result.qids),
    }


def pool(results: Sequence[LatencyResult]) -> LatencyResult:
    """Measurements on several collections as one, for a ratio over all of them."""
    first = results[0]
    lists = ("seconds", "engine_seconds", "calls", "prompt_tokens", "output_tokens")
    return LatencyResult(
        name=first.name,
        qids=[f"{number}/{qid}" for number, result in enumerate(results) for qid in result.qids],
        **{field: [value for result in results for value in getattr(result, field)] for field in lists},
        counts=dict(sum((Counter(result.counts) for result in results), Counter())),
        together_seconds=sum(result.together_seconds for result in results),
        together_engine_seconds=sum(result.together_engine_seconds for result in results),
    )
