"""Figures of the training notebooks: filter, loss, reward, dev scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .style import BLACK, BLUE, CYCLE, GREY, ORANGE, RED, WIDTH, Rows, checked, label, percent, styled, unique

PARTS = {
    "ndcg": "NDCG@10",
    "recall": "Recall@10",
    "rbo": "RBO",
    "format": "format (-1, 0, 1)",
    "total": "total reward",
}


@styled
def training_curve(
    logs: Rows,
    keys: Sequence[str] = ("loss",),
    ylabel: str = "loss (nats per token)",
    window: int = 5,
    title: str = "Training loss",
) -> Figure:
    """Raw points and a centred rolling mean over `window` logged steps, against the step.

    `logs`: rows with `step` and, where that step logged it, each of `keys`.
    """
    fig, ax = plt.subplots(figsize=(WIDTH, 3.8))
    for key, colour in zip(keys, CYCLE, strict=False):
        _curve(ax, logs, key, colour, window)
    ax.set(ylabel=ylabel, title=title)
    ax.legend()
    return fig


@styled
def long_run(curves: Mapping[str, Any], name: str) -> Figure:
    """Loss or, after RL, the reward of a training, and beside it NDCG@10 of dev queries where they were scored.

    `curves`: `loss` (rows of `step`, `loss`) and, where there are such, `parts` (rows as of `reward_parts`) and `dev`
    (rows of `step`, `ndcg`, `low`, `high` in 0..1, and `n` queries; the best step is ringed).
    """
    dev = curves.get("dev")
    fig, axes = plt.subplots(1, 2 if dev else 1, figsize=(WIDTH, 3.6), squeeze=False)
    key, ylabel = ("total", "mean total reward") if curves.get("parts") else ("loss", "loss (nats per token)")
    _curve(axes[0, 0], curves["parts"] if key == "total" else curves["loss"], key, BLUE, window=5)
    axes[0, 0].set(ylabel=ylabel, title=f"{name}: {ylabel.partition(' (')[0]}")
    axes[0, 0].legend()
    if dev:
        _dev(axes[0, 1], checked(dev, ["step", "ndcg", "low", "high", "n"], f"dev curve, {name}"))
    return fig


def _curve(ax: Axes, logs: Rows, key: str, colour: str, window: int) -> None:
    rows = [row for row in checked(logs, ["step"], "training curve") if row.get(key) is not None]
    if not rows:
        raise ValueError(f"training curve: no row has a value of {key!r}")
    steps, values = [row["step"] for row in rows], [row[key] for row in rows]
    smooth = pd.Series(values).rolling(window, center=True, min_periods=1).mean()
    ax.scatter(steps, values, s=22, color=colour, alpha=0.45, label=f"{key}, n = {len(rows)} logged steps")
    ax.plot(steps, smooth, color=colour, label=f"{key}, mean of {window} logged steps")
    ax.set(xlabel="optimiser step")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _dev(ax: Axes, rows: list[dict[str, Any]]) -> None:
    """NDCG@10 of dev queries against the optimiser step, with its 95 % interval."""
    steps = [row["step"] for row in rows]
    values, low, high = ([percent(row, key, "dev curve") for row in rows] for key in ("ndcg", "low", "high"))
    ax.fill_between(steps, low, high, color=ORANGE, alpha=0.2, linewidth=0, label="95 % interval")
    ax.plot(steps, values, color=ORANGE, marker="o", markersize=4)
    best = values.index(max(values))
    ax.plot(steps[best], values[best], "o", ms=11, mfc="none", mec=BLACK, label="kept")
    ax.set(xlabel="optimiser step", ylabel="NDCG@10 of the first window (%)")
    ax.set(title=f"Dev, n = {rows[0]['n']} queries")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="lower right")


@styled
def reward_parts(logs: Rows, rollouts: int | None = None) -> Figure:
    """NDCG, Recall, RBO, format and total reward against the step, with a band of one standard deviation.

    `logs`: rows with `step` and the mean of each part over the rollouts of the step; `<part>_std` gives the
    band where present. `rollouts`: how many a step has, named in the title.
    """
    rows = checked(logs, ["step", *PARTS], "reward parts")
    fig, axes = plt.subplots(2, 3, figsize=(WIDTH, 5.4), sharex=True)
    steps = [row["step"] for row in rows]
    for ax, (part, name), colour in zip(axes.flat, PARTS.items(), (*CYCLE[:4], BLACK), strict=False):
        mean = np.array([row[part] for row in rows], dtype=float)
        std = np.array([row.get(f"{part}_std") or 0.0 for row in rows], dtype=float)
        ax.fill_between(steps, mean - std, mean + std, color=colour, alpha=0.2, linewidth=0)
        ax.plot(steps, mean, color=colour, marker="o", markersize=3.5)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set(title=name, ylabel="mean over rollouts", xlabel="step")
        ax.tick_params(labelbottom=True)
    axes.flat[-1].axis("off")
    count = f"n = {len(rows)} steps" + (f"\nof {rollouts} rollouts each" if rollouts else "")
    note = f"{count}\n\npoints: mean of a step\nband: ± 1 standard deviation\nbetween rollouts"
    axes.flat[-1].text(0.05, 0.9, note, va="top", transform=axes.flat[-1].transAxes, linespacing=1.5)
    return fig


@styled
def alpha_sweep(rows: Rows, alpha: float = 0.4) -> Figure:
    """Share of examples kept, and their mean self-consistency, against the threshold; `alpha` is marked.

    `rows`: `alpha`, `kept`, `dropped` (counts), `share` and `mean_score` (0..1; None where nothing is kept).
    """
    rows = checked(rows, ["alpha", "kept", "dropped", "share", "mean_score"], "alpha sweep")
    rows = sorted(rows, key=lambda row: row["alpha"])
    x, share = [row["alpha"] for row in rows], [percent(row, "share", "alpha sweep") for row in rows]
    score = [np.nan if row["mean_score"] is None else row["mean_score"] for row in rows]
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.9))
    for ax, y, colour in ((left, share, BLUE), (right, score, ORANGE)):
        ax.plot(x, y, color=colour, marker="o")
        ax.axvline(alpha, color=RED, linestyle="--", linewidth=1.3, label=f"alpha = {alpha:g}")
        ax.set(xlabel="threshold alpha (NDCG@10, 0 to 1)", xticks=x)
    for row, value in zip(rows, share, strict=True):
        white = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        label(left, str(row["kept"]), (row["alpha"], value), (0, 7), bbox=white)
    total = rows[0]["kept"] + rows[0]["dropped"]
    left.set(ylim=(0, 112), ylabel="examples kept (%)", title=f"Kept, of n = {total} (count above)")
    right.set(ylim=(0, 1), ylabel="mean NDCG@10 of the kept (0 to 1)", title="Self-consistency of the kept")
    right.legend(loc="lower right")
    return fig


@styled
def score_distribution(rows: Rows, alpha: float = 0.4) -> Figure:
    """Self-consistency by scenario: a point an example, with box and median; `alpha` is marked.

    `rows`: `scenario` and `score` (NDCG@10 of the listwise by the pointwise label, 0..1).
    """
    rows = checked(rows, ["scenario", "score"], "score distribution")
    for row in rows:
        percent(row, "score", "score distribution")
    scenarios = unique(rows, "scenario")
    fig, ax = plt.subplots(figsize=(WIDTH, 1.4 + 0.75 * len(scenarios)))
    labels, rng = [], np.random.default_rng(0)
    box = {"orientation": "horizontal", "widths": 0.6, "showfliers": False}
    for place, scenario in enumerate(scenarios):
        scores = np.array([row["score"] for row in rows if row["scenario"] == scenario])
        labels.append(f"{scenario}\nn = {len(scores)}, {(scores >= alpha).mean():.0%} kept")
        colours = np.where(scores >= alpha, BLUE, GREY)
        ax.scatter(scores, place + rng.uniform(-0.25, 0.25, len(scores)), s=14, c=colours, alpha=0.55)
        ax.boxplot(scores, positions=[place], medianprops={"color": BLACK, "linewidth": 2}, **box)
    marked = f"alpha = {alpha:g}: left of it dropped"
    ax.axvline(alpha, color=RED, linestyle="--", linewidth=1.3, label=marked)
    ax.set_yticks(range(len(scenarios)), labels)
    ax.set(xlim=(-0.02, 1.02), ylim=(len(scenarios) - 0.5, -0.5), xlabel="self-consistency (NDCG@10, 0 to 1)")
    ax.set_title("Box: quartiles and median of the examples")
    ax.legend(loc="lower left", bbox_to_anchor=(0.62, 1.0), borderaxespad=0.3)
    return fig
