"""NDCG@10 on dev queries while training goes on, and the best weights seen by it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from ..settings import Profile
from .rollouts import save_policy

Score = Callable[[Any], Mapping[str, Any]]


def first_window_score(settings: Profile, tokenizer: Any, rollouts: Any = None) -> Score:
    """A judge of a policy: one window over the first passages of every dev query, greedy.

    `rollouts`: an `EngineRollouts` or None, closed first, since an engine of another length is opened here.
    Returns a function model -> {"ndcg": mean over collections of NDCG@10 in 0..1, "low" and "high": its 95 %
    interval, "ok": share of answers that are a ranking (repaired ones included), "n": queries}.
    """
    from ..evaluation import OneEngine, answer_counts, mean_interval, rerank_sets, test_set

    own = settings.evaluation
    sets = {name: test_set(settings, name, "dev", own.queries) for name in settings.collections}

    def score(model: Any) -> dict[str, Any]:
        if rollouts is not None:
            rollouts.close()
        with tempfile.TemporaryDirectory() as folder:
            save_policy(model, tokenizer, folder)
            with OneEngine(settings, own.window_strategy) as opened:
                found = rerank_sets(opened.use(folder), sets, own.window)
        values = [test.ndcg(found[name].run) for name, test in sets.items()]
        mean = mean_interval([list(each.values()) for each in values], settings.seed, own.bootstrap)
        n, states = sum(map(len, values)), answer_counts(found.values())
        ok = (states["ok"] + states["repaired"]) / max(1, states["n"])
        return {"ndcg": mean.value, "low": mean.low, "high": mean.high, "ok": ok, "n": n}

    return score


class DevCurve(TrainerCallback):
    """Scores the policy every `every` optimiser steps and after the last; keeps the weights of the best.

    `folder`: where the best trainable weights are kept, so that a resumed training finds them; `rows`: the curve,
    a row each: step and what `score` gives, its `ndcg` first of all.
    Stops the training once `patience` scores in a row (None: never) are no better.
    """

    def __init__(
        self, score: Score, every: int, folder: Path, patience: int | None = None, rows: Sequence[dict] = ()
    ):
        self.score, self.every, self.patience, self.rows = score, every, patience, list(rows)
        self.file = Path(folder) / "best.safetensors"

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step % self.every and state.global_step < state.max_steps:
            return
        self.rows.append({"step": state.global_step, **self.score(model)})
        values = [row["ndcg"] for row in self.rows]
        since_best = len(values) - 1 - values.index(max(values))
        if since_best == 0:
            own = {
                name: value.detach().cpu() for name, value in model.named_parameters() if value.requires_grad
            }
            self.file.parent.mkdir(parents=True, exist_ok=True)
            save_file(own, self.file.with_suffix(".partial"))
            self.file.with_suffix(".partial").replace(self.file)
        control.should_training_stop |= self.patience is not None and since_best >= self.patience

    def restore(self, model: Any) -> dict[str, Any]:
        """Give the model its best weights back; returns their row of the curve."""
        weights = load_file(self.file)
        with torch.no_grad():
            for name, value in model.named_parameters():
                if name in weights:
                    value.copy_(weights[name])
        return max(self.rows, key=lambda row: row["ndcg"])
