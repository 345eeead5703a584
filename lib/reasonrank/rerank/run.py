"""What all rerankers share: many queries at once under one bound, traces, counts, and use from a notebook."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, TypeVar

from reasonrank.engines import GREEDY, Completion, Engine, Sampling
from reasonrank.engines.base import own_loop
from reasonrank.prompts import Prompt
from reasonrank.runs import Run

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One model answer: what it is about, what it says and what it took.

    [`start`, `end`): the window of the list, with its documents before the answer; `ranking`: 1-based positions in
    `docids`, best first; `text`: of the last attempt. `status`: the answer's, see `answers.parse`; of a passage judged
    by itself, which has a `score` in 0..1, see `PointwiseReranker`. `calls`: requests to the engine. `attempts`: 2
    where an unfinished answer was asked for again; tokens are then sums. `began`, `ended`: `time.perf_counter()` when
    it was asked for and when it was in. `cached_tokens`: of `prompt_tokens`, those that the engine had computed
    already. `shortened`: passages were capped lower than usual for the prompt to fit; `cut`: documents that were
    longer than their cap; `query_cut`: so was the query.
    """

    start: int
    end: int
    docids: tuple[str, ...]
    ranking: list[int]
    status: str
    text: str
    score: float | None = None
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    calls: int
    attempts: int
    began: float = field(compare=False)
    ended: float = field(compare=False)
    shortened: bool
    cut: tuple[str, ...]
    query_cut: bool

    @property
    def reordered(self) -> list[str]:
        """The documents after the answer, best first."""
        return [self.docids[number - 1] for number in self.ranking]


@dataclass(frozen=True)
class Reranked:
    """One query: its documents, best first, and the traces of its answers in the order they were asked for."""

    docids: list[str]
    windows: list[Trace]


@dataclass(frozen=True)
class RerankedRun:
    """A reranked run with its traces by query.

    `counts`: model answers by status. `seconds`: wall clock from the first query to the last; `engine_seconds`:
    the part of it in which the engine had work. The rest are sums, see `work`.
    """

    run: Run
    traces: dict[str, list[Trace]]
    counts: dict[str, int]
    seconds: float
    engine_seconds: float
    calls: int
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    retries: int
    shortened: int
    capped_passages: int
    capped_queries: int


def work(queries: Iterable[Sequence[Trace]]) -> dict[str, int]:
    """Sums over the traces of queries, see `Trace`.

    `retries`: answers that were asked for again; `capped_passages`: documents of a query that were cut, each counted
    once; `capped_queries`: queries that were.
    """
    queries = list(queries)
    traces = [trace for query in queries for trace in query]
    sums = ("calls", "prompt_tokens", "output_tokens", "cached_tokens", "shortened")
    return {name: sum(getattr(trace, name) for trace in traces) for name in sums} | {
        "retries": sum(trace.attempts - 1 for trace in traces),
        "capped_passages": sum(len({docid for trace in query for docid in trace.cut}) for query in queries),
        "capped_queries": sum(any(trace.query_cut for trace in query) for query in queries),
    }


@dataclass(frozen=True)
class Job:
    """A query under way: its text, the passages, the bound on prompts in the engine, and whom each answer is told."""

    query: str
    texts: Mapping[str, str]
    slots: asyncio.Semaphore
    answered: Callable[[], Any]


@dataclass
class Reranker(ABC):
    """Base of the rerankers; `max_in_flight` bounds the prompts in the engine, over all queries together."""

    engine: Engine
    prompt: Prompt
    _: KW_ONLY
    sampling: Sampling = GREEDY
    max_in_flight: int = 64

    def __post_init__(self) -> None:
        if self.max_in_flight < 1:
            raise ValueError(f"max_in_flight is {self.max_in_flight}; expected 1 or more")

    @abstractmethod
    async def _rerank(self, job: Job, docids: list[str]) -> Reranked:
        """Rerank the documents of one query; all texts are there."""

    @abstractmethod
    async def _answer(self, prompt: list[int], num_passages: int) -> tuple[list[Completion], dict[str, Any]]:
        """The completions to a prompt, one an attempt, and what the last one says: fields of a `Trace`."""

    async def _rank_window(self, job: Job, docids: Sequence[str], start: int, end: int) -> Trace:
        """Ask about `docids`, which stand in [start, end) of the list."""
        async with job.slots:
            began = time.perf_counter()
            prompt = self.prompt.render(job.query, [job.texts[docid] for docid in docids])
            done, said = await self._answer(prompt.ids, len(docids))
        job.answered()
        counts = ("prompt_tokens", "output_tokens", "cached_tokens", "calls")
        return Trace(
            start=start,
            end=end,
            docids=tuple(docids),
            text=done[-1].text,
            attempts=len(done),
            began=began,
            ended=time.perf_counter(),
            shortened=prompt.shortened,
            cut=tuple(docids[place] for place in prompt.cut),
            query_cut=prompt.query_cut,
            **{name: sum(getattr(each, name) for each in done) for name in counts},
            **said,
        )

    def bounds(self) -> tuple[asyncio.Semaphore, asyncio.Semaphore]:
        """For prompts in the engine, and for queries under way: enough to keep it busy, few enough for queries to
        finish all along the run."""
        return asyncio.Semaphore(self.max_in_flight), asyncio.Semaphore(2 * self.max_in_flight)

    async def rerank_run(
        self,
        run: Mapping[str, Sequence[str]],
        queries: Mapping[str, str],
        texts: Mapping[str, str],
        top: int | None = None,
        answered: Callable[[], Any] = lambda: None,
        finished: Callable[[str, Reranked], Any] = lambda qid, result: None,
        bounds: tuple[asyncio.Semaphore, asyncio.Semaphore] | None = None,
    ) -> RerankedRun:
        """Rerank the first `top` documents of every query (None: all); the others stay behind, in order.

        `run`: query id -> document ids, best first; `texts`: document id -> passage. Each query goes on as soon as
        its own answer is in, of which `answered` is told; it is handed to `finished`, without the documents past
        `top`, as soon as all its answers are. Twice `max_in_flight` queries are under way: enough to keep the engine
        busy, few enough for queries to finish all along the run. The first error ends all queries and is raised:
        KeyError naming query and document for a missing text (before any generation), ValueError for a `top` under 1
        or, with its query, a prompt that is too long, EngineError.
        """
        if top is not None and top < 1:
            raise ValueError(f"top is {top}; expected 1 or more")
        heads = {qid: list(docids[:top]) for qid, docids in run.items()}
        for qid, docids in heads.items():
            if qid not in queries:
                raise KeyError(f"query {qid!r} is in the run, but has no text")
            if missing := [docid for docid in docids if docid not in texts]:
                raise KeyError(f"query {qid!r}: no text for document {missing[0]!r}")
        slots, under_way = bounds or self.bounds()

        async def one(qid: str, docids: list[str]) -> Reranked:
            async with under_way:
                try:
                    result = await self._rerank(Job(queries[qid], texts, slots, answered), docids)
                except ValueError as error:
                    raise ValueError(f"query {qid!r}: {error}") from error
                finished(qid, result)
                return result

        before, begin = self.engine.stats, time.perf_counter()
        results = await gather(one(qid, docids) for qid, docids in heads.items())
        traces = {qid: result.windows for qid, result in zip(heads, results, strict=True)}
        lists = [[*new.docids, *run[qid][len(new.docids) :]] for qid, new in zip(heads, results, strict=True)]
        return RerankedRun(
            run=dict(zip(heads, lists, strict=True)),
            traces=traces,
            counts=dict(Counter(trace.status for query in traces.values() for trace in query)),
            seconds=time.perf_counter() - begin,
            engine_seconds=(self.engine.stats - before)["seconds"],
            **work(traces.values()),
        )

    def rerank_run_sync(self, *args: Any, **kwargs: Any) -> RerankedRun:
        """`rerank_run` for notebooks and scripts; the same arguments."""
        return run_sync(self.rerank_run(*args, **kwargs))


def as_one(done: Sequence[Completion], prompt: Sequence[int], text: str) -> Completion:
    """Several requests that make one answer of `text`; the prompt, which all of them begin with, is counted once."""
    tokens = sum(each.output_tokens for each in done)
    return replace(done[0], text=text, prompt_tokens=len(prompt), output_tokens=tokens, calls=len(done))


async def gather(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all, in order. One error cancels the others, waits for their end and is raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, also where a loop is running already, as in Jupyter.

    There it runs in a thread with a loop of its own. An interrupt cancels it before it is raised.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with own_loop() as loop:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()
