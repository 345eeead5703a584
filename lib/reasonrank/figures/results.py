"""Figures of the evaluation notebooks: scores, states of answers, reasoning lengths."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .style import (
    CYCLE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    SKY,
    WIDTH,
    Rows,
    checked,
    counted,
    label,
    look,
    percent,
    styled,
    unique,
    whiskers,
)

STATES = {"ok": GREEN, "repaired": SKY, "truncated": ORANGE, "malformed": RED}


@styled
def ndcg_by_collection(rows: Rows, title: str = "Test queries, by collection") -> Figure:
    """NDCG@10 of every system on every collection, as dots with 95 % intervals; n under each collection.

    `rows`: `collection`, `system`, `ndcg`, `low`, `high` (0..1; drawn in percent) and `n` (queries).
    """
    rows = checked(rows, ["collection", "system", "ndcg", "low", "high", "n"], "NDCG by collection")
    collections, systems = unique(rows, "collection"), unique(rows, "system")
    fig, ax = plt.subplots(figsize=(WIDTH, 4.4))
    for position, system in enumerate(systems):
        own = [row for row in rows if row["system"] == system]
        shift = 0.16 * (position - (len(systems) - 1) / 2)
        places = [collections.index(row["collection"]) + shift for row in own]
        _dots(ax, places, own, system, position)
    counts = [[row["n"] for row in rows if row["collection"] == name] for name in collections]
    ax.set_xticks(range(len(collections)), [counted(c, n) for c, n in zip(collections, counts, strict=True)])
    for place in range(1, len(collections)):
        ax.axvline(place - 0.5, color="#dddddd", linewidth=0.8)
    ax.grid(axis="x", visible=False)
    ax.set(
        xlabel="collection (n: test queries)",
        ylabel="NDCG@10 (%), with 95 % interval",
        title=title,
        ylim=(0, None),
    )
    ax.set_xlim(-0.5, len(collections) - 0.5)
    fig.legend(loc="outside upper right", ncols=len(systems))
    return fig


def _dots(ax: Axes, places: list[float], rows: list[dict], system: str, position: int) -> None:
    """The points of one system with their intervals."""
    colour, marker = look(system, position)
    values = [percent(row, "ndcg", "NDCG by collection") for row in rows]
    spread = whiskers(rows, "ndcg", "low", "high", 100)
    ax.errorbar(places, values, spread, fmt=marker, color=colour, capsize=3, label=system)


@styled
def answer_status(rows: Rows) -> Figure:
    """Shares of answers that are ok, repaired, truncated and malformed, stacked, by system.

    `rows`: `system`, the four states (counts that sum to n, or shares that sum to 1) and `n` (answers).
    """
    rows = checked(rows, ["system", *STATES, "n"], "answer status")
    fig, ax = plt.subplots(figsize=(WIDTH, 1.5 + 0.55 * len(rows)))
    for place, row in enumerate(rows):
        left = 0.0
        for state, share in _shares(row).items():
            ax.barh(place, share, left=left, color=STATES[state], edgecolor="white", height=0.65)
            if share >= 5:
                ax.text(left + share / 2, place, f"{share:.0f}", ha="center", va="center")
            left += share
    ax.set_yticks(range(len(rows)), [f"{row['system']}\nn = {row['n']}" for row in rows])
    ax.set(
        xlim=(0, 100), ylim=(len(rows) - 0.5, -0.5), xlabel="share of answers (%); n = answers, one a window"
    )
    ax.grid(axis="y", visible=False)
    patches = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in STATES.values()]
    fig.legend(patches, STATES, loc="outside upper right", ncols=len(STATES))
    return fig


def _shares(row: dict) -> dict[str, float]:
    total = sum(row[state] for state in STATES)
    if row["n"] < 1 or min(abs(total - row["n"]), abs(total - 1)) > 0.005:
        raise ValueError(
            f"answer status, system {row['system']!r}: states sum to {total}, expected {row['n']} or 1"
        )
    return {state: 100 * row[state] / total for state in STATES}


@styled
def reasoning_lengths(rows: Rows, paper: tuple[float, float] | None = None) -> Figure:
    """Mean reasoning tokens by data set, coloured by scenario; `low` and `high` draw the 95 % interval.

    `rows`: `label`, `scenario`, `tokens` (mean tokens), `n` (examples or answers). `paper`: the range of the
    published means, drawn as a band.
    """
    rows = checked(rows, ["label", "scenario", "tokens", "n"], "reasoning lengths")
    scenarios = unique(rows, "scenario")
    fig, ax = plt.subplots(figsize=(WIDTH, 1.6 + 0.5 * len(rows)))
    for place, row in enumerate(rows):
        colour = CYCLE[scenarios.index(row["scenario"]) % len(CYCLE)]
        ax.barh(place, row["tokens"], color=colour, height=0.6)
        if "low" in row and "high" in row:
            ax.hlines(place, row["low"], row["high"], color="black")
        end = max(row["tokens"], row.get("high", 0))
        label(ax, f"{row['tokens']:.0f}", (end, place), (5, 0))
    if paper:
        ax.axvspan(*paper, color=GREY, alpha=0.25, label=f"paper, 7B: {paper[0]:g} to {paper[1]:g}")
    ax.set_yticks(range(len(rows)), [f"{row['label']}\nn = {row['n']}" for row in rows])
    ax.set(ylim=(len(rows) - 0.5, -0.5), xlabel="reasoning (tokens, mean)")
    ax.margins(x=0.1)
    ax.grid(axis="y", visible=False)
    for name, colour in zip(scenarios, CYCLE, strict=False):
        ax.barh(0, 0, color=colour, label=name)
    fig.legend(loc="outside upper right", ncols=4)
    return fig
