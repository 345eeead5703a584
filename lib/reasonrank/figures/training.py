"""Figures of the training notebooks: filter, loss, reward, dev scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .style import ABOVE, BLACK, BLUE, CYCLE, GREY, ORANGE, RED, WIDTH, Rows, checked, drawing

PARTS = {
    "ndcg": "NDCG@10",
    "recall": "Recall@10",
    "rbo": "RBO",
    "format": "format (-1, 0, 1)",
    "total": "total reward",
}


@drawing()
def training_curve(logs: Rows, ylabel: str = "loss (nats per token)", title: str = "Training loss") -> Figure:
    """The loss against the step: raw points, and a centred rolling mean over five logged steps.

    `logs`: rows with `step` and, where that step logged it, `loss`.
    """
    fig, ax = plt.subplots(figsize=(WIDTH, 3.8))
    _curve(ax, logs, "loss")
    ax.set(ylabel=ylabel, title=title)
    return fig


@drawing()
def long_run(curves: Mapping[str, Any], name: str) -> Figure:
    """Loss or, after RL, the reward of a training, and beside it NDCG@10 of dev queries where they were scored.

    `curves`: `loss` (rows of `step`, `loss`) and, where there are such, `parts` (rows as of `reward_parts`) and `dev`
    (rows of `step`, `ndcg`, `low`, `high` in 0..1, and `n` queries; the best step is ringed).
    """
    dev = curves.get("dev")
    fig, axes = plt.subplots(1, 2 if dev else 1, figsize=(WIDTH, 3.6), squeeze=False)
    if curves.get("parts"):
        _curve(axes[0, 0], curves["parts"], "total")
        about = {"ylabel": "mean total reward", "title": f"{name}: mean total reward"}
        axes[0, 0].set(**about, xlabel="batch of rollouts")
    else:
        _curve(axes[0, 0], curves["loss"], "loss")
        axes[0, 0].set(ylabel="loss (nats per token)", title=f"{name}: loss")
    if dev:
        shares = ("ndcg", "low", "high")
        rows, ax = checked(dev, ["step", *shares, "n"], f"dev curve, {name}", shares), axes[0, 1]
        low, high, best = 100 * rows["low"], 100 * rows["high"], rows["ndcg"].idxmax()
        ax.fill_between(rows["step"], low, high, color=ORANGE, alpha=0.2, linewidth=0, label="95 % interval")
        ax.plot(rows["step"], 100 * rows["ndcg"], color=ORANGE, marker="o", markersize=4)
        kept = {"ms": 11, "mfc": "none", "mec": BLACK, "label": "kept"}
        ax.plot(rows["step"][best], 100 * rows["ndcg"][best], "o", **kept)
        ax.set(ylabel="NDCG@10 of the first window (%)", title=f"Dev, n = {rows['n'][0]} queries")
        _against(ax)
        ax.legend(loc="lower right")
    return fig


def _curve(ax: Axes, logs: Rows, key: str) -> None:
    rows = checked(logs, ["step"], "training curve").reindex(columns=["step", key]).dropna()
    if rows.empty:
        raise ValueError(f"training curve: no row has a value of {key!r}")
    smooth = rows[key].rolling(5, center=True, min_periods=1).mean()
    points = {"s": 22, "color": BLUE, "alpha": 0.45, "label": f"{key}, n = {len(rows)} logged steps"}
    ax.scatter(rows["step"], rows[key], **points)
    ax.plot(rows["step"], smooth, color=BLUE, label=f"{key}, mean of 5 logged steps")
    _against(ax)
    ax.legend()


def _against(ax: Axes, step: str = "optimiser step") -> None:
    ax.set_xlabel(step)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


@drawing("reward parts", "step", *PARTS)
def reward_parts(logs: Rows, rollouts: int | None = None) -> Figure:
    """NDCG, Recall, RBO, format and total reward by batch of rollouts, with a band of one standard deviation.

    `logs`: rows with `step` (the number of the batch) and the mean of each part over its rollouts; `<part>_std` gives
    the band where present. `rollouts`: how many a batch has, named in the title.
    """
    fig, axes = plt.subplots(2, 3, figsize=(WIDTH, 5.4), sharex=True)
    for ax, (part, name), colour in zip(axes.flat, PARTS.items(), (*CYCLE[:4], BLACK), strict=False):
        mean, std = logs[part], logs.get(f"{part}_std", 0 * logs[part]).astype(float).fillna(0)
        ax.fill_between(logs["step"], mean - std, mean + std, color=colour, alpha=0.2, linewidth=0)
        ax.plot(logs["step"], mean, color=colour, marker="o", markersize=3.5)
        _against(ax, "batch of rollouts")
        ax.set(title=name, ylabel="mean over rollouts")
        ax.tick_params(labelbottom=True)
    axes.flat[-1].axis("off")
    count = f"n = {len(logs)} batches" + (f"\nof {rollouts} rollouts each" if rollouts else "")
    note = f"{count}\n\npoints: mean of a batch\nband: ± 1 standard deviation\nbetween rollouts"
    axes.flat[-1].text(0.05, 0.9, note, va="top", transform=axes.flat[-1].transAxes, linespacing=1.5)
    return fig


@drawing("alpha sweep", "alpha", "kept", "dropped", "share", "mean_score", shares=["share"])
def alpha_sweep(rows: Rows, alpha: float = 0.4) -> Figure:
    """Share of examples kept, and their mean self-consistency, against the threshold; `alpha` is marked.

    `rows`: `alpha`, `kept`, `dropped` (counts), `share` and `mean_score` (0..1; None where nothing is kept).
    """
    rows = rows.sort_values("alpha")
    x, share, score = rows["alpha"], 100 * rows["share"], rows["mean_score"].astype(float)
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.9))
    for ax, y, colour in ((left, share, BLUE), (right, score, ORANGE)):
        ax.plot(x, y, color=colour, marker="o")
        ax.axvline(alpha, color=RED, linestyle="--", linewidth=1.3, label=f"alpha = {alpha:g}")
        ax.set(xlabel="threshold alpha (NDCG@10, 0 to 1)", xticks=x)
    white = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    for kept, *place in zip(rows["kept"], x, share, strict=True):
        left.annotate(str(kept), place, (0, 7), bbox=white, **ABOVE)
    total = rows["kept"].iloc[0] + rows["dropped"].iloc[0]
    left.set(ylim=(0, 112), ylabel="examples kept (%)", title=f"Kept, of n = {total} (count above)")
    right.set(ylim=(0, 1), ylabel="mean NDCG@10 of the kept (0 to 1)", title="Self-consistency of the kept")
    right.legend(loc="lower right")
    return fig


@drawing("score distribution", "scenario", "score", shares=["score"])
def score_distribution(rows: Rows, alpha: float = 0.4) -> Figure:
    """Self-consistency by scenario: a point an example, with box and median; `alpha` is marked.

    `rows`: `scenario` and `score` (NDCG@10 of the listwise by the pointwise label, 0..1).
    """
    scenarios = rows["scenario"].unique()
    fig, ax = plt.subplots(figsize=(WIDTH, 1.4 + 0.75 * len(scenarios)))
    labels, rng = [], np.random.default_rng(0)
    box = {"orientation": "horizontal", "widths": 0.6, "showfliers": False}
    for place, scenario in enumerate(scenarios):
        scores = rows["score"][rows["scenario"] == scenario].to_numpy()
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
