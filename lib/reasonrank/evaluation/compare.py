"""Systems compared on test collections: first-stage runs, rerankers over one engine, scores and costs in rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ..engines import PRESETS, Engine, open_engine
from ..profiles import Profile
from ..rerank import strategies
from ..rerank.listwise import WindowTrace
from ..rerank.run import RerankedRun, Reranker
from ..retrieval import first_stage
from ..runs import Qrels, Run, write_qrels, write_trec
from ..sources import Collection, load
from ..stages import stage_file
from .score import evaluate
from .statistics import mean_interval, paired_test

MEASURE = "nDCG@10"
Weights = tuple[str | Path, Path | None]
"""Weights (a name or a folder), and an adapter (a folder) or None."""


@dataclass(frozen=True)
class TestSet:
    """Queries of one split of a collection with their first-stage run and judgements."""

    __test__ = False  # no test case, whatever pytest makes of the name

    collection: Collection
    stage: str
    queries: dict[str, str]
    run: Run
    qrels: Qrels

    def ndcg(self, run: Run) -> dict[str, float]:
        """NDCG@10 in 0..1 of each query in a run on this set, without its excluded documents."""
        return evaluate(run, self.qrels, excluded=self.collection.excluded).per_query[MEASURE]


def test_set(
    settings: Profile, name: str, split: str = "test", queries: int | None = None, top: int | None = None
) -> TestSet:
    """The first `queries` (None: all) judged queries of a split, with the first-stage run the profile names.

    `top`: candidates of a query; None: the profile's `evaluation.top`.
    """
    collection = load(name)
    chosen = {qid: collection.queries[qid].text for qid in collection.ids(split, queries)}
    stages = settings.evaluation.first_stage
    stage = stages.get(name, stages["default"])
    run = first_stage(stage, collection, collection.searched(chosen), top or settings.evaluation.top)
    return TestSet(collection, stage, chosen, run, {qid: collection.qrels[qid] for qid in chosen})


test_set.__test__ = False


def this_run(system: str) -> str:
    """The label of a system (as "SFT") with the weights that this run has trained."""
    return f"{system} (this run)"


def systems(settings: Profile, run: Path, stages: Mapping[str, str]) -> dict[str, Weights]:
    """The systems of a run that rerank, by label: weights (a name or a folder) and adapter (a folder or None).

    `stages`: trained system -> the stage that left its weights in the run, as {"SFT": "03_sft"}.
    Those of `evaluation.systems`, then the released adapters where `evaluation.adapters` asks for them and there
    are any for the model. Labels say where the weights come from. FileNotFoundError where a stage has not run.
    """
    from ..adapters import released  # needs torch, which no other scoring does

    own, base = settings.evaluation, settings.model.name
    found: dict[str, Weights] = {name: (base, None) for name in own.systems if name not in stages}
    for name in (name for name in own.systems if name in stages):
        found[this_run(name)] = stage_file(run, stages[name], "model"), None
    adapters = released(base) if own.adapters else {}
    return found | {f"{name} (released adapter)": (base, adapter) for name, adapter in adapters.items()}


def weight_files(systems: Mapping[str, Weights]) -> list[Path]:
    """The files of all weights and adapters in folders, the inputs of a stage that uses them."""
    folders = [place for pair in systems.values() for place in pair if isinstance(place, Path)]
    return [file for folder in folders for file in sorted(folder.glob("*.safetensors"))]


def run_file(collection: str, system: str) -> str:
    """The name of a system's run on a collection: "coding.sft-rl-this-run.trec"."""
    return f"{collection}.{re.sub(r'[^a-z0-9]+', '-', system.lower()).strip('-')}.trec"


def write_runs(
    folder: Path, runs: Mapping[str, Mapping[str, Run]], sets: Mapping[str, TestSet]
) -> list[Path]:
    """Write all runs (system -> collection -> run) and judgements as TREC files; returns those of the runs."""
    for name, test in sets.items():
        write_qrels(folder / f"{name}.qrels", test.qrels)
    written = []
    for system, name in ((system, name) for system, found in runs.items() for name in found):
        written.append(folder / run_file(name, system))
        write_trec(written[-1], runs[system][name], tag="reasonrank")
    return written


@contextmanager
def open_reranker(
    settings: Profile, weights: str | Path, strategy: str | None = None, adapter: Path | None = None
) -> Iterator[Reranker]:
    """A reranker over an engine of its own, `reranker.engine`, which is closed at the end.

    `weights`: a folder or a model's name; `adapter`: a folder with a LoRA adapter, or None. Otherwise as `reranker`.
    """
    model, own = settings.model, settings.evaluation
    options = {"dtype": model.dtype, "max_model_len": model.max_length, "seed": settings.seed}
    if own.engine in ("auto", "vllm") and settings.hardware.vllm_tensor_parallel > 1:
        options["tensor_parallel_size"] = settings.hardware.vllm_tensor_parallel
    with open_engine(own.engine, str(weights), adapter=adapter, **options) as engine:
        yield reranker(settings, engine, strategy)


def reranker(
    settings: Profile, engine: Engine, strategy: str | None = None, max_tokens: int | None = None
) -> Reranker:
    """A reranker over an open engine, with the profile's settings.

    `strategy`: one of `rerank.strategies`, and `max_tokens` of an answer (of a chain, for pointwise); None: the
    profile's. Raises ValueError for an unknown strategy.
    """
    own = settings.evaluation
    limit = max_tokens or own.max_tokens
    return strategies.build(
        strategy or own.strategy,
        engine,
        **settings.prompting.model_dump(),
        **own.model_dump(include={"overlong", "window", "step", "max_in_flight", "retry", "constrained"}),
        max_length=settings.model.max_length - limit,
        sampling=replace(PRESETS[own.sampling], max_tokens=limit, seed=settings.seed),
    )


def rerank_sets(
    reranker: Reranker, sets: Mapping[str, TestSet], top: int | None = None
) -> dict[str, RerankedRun]:
    """Rerank the first `top` documents (None: all) of each collection's run; by the collection's name."""
    return {
        name: reranker.rerank_run_sync(test.run, test.queries, test.collection.texts(), top)
        for name, test in sets.items()
    }


class FirstWindows(NamedTuple):
    """What weights answer to first windows: `answer_counts`, and one answer."""

    counts: dict[str, int]
    sample: WindowTrace


def first_windows(settings: Profile, weights: str | Path) -> FirstWindows:
    """The answers to the first window of `sft.validity_queries` dev queries; the sample is always the same query's."""
    count = -(-settings.sft.validity_queries // len(settings.collections))
    sets = {name: test_set(settings, name, "dev", count) for name in settings.collections}
    with open_reranker(settings, weights, "sliding") as opened:
        found = list(rerank_sets(opened, sets, settings.evaluation.window).values())
    sample = next(iter(found[len(found) // 2].traces.values()))[0]
    return FirstWindows(answer_counts(found), sample)


def score_rows(
    runs: Mapping[str, Mapping[str, Run]], sets: Mapping[str, TestSet], *, seed: int, bootstrap: int
) -> list[dict[str, Any]]:
    """NDCG@10 of each system on each collection and on average over collections.

    `runs`: system -> collection -> run; the first system is the one that the others are tested against. Values
    are in 0..1; `low`, `high`: 95 % bootstrap interval over queries; `difference`, `p_value`: paired
    randomisation test against the first system, None for itself. `bootstrap`: draws of both.
    """
    values = {s: {name: test.ndcg(found[name]) for name, test in sets.items()} for s, found in runs.items()}
    base, rows = next(iter(runs)), []
    groups = [(name, test.collection.scenario, [name]) for name, test in sets.items()]
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
    """NDCG@10 in percent with its 95 % interval, systems by collections, n in the column's name.

    `scores`: rows of `score_rows`. Cells read "31.2 [25.0, 36.1]"; one that was not measured is empty.
    """
    cells: dict[str, dict[str, str]] = {}
    for row in scores:
        value, low, high = (100 * row[key] for key in ("ndcg", "low", "high"))
        column = cells.setdefault(f"{row['collection']} (n = {row['n']})", {})
        column[row["system"]] = f"{value:.1f} [{low:.1f}, {high:.1f}]"
    order = list(dict.fromkeys(row["system"] for row in scores))
    return pd.DataFrame(cells, index=order).fillna("").rename_axis("NDCG@10 in %")


def answer_counts(results: Iterable[RerankedRun]) -> dict[str, int]:
    """How many answers, over all collections, were ok, repaired, truncated and malformed, of `n`.

    A pointwise verdict that could not be read counts as malformed.
    """
    counts = sum((Counter(result.counts) for result in results), Counter())
    counts["malformed"] += counts.pop("undecided", 0)
    states = ("ok", "repaired", "truncated", "malformed")
    return {state: counts[state] for state in states} | {"n": counts.total()}


def cost(results: Iterable[RerankedRun]) -> dict[str, float]:
    """What answers took, over all collections: requests, tokens, seconds end to end and in the engine; and how
    many were asked again, or had something cut."""
    work = ("calls", "prompt_tokens", "output_tokens", "seconds", "engine_seconds")
    cut = ("retries", "shortened", "capped_passages", "capped_queries")
    results = list(results)
    return {field: sum(getattr(result, field) for result in results) for field in work + cut}
