"""The funnel of the synthesis: what each step leaves over, by collection."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .style import BLUE, ORANGE, WIDTH, Rows, checked, label, styled, unique

COLOURS = {"queries": BLUE, "passages": ORANGE}


@styled
def funnel(rows: Rows) -> Figure:
    """Counts of each step as bars, a column per collection; queries above, passages of all queries below.

    `rows`: `dataset`, `unit` ("queries" or "passages"), `step` and `count`, steps in their order.
    """
    rows = checked(rows, ["dataset", "unit", "step", "count"], "funnel")
    for row in rows:
        if row["unit"] not in COLOURS or row["count"] < 0:
            raise ValueError(
                f"funnel, {row['dataset']!r}: expected a count of queries or passages, got {row}"
            )
    datasets, units = unique(rows, "dataset"), unique(rows, "unit")
    heights = [len(unique([r for r in rows if r["unit"] == unit], "step")) for unit in units]
    fig, axes = plt.subplots(
        len(units),
        len(datasets),
        figsize=(WIDTH, 1.2 + 0.34 * sum(heights)),
        squeeze=False,
        sharey="row",
        height_ratios=heights,
    )
    for line, unit in zip(axes, units, strict=True):
        steps = unique([row for row in rows if row["unit"] == unit], "step")
        for ax, dataset in zip(line, datasets, strict=True):
            own = {r["step"]: r["count"] for r in rows if (r["dataset"], r["unit"]) == (dataset, unit)}
            _bars(ax, steps, own, COLOURS[unit])
        line[0].set_ylabel(unit)
    for ax, dataset in zip(axes[0], datasets, strict=True):
        ax.set_title(dataset)
    return fig


def _bars(ax: Axes, steps: list[str], counts: dict[str, int], colour: str) -> None:
    for place, step in enumerate(steps):
        if step in counts:
            ax.barh(place, counts[step], color=colour, height=0.7)
            label(ax, f"{counts[step]:,}", (counts[step], place), (3, 0), fontsize=8.5)
    ax.set_yticks(range(len(steps)), steps)
    ax.set(ylim=(len(steps) - 0.4, -0.6), xticks=[], xlim=(0, 1.45 * max(1, *counts.values())))
    ax.grid(visible=False)
