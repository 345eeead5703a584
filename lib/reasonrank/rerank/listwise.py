"""The listwise reranker: a permutation per window, windows in a fixed order, by default slid from the back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reasonrank.engines import Engine

from .base import Gate, ListPrompt, Progress, Reranked, RerankedRun, run_sync
from .schedule import Variant, Windows, schedule
from .window import WindowReranker, WindowTrace

__all__ = ["ListwiseReranker", "Progress", "Reranked", "RerankedRun", "WindowTrace", "run_sync"]


class ListwiseReranker(WindowReranker):
    """Windows of `window` documents, ranked one after another.

    `strategy`: "sliding" by `step` (paper: 20 and 10 over 100 candidates), back to front; "single", the first
    `window` documents; "full", all documents in one window. The windows of a query follow one another, since
    each starts from the order that the one before left; those of different queries do not wait for one
    another. `variant`: the window rule, "ours" or "released" (see `schedule.windows`). `options`: see
    `WindowReranker`. Raises ValueError for an unknown strategy or sizes that `schedule.windows` refuses.
    """

    def __init__(
        self,
        engine: Engine,
        prompt: ListPrompt,
        *,
        window: int = 20,
        step: int = 10,
        strategy: str = "sliding",
        variant: Variant = "ours",
        **options: Any,
    ) -> None:
        schedule(strategy, 0, window, step, variant)  # refuses what makes no schedule
        super().__init__(engine, prompt, **options)
        self.window, self.step, self.strategy, self.variant = window, step, strategy, variant

    def schedule(self, num_candidates: int) -> Windows:
        """The windows in their order; one of a single document has nothing to rank and is left out."""
        return schedule(self.strategy, num_candidates, self.window, self.step, self.variant)

    def answers_needed(self, num_candidates: int) -> int:
        return len(self.schedule(num_candidates))

    async def _rerank(self, query: str, docids: list[str], texts: Mapping[str, str], gate: Gate) -> Reranked:
        order, traces = list(docids), []
        for start, end in self.schedule(len(order)):
            trace = await self._rank_window(query, order[start:end], start, end, texts, gate)
            order[start:end] = trace.reordered
            traces.append(trace)
        return Reranked(order, traces)
