"""The listwise reranker: which windows of a list are ranked, and in which order; a permutation for each."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from itertools import takewhile, zip_longest
from typing import Any, Literal

from reasonrank.answers import ANSWER, ANSWER_END, THINK_END, parse, render
from reasonrank.engines import QWEN3, Completion, Sampling

from .run import Job, Reranked, Reranker, as_one

Variant = Literal["ours", "released"]


def windows(num_candidates: int, size: int, step: int, variant: Variant = "ours") -> list[tuple[int, int]]:
    """Sliding windows over a candidate list, from its back to its front.

    The first window is the last `size` candidates; both ends then move `step` places forward. A start before
    the list is clipped to 0, so that the last window can be short, and the first window that starts at 0 is
    the last one. 100 candidates in windows of 20 by steps of 10 make nine windows, [80, 100) to [0, 20).

    `num_candidates`, `size` and `step` count candidates. `variant="released"` is the loop of the authors'
    released code, which makes no window where `num_candidates == size - step` (10 candidates with 20/10);
    `"ours"` makes [0, num_candidates) there. Returns half-open, 0-based `(start, end)` pairs in the order
    in which they are ranked. Raises ValueError for a size or step under 1, a step over the size (candidates
    would be skipped), a negative number of candidates or an unknown variant.
    """
    if num_candidates < 0:
        raise ValueError(f"num_candidates is {num_candidates}; expected 0 or more")
    if size < 1:
        raise ValueError(f"size is {size}; expected 1 or more")
    if not 1 <= step <= size:
        raise ValueError(f"step is {step}; expected 1 to {size}, the window size")
    if variant not in ("ours", "released"):
        raise ValueError(f"variant is {variant!r}; expected 'ours' or 'released'")
    if num_candidates == 0 or (variant == "released" and num_candidates == size - step):
        return []
    places = [(start, start + size) for start in range(num_candidates - size, 0, -step)]
    return [*places, (0, num_candidates - step * len(places))]


def schedule(
    strategy: str, num_candidates: int, size: int, step: int, variant: Variant = "ours"
) -> list[tuple[int, int]]:
    """The windows that one query asks the model about, in their order.

    `strategy`: "sliding" (`windows`), "single" (the first `size` candidates, Table 9 of the paper) or "full"
    (all candidates at once); `step` and `variant` are for "sliding" alone. A window of one document has nothing
    to rank and is left out. Raises ValueError for another strategy, and what `windows` raises.
    """
    if strategy == "sliding":
        chosen = windows(num_candidates, size, step, variant)
    elif strategy in ("single", "full"):
        chosen = [(0, num_candidates if strategy == "full" else min(num_candidates, size))]
    else:
        raise ValueError(f"unknown strategy {strategy!r}: expected one of sliding, single, full")
    return [(start, end) for start, end in chosen if end - start > 1]


@dataclass
class WindowReranker(Reranker):
    """Base of the rerankers that ask for permutations of windows.

    An answer that is truncated or malformed keeps the order of its window (`answers.parse`); with `retry` it
    is first asked for once more (`second_try`). `constrained`: answers are held to their form as they are
    decoded. Outputs end at the `</answer>` behind the reasoning unless `sampling` has stop strings of its own;
    whether there is reasoning to close is the prompt's affair (`Prompt.chain`).
    """

    retry: bool = False
    constrained: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sampling.stop:
            self.sampling = replace(self.sampling, stop=(ANSWER_END,), chain=self.prompt.chain)

    async def _answer(self, prompt: list[int], num_passages: int) -> tuple[list[Completion], dict[str, Any]]:
        done: list[Completion] = []
        for sampling in (self.sampling, second_try(self.sampling)):
            done.append(await self._ask(prompt, num_passages, sampling))
            answer = parse(done[-1].text, num_passages, self.prompt.chain)
            if not self.retry or answer.status in ("ok", "repaired"):
                break
        return done, {"ranking": answer.ranking, "status": answer.status}

    async def _ask(self, prompt: list[int], num_passages: int, sampling: Sampling) -> Completion:
        """The answer to one window, whatever requests it takes.

        With `constrained`, reasoning is free; once `</think>` is there, a second request goes on from the text, held
        to `answer_pattern`. `sampling.max_tokens` bounds the whole, with what an answer needs set aside. Reasoning
        that meets its limit is not closed by force: it is returned as it is, truncated.
        """
        if not self.constrained:
            return await self.engine.generate(prompt, sampling)
        encode, begun, done = self.engine.tokenizer.encode, ANSWER, []
        longest = f" {ANSWER} {render([num_passages] * num_passages)} {ANSWER_END}"
        room = len(encode(longest, add_special_tokens=False)) + num_passages  # it may split into more tokens
        if self.prompt.chain:
            limit = max(1, sampling.max_tokens - room)
            free = replace(sampling, max_tokens=limit, stop=(THINK_END,), chain=None)
            done.append(await self.engine.generate(prompt, free))
            if THINK_END not in done[0].text:
                return done[0]
            begun = f"{done[0].text} {ANSWER}"
        limit, pattern = min(room, sampling.max_tokens), answer_pattern(num_passages)
        held = replace(sampling, max_tokens=limit, stop=(ANSWER_END,), chain=None, constraint=pattern)
        done.append(await self.engine.generate([*prompt, *encode(begun, add_special_tokens=False)], held))
        return as_one(done, prompt, begun + done[-1].text)


def second_try(sampling: Sampling) -> Sampling:
    """How an unfinished answer is asked for again: with the next seed.

    Greedy decoding would repeat itself, so there the second try samples as the paper's Qwen3-8B model does.
    """
    drawn = QWEN3 if sampling.temperature == 0 else sampling
    how = {name: getattr(drawn, name) for name in ("temperature", "top_p", "top_k")}
    return replace(sampling, **how, seed=(sampling.seed or 0) + 1)


@dataclass
class ListwiseReranker(WindowReranker):
    """Windows of `window` documents, ranked one after another.

    `strategy`, `step` and `variant`: which windows, see `schedule` (paper: sliding by 10 in windows of 20 over
    100 candidates). The windows of a query follow one another, since each starts from the order that the one before
    left; those of different queries do not wait for one another. `prefetch`: see `_read_ahead`, for engines that keep
    prefixes. Raises ValueError for what makes no schedule, and for `prefetch` on another engine.
    """

    window: int = 20
    step: int = 10
    strategy: str = "sliding"
    variant: Variant = "ours"
    prefetch: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prefetch and not self.engine.prefixes:
            kind = self.engine.kind
            raise ValueError(f"prefetch: the {kind} engine keeps no prefixes; expected vllm or openai")
        self.schedule(0)  # refuses what makes no schedule

    def schedule(self, num_candidates: int) -> list[tuple[int, int]]:
        """The windows in their order."""
        return schedule(self.strategy, num_candidates, self.window, self.step, self.variant)

    async def _rerank(self, job: Job, docids: list[str]) -> Reranked:
        order, traces, places = list(docids), [], self.schedule(len(docids))
        for (start, end), following in zip_longest(places, places[1:]):
            ahead = []
            if self.prefetch and following:
                new, kept = order[following[0] : start], following[1] - start
                ahead.append(asyncio.ensure_future(self._read_ahead(job, new, order[start:end], kept)))
            try:
                trace = await self._rank_window(job, order[start:end], start, end)
            finally:  # whatever became of it
                for task in ahead:
                    task.cancel()
                await asyncio.gather(*ahead, return_exceptions=True)
            order[start:end] = trace.reordered
            traces.append(trace)
        return Reranked(order, traces)

    async def _read_ahead(self, job: Job, new: list[str], window: list[str], kept: int) -> None:
        """Have the engine compute the beginning of the next prompt while the answer to `window` is decoded.

        Passages that are `new` to the next window stand first in it; behind them come `kept` passages of `window`,
        which ones its answer says. So what two of the possible prompts share is known.
        """
        possible = [[*new, *window[:kept]], [*new, *window[::-1][:kept]]]
        prompts = [
            self.prompt.render(job.query, [job.texts[docid] for docid in docids]).ids for docids in possible
        ]
        shared = [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(*prompts, strict=False))]
        async with job.slots:
            await self.engine.generate(shared, Sampling(max_tokens=1))


def answer_pattern(num_passages: int) -> str:
    """The regular expression of what follows `<answer>`; `num_passages` is at least 1.

    One that forbids an identifier to come twice would have to list all n! permutations, so duplicates can still
    occur: they are repaired by `answers.parse`, and counted as such.
    """
    number = "|".join(str(number) for number in range(1, num_passages + 1))
    identifier = rf"\[({number})\]"
    return rf" {identifier}( > {identifier}){{{num_passages - 1}}} {ANSWER_END}"
