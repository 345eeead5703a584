"""What both training stages share: the model and its adapter, settings of TRL's trainers, a run to the end."""

from __future__ import annotations

import importlib.util
import logging
import math
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import LoraConfig
from peft.helpers import disable_input_dtype_casting
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from ..models import load_model, load_tokenizer, save_merged
from ..settings import Lora, Profile, Rl, Sft
from ..stages import read_json, usable_cores, write_json
from .checkpoints import MARK, WORK, Checkpoints, SaveRegularly
from .dev import DevCurve, first_window_score
from .processor import keep_memory

logger = logging.getLogger(__name__)


@dataclass
class Trained:
    """What a training stage leaves beside its weights.

    `steps`: optimiser steps; `log`: TRL's finite figures, a row a logged step; `parts`: in RL, the parts of the reward,
    a row a batch of rollouts; `tokens`: computed with shared prompts (`packed`) and as many as the plain way takes
    (`plain`); `dev`: the curve on dev queries (see `dev.DevCurve`), of whose best step the weights are.
    """

    steps: int
    seconds: float
    log: list[dict[str, Any]]
    parts: list[dict[str, float]] = field(default_factory=list)
    tokens: dict[str, int] = field(default_factory=dict)
    dev: list[dict[str, Any]] = field(default_factory=list)
    processes: int = 1

    @classmethod
    def of(cls, state: TrainerState) -> Trained:
        """What a trainer's log says, in which `DevCurve`, `SaveRegularly` and `grpo_trainer` have written too."""
        finite = lambda value: isinstance(value, int | float) and math.isfinite(value)  # noqa: E731
        history = state.log_history
        log = [{k: v for k, v in row.items() if finite(v)} for row in history if "learning_rate" in row]
        parts = [row["parts"] for row in history if "parts" in row]
        return cls(
            state.global_step,
            sum(row.get("seconds", 0.0) for row in history),
            log,
            parts=[{"step": number, **part} for number, part in enumerate(parts, start=1)],
            tokens={way: sum(row.get(f"{way}_tokens", 0) for row in log) for way in ("packed", "plain")},
            dev=[{"step": row["step"], **row["dev"]} for row in history if "dev" in row],
            processes=PartialState().num_processes,
        )

    @property
    def losses(self) -> list[dict[str, float]]:
        """Step and loss of each logged step."""
        return [{"step": int(row["step"]), "loss": row["loss"]} for row in self.log if "loss" in row]

    def record(self) -> dict[str, Any]:
        """What a stage's record says of its training; in RL, `steps` are batches of rollouts, as the paper counts."""
        own = {"seconds": round(self.seconds, 1), "loss": self.losses, "dev": self.dev}
        if not self.parts:
            return {"steps": self.steps, **own}
        batches = {"steps": len(self.parts), "optimiser_steps": self.steps}
        return {**batches, **own, "tokens": self.tokens, "parts": self.parts}

    def summary(self) -> str:
        """The training in a line."""
        batches = f"{len(self.parts)} batches of rollouts, " if self.parts else ""
        several = f" in {self.processes} processes" if self.processes > 1 else ""
        return f"{batches}{self.steps} optimiser steps, {self.seconds:.0f} s{several}"


def policy(name: str, profile: Profile, lora: Lora | None, attention: str = "sdpa") -> dict[str, Any]:
    """What TRL's trainers take: a model, with LoRA in the profile's dtype, else in float32 (master weights); its
    tokenizer; and PEFT's settings."""
    model = load_model(name, profile.model.dtype if lora else "float32", attn_implementation=attention)
    return {"model": model, "processing_class": load_tokenizer(name), "peft_config": peft_config(lora)}


class ResumableSampling:
    """Part of a trainer whose batches follow from the seed alone: one that is resumed goes on with the same epoch."""

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(dataset)
        sampler.generator = sampler.generator or torch.Generator().manual_seed(self.args.data_seed)
        for _ in range(int(self.state.epoch or 0)):
            next(iter(sampler))  # which shuffles an epoch
        return sampler


def peft_config(lora: Lora | None) -> Any:
    """PEFT's settings for LoRA without dropout, or None for full fine-tuning."""
    if lora is None:
        return None
    own = {"r": lora.rank, "lora_alpha": lora.alpha, "target_modules": lora.target_modules}
    return LoraConfig(**own, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM")


def on_cpu() -> bool:
    """Whether training runs on the processor; sets PyTorch's threads to the cores this process may use, and has freed
    memory kept."""
    if torch.cuda.is_available():
        return False
    keep_memory()
    torch.set_num_threads(usable_cores())
    return True


def trainer_settings(profile: Profile, settings: Sft | Rl, output: Path, cpu: bool) -> dict[str, Any]:
    """Settings of TRL's trainers that both stages take from the profile, none left to a default.

    Raises ValueError where `report_to` names a package that is not installed.
    """
    own = profile.report_to
    if own != "none" and importlib.util.find_spec(own) is None:
        raise ValueError(f"report_to: {own}: the package {own} is not installed; install it, or say none")
    same = ("learning_rate", "weight_decay", "max_grad_norm", "gradient_checkpointing")
    return {name: getattr(settings, name) for name in same} | {
        "output_dir": str(output),
        "per_device_train_batch_size": settings.batch_size,
        "lr_scheduler_type": settings.scheduler,
        "warmup_steps": settings.warmup_ratio,
        "bf16": profile.model.dtype == "bfloat16",
        "use_cpu": cpu,
        "dataloader_pin_memory": not cpu,
        "seed": profile.seed,
        "data_seed": profile.seed,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": own,
        "run_name": f"{profile.name}, {type(settings).__name__}, seed {profile.seed}",
        "project": "reasonrank",
    }


def finished(
    make_trainer: Callable[[Path], Any],
    work: Sequence[Any],
    profile: Profile,
    settings: Sft | Rl,
    start: str,
    output: Path | None,
    checkpoints: Path | None,
    per_batch: int = 1,
) -> Trained:
    """What a training leaves in `output`: this one's, or that of a launch of the same work, which waits.

    `make_trainer`: a trainer that works in a folder; `work`: all it depends on (see `Checkpoints`); `start`: the model
    that an adapter is merged into; `output`, `checkpoints`: see `train_sft`; `per_batch`: optimiser steps of a batch of
    rollouts.
    """
    kept = Checkpoints(checkpoints or output / "scratch", work)
    waiting = kept.done
    if not waiting:
        train_to_end(make_trainer(kept.folder), kept, profile, settings, per_batch)
    trained = Trained(**read_json(kept.trained / MARK))
    if output is None:
        return trained
    for part in ("model", "adapter"):
        if (kept.trained / part).is_dir():
            (shutil.copytree if waiting else shutil.move)(kept.trained / part, output / part)
    if not (output / "model").is_dir():
        save_merged(start, output / "adapter", profile.model.dtype, output / "model")
    if waiting:
        logger.warning("nothing trained here: weights of a launched training, %s", trained.summary())
    else:
        kept.remove()
    return trained


def train_to_end(
    trainer: Any, kept: Checkpoints, profile: Profile, settings: Sft | Rl, per_batch: int
) -> None:
    """Train from the last checkpoint on where there is one; leaves the best weights, in `adapter` where LoRA was used,
    else in `model`, and their `Trained` in `kept.trained`. All processes call it."""
    here, rollouts = PartialState(), getattr(trainer, "rollouts", None)
    if kept.last:
        logger.warning("going on from %s", Path(kept.last).name)
        trainer.state = TrainerState.load_from_json(f"{kept.last}/{TRAINER_STATE_NAME}")
    if settings.evaluate_every:
        score = first_window_score(profile, trainer.processing_class, rollouts)
        every = settings.evaluate_every * per_batch
        trainer.add_callback(DevCurve(score, every, kept.folder, settings.patience))
    trainer.add_callback(SaveRegularly(per_batch))
    # PEFT casts every input to an adapter's float32, which autocast undoes at once
    with disable_input_dtype_casting(trainer.model, active=trainer.args.bf16), rollouts or nullcontext():
        trainer.train(resume_from_checkpoint=kept.last)
    model = trainer.accelerator.unwrap_model(trainer.model)
    part = kept.trained / ("adapter" if settings.lora else "model")
    if settings.lora:
        model.peft_config["default"].base_model_name_or_path = None
    elif here.num_processes == 1:
        model.to(getattr(torch, profile.model.dtype))
    trainer.save_model(str(part))  # which gathers what is spread over several processes
    here.wait_for_everyone()
    if here.is_main_process:
        (part / "training_args.bin").unlink(missing_ok=True)
        write_json(kept.trained / MARK, asdict(Trained.of(trainer.state)))
        kept.remove(WORK, kept.trained.name)
    here.wait_for_everyone()
