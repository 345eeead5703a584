"""Reinforcement learning with the multi-view reward (section 4.2): TRL's GRPOTrainer, every setting written out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object

from ..evaluation import OneEngine
from ..rewards import RewardParts
from ..settings import Profile, Rl
from ..stages import sha256
from .common import Trained, finished, on_cpu, policy, trainer_settings


def batch_sizes(settings: Rl, devices: int = 1) -> tuple[int, int, int]:
    """Answers of a step, of a mini-batch, and of one pass over all devices.

    Raises ValueError where the numbers do not divide.
    """
    mini_batch = settings.mini_batch_prompts * settings.rollouts
    batch = settings.prompts_per_step * settings.rollouts
    per_pass = settings.batch_size * devices
    if mini_batch % per_pass:
        raise ValueError(
            f"rl.mini_batch_prompts x rollouts = {mini_batch} answers do not divide into passes of {per_pass} "
            f"(rl.batch_size {settings.batch_size} on {devices} devices)"
        )
    if batch % mini_batch:
        raise ValueError(
            f"rl.prompts_per_step {settings.prompts_per_step} is no multiple of rl.mini_batch_prompts"
        )
    return batch, mini_batch, per_pass


def grpo_config(profile: Profile, output: Path, cpu: bool, devices: int = 1) -> Any:
    """TRL's GRPOConfig for a profile.

    A step of the paper is a batch of `prompts_per_step` prompts with `rollouts` answers each, used for
    `prompts_per_step / mini_batch_prompts` optimiser steps. Raises ValueError where the numbers do not divide.
    """
    from trl import GRPOConfig

    settings, hardware = profile.rl, profile.hardware
    batch, mini_batch, per_pass = batch_sizes(settings, devices)
    return GRPOConfig(
        **trainer_settings(profile, settings, output, cpu),
        **settings.model_dump(include={"temperature", "top_p", "scale_rewards", "loss_type"}),
        max_steps=settings.steps * (batch // mini_batch) * settings.epochs_per_batch,
        gradient_accumulation_steps=mini_batch // per_pass,
        steps_per_generation=batch // per_pass,
        num_generations=settings.rollouts,
        num_iterations=settings.epochs_per_batch,
        max_completion_length=settings.max_completion_tokens,
        top_k=0,
        min_p=None,
        repetition_penalty=1.0,
        beta=settings.kl_coefficient,
        entropy_coef=settings.entropy_coefficient,
        epsilon=settings.clip_low,
        epsilon_high=settings.clip_high,
        delta=settings.dual_clip,
        importance_sampling_level="token",
        mask_truncated_completions=False,
        shuffle_dataset=True,
        disable_dropout=True,
        use_vllm=settings.use_vllm and not cpu,
        vllm_mode="colocate",
        vllm_max_model_length=profile.model.max_length,
        vllm_gpu_memory_utilization=hardware.vllm_memory,
        vllm_tensor_parallel_size=hardware.vllm_tensor_parallel,
        log_completions=False,
    )


def train_grpo(
    rows: Sequence[dict[str, Any]],
    profile: Profile,
    start_from: str | Path,
    output: Path | None,
    checkpoints: Path | None = None,
) -> Trained:
    """Train the model in the folder `start_from` on `rows` of `windows_of`; save to `output/model`.

    `output` and `checkpoints` as in `train_sft`. Raises ValueError without rows, for rows of single passages, whose
    answers are no ranking, and for a prompt longer than `rl.max_prompt_tokens`.
    """
    if not rows:
        raise ValueError("no training example is left; lower filtering.alpha or take more queries")
    if profile.evaluation.strategy == "pointwise":
        raise ValueError("RL rewards rankings; with evaluation.strategy pointwise there is SFT alone")
    settings = profile.rl
    for number, row in enumerate(rows):
        if (length := len(row["prompt_ids"])) > settings.max_prompt_tokens:
            limit = f"rl.max_prompt_tokens {settings.max_prompt_tokens}"
            raise ValueError(f"the prompt of example {number} has {length} tokens, more than {limit}")
    weights = [sha256(file) for file in sorted(Path(start_from).glob("*.safetensors"))] or str(start_from)
    work = ["grpo", rows, settings, profile.model, profile.seed, weights]
    per_batch = settings.prompts_per_step // settings.mini_batch_prompts * settings.epochs_per_batch
    make_trainer = partial(grpo_trainer, rows, profile, start_from)
    return finished(make_trainer, work, profile, settings, str(start_from), output, checkpoints, per_batch)


def grpo_trainer(
    rows: Sequence[dict[str, Any]], profile: Profile, start_from: str | Path, output: Path
) -> Any:
    """The trainer of `train_grpo`, ready to train. Its log gets a row for each batch of rollouts, with the `parts` of
    the reward (see `summary`)."""
    logging.getLogger("vllm").setLevel(logging.ERROR)  # TRL imports vLLM, which warns of what a CPU lacks
    from datasets import Dataset

    from .processor import GROUPED
    from .shared_prefix import SharedPrefixGRPOTrainer

    def log(found: list[RewardParts]) -> None:
        parts = summary(gather_object(found))
        trainer.state.log_history.append({"step": trainer.state.global_step, "parts": parts})

    cpu, processes = on_cpu(), PartialState().num_processes
    # before the model, which ZeRO-3 spreads over the GPUs while it is loaded
    config = grpo_config(profile, output, cpu, processes)
    columns = ("gold_ranking", "relevant", "num_passages")
    data = [{"prompt": row["prompt_ids"]} | {key: row[key] for key in columns} for row in rows]
    engine = OneEngine(profile, profile.evaluation.window_strategy) if cpu and processes == 1 else None
    trainer = SharedPrefixGRPOTrainer(
        rollouts=engine,
        args=config,
        train_dataset=Dataset.from_list(data),
        reward_funcs=profile.rl.reward.for_trl(log, prefix=rows[0]["begun"]),
        **policy(str(start_from), profile, profile.rl.lora, GROUPED if cpu else "sdpa"),
    )
    return trainer


def summary(rewards: Sequence[RewardParts]) -> dict[str, float]:
    """Mean and standard deviation over a batch of rollouts of each part of the reward."""
    row: dict[str, float] = {"n": len(rewards)}
    for part in vars(rewards[0]):
        values = [getattr(reward, part) for reward in rewards]
        row[part], row[f"{part}_std"] = fmean(values), pstdev(values)
    return row
