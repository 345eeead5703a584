"""Figures 1 and 5 of the paper, redrawn from the published numbers, with our points marked apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..paper import Facts, Speedup, Table
from .style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    WIDTH,
    checked,
    label,
    look,
    percent,
    styled,
    unique,
    whiskers,
)

KINDS = {
    "retriever": (GREY, "o"),
    "non-reasoning": (GREEN, "^"),
    "reasoning": (ORANGE, "s"),
    "ReasonRank": (BLUE, "D"),
}
NOTE = "Filled: published numbers. Open stars: ours ({model}, small collections), not comparable."


@styled
def figure1(table: Table, facts: Facts, ours: Mapping[str, Any] | None = None) -> Figure:
    """The paper's Figure 1: BRIGHT averages by system, and seconds per query on one collection.

    `table`: Table 1. `ours`: optionally `model` (a name), `scores` (rows of `system`, `ndcg`, `low`, `high`
    in 0..1, and `n`) and `latency` (rows of `collection`, `method`, `n`, and `p50`, `p50_low`, `p50_high` in
    seconds).
    """
    ours = ours or {}
    scores = ours.get("scores") and checked(
        ours["scores"], ["system", "ndcg", "low", "high", "n"], "Figure 1"
    )
    keys = ["collection", "method", "p50", "p50_low", "p50_high", "n"]
    latency = ours.get("latency") and checked(ours["latency"], keys, "Figure 1")
    lines = len(table.rows) + len(scores or ())
    fig, (left, right) = plt.subplots(
        1, 2, figsize=(WIDTH, 1.9 + 0.3 * lines), gridspec_kw={"width_ratios": [3, 2.1]}
    )
    _averages(left, table, scores or [])
    _seconds(right, facts, latency or [])
    fig.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=5)
    if ours:
        fig.supxlabel(NOTE.format(model=ours.get("model", "small model")), fontsize=9.5, x=0.01, ha="left")
    return fig


def _averages(ax: Axes, table: Table, scores: list[dict]) -> None:
    """Published averages, best first, then ours below a line."""
    rows = sorted((row for row in table.rows if row.avg is not None), key=lambda row: -row.avg)
    for kind, (colour, marker) in KINDS.items():
        own = [(place, row.avg) for place, row in enumerate(rows) if row.kind == kind]
        if own:
            places, values = zip(*own, strict=True)
            ax.plot(values, places, marker, color=colour, markersize=8, label=kind)
    for place, row in enumerate(rows):
        label(ax, f"{row.avg:.1f}", (row.avg, place), (8, 0))
    labels = [row.system for row in rows]
    if scores:
        ax.axhline(len(rows) - 0.5, color="black", linewidth=1)
        labels += [f"ours: {row['system']} (n = {row['n']})" for row in scores]
    for place, row in enumerate(scores, start=len(rows)):
        value, high = percent(row, "ndcg", "Figure 1"), percent(row, "high", "Figure 1")
        ax.errorbar(value, place, xerr=whiskers([row], "ndcg", "low", "high", 100), **_open())
        label(ax, f"{value:.1f}", (high, place), (8, 0))
    ax.set_yticks(range(len(labels)), labels)
    ax.set(ylim=(len(labels) - 0.5, -0.6))
    ax.set_xlabel("NDCG@10 (%), average" + ("\nours with 95 % interval" if scores else ""))
    ax.set_title("BRIGHT, 12 collections" + ("; ours below the line" if scores else ""))
    ax.margins(x=0.2)


def _open() -> dict[str, Any]:
    """The look of our points: open stars."""
    return {"fmt": "*", "color": "black", "markersize": 12, "markerfacecolor": "white", "capsize": 3}


def _seconds(ax: Axes, facts: Facts, latency: list[dict]) -> None:
    published = sorted(facts.figure1.values.items(), key=lambda item: -item[1])
    labels = []
    for place, (system, seconds) in enumerate(published):
        colour, marker = KINDS["ReasonRank" if system.startswith("ReasonRank") else "reasoning"]
        ax.plot(seconds, place, marker, color=colour, markersize=9)
        label(ax, f"{seconds:g} s", (seconds, place), (0, 7))
        labels.append(system)
    if latency:
        ax.axhline(len(labels) - 0.5, color="black", linewidth=1)
    for place, row in enumerate(latency, start=len(labels)):
        ax.errorbar(row["p50"], place, xerr=whiskers([row], "p50", "p50_low", "p50_high"), **_open())
        label(ax, f"{row['p50']:.2g} s", (row["p50"], place), (0, 8))
        labels.append(f"ours: {row['method']}\n{row['collection']}\n(n = {row['n']})")
    ax.margins(x=0.2)
    values = [seconds for _, seconds in published] + [row["p50"] for row in latency]
    if max(values) > 10 * min(values):
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter("{x:g}")
    else:
        ax.set_xlim(left=0)
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.5, -0.7)
    ax.set_xlabel("seconds per query" + ("\nours: median, 95 % interval" if latency else ""))
    ax.set_title(f"Latency on {facts.figure1.collection.replace('_', ' ')}")


@styled
def latency_figure(ours: Mapping[str, Any], paper: Speedup) -> Figure:
    """In the form of the paper's Figure 5: seconds per query, listwise beside pointwise, by collection.

    `ours`: `rows` (`collection`, `method`, `n`, and `p50`, `p50_low`, `p50_high` in seconds), `model`,
    `engine`, and `ratio` (`value`, `low`, `high`: pointwise over listwise). `paper`: the published range.
    """
    keys = ["collection", "method", "n", "p50", "p50_low", "p50_high"]
    rows = {(row["collection"], row["method"]): row for row in checked(ours["rows"], keys, "latency")}
    collections = unique(list(rows.values()), "collection")
    for name in collections:
        for method in ("listwise", "pointwise"):
            if (name, method) not in rows:
                raise ValueError(f"latency: collection {name!r} has no row of method {method!r}")
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 4.3), gridspec_kw={"width_ratios": [3, 1.5]})
    _side_by_side(left, rows, collections)
    left.set_title(f"Ours: {ours['model']}, {ours['engine']}")
    _ratios(right, rows, collections, ours["ratio"], paper)
    return fig


def _side_by_side(ax: Axes, rows: dict[tuple[str, str], dict], collections: list[str]) -> None:
    for shift, method in ((-0.19, "listwise"), (0.19, "pointwise")):
        own = [rows[name, method] for name in collections]
        spread = whiskers(own, "p50", "p50_low", "p50_high")
        places = [place + shift for place in range(len(own))]
        ax.bar(
            places, [r["p50"] for r in own], 0.36, yerr=spread, color=look(method)[0], capsize=3, label=method
        )
    top = max(row["p50_high"] for row in rows.values())
    for place, name in enumerate(collections):
        pair = rows[name, "listwise"], rows[name, "pointwise"]
        ratio, height = pair[1]["p50"] / pair[0]["p50"], max(row["p50_high"] for row in pair)
        ax.text(place, height + 0.03 * top, f"{ratio:.1f}×", ha="center", weight="bold")
    counts = [rows[name, "listwise"]["n"] for name in collections]
    names = [name.replace("-", "-\n") for name in collections]
    ax.set_xticks(range(len(names)), [f"{c}\nn = {n}" for c, n in zip(names, counts, strict=True)])
    ax.set(
        xlabel="collection (n: queries)",
        ylim=(0, 1.3 * top),
        ylabel="seconds per query (median, 95 % interval)",
    )
    ax.grid(axis="x", visible=False)
    ax.legend(loc="upper right", ncols=2)


def _ratios(
    ax: Axes,
    rows: dict[tuple[str, str], dict],
    collections: list[str],
    ratio: Mapping[str, float],
    paper: Speedup,
) -> None:
    ax.axvspan(paper.ratio_low, paper.ratio_high, color=GREY, alpha=0.3)
    text = f"paper: {paper.ratio_low:g} to {paper.ratio_high:g}\n(7B, {len(paper.collections)} sets)"
    label(ax, text, (paper.ratio_high, -0.8), (5, 0), color="#444444")
    for place, name in enumerate(collections):
        ax.plot(
            rows[name, "pointwise"]["p50"] / rows[name, "listwise"]["p50"],
            place,
            "o",
            color=BLUE,
            markersize=8,
        )
    ax.errorbar(ratio["value"], len(collections), xerr=whiskers([ratio], "value", "low", "high"), **_open())
    ax.axvline(1, color=RED, linestyle="--", linewidth=1.2)
    label(ax, "equal", (1, -0.8), (-5, 0), ha="right", color=RED)
    ax.set_yticks(range(len(collections) + 1), [*collections, "all (95 %\ninterval)"])
    ax.set(ylim=(len(collections) + 0.5, -1.4), xlim=(0, max(4.5, 1.1 * ax.get_xlim()[1])))
    ax.set(xlabel="times slower: pointwise / listwise", title="Ratio of medians")
