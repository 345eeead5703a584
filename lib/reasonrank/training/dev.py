"""NDCG@10 on dev queries while training goes on, and the best weights seen by it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from ..evaluation import OneEngine, answer_counts, mean_interval, rerank_sets, test_sets
from ..settings import Profile
from .rollouts import saved_policy


def first_window_score(
    settings: Profile, tokenizer: Any, opened: OneEngine | None = None
) -> Callable[[Any], dict]:
    """A judge of a policy: one window over the first passages of every dev query, greedy.

    `opened`: the engine of RL's rollouts, which takes these weights too; None: one is opened for each score.
    Returns a function model -> {"ndcg": mean over collections of NDCG@10 in 0..1, "low" and "high": its 95 %
    interval, "ok": share of answers that are a ranking (repaired ones included), "n": queries}.
    """
    own = settings.evaluation
    sets = test_sets(settings, settings.collections, "dev", own.queries)

    def score(model: Any) -> dict[str, Any]:
        one = nullcontext(opened) if opened else OneEngine(settings, own.window_strategy)
        with saved_policy(model, tokenizer) as folder, one as engine:
            found = rerank_sets(engine.use(folder), sets, own.window)
        values = [test.ndcg(found[name].run) for name, test in sets.items()]
        mean = mean_interval([list(each.values()) for each in values], settings.seed, own.bootstrap)
        n, states = sum(map(len, values)), answer_counts(found.values())
        ok = (states["ok"] + states["repaired"]) / max(1, states["n"])
        return {"ndcg": mean.value, "low": mean.low, "high": mean.high, "ok": ok, "n": n}

    return score


class DevCurve(TrainerCallback):
    """Scores the policy every `every` optimiser steps and after the last; ends the training with the best weights.

    What `score` gives, its `ndcg` first of all, is `dev` of a row of its own in the trainer's log. `folder`: where the
    best trainable weights are kept, so that a resumed training finds them. Stops the training once `patience` scores in
    a row (None: never) are no better.
    """

    def __init__(self, score: Callable[[Any], dict], every: int, folder: Path, patience: int | None = None):
        self.score, self.every, self.patience = score, every, patience
        self.file = Path(folder) / "best.safetensors"

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step % self.every and state.global_step < state.max_steps:
            return
        state.log_history.append({"step": state.global_step, "dev": self.score(model)})
        values = [row["dev"]["ndcg"] for row in state.log_history if "dev" in row]
        since_best = len(values) - 1 - values.index(max(values))
        if since_best == 0:
            trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
            self.file.parent.mkdir(parents=True, exist_ok=True)
            save_file({n: v.detach().cpu() for n, v in trained.items()}, self.file.with_suffix(".partial"))
            self.file.with_suffix(".partial").replace(self.file)
        control.should_training_stop |= self.patience is not None and since_best >= self.patience

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        model.load_state_dict(load_file(self.file), strict=False)
