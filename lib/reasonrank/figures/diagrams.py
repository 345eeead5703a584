"""The method and the window schedule in pictures."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from .style import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, WIDTH, styled

# Boxes of the method: left, bottom, width, height (in units of a 100 x 62 page), colour, heading, text.
BOXES = {
    "queries": (1, 44, 18, 13, GREY, "Queries", "with gold answers\nor solutions, and\ntheir passages"),
    "pointwise": (
        25,
        50.5,
        26,
        10,
        ORANGE,
        "Pointwise label",
        "teacher sees the gold answer:\npositives, hard negatives",
    ),
    "listwise": (
        25,
        36.5,
        26,
        10,
        ORANGE,
        "Listwise label",
        "teacher does not see it: ranks\nthe passages, with reasoning",
    ),
    "filter": (
        57,
        43,
        19,
        13,
        GREEN,
        "Self-consistency",
        "NDCG@10 of the one\nlabel by the other;\nkept from alpha up",
    ),
    "data": (82, 43, 17, 13, GREY, "Training set", "query, 20 passages,\nboth labels"),
    "sft": (
        71,
        21,
        28,
        12,
        BLUE,
        "1  Supervised fine-tuning",
        "learn to write <think> ... </think>\nand <answer> [3] > [1] > ...",
    ),
    "rl": (
        36,
        21,
        29,
        12,
        BLUE,
        "2  GRPO, multi-view reward",
        "NDCG@10 + 0.2 Recall@10\n+ 0.1 RBO, if the format holds",
    ),
    "rerank": (
        1,
        21,
        29,
        12,
        PURPLE,
        "3  Reranking",
        "windows of 20, step 10, from\nthe back of the list to its front",
    ),
}
ARROWS = (
    ("queries", "pointwise"),
    ("queries", "listwise"),
    ("pointwise", "filter"),
    ("listwise", "filter"),
    ("filter", "data"),
    ("data", "sft"),
    ("sft", "rl"),
    ("rl", "rerank"),
)


@styled
def method_diagram() -> Figure:
    """ReasonRank from query to reranked list: synthesis, filter, two training stages, sliding windows."""
    fig, ax = plt.subplots(figsize=(WIDTH, 5.6))
    ax.set(xlim=(0, 100), ylim=(0, 66))
    ax.axis("off")
    ax.text(1, 63.2, "Data synthesis (section 4.1)", weight="bold", fontsize=11.5)
    ax.text(1, 34.6, "Training (4.2) and use", weight="bold", fontsize=11.5)
    for box in BOXES.values():
        _box(ax, *box)
    for start, end in ARROWS:
        _arrow(ax, start, end)
    _list(ax)
    return fig


def _box(
    ax: Axes, x: float, y: float, width: float, height: float, colour: str, head: str, text: str
) -> None:
    shape = FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=1.2", linewidth=1.6)
    shape.set(facecolor=(*plt.matplotlib.colors.to_rgb(colour), 0.13), edgecolor=colour)
    ax.add_patch(shape)
    ax.text(x + width / 2, y + height - 1.4, head, ha="center", va="top", weight="bold", fontsize=10.5)
    ax.text(x + width / 2, y + height - 4.6, text, ha="center", va="top", fontsize=9.5, linespacing=1.3)


def _arrow(ax: Axes, start: str, end: str) -> None:
    """An arrow between the sides of two boxes that face each other."""
    (ax0, ay0, w0, h0), (ax1, ay1, w1, h1) = BOXES[start][:4], BOXES[end][:4]
    if ax1 >= ax0 + w0:
        tail, head = (ax0 + w0, ay0 + h0 / 2), (ax1, ay1 + h1 / 2)
    elif ax1 + w1 <= ax0:
        tail, head = (ax0, ay0 + h0 / 2), (ax1 + w1, ay1 + h1 / 2)
    else:
        tail, head = (ax0 + w0 / 2, ay0), (ax0 + w0 / 2, ay1 + h1)
    ax.annotate("", head, tail, arrowprops={"arrowstyle": "-|>", "linewidth": 1.6, "color": "#333333"})


def _list(ax: Axes) -> None:
    """A candidate list with three windows over it, under the boxes."""
    ax.text(1, 15.2, "100 candidates of the first stage, best first", fontsize=9.5)
    for rank in range(100):
        ax.add_patch(plt.Rectangle((1 + rank * 0.98, 11.5), 0.8, 2.6, color="#c8c8c8", linewidth=0))
    for number, (start, end) in enumerate(((80, 100), (70, 90), (0, 20))):
        y, colour = 8.6 - 3.0 * number, PURPLE
        ax.add_patch(
            plt.Rectangle((1 + start * 0.98, y), (end - start) * 0.98, 2.1, color=colour, alpha=0.45)
        )
        name = ("window 1", "window 2", "window 9")[number]
        ax.text(1 + (start + end) * 0.49, y + 1.0, name, ha="center", va="center", fontsize=9.5)
    ax.text(46, 5.0, "...", fontsize=16, ha="center", color=PURPLE)
    ax.text(25, 1.0, "the best passages of each window move on into the next", fontsize=9.5)


@styled
def sliding_window_diagram(windows: Sequence[tuple[int, int]], num_candidates: int) -> Figure:
    """Which ranks each call sees, in order of the calls; the part that the next window sees again is darker.

    `windows`: half-open, 0-based (start, end), as `rerank.windows` gives them. ValueError where there is
    none, or one is empty or reaches past `num_candidates`.
    """
    if not windows:
        raise ValueError("no windows to draw")
    for start, end in windows:
        if not 0 <= start < end <= num_candidates:
            raise ValueError(f"window ({start}, {end}): expected 0 <= start < end <= {num_candidates}")
    fig, ax = plt.subplots(figsize=(WIDTH, 1.3 + 0.32 * len(windows)))
    for call, (start, end) in enumerate(windows, start=1):
        ax.barh(call, end - start, left=start, height=0.72, color=SKY)
        carried = windows[call][1] - start if call < len(windows) else 0
        if carried > 0:
            ax.barh(call, carried, left=start, height=0.72, color=BLUE)
    ax.barh(0, 0, color=SKY, label="seen by this call")
    ax.barh(0, 0, color=BLUE, label="seen again by the next call, with the best of this one")
    names = [f"call {call}: {start + 1} to {end}" for call, (start, end) in enumerate(windows, start=1)]
    ax.set_yticks(range(1, len(windows) + 1), names)
    ranks = _ranks(num_candidates)
    ax.set_xticks([rank - 0.5 for rank in ranks], ranks)
    ax.set(xlim=(0, num_candidates), ylim=(len(windows) + 0.6, 0.4))
    ax.set(xlabel="rank in the candidate list (1 = best)")
    ax.grid(visible=False)
    fig.legend(loc="outside upper right", ncols=2)
    return fig


def _ranks(total: int) -> list[int]:
    """Ranks to name on the axis: 1 and round numbers, about ten of them."""
    step = next((s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500) if total / s <= 12), total)
    return sorted({1, *range(step, total + 1, step)})
