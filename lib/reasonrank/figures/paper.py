"""Figures 1 and 5 of the paper, redrawn from the published numbers, with our points marked apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..paper import Table
from .style import BLUE, GREEN, GREY, ORANGE, WIDTH, checked, drawing, label, look, unique, whiskers

KINDS = {
    "retriever": (GREY, "o"),
    "non-reasoning": (GREEN, "^"),
    "reasoning": (ORANGE, "s"),
    "ReasonRank": (BLUE, "D"),
}
NOTE = "Filled: published numbers. Open stars: ours ({model}, small collections), not comparable."
OPEN = {"fmt": "*", "color": "black", "markersize": 12, "markerfacecolor": "white", "capsize": 3}
SHARES = ("ndcg", "low", "high")
SECONDS = ("p50", "p50_low", "p50_high")


@drawing()
def figure1(table: Table, facts: SimpleNamespace, ours: Mapping[str, Any] | None = None) -> Figure:
    """The paper's Figure 1: BRIGHT averages by system, and seconds per query on one collection.

    `table`: Table 1. `ours`: `model` (a name), `scores` (rows of `system`, `ndcg`, `low`, `high`
    in 0..1, and `n`) and `latency` (rows of `collection`, `method`, `n`, and `p50`, `p50_low`, `p50_high` in
    seconds).
    """
    scores = [(row.system, row.avg, row.kind) for row in table.rows if row.avg is not None]
    seconds = [
        (system, value, "ReasonRank" if system.startswith("ReasonRank") else "reasoning")
        for system, value in facts.figure1.values.items()
    ]
    own_scores, own_seconds = [], []
    if ours:
        rows = checked(ours["scores"], ["system", "n", *SHARES], "Figure 1", SHARES)
        own_scores = [(f"{r['system']} (n = {r['n']})", *(100 * r[key] for key in SHARES)) for r in rows]
        rows = checked(ours["latency"], ["method", "collection", "n", *SECONDS], "Figure 1")
        own_seconds = [
            (f"{r['method']},\n{r['collection']} (n = {r['n']})", *(r[key] for key in SECONDS)) for r in rows
        ]
    size = (WIDTH, 1.9 + 0.3 * (len(scores) + len(own_scores)))
    fig, (left, right) = plt.subplots(1, 2, figsize=size, gridspec_kw={"width_ratios": [3, 2.1]})
    _points(left, sorted(scores, key=lambda row: -row[1]), own_scores, "{:.1f}")
    _points(right, sorted(seconds, key=lambda row: -row[1]), own_seconds, "{:.2g} s")
    left.set(xlabel="NDCG@10 (%), average\nours with 95 % interval", title="BRIGHT, 12 collections")
    right.set(xlabel="seconds per query\nours: median, 95 % interval", xlim=(0, None))
    right.set_title(f"Latency on {facts.figure1.collection.replace('_', ' ')}")
    for kind, (colour, marker) in KINDS.items():
        left.plot([], [], marker, color=colour, markersize=8, label=kind)
    fig.legend(loc="outside upper center", ncols=5)
    if ours:
        fig.supxlabel(NOTE.format(model=ours["model"]), fontsize=9.5, x=0.01, ha="left")
    return fig


def _points(ax: Axes, published: Sequence[tuple], ours: Sequence[tuple], text: str) -> None:
    """Published points (name, value, kind) from the top, then ours (name, value, low, high) below a line."""
    for place, (_, value, kind) in enumerate(published):
        colour, marker = KINDS[kind]
        ax.plot(value, place, marker, color=colour, markersize=8)
        label(ax, text.format(value), (value, place), (8, 0))
    for place, (_, value, low, high) in enumerate(ours, start=len(published)):
        ax.errorbar(value, place, xerr=[[value - low], [high - value]], **OPEN)
        label(ax, text.format(value), (high, place), (8, 0))
    if ours:
        ax.axhline(len(published) - 0.5, color="black", linewidth=1)
    names = [*(row[0] for row in published), *(f"ours: {row[0]}" for row in ours)]
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.7)
    ax.margins(x=0.2)


@drawing()
def latency_figure(ours: Mapping[str, Any], paper: SimpleNamespace) -> Figure:
    """In the form of the paper's Figure 5: seconds per query, listwise beside pointwise, by collection.

    `ours`: `rows` (`collection`, `method`, `n`, and `p50`, `p50_low`, `p50_high` in seconds), `model`,
    `engine`, and `ratio` (`value`, `low`, `high`: pointwise over listwise). `paper`: `facts().figure5`.
    """
    rows = checked(ours["rows"], ["collection", "method", "n", *SECONDS], "latency")
    by = {(row["collection"], row["method"]): row for row in rows}
    collections = unique(rows, "collection")
    fig, ax = plt.subplots(figsize=(WIDTH, 4.3))
    for shift, method in ((-0.19, "listwise"), (0.19, "pointwise")):
        if missing := [name for name in collections if (name, method) not in by]:
            raise ValueError(f"latency: collection {missing[0]!r} has no row of method {method!r}")
        own = [by[name, method] for name in collections]
        bars = {"yerr": whiskers(own, "p50"), "color": look(method)[0], "capsize": 3, "label": method}
        ax.bar([place + shift for place in range(len(own))], [row["p50"] for row in own], 0.36, **bars)
    for place, name in enumerate(collections):
        pair = [by[name, method] for method in ("listwise", "pointwise")]
        times, height = pair[1]["p50"] / pair[0]["p50"], max(row["p50_high"] for row in pair)
        label(ax, f"{times:.1f}×", (place, height), (0, 4), weight="bold")
    ax.set_xticks(range(len(collections)), [f"{c}\nn = {by[c, 'listwise']['n']}" for c in collections])
    ax.set(xlabel="collection (n: queries)", ylabel="seconds per query (median, 95 % interval)")
    ratio = ours["ratio"]
    found = f"{ratio['value']:.1f} times ({ratio['low']:.1f} to {ratio['high']:.1f}, 95 %)"
    known = f"paper, 7B on {len(paper.collections)} sets: {paper.ratio_low:g} to {paper.ratio_high:g}"
    ax.set_title(f"{ours['model']}, {ours['engine']}: pointwise takes {found}; {known}", fontsize=10)
    ax.margins(y=0.2)
    ax.grid(axis="x", visible=False)
    ax.legend(loc="upper right", ncols=2)
    return fig
