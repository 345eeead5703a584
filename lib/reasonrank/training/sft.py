"""Cold-start SFT (section 4.2): TRL's SFTTrainer, with loss and vocabulary head on the label only."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..models import load_tokenizer
from ..profiles import Model, Profile, Sft
from .checkpoints import Checkpoints, fingerprint
from .common import Trained, load_model, on_cpu, peft_config, save_trained, train


def sft_config(settings: Sft, model: Model, output: Path, seed: int, cpu: bool):
    """TRL's SFTConfig for a profile. Label: reasoning, answer and the end-of-turn token; the prompt bears no loss."""
    from trl import SFTConfig

    return SFTConfig(
        output_dir=str(output),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.scheduler,
        warmup_steps=settings.warmup_ratio,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        gradient_checkpointing=settings.gradient_checkpointing,
        max_length=settings.cutoff,
        completion_only_loss=True,
        packing=False,
        train_sampling_strategy="group_by_length",
        bf16=model.dtype == "bfloat16",
        use_cpu=cpu,
        dataloader_pin_memory=not cpu,
        seed=seed,
        data_seed=seed,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=False,
    )


def label_head_trainer(**arguments: Any):
    """TRL's SFTTrainer with the vocabulary head on label tokens only (see `label_head.add_label_head`)."""
    from trl import SFTTrainer

    from .label_head import use_label_head

    trainer = SFTTrainer(**arguments)
    use_label_head(trainer.model, trainer.accelerator.device)
    return trainer


def sft_trainer(rows: Sequence[dict[str, Any]], profile: Profile, output: Path, model: Any = None):
    """TRL's SFTTrainer over rows of `windows_of`, ready to train."""
    from datasets import Dataset

    config = sft_config(profile.sft, profile.model, output, profile.seed, on_cpu())
    data = Dataset.from_list([{"prompt": row["prompt"], "completion": row["completion"]} for row in rows])
    return label_head_trainer(
        model=model or load_model(profile.model.name, profile.model, profile.sft.lora),
        args=config,
        train_dataset=data,
        processing_class=load_tokenizer(profile.model.name),
        peft_config=peft_config(profile.sft.lora),
    )


def train_sft(
    rows: Sequence[dict[str, Any]],
    profile: Profile,
    output: Path,
    dev: Mapping[str, Any] | None = None,
    checkpoints: Path | None = None,
) -> Trained:
    """Train on `rows` and save to `output/model` (and `output/adapter`). Raises ValueError without rows.

    `dev`: collection -> evaluation.TestSet, scored every `sft.evaluate_every` steps; the best weights are saved.
    `checkpoints`: a folder outside of `output` for checkpoints every few minutes, from which the same training
    goes on after a kill; None: none are written.
    """
    if not rows:
        raise ValueError("no training example is left; lower filtering.alpha or take more queries")
    start = time.monotonic()
    work = fingerprint("sft", rows, profile.sft, profile.model, profile.seed)
    kept = Checkpoints(checkpoints or output / "scratch", work)
    trainer = sft_trainer(rows, profile, kept.folder)
    every, patience = profile.sft.evaluate_every, profile.sft.patience
    trained = train(trainer, profile, kept, every, dev, patience=patience, save=checkpoints is not None)
    save_trained(trainer, output, profile.model.dtype)
    kept.remove()
    trained.seconds += time.monotonic() - start
    return trained
