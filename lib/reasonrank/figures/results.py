"""Figures of what was measured: scores, answers, seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .style import ABOVE, BLUE, GREEN, ORANGE, RED, SKY, WIDTH, Rows, checked, drawing, look, whiskers

STATES = {"ok": GREEN, "repaired": SKY, "truncated": ORANGE, "malformed": RED}
SHARES = ("ndcg", "low", "high")
SECONDS = ("seconds", "low", "high")


@drawing("NDCG by collection", "collection", "system", *SHARES, "n", shares=SHARES)
def ndcg_by_collection(rows: Rows) -> Figure:
    """NDCG@10 of every system on every collection, as dots with 95 % intervals; n under each collection.

    `rows`: `collection`, `system`, `ndcg`, `low`, `high` (0..1; drawn in percent) and `n` (queries).
    """
    systems, groups = rows["system"].unique(), rows.groupby("collection", sort=False)
    names = list(groups.groups)
    fig, ax = plt.subplots(figsize=(WIDTH, 4.4))
    for position, system in enumerate(systems):
        own, (colour, marker) = rows[rows["system"] == system], look(system, position)
        shift = 0.8 / max(5, len(systems)) * (position - (len(systems) - 1) / 2)
        places = own["collection"].map(names.index) + shift
        bars = {"yerr": whiskers(own, *SHARES, 100), "color": colour, "capsize": 3, "label": system}
        ax.errorbar(places, 100 * own["ndcg"], fmt=marker, **bars)
    counts = [" to ".join(map(str, sorted(set(own["n"])))) for _, own in groups]
    ax.set_xticks(range(len(names)), [f"{c}\nn = {n}" for c, n in zip(names, counts, strict=True)])
    for place in range(1, len(names)):
        ax.axvline(place - 0.5, color="#dddddd", linewidth=0.8)
    ax.grid(axis="x", visible=False)
    ax.set(xlabel="collection (n: test queries)", ylabel="NDCG@10 (%), with 95 % interval")
    ax.set(xlim=(-0.5, len(names) - 0.5), ylim=(0, None), title="Test queries, by collection")
    fig.legend(loc="outside upper right", ncols=min(4, len(systems)))
    return fig


@drawing()
def answer_status(rows: Rows | Mapping[str, Mapping[str, float]]) -> Figure:
    """Shares of answers that are ok, repaired, truncated and malformed, stacked, by system.

    `rows`: `system`, the four states (counts, or shares of 1) and `n` (answers); or a mapping
    of the system to the rest.
    """
    if isinstance(rows, Mapping):
        rows = [{"system": system, **states} for system, states in rows.items()]
    table = checked(rows, ["system", *STATES, "n"], "answer status")
    totals = table[[*STATES]].sum(axis=1)
    fig, ax = plt.subplots(figsize=(WIDTH, 1.5 + 0.55 * len(table)))
    bars = {"stacked": True, "color": STATES, "width": 0.65, "edgecolor": "white", "legend": False}
    (100 * table[[*STATES]].div(totals, axis=0)).plot.barh(ax=ax, **bars)
    ax.set_yticklabels(table["system"] + "\nn = " + table["n"].astype(str))
    for state in ax.containers:
        ax.bar_label(state, fmt=lambda share: f"{share:.0f}" if share >= 5 else "", label_type="center")
    ax.invert_yaxis()
    ax.set(xlim=(0, 100), xlabel="share of answers (%); n = answers, one a window")
    ax.grid(axis="y", visible=False)
    fig.legend(loc="outside upper right", ncols=len(STATES))
    return fig


@drawing()
def latency_figure(ours: Mapping[str, Any], paper: SimpleNamespace) -> Figure:
    """In the form of the paper's Figure 5: seconds per query, all together, listwise beside pointwise, by collection.

    `ours`: `rows` (`collection`, `method`, `n`, and `seconds`, `low`, `high`), `model`, `engine`, and `ratio`
    (`value`, `low`, `high`: pointwise over listwise). `paper`: `facts().figure5`.
    """
    rows = checked(ours["rows"], ["collection", "method", "n", *SECONDS], "latency")
    table = rows.pivot(index="collection", columns="method").reindex(rows["collection"].unique())
    fig, ax = plt.subplots(figsize=(WIDTH, 4.3))
    for shift, method in ((-0.19, "listwise"), (0.19, "pointwise")):
        own = table.xs(method, axis="columns", level="method")
        bars = {"yerr": whiskers(own, *SECONDS), "color": look(method)[0], "capsize": 3, "label": method}
        ax.bar(np.arange(len(own)) + shift, own["seconds"], 0.36, **bars)
    times = table["seconds"]["pointwise"] / table["seconds"]["listwise"]
    for place, (value, top) in enumerate(zip(times, table["high"].max(axis=1), strict=True)):
        ax.annotate(f"{value:.1f}×", (place, top), (0, 4), weight="bold", **ABOVE)
    ax.set_xticks(range(len(table)), table.index + "\nn = " + table["n"]["listwise"].astype(str))
    ax.set(xlabel="collection (n: queries)", ylabel="seconds per query, all together (95 % interval)")
    ratio = ours["ratio"]
    found = f"{ratio['value']:.1f} times ({ratio['low']:.1f} to {ratio['high']:.1f}, 95 %)"
    known = f"paper, 7B on {len(paper.collections)} sets: {paper.ratio_low:g} to {paper.ratio_high:g}"
    ax.set_title(f"{ours['model']}, {ours['engine']}: pointwise takes {found}; {known}", fontsize=10)
    ax.margins(y=0.2)
    ax.grid(axis="x", visible=False)
    ax.legend(loc="upper right", ncols=2)
    return fig


PARTS = {"reading prompts": SKY, "decoding": BLUE, "waiting": ORANGE}


@drawing("latency parts", "method", "where", "seconds", *PARTS)
def latency_parts(rows: Rows, growth: Sequence[Mapping[str, float]]) -> Figure:
    """Where the seconds of a query go by `latency_model`, and how the ratio grows with the candidates.

    `rows`: `method`, `where` (as "ours, together"), `seconds` (measured) and the seconds of each part by the model;
    drawn as shares of the longest measured time of the same place. `growth`: `where`, `top` and `ratio`; of measured
    ratios `low`, `high` (95 % interval) and `n` (queries) too; each `n` has a line of its own.
    """
    fig, (ax, side) = plt.subplots(1, 2, figsize=(WIDTH, 1.6 + 0.45 * len(rows)), width_ratios=[2, 1])
    longest = rows.groupby("where")["seconds"].transform("max")
    bars = {"stacked": True, "color": PARTS, "width": 0.7, "edgecolor": "white", "legend": False}
    (100 * rows[[*PARTS]].div(longest, axis=0)).plot.barh(ax=ax, **bars)
    ax.plot(100 * rows["seconds"] / longest, range(len(rows)), "k|", markersize=14, label="measured")
    ax.set_yticklabels(rows["where"] + ": " + rows["method"])
    ax.invert_yaxis()
    ax.set(xlabel="seconds of a query, the slowest method of each place = 100", ylabel="")
    columns = ["where", "top", "ratio", "low", "high", "n"]
    measured = pd.DataFrame(growth, columns=columns).groupby(["where", "n"], sort=False, dropna=False)
    for (where, n), own in measured:  # no line joins ratios of other numbers of queries
        bars = {"yerr": whiskers(own, "ratio", "low", "high"), "capsize": 3}
        label = where if pd.isna(n) else f"{where}, n = {n:.0f}"
        side.errorbar(own["top"], own["ratio"], fmt="o-", label=label, **bars)
    side.axhline(1, color="grey", linewidth=0.8)
    side.set(xlabel="candidates", ylabel="pointwise by listwise (95 % interval)", ylim=(0, None))
    side.legend(loc="lower right", fontsize=8)
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper left", ncols=4)
    return fig
