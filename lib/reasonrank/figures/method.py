"""The method and the window schedule in pictures."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator

from .style import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, WIDTH, drawing

POINTWISE = "teacher sees the gold answer:\npositives, hard negatives"
LISTWISE = "teacher does not see it: ranks\nthe passages, with reasoning"
FILTER = "NDCG@10 of the one\nlabel by the other;\nkept from alpha up"
SFT = "learn to write <think> ... </think>\nand <answer> [3] > [1] > ..."
RL = "NDCG@10 + 0.2 Recall@10\n+ 0.1 RBO, if the format holds"
RERANK = "windows of 20, step 10, from\nthe back of the list to its front"
# Left, bottom, width, height (on a page of 100 by 66), colour, head and text of each box.
BOXES = {
    "queries": (1, 44, 18, 13, GREY, "Queries", "with gold answers\nor solutions, and\ntheir passages"),
    "pointwise": (25, 50.5, 26, 10, ORANGE, "Pointwise label", POINTWISE),
    "listwise": (25, 36.5, 26, 10, ORANGE, "Listwise label", LISTWISE),
    "filter": (57, 43, 19, 13, GREEN, "Self-consistency", FILTER),
    "data": (82, 43, 17, 13, GREY, "Training set", "query, 20 passages,\nboth labels"),
    "sft": (71, 21, 28, 12, BLUE, "1  Supervised fine-tuning", SFT),
    "rl": (36, 21, 29, 12, BLUE, "2  GRPO, multi-view reward", RL),
    "rerank": (1, 21, 29, 12, PURPLE, "3  Reranking", RERANK),
}
ARROWS = (
    *(((19, 50), (25, 55.5)), ((19, 50), (25, 41.5)), ((51, 55.5), (57, 49.5)), ((51, 41.5), (57, 49.5))),
    *(((76, 49.5), (82, 49.5)), ((90.5, 43), (90.5, 33)), ((71, 27), (65, 27)), ((36, 27), (30, 27))),
)


@drawing()
def method_diagram() -> Figure:
    """ReasonRank from query to reranked list: synthesis, filter, two training stages, sliding windows."""
    fig, ax = plt.subplots(figsize=(WIDTH, 5.6))
    ax.set(xlim=(0, 100), ylim=(0, 66))
    ax.axis("off")
    ax.text(1, 63.2, "Data synthesis (section 4.1)", weight="bold", fontsize=11.5)
    ax.text(1, 34.6, "Training (4.2) and use", weight="bold", fontsize=11.5)
    for x, y, width, height, colour, head, text in BOXES.values():
        shape = FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=1.2", linewidth=1.6)
        shape.set(facecolor=(*to_rgb(colour), 0.13), edgecolor=colour)
        ax.add_patch(shape)
        middle = {"x": x + width / 2, "ha": "center", "va": "top"}
        ax.text(y=y + height - 1.4, s=head, weight="bold", fontsize=10.5, **middle)
        ax.text(y=y + height - 4.6, s=text, fontsize=9.5, linespacing=1.3, **middle)
    for tail, head in ARROWS:
        ax.annotate("", head, tail, arrowprops={"arrowstyle": "-|>", "linewidth": 1.6, "color": "#333333"})
    # a candidate list with three of its nine windows over it, under the boxes
    ax.text(1, 15.2, "100 candidates of the first stage, best first", fontsize=9.5)
    for rank in range(100):
        ax.add_patch(plt.Rectangle((1 + rank * 0.98, 11.5), 0.8, 2.6, color="#c8c8c8", linewidth=0))
    for y, start, name in ((8.6, 80, "window 1"), (5.6, 70, "window 2"), (2.6, 0, "window 9")):
        ax.add_patch(plt.Rectangle((1 + start * 0.98, y), 19.6, 2.1, color=PURPLE, alpha=0.45))
        ax.text(10.8 + start * 0.98, y + 1.0, name, ha="center", va="center", fontsize=9.5)
    ax.text(46, 5.0, "...", fontsize=16, ha="center", color=PURPLE)
    ax.text(25, 1.0, "the best passages of each window move on into the next", fontsize=9.5)
    return fig


@drawing()
def sliding_window_diagram(windows: Sequence[tuple[int, int]], num_candidates: int) -> Figure:
    """Which ranks each call sees, in order of the calls; the part that the next window sees again is darker.

    `windows`: half-open, 0-based (start, end), as `rerank.windows` gives them.
    """
    fig, ax = plt.subplots(figsize=(WIDTH, 1.3 + 0.32 * len(windows)))
    for call, (start, end) in enumerate(windows, start=1):
        ax.barh(call, end - start, left=start + 0.5, height=0.72, color=SKY)
        carried = windows[call][1] - start if call < len(windows) else 0
        if carried > 0:
            ax.barh(call, carried, left=start + 0.5, height=0.72, color=BLUE)
    ax.barh(0, 0, color=SKY, label="seen by this call")
    ax.barh(0, 0, color=BLUE, label="seen again by the next call, with the best of this one")
    names = [f"call {call}: {start + 1} to {end}" for call, (start, end) in enumerate(windows, start=1)]
    ax.set_yticks(range(1, len(windows) + 1), names)
    ax.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    ax.set(xlim=(0.5, num_candidates + 0.5), ylim=(len(windows) + 0.6, 0.4))
    ax.set(xlabel="rank in the candidate list (1 = best)")
    ax.grid(visible=False)
    fig.legend(loc="outside upper right", ncols=2)
    return fig
