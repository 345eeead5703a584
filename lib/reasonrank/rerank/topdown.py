"""Top-down partitioning (Parry, MacAvaney and Ganguly 2024, arXiv 2405.14589): a pivot in place of a slide.

For a list that is longer than the window w:

1. The first w documents are ranked. The one at rank k = w // 2 (at least 1) is the pivot; those above it are
   candidates, those below it go to the backfill.
2. The rest of the list is split, in its order, into batches of w - 1. Each is ranked together with the pivot,
   which stands first in that window, so that an unfinished answer promotes nothing. The batches do not depend
   on each other and are asked for at once. What an answer puts above the pivot becomes a candidate, the rest
   goes to the backfill.
3. Candidates are kept in the order in which they came: the first window's, then batch by batch, each in the
   order of its answer. The first w of them (the paper's budget) are ranked anew, by the same procedure. Where
   no batch added a candidate they are in order already, and no call is made.
4. The result: those candidates, the candidates past the budget, the pivot, the backfill in the order in which
   it came (as for candidates). So documents of different batches keep the order of the first stage.

Two choices are ours: all batches are asked for even if the budget is met early, since they run side by side;
and candidates past the budget stand between those ranked anew and the pivot that they beat.
A list of at most w documents takes one call, one of a single document none.
"""

from __future__ import annotations

from dataclasses import dataclass

from .listwise import WindowReranker
from .run import Job, Reranked, gather


def topdown_calls(num_candidates: int, window: int) -> tuple[int, int]:
    """The fewest and the most answers that a list takes.

    The fewest: the first window and its batches, nothing promoted. The most is one more, where a batch promoted a
    document: 100 candidates with w = 20 take 6 or 7. Raises ValueError for a window under 2.
    """
    if window < 2:
        raise ValueError(f"window is {window}; top-down partitioning needs 2 or more")
    if num_candidates <= window:
        return (int(num_candidates > 1),) * 2
    calls = 1 + -(-(num_candidates - window) // (window - 1))
    promoted = num_candidates - 1 - (window - max(1, window // 2))
    return calls, calls + topdown_calls(min(promoted, window), window)[1]


@dataclass
class TopDownReranker(WindowReranker):
    """Top-down partitioning, as the module says; `window` is at least 2.

    In a trace, [start, end) is the place of a batch in the list of its level; where a pivot is compared, it
    stands first in `docids`, before the batch.
    """

    window: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        topdown_calls(0, self.window)  # refuses a window without a batch

    async def _rerank(self, job: Job, docids: list[str]) -> Reranked:
        if len(docids) < 2:
            return Reranked(docids, [])
        head = docids[: self.window]
        first = await self._rank_window(job, head, 0, len(head))
        if len(docids) <= self.window:
            return Reranked(first.reordered, [first])
        place, size = max(1, self.window // 2) - 1, self.window - 1
        pivot, above, below = first.reordered[place], first.reordered[:place], first.reordered[place + 1 :]
        batches = [(start, docids[start : start + size]) for start in range(self.window, len(docids), size)]
        compared = await gather(
            self._rank_window(job, [pivot, *batch], start, start + len(batch)) for start, batch in batches
        )
        candidates = list(above)
        for trace in compared:
            place = trace.reordered.index(pivot)
            candidates += trace.reordered[:place]
            below += trace.reordered[place + 1 :]
        traces = [first, *compared]
        if len(candidates) > len(above):
            again = await self._rerank(job, candidates[: self.window])
            candidates[: self.window] = again.docids
            traces += again.windows
        return Reranked([*candidates, pivot, *below], traces)
