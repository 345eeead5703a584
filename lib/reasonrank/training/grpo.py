"""Reinforcement learning with the multi-view reward (section 4.2): TRL's GRPOTrainer, every setting written out."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from ..answers import EMPTY_CHAIN
from ..models import load_tokenizer
from ..profiles import Hardware, Model, Profile, Rl
from ..rewards import Reward, RewardParts
from ..stages import sha256
from . import processes
from .checkpoints import Checkpoints, fingerprint
from .common import Trained, load_model, on_cpu, peft_config, save_trained, train

PARTS = ("ndcg", "recall", "rbo", "format", "total")


def batch_sizes(settings: Rl, devices: int = 1) -> tuple[int, int, int]:
    """Answers of a step, of a mini-batch, and of one pass over all devices.

    Raises ValueError where the numbers do not divide.
    """
    mini_batch = settings.mini_batch_prompts * settings.rollouts
    batch = settings.prompts_per_step * settings.rollouts
    per_pass = settings.batch_size * devices
    for name, count in {"mini_batch_prompts": mini_batch, "prompts_per_step": batch}.items():
        if count % per_pass:
            raise ValueError(
                f"rl.{name} x rollouts = {count} answers do not divide into passes of {per_pass} "
                f"(rl.batch_size {settings.batch_size} on {devices} devices)"
            )
    if batch % mini_batch:
        raise ValueError(
            f"rl.prompts_per_step {settings.prompts_per_step} is no multiple of rl.mini_batch_prompts"
        )
    return batch, mini_batch, per_pass


def grpo_config(
    settings: Rl,
    model: Model,
    output: Path,
    seed: int,
    cpu: bool,
    devices: int = 1,
    hardware: Hardware | None = None,
):
    """TRL's GRPOConfig for a profile.

    A step of the paper is a batch of `prompts_per_step` prompts with `rollouts` answers each, used for
    `prompts_per_step / mini_batch_prompts` optimiser steps. `hardware`: vLLM's share of the GPUs, else TRL's
    defaults. Raises ValueError where the numbers do not divide.
    """
    from trl import GRPOConfig

    batch, mini_batch, per_pass = batch_sizes(settings, devices)
    share = hardware and {
        "vllm_gpu_memory_utilization": hardware.vllm_memory,
        "vllm_tensor_parallel_size": hardware.vllm_tensor_parallel,
    }
    return GRPOConfig(
        output_dir=str(output),
        max_steps=settings.steps * (batch // mini_batch) * settings.epochs_per_batch,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=mini_batch // per_pass,
        steps_per_generation=batch // per_pass,
        num_generations=settings.rollouts,
        num_iterations=settings.epochs_per_batch,
        max_completion_length=settings.max_completion_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=0,
        min_p=None,
        repetition_penalty=1.0,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.scheduler,
        warmup_steps=settings.warmup_ratio,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        beta=settings.kl_coefficient,
        entropy_coef=settings.entropy_coefficient,
        epsilon=settings.clip_low,
        epsilon_high=settings.clip_high,
        delta=settings.dual_clip,
        scale_rewards=settings.scale_rewards,
        loss_type=settings.loss_type,
        importance_sampling_level="token",
        mask_truncated_completions=False,
        shuffle_dataset=True,
        disable_dropout=True,
        gradient_checkpointing=settings.gradient_checkpointing,
        use_vllm=settings.use_vllm and not cpu,
        vllm_mode="colocate",
        vllm_max_model_length=model.max_length,
        bf16=model.dtype == "bfloat16",
        use_cpu=cpu,
        dataloader_pin_memory=not cpu,
        seed=seed,
        data_seed=seed,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        log_completions=False,
        **(share or {}),
    )


def train_grpo(
    rows: Sequence[dict[str, Any]],
    profile: Profile,
    start_from: str | Path,
    output: Path,
    dev: Mapping[str, Any] | None = None,
    checkpoints: Path | None = None,
) -> Trained:
    """Train the model in the folder `start_from` on `rows` of `windows_of`; save to `output/model`.

    Prompts longer than `rl.max_prompt_tokens` are an error, as they would be cut unseen otherwise. `dev` and
    `checkpoints` as in `train_sft`.
    """
    logging.getLogger("vllm").setLevel(logging.ERROR)  # TRL imports vLLM, which warns of what a CPU lacks
    from datasets import Dataset

    from .rollouts import engine_rollouts
    from .shared_prefix import SharedPrefixGRPOTrainer

    settings = profile.rl
    tokenizer = load_tokenizer(str(start_from))
    _check_lengths(rows, tokenizer, settings.max_prompt_tokens)
    began = time.monotonic()
    work = fingerprint("grpo", rows, settings, profile.model, profile.seed, _weights(start_from))
    kept = Checkpoints(checkpoints or output / "scratch", work)
    parts: list[dict[str, float]] = list(kept.state.get("parts", []))
    reward = Reward(**settings.reward.model_dump()).for_trl(
        log=lambda rewards: parts.append(summary(len(parts) + 1, processes.gather(list(rewards)))),
        prefix="" if profile.prompting.reasoning else EMPTY_CHAIN,
    )
    columns = ("prompt", "gold_ranking", "relevant", "num_passages")
    rollouts = engine_rollouts(profile) if on_cpu() else None
    cpu, devices = rollouts is not None, processes.count()
    config = grpo_config(  # before the model, which ZeRO-3 spreads over the GPUs while it is loaded
        settings, profile.model, kept.folder, profile.seed, cpu, devices, profile.hardware
    )
    trainer = SharedPrefixGRPOTrainer(
        rollouts=rollouts,
        model=load_model(str(start_from), profile.model, settings.lora),
        args=config,
        train_dataset=Dataset.from_list([{key: row[key] for key in columns} for row in rows]),
        processing_class=tokenizer,
        reward_funcs=reward,
        peft_config=peft_config(settings.lora),
    )
    if processes.is_main():
        trainer.tokens_packed, trainer.tokens_plain = kept.state.get("tokens", [0, 0])
    trainer.epochs_done = kept.epochs
    if rollouts:
        rollouts.drawn = kept.state.get("drawn", 0)

    def tokens() -> list[int]:
        counts = processes.gather([(trainer.tokens_packed, trainer.tokens_plain)])
        return [sum(column) for column in zip(*counts, strict=True)]

    def state() -> dict[str, Any]:
        return {"parts": parts, "tokens": tokens(), "drawn": rollouts.drawn if rollouts else 0}

    per_batch = settings.prompts_per_step // settings.mini_batch_prompts * settings.epochs_per_batch
    trained = train(
        trainer,
        profile,
        kept,
        settings.evaluate_every and settings.evaluate_every * per_batch,
        dev,
        patience=settings.patience,
        save=checkpoints is not None,
        per_batch=per_batch,
        state=state,
    )
    save_trained(trainer, output, profile.model.dtype)
    kept.remove()
    trained.parts = parts
    trained.tokens = dict(zip(("packed", "plain"), tokens(), strict=True))
    trained.seconds += time.monotonic() - began
    return trained


def summary(step: int, rewards: Sequence[RewardParts]) -> dict[str, float]:
    """Mean and standard deviation over a batch of rollouts of each part of the reward."""
    row: dict[str, float] = {"step": step, "n": len(rewards)}
    for part in PARTS:
        values = [getattr(reward, part) for reward in rewards]
        row[part], row[f"{part}_std"] = fmean(values), pstdev(values)
    return row


def _weights(start_from: str | Path) -> str:
    """A name for the weights in a folder, by their content; of a hub's model, its name."""
    file = Path(start_from) / "model.safetensors"
    return sha256(file) if file.is_file() else str(start_from)


def _check_lengths(rows: Sequence[dict[str, Any]], tokenizer: Any, limit: int) -> None:
    if not rows:
        raise ValueError("no training example is left; lower filtering.alpha or take more queries")
    for number, row in enumerate(rows):
        length = len(tokenizer(row["prompt"], add_special_tokens=False)["input_ids"])
        if length > limit:
            raise ValueError(
                f"the prompt of example {number} has {length} tokens, more than rl.max_prompt_tokens {limit}"
            )
