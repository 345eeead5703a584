"""Systems compared on test collections: first-stage runs, rerankers over one engine, scores and costs in rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import pandas as pd

from ..engines import PRESETS, Engine, open_engine
from ..recovery import template_of
from ..rerank import strategies
from ..rerank.run import RerankedRun, Reranker, Trace, gather, run_sync
from ..runs import Run, write_qrels, write_trec
from ..settings import Profile
from ..stages import read_json, stage_file
from .sets import TestSet, test_sets
from .statistics import PerQuery, mean_interval, paired_test

Weights = tuple[str | Path, Path | None]
"""Weights (a name or a folder), and an adapter (a folder) or None."""


def this_run(system: str) -> str:
    """The label of a system (as "SFT") with the weights that this run has trained."""
    return f"{system} (this run)"


def systems(settings: Profile, run: Path, stages: Mapping[str, str]) -> dict[str, Weights]:
    """The systems of a run that rerank, by label: weights (a name or a folder) and adapter (a folder or None).

    `stages`: trained system -> the stage that left its weights in the run, as {"SFT": "03_sft"}. Those of
    `evaluation.systems`, then the released adapters of the profile `evaluation.adapters`, where there are any for the
    model. "checkpoint" is called by the last part of the model's name. What the run trained from another model is left
    out, so that `-p model=` takes any checkpoint. FileNotFoundError where a stage has not run.
    """
    from ..adapters import released  # needs torch, which no other scoring does

    own, base = settings.evaluation, settings.model.name
    labels = {"checkpoint": base.rstrip("/").rpartition("/")[2]}
    found: dict[str, Weights] = {}
    for name in own.systems:
        if name not in stages:
            found[labels.get(name, name)] = base, None
        elif weights := trained(settings, run, stages[name]):
            found[this_run(name)] = weights, None
    found = found or {labels["checkpoint"]: (base, None)}
    adapters = released(base, own.adapters) if own.adapters else {}
    return found | {f"{name} (released adapter)": (base, adapter) for name, adapter in adapters.items()}


def trained(settings: Profile, run: Path, stage: str) -> Path | None:
    """The weights that a stage left in a run; None where the profile has no such stage, or they were trained from
    another model than the profile's. FileNotFoundError where the stage has not run."""
    if stage not in settings.stages:
        return None
    config = read_json(stage_file(run, stage, "manifest.json"))["config"]
    same = config.get("model", {}).get("name", settings.model.name) == settings.model.name
    return stage_file(run, stage, "model") if same else None


def weight_files(systems: Mapping[str, Weights]) -> list[Path]:
    """The files of all weights and adapters in folders, the inputs of a stage that uses them."""
    folders = [place for pair in systems.values() for place in pair if isinstance(place, Path)]
    return [file for folder in folders for file in sorted(folder.glob("*.safetensors"))]


def run_file(collection: str, system: str) -> str:
    """The name of a system's run on a collection: "coding.sft-rl-this-run.trec"."""
    slug = re.sub(r"[^a-z0-9]+", "-", system.lower()).strip("-")
    return f"{qrels_file(collection).removesuffix('.qrels')}.{slug}.trec"


def qrels_file(collection: str) -> str:
    """The name of the judgements of a collection: "bright-biology.qrels"."""
    return re.sub(r"[^\w.-]+", "-", collection) + ".qrels"


def write_runs(
    folder: Path, runs: Mapping[str, Mapping[str, Run]], sets: Mapping[str, TestSet]
) -> list[Path]:
    """Write all runs (system -> collection -> run) and judgements as TREC files; returns those of the runs."""
    for name, test in sets.items():
        write_qrels(folder / qrels_file(name), test.qrels)
    files = {folder / run_file(n, system): run for system, found in runs.items() for n, run in found.items()}
    for file, run in files.items():
        write_trec(file, run, tag="reasonrank")
    return list(files)


class OneEngine(ExitStack):
    """Rerankers of several weights, one after another, over one engine, which takes seconds to change its weights
    and tens of seconds to open. A context manager; `close()` frees the engine. `strategy`: as in `reranker`."""

    def __init__(self, settings: Profile, strategy: str | None = None) -> None:
        super().__init__()
        self.settings, self.strategy = settings, strategy
        self._reranker: Reranker | None = None  # that of an open engine, whose weights are `_now`

    def use(self, weights: str | Path, adapter: Path | None = None) -> Reranker:
        """The reranker with these weights (a folder, or a model's name) and LoRA adapter (a folder); those of an
        earlier call are gone."""
        model, own, parallel = self.settings.model, self.settings.evaluation, self.settings.hardware
        if self._reranker is None:
            options = {"dtype": model.dtype, "max_model_len": model.max_length, "seed": self.settings.seed}
            options["max_num_seqs"] = own.max_in_flight
            if own.engine in ("auto", "vllm") and parallel.vllm_tensor_parallel > 1:
                options["tensor_parallel_size"] = parallel.vllm_tensor_parallel
            engine = open_engine(own.engine, str(weights), adapter=adapter, **options)
            self.enter_context(engine)
            self.callback(setattr, self, "_reranker", None)
            self._reranker = reranker(self.settings, engine, self.strategy)
        elif self._now != (weights, adapter):
            self._reranker.engine.load(str(weights), adapter)
        self._now = weights, adapter
        return self._reranker


def reranker(
    settings: Profile, engine: Engine, strategy: str | None = None, max_tokens: int = 0, **changes: Any
) -> Reranker:
    """A reranker over an open engine, with the profile's settings but for `changes` (see `strategies.build`).

    `strategy`: one of `rerank.strategies`; `max_tokens`: of an answer (of a chain, for pointwise); None and 0: the
    profile's. Raises ValueError for an unknown strategy.
    """
    own = settings.evaluation
    limit = max_tokens or own.max_tokens
    names = {"overlong", "window", "step", "max_in_flight", "retry", "constrained", "prefetch"}
    return strategies.build(
        strategy or own.strategy,
        engine,
        **settings.prompting.model_dump(exclude={"template"}),
        **(own.model_dump(include=names) | changes),
        template=template_of(settings),
        max_length=settings.model.max_length - limit,
        sampling=replace(PRESETS[own.sampling], max_tokens=limit, seed=settings.seed),
    )


def rerank_sets(
    reranker: Reranker, sets: Mapping[str, TestSet], top: int | None = None
) -> dict[str, RerankedRun]:
    """Rerank the first `top` documents (None: all) of each collection's run, all together; by the collection's name.

    Passages of a benchmark are cut to the paper's cap (100 tokens on BEIR), where it is lower than the reranker's.
    """

    def capped(cap: int | None) -> Reranker:
        own = copy(reranker)
        if cap and cap < own.prompt.passage_tokens:
            own.prompt = copy(own.prompt)
            own.prompt.passage_tokens = cap
        return own

    async def together() -> list[RerankedRun]:
        bounds = reranker.bounds()
        return await gather(
            capped(test.collection.passage_tokens).rerank_run(
                test.run, test.queries, test.collection.texts(), top, bounds=bounds
            )
            for test in sets.values()
        )

    return dict(zip(sets, run_sync(together()), strict=True))


class FirstWindows(NamedTuple):
    """What weights answer to first windows: `answer_counts`, and one answer."""

    counts: dict[str, int]
    sample: Trace


def first_windows(settings: Profile, weights: Mapping[str, str | Path]) -> dict[str, FirstWindows]:
    """The answers to the first window of `sft.validity_queries` dev queries or a few more, as many of each collection;
    by the names of `weights`. The sample is always the same query's."""
    count = -(-settings.sft.validity_queries // len(settings.collections))
    sets, own, windows = test_sets(settings, settings.collections, "dev", count), settings.evaluation, {}
    with OneEngine(settings, own.window_strategy) as opened:
        for name, folder in weights.items():
            found = list(rerank_sets(opened.use(folder), sets, own.window).values())
            sample = next(iter(found[len(found) // 2].traces.values()))[0]
            windows[name] = FirstWindows(answer_counts(found), sample)
    return windows


def redone(settings: Profile, engine: Engine, recorded: PerQuery) -> dict[str, float]:
    """The profile's test queries reranked again, beside what a record of notebook 05 has for them.

    `recorded`: collection -> query id -> NDCG@10 in 0..1. Returns `n` (queries), the mean over them in percent,
    `recorded` and `now`, and of how many the two are the `same`.
    """
    sets = test_sets(settings, settings.collections, "test", settings.evaluation.queries)
    found = rerank_sets(reranker(settings, engine), sets, settings.evaluation.top)
    now = {(name, qid): v for name, test in sets.items() for qid, v in test.ndcg(found[name].run).items()}
    before = {(name, qid): recorded[name][qid] for name, qid in now}
    same = sum(abs(before[query] - value) < 0.001 for query, value in now.items())
    means = {"recorded": 100 * fmean(before.values()), "now": 100 * fmean(now.values())}
    return {"n": len(now)} | means | {"same": same}


def query_scores(runs: Mapping[str, Mapping[str, Run]], sets: Mapping[str, TestSet]) -> dict[str, PerQuery]:
    """System -> collection -> query id -> NDCG@10 in 0..1. `runs`: system -> collection -> run."""
    return {s: {name: test.ndcg(found[name]) for name, test in sets.items()} for s, found in runs.items()}


def score_rows(
    runs: Mapping[str, Mapping[str, Run]], sets: Mapping[str, TestSet], *, seed: int, bootstrap: int
) -> list[dict[str, Any]]:
    """NDCG@10 in 0..1 of each system on each collection and on average over collections.

    `runs`: system -> collection -> run. `low`, `high`: 95 % bootstrap interval over queries; `difference`, `p_value`:
    paired randomisation test against the first system, None for itself. `bootstrap`: draws of both.
    """
    base, rows = next(iter(runs)), []
    groups = [(name, test.collection.scenario, [name]) for name, test in sets.items()]
    values = query_scores(runs, sets)
    for title, scenario, names in [*groups, ("average", "all", list(sets))]:
        for system in runs:
            own, first = ({name: values[s][name] for name in names} for s in (system, base))
            mean = mean_interval([list(found.values()) for found in own.values()], seed, bootstrap)
            test = None if system == base else paired_test(own, first, seed, bootstrap)
            row = {"collection": title, "scenario": scenario, "system": system}
            row |= {"n": sum(map(len, own.values())), "ndcg": mean.value, "low": mean.low, "high": mean.high}
            rows.append(row | {"difference": test and test.value, "p_value": test and test.p_value})
    return rows


def score_frame(scores: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of `score_rows` as systems by collections, with n: NDCG@10 in percent with its 95 % interval, as
    "31.2 [25.0, 36.1]", "" where none was measured."""
    cells: dict[str, dict[str, str]] = {}
    for row in scores:
        value, low, high = (100 * row[key] for key in ("ndcg", "low", "high"))
        column = cells.setdefault(f"{row['collection']} (n = {row['n']})", {})
        column[row["system"]] = f"{value:.1f} [{low:.1f}, {high:.1f}]"
    order = list(dict.fromkeys(row["system"] for row in scores))
    return pd.DataFrame(cells, index=order).fillna("").rename_axis("NDCG@10 in %")


def answer_counts(results: Iterable[RerankedRun]) -> dict[str, int]:
    """How many answers, over all collections, were ok, repaired, truncated and malformed, of `n`; a pointwise verdict
    that could not be read counts as malformed."""
    counts = sum((Counter(result.counts) for result in results), Counter())
    counts["malformed"] += counts.pop("undecided", 0)
    states = ("ok", "repaired", "truncated", "malformed")
    return {state: counts[state] for state in states} | {"n": counts.total()}


def cost(results: Iterable[RerankedRun]) -> dict[str, float]:
    """What answers took, over all collections of `rerank_sets`: requests, tokens, seconds end to end and in the engine;
    and how many were asked again, or had something cut."""
    fields = ("calls", "prompt_tokens", "output_tokens", "seconds", "engine_seconds", "retries", "shortened")
    results, fields = list(results), (*fields, "capped_passages", "capped_queries")
    over = {"seconds": max, "engine_seconds": max}  # they begin together
    return {name: over.get(name, sum)(getattr(result, name) for result in results) for name in fields}
