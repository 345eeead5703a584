"""The listwise reranker: a permutation per window, windows in a fixed order, by default slid from the back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile, zip_longest
from typing import Any

from reasonrank.answers import ANSWER, ANSWER_END, THINK_END, Answer, parse, render
from reasonrank.engines import GREEDY, QWEN3, Completion, Engine, Sampling
from reasonrank.prompts import Prompt

from .run import Gate, Reranked, Reranker, Trace, took
from .schedule import Variant, schedule


@dataclass(frozen=True, kw_only=True)
class WindowTrace(Trace):
    """One window: [start, end) of the list, its documents before, and the answer that reordered them.

    `answer.ranking` holds 1-based positions in `docids`; `answer` and `text` are those of the last attempt;
    `status` is the answer's, see `answers.parse`.
    """

    start: int
    end: int
    docids: tuple[str, ...]
    answer: Answer

    @property
    def reordered(self) -> list[str]:
        """The documents after the answer, best first."""
        return [self.docids[number - 1] for number in self.answer.ranking]


class WindowReranker(Reranker):
    """Base of the rerankers that ask for permutations of windows.

    An answer that is truncated or malformed keeps the order of its window (`answers.parse`); with `retry` it
    is first asked for once more (`second_try`). `constrained`: answers are held to their form as they are
    decoded. Outputs end at the `</answer>` behind the reasoning unless `sampling` has stop strings of its own;
    whether there is reasoning to close is the prompt's affair (`Prompt.chain`).
    """

    def __init__(
        self,
        engine: Engine,
        prompt: Prompt,
        *,
        sampling: Sampling = GREEDY,
        max_in_flight: int = 64,
        retry: bool = False,
        constrained: bool = False,
    ) -> None:
        if not sampling.stop:
            sampling = replace(sampling, stop=(ANSWER_END,), chain=prompt.chain)
        super().__init__(engine, prompt, sampling=sampling, max_in_flight=max_in_flight)
        self.retry, self.constrained = retry, constrained

    async def _rank_window(
        self, query: str, docids: Sequence[str], start: int, end: int, texts: Mapping[str, str], gate: Gate
    ) -> WindowTrace:
        """Ask for the order of `docids`, which stand in [start, end) of the list."""
        done: list[Completion] = []
        async with gate.slots:
            began = time.perf_counter()
            prompt = self.prompt.render(query, [texts[docid] for docid in docids])
            for sampling in (self.sampling, second_try(self.sampling)):
                done.append(await self._ask(prompt.ids, len(docids), sampling))
                text = done[-1].text
                answer = parse(text, len(docids), self.prompt.chain)
                if not self.retry or answer.status in ("ok", "repaired"):
                    break
        gate.count(answered=1)
        place = {"start": start, "end": end, "docids": tuple(docids), "attempts": len(done)}
        cost = took(done, prompt, docids, began)
        return WindowTrace(answer=answer, status=answer.status, text=text, **place, **cost)

    async def _ask(self, prompt: list[int], num_passages: int, sampling: Sampling) -> Completion:
        """The answer to one window, whatever requests it takes."""
        if not self.constrained:
            return await self.engine.generate(prompt, sampling)
        return await constrained(self.engine, prompt, num_passages, sampling, self.prompt.chain)


def second_try(sampling: Sampling) -> Sampling:
    """How an unfinished answer is asked for again: with the next seed.

    Greedy decoding would repeat itself, so there the second try samples as the paper's Qwen3-8B model does
    (temperature 0.6, top-p 0.95, top-k 20).
    """
    if sampling.temperature == 0:
        drawn = {"temperature": QWEN3.temperature, "top_p": QWEN3.top_p, "top_k": QWEN3.top_k}
        sampling = replace(sampling, **drawn)
    return replace(sampling, seed=(sampling.seed or 0) + 1)


class ListwiseReranker(WindowReranker):
    """Windows of `window` documents, ranked one after another.

    `strategy`, `step` and `variant`: which windows, see `schedule.schedule` (paper: sliding by 10 in windows of 20 over
    100 candidates). The windows of a query follow one another, since each starts from the order that the one before
    left; those of different queries do not wait for one another. `prefetch`: see `_read_ahead`, for engines that keep
    prefixes. `options`: see `WindowReranker`. Raises ValueError for what makes no schedule, and for `prefetch` on
    another engine.
    """

    def __init__(
        self,
        engine: Engine,
        prompt: Prompt,
        *,
        window: int = 20,
        step: int = 10,
        strategy: str = "sliding",
        variant: Variant = "ours",
        prefetch: bool = False,
        **options: Any,
    ) -> None:
        if prefetch and not engine.prefixes:
            raise ValueError(f"prefetch: the {engine.kind} engine keeps no prefixes; expected vllm or openai")
        super().__init__(engine, prompt, **options)
        self.window, self.step, self.strategy, self.variant = window, step, strategy, variant
        self.prefetch = prefetch
        self.schedule(0)  # refuses what makes no schedule

    def schedule(self, num_candidates: int) -> list[tuple[int, int]]:
        """The windows in their order, see `schedule.schedule`."""
        return schedule(self.strategy, num_candidates, self.window, self.step, self.variant)

    def answers_needed(self, num_candidates: int) -> int:
        return len(self.schedule(num_candidates))

    async def _rerank(self, query: str, docids: list[str], texts: Mapping[str, str], gate: Gate) -> Reranked:
        order, traces, places = list(docids), [], self.schedule(len(docids))
        for (start, end), following in zip_longest(places, places[1:]):
            ahead = []
            if self.prefetch and following:
                new, kept = order[following[0] : start], following[1] - start
                reading = self._read_ahead(query, new, order[start:end], kept, texts, gate)
                ahead.append(asyncio.ensure_future(reading))
            try:
                trace = await self._rank_window(query, order[start:end], start, end, texts, gate)
            finally:  # whatever became of it
                for task in ahead:
                    task.cancel()
                await asyncio.gather(*ahead, return_exceptions=True)
            order[start:end] = trace.reordered
            traces.append(trace)
        return Reranked(order, traces)

    async def _read_ahead(
        self, query: str, new: list[str], window: list[str], kept: int, texts: Mapping[str, str], gate: Gate
    ) -> None:
        """Have the engine compute the beginning of the next prompt while the answer to `window` is decoded.

        Passages that are `new` to the next window stand first in it; behind them come `kept` passages of `window`,
        which ones its answer says. So what two of the possible prompts share is known.
        """
        possible = [[*new, *window[:kept]], [*new, *window[::-1][:kept]]]
        prompts = [self.prompt.render(query, [texts[docid] for docid in docids]).ids for docids in possible]
        shared = [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(*prompts, strict=False))]
        async with gate.slots:
            await self.engine.generate(shared, Sampling(max_tokens=1))


def answer_pattern(num_passages: int) -> str:
    """The regular expression of what follows `<answer>`; `num_passages` is at least 1.

    One that forbids an identifier to come twice would have to list all n! permutations, so duplicates can still
    occur: they are repaired by `answers.parse`, and counted as such.
    """
    number = "|".join(str(number) for number in range(1, num_passages + 1))
    identifier = rf"\[({number})\]"
    return rf" {identifier}( > {identifier}){{{num_passages - 1}}} {ANSWER_END}"


async def constrained(
    engine: Engine, prompt: Sequence[int], num_passages: int, sampling: Sampling, chain: bool
) -> Completion:
    """A completion whose answer is held to its form.

    Reasoning is free; once `</think>` is there, a second request goes on from the text, held to
    `answer_pattern`. `sampling.max_tokens` bounds the whole, with what an answer needs set aside. Reasoning that
    meets its limit is not closed by force: such a completion is returned as it is, truncated. The prompt is
    counted once.
    """
    encode, begun, free = engine.tokenizer.encode, ANSWER, None
    longest = f" {ANSWER} {render([num_passages] * num_passages)} {ANSWER_END}"
    room = len(encode(longest, add_special_tokens=False)) + num_passages  # it may split into more tokens
    if chain:
        limit = max(1, sampling.max_tokens - room)
        free = await engine.generate(
            prompt, replace(sampling, max_tokens=limit, stop=(THINK_END,), chain=None)
        )
        if THINK_END not in free.text:
            return free
        begun = f"{free.text} {ANSWER}"
    limit, pattern = min(room, sampling.max_tokens), answer_pattern(num_passages)
    held = replace(sampling, max_tokens=limit, stop=(ANSWER_END,), chain=None, constraint=pattern)
    ending = await engine.generate([*prompt, *encode(begun, add_special_tokens=False)], held)
    whole = replace(ending, text=begun + ending.text, prompt_tokens=len(prompt))
    if free is None:
        return whole
    tokens = free.output_tokens + ending.output_tokens
    return replace(whole, output_tokens=tokens, cached_tokens=free.cached_tokens, calls=2)
