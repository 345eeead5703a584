"""One window: its prompt, its answer, a second try where that fails, and the trace that tells of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reasonrank.answers import ANSWER_END, Answer, parse
from reasonrank.engines import GREEDY, QWEN3, Completion, Engine, Sampling

from .base import Gate, ListPrompt, Reranker
from .constrained import complete

UNFINISHED = ("truncated", "malformed")


@dataclass(frozen=True)
class WindowTrace:
    """One window: [start, end) of the list, its documents before, and the answer that reordered them.

    `answer.ranking` holds 1-based positions in `docids`. `attempts`: 2 where an unfinished answer was asked
    for again; `answer` and `text` are those of the last. `calls`: requests to the engine. Tokens and `seconds`
    in the engine are sums over them. `shortened`: the passages were capped lower than usual; `cut`: those of
    `docids` that were longer than their cap; `query_cut`: so was the query.
    """

    start: int
    end: int
    docids: tuple[str, ...]
    answer: Answer
    text: str
    prompt_tokens: int
    output_tokens: int
    seconds: float
    calls: int = 1
    attempts: int = 1
    shortened: bool = False
    cut: tuple[str, ...] = ()
    query_cut: bool = False

    @property
    def status(self) -> str:
        """How the answer was come by, see `answers.parse`."""
        return self.answer.status

    @property
    def reordered(self) -> list[str]:
        """The documents after the answer, best first."""
        return [self.docids[number - 1] for number in self.answer.ranking]


class WindowReranker(Reranker):
    """Base of the rerankers that ask for permutations of windows.

    An answer that is truncated or malformed keeps the order of its window (`answers.parse`); with `retry` it
    is first asked for once more (`second_try`). `reasoning`: the prompt asks for it. `constrained`: answers
    are held to their form as they are decoded (`constrained.complete`). Outputs end at `</answer>` unless
    `sampling` has stop strings of its own.
    """

    def __init__(
        self,
        engine: Engine,
        prompt: ListPrompt,
        *,
        sampling: Sampling = GREEDY,
        max_in_flight: int = 64,
        reasoning: bool = True,
        retry: bool = False,
        constrained: bool = False,
    ) -> None:
        if not sampling.stop:
            sampling = replace(sampling, stop=(ANSWER_END,))
        super().__init__(engine, prompt, sampling=sampling, max_in_flight=max_in_flight)
        self.reasoning, self.retry, self.constrained = reasoning, retry, constrained

    async def _rank_window(
        self, query: str, docids: Sequence[str], start: int, end: int, texts: Mapping[str, str], gate: Gate
    ) -> WindowTrace:
        """Ask for the order of `docids`, which stand in [start, end) of the list."""
        async with gate.slots:
            prompt = self._render(query, [texts[docid] for docid in docids])
            attempts = [await self._ask(gate, prompt.ids, len(docids), self.sampling)]
            if self.retry and attempts[0].answer.status in UNFINISHED:
                attempts.append(await self._ask(gate, prompt.ids, len(docids), second_try(self.sampling)))
        gate.answered()
        return WindowTrace(
            start=start,
            end=end,
            docids=tuple(docids),
            **_work(attempts),
            shortened=prompt.shortened,
            cut=tuple(docids[place] for place in prompt.cut),
            query_cut=prompt.query_cut,
        )

    async def _ask(
        self, gate: Gate, prompt: Sequence[int], num_passages: int, sampling: Sampling
    ) -> _Attempt:
        calls = 1
        if self.constrained:
            completion, seconds, calls = await complete(gate, prompt, num_passages, sampling, self.reasoning)
        else:
            completion, seconds = await gate.generate(prompt, sampling)
        return _Attempt(completion, parse(completion.text, num_passages, self.reasoning), seconds, calls)


@dataclass(frozen=True)
class _Attempt:
    completion: Completion
    answer: Answer
    seconds: float
    calls: int


def _work(attempts: Sequence[_Attempt]) -> dict[str, Any]:
    """The fields of a trace that tell what was answered last and what all attempts took."""
    return {
        "answer": attempts[-1].answer,
        "text": attempts[-1].completion.text,
        "prompt_tokens": sum(attempt.completion.prompt_tokens for attempt in attempts),
        "output_tokens": sum(attempt.completion.output_tokens for attempt in attempts),
        "seconds": sum(attempt.seconds for attempt in attempts),
        "calls": sum(attempt.calls for attempt in attempts),
        "attempts": len(attempts),
    }


def second_try(sampling: Sampling) -> Sampling:
    """How an unfinished answer is asked for again: with the next seed.

    Greedy decoding would repeat itself, so there the second try samples as the paper's Qwen3-8B model does
    (temperature 0.6, top-p 0.95, top-k 20).
    """
    if sampling.temperature == 0:
        drawn = {"temperature": QWEN3.temperature, "top_p": QWEN3.top_p, "top_k": QWEN3.top_k}
        sampling = replace(sampling, **drawn)
    return replace(sampling, seed=(sampling.seed or 0) + 1)
