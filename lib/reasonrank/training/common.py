"""What both training stages share: examples as windows, loading and saving a model."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..answers import format_answer, format_completion
from ..models import load_tokenizer, resolve
from ..profiles import Lora, Model, Profile
from ..prompts import DirectPrompt, ListwisePrompt, Prompt
from ..synthesis import Example, passages_of
from . import processes
from .checkpoints import Checkpoints, SaveRegularly
from .dev import DevCurve, first_window_score

logger = logging.getLogger(__name__)


@dataclass
class Trained:
    """What a training stage leaves: optimiser steps, seconds, TRL's log; in RL, the parts of the reward, and
    the tokens computed with shared prompts (`packed`) beside those of the plain way (`plain`); `dev`: the curve on
    dev queries (see `dev.DevCurve`), of whose best step the weights are; `resumed`: the step it went on from."""

    steps: int
    seconds: float
    log: list[dict[str, Any]]
    parts: list[dict[str, float]] = field(default_factory=list)
    tokens: dict[str, int] = field(default_factory=dict)
    dev: list[dict[str, Any]] = field(default_factory=list)
    resumed: int = 0


def train(
    trainer: Any,
    profile: Profile,
    kept: Checkpoints,
    evaluate_every: int | None,
    dev: Mapping[str, Any] | None,
    *,
    patience: int | None,
    save: bool,
    per_batch: int = 1,
    state: Callable[[], dict[str, Any]] = dict,
) -> Trained:
    """Run a trainer to its end, from its last checkpoint on where there is one, and give it its best weights.

    `seconds` of the result are those of earlier parts of a resumed training; the caller adds its own.
    """
    began, before = time.monotonic(), kept.state.get("seconds", 0.0)
    if trainer.args.bf16:
        skip_input_casts(trainer.model)
    curve = None
    if dev and evaluate_every:
        score = first_window_score(profile, trainer.processing_class, dev)
        curve = DevCurve(score, evaluate_every, kept.folder, patience, kept.state.get("dev"))
        trainer.add_callback(curve)

    def everything() -> dict[str, Any]:
        seconds = before + time.monotonic() - began
        return {**state(), "dev": curve.rows if curve else [], "seconds": seconds}

    if save:
        trainer.add_callback(SaveRegularly(per_batch, state=everything))
    if kept.last:
        logger.warning("going on from %s", kept.last.name)
    trainer.train(resume_from_checkpoint=str(kept.last) if kept.last else None)
    log = plain_log(trainer.state.log_history)
    trained = Trained(trainer.state.global_step, before, log)
    trained.resumed = int(kept.last.name.split("-")[1]) if kept.last else 0
    if curve and curve.rows:
        curve.restore(trainer.accelerator.unwrap_model(trainer.model))
        trained.dev = curve.rows
    return trained


def window_prompt(profile: Profile, weights: str, max_length: int | None = None) -> Prompt:
    """The prompt that a profile trains with: its caps, and reasoning or none (`prompting.reasoning`).

    `weights`: whose tokenizer counts; `max_length`: tokens of a prompt, None: what an answer of evaluation leaves.
    """
    kind = ListwisePrompt if profile.prompting.reasoning else DirectPrompt
    return kind(
        load_tokenizer(weights),
        **profile.prompting.model_dump(exclude={"reasoning"}),
        max_length=max_length or profile.model.max_length - profile.evaluation.max_tokens,
    )


def windows_of(
    examples: Sequence[Example],
    prompt: Prompt,
    queries: Mapping[str, Mapping[str, str]],
    texts: Mapping[str, Mapping[str, str]],
) -> list[dict[str, Any]]:
    """Examples as training rows: prompt and completion (text), and both labels as 1-based identifiers.

    `queries`, `texts`: dataset -> id -> text. The completion has its chain where the prompt asks for
    one. A prompt longer than `prompt.max_length` raises ValueError.
    """
    rows = []
    for example in examples:
        passages = passages_of(example, texts[example.dataset])
        query = queries[example.dataset][example.qid]
        prompt.encode(query, passages)  # checks the length
        label = example.gold_ranking
        rows.append(
            {
                "prompt": prompt.text(query, passages),
                "completion": format_completion(example.reasoning, label)
                if prompt.reasoning
                else format_answer(label),
                "gold_ranking": label,
                "relevant": example.relevant,
                "num_passages": len(example.initial_list),
            }
        )
    return rows


def load_model(name: str, settings: Model, lora: Lora | None):
    """A causal language model to train: with LoRA in the profile's dtype, else in float32 (master weights)."""
    import torch
    from transformers import AutoModelForCausalLM

    dtype = getattr(torch, settings.dtype) if lora else torch.float32
    return AutoModelForCausalLM.from_pretrained(resolve(name), dtype=dtype, attn_implementation="sdpa")


def peft_config(lora: Lora | None):
    """PEFT's settings for LoRA without dropout, or None for full fine-tuning."""
    if lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=lora.target_modules,
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )


def skip_input_casts(model: Any) -> None:
    """Under bfloat16 autocast: PEFT's casts of every input to the adapters' float32, which autocast undoes at once,
    are left out. The numbers are the same."""
    for module in model.modules():
        if hasattr(module, "cast_input_dtype_enabled"):
            module.cast_input_dtype_enabled = False


def save_model(model: Any, tokenizer: Any, folder: Path, dtype: str) -> None:
    """Save what was trained: `folder/model`, whole and ready to serve, and `folder/adapter` where LoRA was used.

    Weights are safetensors in the profile's dtype.
    """
    import torch

    if hasattr(model, "merge_and_unload"):
        model.peft_config["default"].base_model_name_or_path = None
        model.save_pretrained(folder / "adapter")
        model = model.merge_and_unload()
    model.to(getattr(torch, dtype)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")


def save_trained(trainer: Any, folder: Path, dtype: str) -> None:
    """Save what a trainer has trained as `save_model` does; all processes of a training call it.

    With several, the trainer gathers what is spread over them, and of LoRA only `folder/adapter` is saved: merging
    takes the whole model, which one of many processes has no room for.
    """
    if processes.count() == 1:
        save_model(trainer.model, trainer.processing_class, folder, dtype)
        return
    model = trainer.accelerator.unwrap_model(trainer.model)
    part = folder / "adapter" if hasattr(model, "peft_config") else folder / "model"
    if hasattr(model, "peft_config"):
        model.peft_config["default"].base_model_name_or_path = None
    trainer.save_model(str(part))
    if processes.is_main():
        (part / "training_args.bin").unlink(missing_ok=True)
    processes.wait()


def on_cpu() -> bool:
    """Whether training runs on the processor; sets PyTorch's threads to the cores this process may use."""
    import torch

    if torch.cuda.is_available():
        return False
    torch.set_num_threads(
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return True


def plain_log(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A trainer's log with figures alone, a row per logged step."""
    return [
        {key: value for key, value in row.items() if isinstance(value, int | float)}
        for row in history
        if "train_runtime" not in row
    ]
