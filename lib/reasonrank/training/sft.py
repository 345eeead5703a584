"""Cold-start SFT (section 4.2): TRL's SFTTrainer, with loss and vocabulary head on the label only."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..settings import Profile
from .common import Trained, finished, on_cpu, policy, trainer_settings


def sft_config(profile: Profile, output: Path, cpu: bool) -> Any:
    """TRL's SFTConfig for a profile. Label: reasoning, answer and the end-of-turn token; the prompt bears no loss."""
    from trl import SFTConfig

    return SFTConfig(
        **trainer_settings(profile, profile.sft, output, cpu),
        num_train_epochs=profile.sft.epochs,
        max_steps=profile.sft.max_steps,
        gradient_accumulation_steps=profile.sft.gradient_accumulation,
        max_length=profile.sft.cutoff,
        completion_only_loss=True,
        packing=False,
        train_sampling_strategy="group_by_length",
        disable_tqdm=False,
    )


def sft_trainer(rows: Sequence[dict[str, Any]], profile: Profile, output: Path) -> Any:
    """TRL's SFTTrainer over rows of `windows_of`, ready to train: prompt and label as one line of tokens with a mask
    that is 1 on the label, with `label_head`, `processor.write_lora` and, for `sft.rank_loss`, `RankLossTrainer`."""
    from datasets import Dataset

    from .label_head import use_label_head
    from .processor import GROUPED, write_lora
    from .rank_loss import RankLossTrainer, ResumableSFTTrainer

    pairs = [(row["prompt_ids"], row["completion_ids"]) for row in rows]
    data = [{"input_ids": p + c, "completion_mask": [0] * len(p) + [1] * len(c)} for p, c in pairs]
    cpu, weight = on_cpu(), profile.sft.rank_loss
    kind = partial(RankLossTrainer, rows=rows, weight=weight) if weight else ResumableSFTTrainer
    trainer = kind(
        args=sft_config(profile, output, cpu),
        train_dataset=Dataset.from_list(data),
        **policy(profile.model.name, profile, profile.sft.lora, GROUPED if cpu else "sdpa"),
    )
    use_label_head(trainer.model, trainer.accelerator.device)
    write_lora(trainer.model, trainer.accelerator.device)
    return trainer


def train_sft(
    rows: Sequence[dict[str, Any]], profile: Profile, output: Path | None, checkpoints: Path | None = None
) -> Trained:
    """Train on `rows` of `windows_of` and save to `output/model` (and `output/adapter`).

    `checkpoints`: a folder outside of `output` for checkpoints every few minutes, from which the same training goes
    on after a kill. Where a launched training of the same work waits there, its weights are taken; `output` None, as a
    launch has it, leaves them there. Raises ValueError without rows, or where weights of other work wait.
    """
    if not rows:
        raise ValueError("no training example is left; lower filtering.alpha or take more queries")
    settings = profile.sft.model_dump(exclude={"validity_queries"})  # which are for afterwards
    work = ["sft", rows, settings, profile.model, profile.seed]
    make_trainer = partial(sft_trainer, rows, profile)
    return finished(make_trainer, work, profile, profile.sft, profile.model.name, output, checkpoints)
