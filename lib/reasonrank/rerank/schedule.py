"""Which windows of a candidate list are ranked, and in which order."""

from __future__ import annotations

from typing import Literal

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
    places = []
    start, end = num_candidates - size, num_candidates
    while start > 0:
        places.append((start, end))
        start, end = start - step, end - step
    return [*places, (0, end)]


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
