"""What each part of the recipe adds, ours beside the paper's."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from .style import BLUE, GREY, WIDTH, Rows, checked, counted, styled, whiskers


@styled
def ablations(rows: Rows, title: str = "What each part of the recipe adds") -> Figure:
    """The whole recipe's NDCG@10 minus each variant's, ours with its 95 % interval beside the paper's.

    `rows`: `variant`, `value`, `low`, `high` (percentage points), `n` (test queries), `seeds` and `paper` (points, a 7B
    model on BRIGHT), as `comparisons` of the record of `python -m reasonrank ablations` has them.
    """
    rows = checked(rows, ["variant", "value", "low", "high", "n", "seeds", "paper"], "ablations")
    fig, ax = plt.subplots(figsize=(WIDTH, 1.7 + 0.6 * len(rows)))
    places = range(len(rows))
    ax.axvline(0, color="black", linewidth=1)
    values = [row["value"] for row in rows]
    spread = whiskers(rows, "value", "low", "high")
    ours = [place - 0.12 for place in places]
    ax.errorbar(
        values, ours, xerr=spread, fmt="D", color=BLUE, capsize=3, label="ours, 95 % interval over queries"
    )
    theirs = [place + 0.18 for place in places]
    published = [row["paper"] for row in rows]
    ax.plot(published, theirs, "o", color=GREY, markerfacecolor="white", label="paper, 7B on BRIGHT")
    ax.set_yticks(places, [_label(row) for row in rows])
    ax.set(
        ylim=(len(rows) - 0.5, -0.5),
        xlabel="NDCG@10, whole recipe minus variant (percentage points; right of 0: the part helps)",
        title=title,
    )
    ax.grid(axis="y", visible=False)
    fig.legend(loc="outside upper right", ncols=2)
    return fig


def _label(row: dict) -> str:
    seeds = len(row["seeds"])
    return f"{counted(row['variant'], [row['n']])}, {seeds} seed{'s' if seeds > 1 else ''}"
