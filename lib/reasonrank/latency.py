"""How long reranking takes: the protocol of the latency study (paper, Figures 1 and 5).

The paper's 1.8 seconds for nine windows one after another can only be many queries at once. So *all queries
together* decide: their seconds, divided by their number. Beside it, each query runs by itself, as one user sees it.
A second run, of the first collection, holds the lengths of all outputs to declared distributions
(`data/paper/lengths.yaml`), so that the ratio does not hang on what a small model writes. A reranker is warmed up
first, and what earlier queries left in the engine's prefix cache is dropped before each measurement.
"""

from __future__ import annotations

import zlib
from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import yaml

from . import evaluation, paper, stages
from .answers import THINK_END
from .engines import Completion, Engine, Sampling
from .evaluation import TestSet, bootstrap
from .evaluation.compare import Weights
from .rerank import RerankedRun
from .rerank.strategies import STRATEGIES
from .settings import Profile

DRAWS = 2000
METHODS = {"listwise": "sliding", "listwise, prefetch": "sliding", "pointwise": "pointwise"}
"""A method of the study -> its strategy."""


@dataclass(frozen=True)
class Timed:
    """What a method took on a collection: all its queries `together`, and each of them `alone` (or none).

    `lengths`: "own", as the model writes, or "declared"; `top`: candidates of a query.
    """

    collection: str
    method: str
    lengths: str
    top: int
    together: RerankedRun
    alone: Mapping[str, RerankedRun]

    @property
    def about(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in ("collection", "method", "lengths", "top")}

    @property
    def shares(self) -> list[float]:
        """Seconds of each query when all run together; they sum to `together.seconds`.

        The time between two events is divided evenly among the answers that are under way in it.
        """
        spans = [[(t.began, t.ended) for t in traces] for traces in self.together.traces.values()]
        began, ended = (np.sort([span[end] for own in spans for span in own]) for end in (0, 1))
        times = np.sort(np.concatenate([began, ended]))
        under_way = np.searchsorted(began, times, "right") - np.searchsorted(ended, times, "right")
        spent = np.concatenate([[0], np.cumsum(np.diff(times) / np.maximum(under_way[:-1], 1))])
        each = [np.ptp(np.interp(own, times, spent), axis=1).sum() for own in spans]
        return list(self.together.seconds * np.array(each) / sum(each))

    def row(self) -> dict[str, Any]:
        """A row of the study's table.

        `seconds` to `high`: a query's, all together, with the 95 % interval over queries. Calls and tokens are means
        per query; `tokens_per_second`: of output; `batch`: answers under way on average; `finished`: share of
        answers that ended before their limit. `p50` to `p95`: seconds of a query alone, None where not measured.
        """
        one, n = self.together, len(self.together.traces)
        mean, answers = bootstrap([self.shares], np.mean, 0, DRAWS), sum(one.counts.values())
        row = self.about | {"n": n, "seconds": mean.value, "low": mean.low, "high": mean.high}
        work = ("engine_seconds", "calls", "prompt_tokens", "cached_tokens", "output_tokens")
        row |= {name: getattr(one, name) / n for name in work}
        row |= {"tokens_per_second": one.output_tokens / one.seconds, "batch": batch(one)}
        row |= {"finished": 1 - one.counts.get("truncated", 0) / max(1, answers)}
        took = [found.seconds for found in self.alone.values()]
        p50 = bootstrap([took], partial(np.quantile, q=0.5), 0, DRAWS) if took else None
        row |= {"p50": p50 and p50.value, "p50_low": p50 and p50.low, "p50_high": p50 and p50.high}
        return row | {"p95": float(np.quantile(took, 0.95)) if took else None}

    def points(self) -> list[dict[str, Any]]:
        """Its measurements, for `latency_model`: tokens computed, mean batch and seconds, a row each."""
        runs = [("together", self.together), *(("alone", one) for one in self.alone.values())]
        return [
            self.about
            | {"mode": mode, "n": len(one.traces), "prompt": one.prompt_tokens - one.cached_tokens}
            | {"output": one.output_tokens, "batch": batch(one), "seconds": one.seconds}
            for mode, one in runs
        ]


def batch(run: RerankedRun) -> float:
    """Answers that are under way, on average over the time in which the engine has work."""
    spans = sum(trace.ended - trace.began for traces in run.traces.values() for trace in traces)
    return max(1.0, spans / run.engine_seconds)


class Held:
    """An engine whose outputs have a length of `lengths` each, whatever the model says: the same for the same prompt.

    Requests for one token stay what they are. Where log-probabilities are asked for, the output ends in a verdict, so
    that none has to be asked for by itself.
    """

    def __init__(self, engine: Engine, lengths: Sequence[int]) -> None:
        self.engine, self.lengths = engine, lengths

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    async def generate(self, prompt: Sequence[int], sampling: Sampling) -> Completion:
        if sampling.max_tokens > 1:
            length = Random(zlib.crc32(array("i", prompt).tobytes())).choice(self.lengths)
            sampling = replace(sampling, max_tokens=length, stop=(), constraint=None, exact=True)
        found = await self.engine.generate(prompt, sampling)
        judged = sampling.logprobs and sampling.max_tokens > 1
        return replace(found, text=f"{found.text}{THINK_END} true") if judged else found


def declared(scale: float = 1.0) -> dict[str, list[int]]:
    """Output lengths in tokens by method, as declared before the measurements, times `scale`; at least 2."""
    found = yaml.safe_load((paper.DATA / "lengths.yaml").read_text(encoding="utf-8"))
    own = {method: found[method.partition(",")[0]] for method in METHODS}
    return {
        method: [max(2, round(scale * (tokens + each["answer"]))) for tokens in each["tokens"]]
        for method, each in own.items()
    }


def weights_of(settings: Profile, trained: str | Path | None) -> dict[Weights, list[str]]:
    """Weights and adapter (a folder or None) -> the methods that they are for: one engine each.

    `latency.weights` names them: a folder, relative to the project, of a model or of a LoRA adapter. Where it is null
    `trained` serves, and the profile's model where that is None. FileNotFoundError for a folder that is not there.
    """
    found: dict[Weights, list[str]] = defaultdict(list)
    for method in METHODS:
        weights: Weights = (trained or settings.model.name, None)
        if name := getattr(settings.latency.weights, method.partition(",")[0]):
            folder = stages.ROOT / name
            if not folder.is_dir():
                raise FileNotFoundError(f"latency.weights: {name} is not there; expected a folder")
            adapter = (folder / "adapter_config.json").is_file()
            weights = (settings.model.name, folder) if adapter else (folder, None)
        found[weights].append(method)
    return dict(found)


def study(
    engine: Engine, settings: Profile, tests: Mapping[str, TestSet], methods: Sequence[str]
) -> list[Timed]:
    """All measurements of `methods` over an open engine, prefetch only where it keeps prefixes.

    Of each: every collection with lengths of its own; then the first with the declared ones (`latency.length_scale`
    over 0; not for prefetch, which changes no length) and with other numbers of candidates (`latency.growth`).
    """
    own, lengths, measured = settings.latency, declared(settings.latency.length_scale), []
    first = next(iter(tests.values()))
    few = replace(first, run=dict(islice(first.run.items(), own.growth_queries)))
    for method in [name for name in methods if engine.prefixes or "prefetch" not in name]:
        time = partial(measure, engine, settings, method=method)
        for test in tests.values():
            measured.append(time(test, warmup=own.warmup, alone=own.alone_queries))
        if own.length_scale and "prefetch" not in method:
            measured.append(time(first, lengths=lengths[method]))
        measured += [time(few, top=top) for top in own.growth]
    return measured


def measure(
    engine: Engine,
    settings: Profile,
    test: TestSet,
    method: str,
    *,
    lengths: Sequence[int] = (),
    top: int | None = None,
    warmup: int = 0,
    alone: int = 0,
) -> Timed:
    """Time a method of `METHODS`, or a strategy, on a test set over an open engine, as the profile's `latency` says.

    `lengths`: output lengths in tokens to be held to, none: as the model writes; `top`: None for the profile's;
    `warmup`: queries before the clock starts; `alone`: the first so many each by itself too. ValueError for a query
    with fewer candidates than `top`, and for one that took other than the requests of its strategy, retries aside (a
    constrained answer may take two).
    """
    own, top, strategy = settings.latency, top or settings.latency.top, METHODS.get(method, method)
    for qid, docids in test.run.items():
        if len(docids) < top:
            raise ValueError(f"query {qid!r} has {len(docids)} candidates; expected {top}, the study's top")
    limit = own.pointwise_tokens if strategy == "pointwise" else own.listwise_tokens
    held, limit = (Held(engine, lengths), max(lengths)) if lengths else (engine, limit)
    reranker = evaluation.reranker(settings, held, strategy, limit, prefetch="prefetch" in method)

    def rerank(qids: Iterable[str]) -> RerankedRun:
        engine.reset_prefix_cache()
        chosen = replace(test, run={qid: test.run[qid] for qid in qids})
        return evaluation.rerank_sets(reranker, {method: chosen}, top)[method]

    for qid in islice(test.run, warmup):
        rerank([qid])
    single = {qid: rerank([qid]) for qid in islice(test.run, alone)}
    together = rerank(test.run)
    least, most = STRATEGIES[strategy].calls(top, settings.evaluation.window, settings.evaluation.step)
    most *= 2 if getattr(reranker, "constrained", False) else 1
    for qid, traces in together.traces.items():
        calls = sum(trace.calls - (trace.attempts - 1) for trace in traces)
        if not least <= calls <= most:
            expected = f"expected {least} to {most} for {top} candidates"
            raise ValueError(f"{method}, query {qid!r}: {calls} requests; {expected}")
    return Timed(test.collection.name, method, "declared" if lengths else "own", top, together, single)


def ratios(measured: Sequence[Timed]) -> list[dict[str, Any]]:
    """Seconds of all queries by those of "listwise", a row for every other method, number of candidates and kind of
    lengths: over 1 means that listwise is faster, so many times.

    `low`, `high`: the 95 % interval of a paired bootstrap over the `n` queries: each draw takes the same ones from
    both. `same`: share of queries, of those together, whose ranking is the listwise one (for prefetch, which must not
    change it but for rounding). ValueError where two methods were measured on different queries.
    """
    rows, groups = [], defaultdict(lambda: defaultdict(list))
    for one in measured:
        groups[one.lengths, one.top][one.method].append(one)
    for (lengths, top), own in groups.items():
        base = own.pop("listwise")
        for method, other in own.items():
            sides = [
                [(one.collection, *ranked) for one in side for ranked in one.together.run.items()]
                for side in (other, base)
            ]
            if [query[:2] for query in sides[0]] != [query[:2] for query in sides[1]]:
                raise ValueError(f"{method} and listwise were measured on different queries")
            seconds = [[share for one in side for share in one.shares] for side in (other, base)]
            by = lambda slow, fast, axis: slow.mean(axis=axis) / fast.mean(axis=axis)  # noqa: E731
            found = bootstrap(seconds, by, 0, DRAWS, paired=True)
            same = float(np.mean([a == b for a, b in zip(*sides, strict=True)]))
            row = {"method": method, "lengths": lengths, "top": top, "n": len(sides[0]), "ratio": found.value}
            rows.append(row | {"low": found.low, "high": found.high, "same": same})
    return rows


def strategy_rows(settings: Profile, engine: Engine) -> list[dict[str, Any]]:
    """What each strategy of `rerank.strategies` costs over a few queries: a row each, with NDCG@10 in 0..1.

    `finished`: share of answers that were neither truncated nor malformed; `n`: queries. Seconds are of all of them
    together. Queries, candidates and token limits are those of the profile's `latency`.
    """
    own, around, rows = settings.latency, settings.evaluation, []
    sets = evaluation.test_sets(settings, own.collections, "test", own.strategy_queries, own.top)
    for name, strategy in STRATEGIES.items():
        found = {c: measure(engine, settings, test, name).together for c, test in sets.items()}
        values = [list(sets[c].ndcg(done.run).values()) for c, done in found.items()]
        counts, took = evaluation.answer_counts(found.values()), evaluation.cost(found.values())
        calls = dict.fromkeys(map(str, strategy.calls(own.top, around.window, around.step)))
        row = {"strategy": name, "calls per query": " to ".join(calls)}
        row |= {key: took[key] for key in ("calls", "prompt_tokens", "output_tokens")}
        row["seconds"] = sum(done.seconds for done in found.values())  # one collection after another
        row |= {"finished": (counts["ok"] + counts["repaired"]) / counts["n"]}
        rows.append(row | {"ndcg": float(np.mean(list(map(np.mean, values)))), "n": sum(map(len, values))})
    return rows
