"""Figures of what was made and measured: the funnel of the synthesis, scores, answers, parts of the recipe."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from .style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    SKY,
    WIDTH,
    Rows,
    checked,
    drawing,
    label,
    look,
    unique,
    whiskers,
)

STATES = {"ok": GREEN, "repaired": SKY, "truncated": ORANGE, "malformed": RED}
UNITS = {"queries": BLUE, "passages": ORANGE}


@drawing("funnel", "dataset", "unit", "step", "count")
def funnel(rows: Rows) -> Figure:
    """Counts of each step as bars, a column per collection; queries above, passages of all queries below.

    `rows`: `dataset`, `unit` ("queries" or "passages"), `step` and `count`, steps in their order.
    """
    if odd := [row for row in rows if row["unit"] not in UNITS or row["count"] < 0]:
        raise ValueError(
            f"funnel, {odd[0]['dataset']!r}: expected a count of queries or passages, got {odd[0]}"
        )
    datasets, units = unique(rows, "dataset"), unique(rows, "unit")
    steps = {unit: unique([row for row in rows if row["unit"] == unit], "step") for unit in units}
    heights = [len(steps[unit]) for unit in units]
    size = {"figsize": (WIDTH, 1.2 + 0.34 * sum(heights)), "height_ratios": heights}
    fig, axes = plt.subplots(len(units), len(datasets), squeeze=False, sharey="row", **size)
    for line, unit in zip(axes, units, strict=True):
        for ax, dataset in zip(line, datasets, strict=True):
            own = {r["step"]: r["count"] for r in rows if (r["dataset"], r["unit"]) == (dataset, unit)}
            for place, count in ((steps[unit].index(step), count) for step, count in own.items()):
                ax.barh(place, count, color=UNITS[unit], height=0.7)
                label(ax, f"{count:,}", (count, place), (3, 0), fontsize=8.5)
            ax.set_yticks(range(len(steps[unit])), steps[unit])
            ax.set(ylim=(len(steps[unit]) - 0.4, -0.6), xticks=[], xlim=(0, 1.45 * max(1, *own.values())))
            ax.grid(visible=False)
        line[0].set_ylabel(unit)
    for ax, dataset in zip(axes[0], datasets, strict=True):
        ax.set_title(dataset)
    return fig


SHARES = ("ndcg", "low", "high")


@drawing("NDCG by collection", "collection", "system", *SHARES, "n", shares=SHARES)
def ndcg_by_collection(rows: Rows, title: str = "Test queries, by collection") -> Figure:
    """NDCG@10 of every system on every collection, as dots with 95 % intervals; n under each collection.

    `rows`: `collection`, `system`, `ndcg`, `low`, `high` (0..1; drawn in percent) and `n` (queries).
    """
    collections, systems = unique(rows, "collection"), unique(rows, "system")
    fig, ax = plt.subplots(figsize=(WIDTH, 4.4))
    for position, system in enumerate(systems):
        own, (colour, marker) = [row for row in rows if row["system"] == system], look(system, position)
        shift = 0.8 / max(5, len(systems)) * (position - (len(systems) - 1) / 2)
        places = [collections.index(row["collection"]) + shift for row in own]
        values = [100 * row["ndcg"] for row in own]
        spread = whiskers(own, "ndcg", 100)
        ax.errorbar(places, values, spread, fmt=marker, color=colour, capsize=3, label=system)
    counts = [unique([row for row in rows if row["collection"] == name], "n") for name in collections]
    named = [f"{c}\nn = {' to '.join(map(str, sorted(n)))}" for c, n in zip(collections, counts, strict=True)]
    ax.set_xticks(range(len(collections)), named)
    for place in range(1, len(collections)):
        ax.axvline(place - 0.5, color="#dddddd", linewidth=0.8)
    ax.grid(axis="x", visible=False)
    ax.set(xlabel="collection (n: test queries)", ylabel="NDCG@10 (%), with 95 % interval", title=title)
    ax.set(xlim=(-0.5, len(collections) - 0.5), ylim=(0, None))
    fig.legend(loc="outside upper right", ncols=min(4, len(systems)))
    return fig


@drawing()
def answer_status(rows: Rows | Mapping[str, Mapping[str, float]]) -> Figure:
    """Shares of answers that are ok, repaired, truncated and malformed, stacked, by system.

    `rows`: `system`, the four states (counts that sum to n, or shares that sum to 1) and `n` (answers); or a mapping
    of the system to the rest.
    """
    if isinstance(rows, Mapping):
        rows = [{"system": system, **states} for system, states in rows.items()]
    rows = checked(rows, ["system", *STATES, "n"], "answer status")
    fig, ax = plt.subplots(figsize=(WIDTH, 1.5 + 0.55 * len(rows)))
    for place, row in enumerate(rows):
        total, left = sum(row[state] for state in STATES), 0.0
        if row["n"] < 1 or min(abs(total - row["n"]), abs(total - 1)) > 0.005:
            expected = f"states sum to {total}, expected {row['n']} or 1"
            raise ValueError(f"answer status, system {row['system']!r}: {expected}")
        for state, colour in STATES.items():
            share = 100 * row[state] / total
            ax.barh(place, share, left=left, color=colour, edgecolor="white", height=0.65)
            if share >= 5:
                ax.text(left + share / 2, place, f"{share:.0f}", ha="center", va="center")
            left += share
    ax.set_yticks(range(len(rows)), [f"{row['system']}\nn = {row['n']}" for row in rows])
    ax.set(xlim=(0, 100), ylim=(len(rows) - 0.5, -0.5))
    ax.set(xlabel="share of answers (%); n = answers, one a window")
    ax.grid(axis="y", visible=False)
    patches = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in STATES.values()]
    fig.legend(patches, STATES, loc="outside upper right", ncols=len(STATES))
    return fig


@drawing("ablations", "variant", "value", "low", "high", "n", "seeds", "paper")
def ablations(rows: Rows, title: str = "What each part of the recipe adds") -> Figure:
    """The whole recipe's NDCG@10 minus each variant's, ours with its 95 % interval beside the paper's.

    `rows`: `variant`, `value`, `low`, `high` (percentage points), `n` (test queries), `seeds` and `paper` (points, a
    7B model on BRIGHT).
    """
    fig, ax = plt.subplots(figsize=(WIDTH, 1.7 + 0.6 * len(rows)))
    ax.axvline(0, color="black", linewidth=1)
    ours = {"xerr": whiskers(rows, "value"), "label": "ours, 95 % interval over queries"}
    values, places = [row["value"] for row in rows], range(len(rows))
    ax.errorbar(values, [place - 0.12 for place in places], fmt="D", color=BLUE, capsize=3, **ours)
    theirs = {"color": GREY, "markerfacecolor": "white", "label": "paper, 7B on BRIGHT"}
    ax.plot([row["paper"] for row in rows], [place + 0.18 for place in places], "o", **theirs)
    named = [f"{row['variant']}\nn = {row['n']}, seeds: {len(row['seeds'])}" for row in rows]
    ax.set_yticks(places, named)
    ax.set(ylim=(len(rows) - 0.5, -0.5), title=title)
    ax.set(xlabel="NDCG@10, whole recipe minus variant (percentage points; right of 0: the part helps)")
    ax.grid(axis="y", visible=False)
    fig.legend(loc="outside upper right", ncols=2)
    return fig
