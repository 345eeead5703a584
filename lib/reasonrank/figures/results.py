"""Figures of what was measured: scores, answers, seconds."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from .style import (
    GREEN,
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
SHARES = ("ndcg", "low", "high")
SECONDS = ("p50", "p50_low", "p50_high")


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
    table = pd.DataFrame(rows, index=[f"{row['system']}\nn = {row['n']}" for row in rows])
    totals = table[[*STATES]].sum(axis=1)
    for row, total in zip(rows, totals, strict=True):
        if row["n"] < 1 or min(abs(total - row["n"]), abs(total - 1)) > 0.005:
            expected = f"states sum to {total}, expected {row['n']} or 1"
            raise ValueError(f"answer status, system {row['system']!r}: {expected}")
    fig, ax = plt.subplots(figsize=(WIDTH, 1.5 + 0.55 * len(rows)))
    bars = {"stacked": True, "color": STATES, "width": 0.65, "edgecolor": "white", "legend": False}
    (100 * table[[*STATES]].div(totals, axis=0)).plot.barh(ax=ax, **bars)
    for state in ax.containers:
        ax.bar_label(state, fmt=lambda share: f"{share:.0f}" if share >= 5 else "", label_type="center")
    ax.invert_yaxis()
    ax.set(xlim=(0, 100), xlabel="share of answers (%); n = answers, one a window")
    ax.grid(axis="y", visible=False)
    fig.legend(loc="outside upper right", ncols=len(STATES))
    return fig


@drawing()
def latency_figure(ours: Mapping[str, Any], paper: SimpleNamespace) -> Figure:
    """In the form of the paper's Figure 5: seconds per query, listwise beside pointwise, by collection.

    `ours`: `rows` (`collection`, `method`, `n`, and `p50`, `p50_low`, `p50_high` in seconds), `model`,
    `engine`, and `ratio` (`value`, `low`, `high`: pointwise over listwise). `paper`: `facts().figure5`.
    """
    rows = checked(ours["rows"], ["collection", "method", "n", *SECONDS], "latency")
    by = {(row["collection"], row["method"]): row for row in rows}
    collections = unique(rows, "collection")
    for name, method in ((name, method) for name in collections for method in ("listwise", "pointwise")):
        if (name, method) not in by:
            raise ValueError(f"latency: collection {name!r} has no row of method {method!r}")
    fig, ax = plt.subplots(figsize=(WIDTH, 4.3))
    for shift, method in ((-0.19, "listwise"), (0.19, "pointwise")):
        own = [by[name, method] for name in collections]
        bars = {"yerr": whiskers(own, "p50"), "color": look(method)[0], "capsize": 3, "label": method}
        ax.bar([place + shift for place in range(len(own))], [row["p50"] for row in own], 0.36, **bars)
    for place, name in enumerate(collections):
        one, other = by[name, "listwise"], by[name, "pointwise"]
        top = place, max(one["p50_high"], other["p50_high"])
        label(ax, f"{other['p50'] / one['p50']:.1f}×", top, (0, 4), weight="bold")
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
