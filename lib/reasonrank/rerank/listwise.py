"""The listwise reasoning reranker: a permutation per window, windows slid from the back to the front."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from reasonrank.answers import ANSWER_END, Answer, parse
from reasonrank.engines import GREEDY, Engine, Sampling

from .base import Gate, ListPrompt, Progress, Reranked, RerankedRun, Reranker, run_sync
from .schedule import windows

__all__ = ["ListwiseReranker", "Progress", "Reranked", "RerankedRun", "WindowTrace", "run_sync"]

STRATEGIES = ("sliding",)


@dataclass(frozen=True)
class WindowTrace:
    """One window: [start, end) of the list, its documents before, and the answer that reordered them.

    `answer.ranking` holds 1-based positions in `docids`. Tokens are those of the one request; `seconds` its
    time in the engine.
    """

    start: int
    end: int
    docids: tuple[str, ...]
    answer: Answer
    text: str
    prompt_tokens: int
    output_tokens: int
    seconds: float

    @property
    def status(self) -> str:
        """How the answer was come by, see `answers.parse`."""
        return self.answer.status

    @property
    def calls(self) -> int:
        """Requests to the engine."""
        return 1

    @property
    def reordered(self) -> list[str]:
        """The documents after the answer, best first."""
        return [self.docids[number - 1] for number in self.answer.ranking]


class ListwiseReranker(Reranker):
    """Sliding windows of `window` documents by `step` (paper: 20 and 10 over 100 candidates), back to front.

    The windows of a query follow one another, since each starts from the order that the one before left;
    those of different queries do not wait for one another. An answer that is truncated or malformed keeps the
    order of its window (`answers.parse`). Outputs end at `</answer>` unless `sampling` has stop strings of
    its own. Raises ValueError for an unknown strategy or sizes that `schedule.windows` refuses.
    """

    def __init__(
        self,
        engine: Engine,
        prompt: ListPrompt,
        *,
        window: int = 20,
        step: int = 10,
        sampling: Sampling = GREEDY,
        max_in_flight: int = 64,
        strategy: str = "sliding",
    ) -> None:
        if strategy not in STRATEGIES:
            raise ValueError(f"unknown strategy {strategy!r}: expected one of {', '.join(STRATEGIES)}")
        windows(0, window, step)  # refuses sizes that make no schedule
        if not sampling.stop:
            sampling = replace(sampling, stop=(ANSWER_END,))
        super().__init__(engine, prompt, sampling=sampling, max_in_flight=max_in_flight)
        self.window, self.step, self.strategy = window, step, strategy

    def schedule(self, num_candidates: int) -> list[tuple[int, int]]:
        """The windows in their order; one of a single document has nothing to rank and is left out."""
        return [(a, b) for a, b in windows(num_candidates, self.window, self.step) if b - a > 1]

    def answers_needed(self, num_candidates: int) -> int:
        return len(self.schedule(num_candidates))

    async def _rerank(self, query: str, docids: list[str], texts: Mapping[str, str], gate: Gate) -> Reranked:
        order, traces = list(docids), []
        for start, end in self.schedule(len(order)):
            trace = await self._rank_window(query, order, (start, end), texts, gate)
            order[start:end] = trace.reordered
            traces.append(trace)
        return Reranked(order, traces)

    async def _rank_window(
        self, query: str, order: list[str], place: tuple[int, int], texts: Mapping[str, str], gate: Gate
    ) -> WindowTrace:
        start, end = place
        docids = tuple(order[start:end])
        async with gate.slots:
            prompt = self.prompt.encode(query, [texts[docid] for docid in docids])
            completion, seconds = await gate.generate(prompt, self.sampling)
        answer = parse(completion.text, len(docids))
        gate.answered()
        tokens = completion.prompt_tokens, completion.output_tokens
        return WindowTrace(start, end, docids, answer, completion.text, *tokens, seconds)
