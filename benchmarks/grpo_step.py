"""A whole step of GRPO, timed by part: writing answers, log-probabilities, gradient, and the rest."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft.helpers import disable_input_dtype_casting
from trl import GRPOTrainer

from reasonrank import profiles
from reasonrank.training import common
from reasonrank.training.grpo import grpo_config, grpo_trainer
from reasonrank.training.rollouts import draw

PARTS = ("answers", "log-probabilities", "gradient", "rest")
LENGTH = "completions/mean_length"
CHECK = "self-check"  # of the first step alone, so no part of what a step takes


class Parts:
    """Seconds by part; of a part within another one, only its own."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner: list[float] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts the time of the block for `name`, less that of parts within it."""
        begin = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            took = time.perf_counter() - begin
            self.seconds[name] += took - self._inner.pop()
            if self._inner:
                self._inner[-1] += took

    def watch(self, owner: Any, method: str, name: Callable[[], str]) -> None:
        """Counts each call of a method of this object for the part that `name` gives at that moment."""
        plain = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name()):
                return plain(*args, **kwargs)

        setattr(owner, method, timed)


def watched(trainer: GRPOTrainer) -> Parts:
    """The parts of a trainer's step, counted from now on."""
    parts = Parts()
    parts.watch(trainer, "training_step", lambda: "gradient")
    parts.watch(trainer, "_prepare_inputs", lambda: "rest")
    parts.watch(trainer, "_generate_single_turn", lambda: "answers")
    scored = "_get_per_token_logps_and_entropies"
    parts.watch(trainer, scored, lambda: "gradient" if torch.is_grad_enabled() else "log-probabilities")
    if hasattr(trainer, "_passes_check"):
        parts.watch(trainer, "_passes_check", lambda: CHECK)
    return parts


def shaped(settings: profiles.Profile, prompts: int, answers: int, tokens: int) -> profiles.Profile:
    """The profile with one step of `prompts` prompts, a mini-batch each, and `answers` answers of at most `tokens`."""
    own = {"steps": 1, "prompts_per_step": prompts, "mini_batch_prompts": 1, "rollouts": answers}
    rl = settings.rl.model_copy(update={**own, "batch_size": answers, "max_completion_tokens": tokens})
    return settings.model_copy(update={"rl": rl})


def one_step(
    settings: profiles.Profile, rows: list[dict[str, Any]], start: Path, ours: bool, folder: Path
) -> dict[str, Any]:
    """A step from the weights in `start`: seconds (without the self-check and the opening of an engine, which come once
    a training), seconds by part, tokens of an answer."""
    torch.manual_seed(settings.seed)
    opening = 0.0
    if ours:
        trainer = grpo_trainer(rows, settings, start, folder)
        began = time.perf_counter()
        draw(trainer.rollouts, start, [rows[0]["prompt_ids"]])
        opening = time.perf_counter() - began
    else:
        columns = ("prompt", "gold_ranking", "relevant", "num_passages")
        trainer = GRPOTrainer(
            args=grpo_config(settings, folder, True),
            train_dataset=Dataset.from_list([{key: row[key] for key in columns} for row in rows]),
            reward_funcs=settings.rl.reward.for_trl(),
            **common.policy(str(start), settings, settings.rl.lora),
        )
    parts = watched(trainer)
    uncast = disable_input_dtype_casting(trainer.model, active=ours)
    with uncast, parts.part("rest"):
        trainer.train()
    if ours:
        trainer.rollouts.close()
    tokens = [row[LENGTH] for row in trainer.state.log_history if LENGTH in row]  # once a batch of answers
    return {
        "seconds": sum(parts.seconds[name] for name in PARTS),
        "parts": {name: parts.seconds[name] for name in PARTS},
        "self_check_seconds": parts.seconds[CHECK],
        "opening_seconds": opening,
        "answer_tokens": tokens[0],
    }
