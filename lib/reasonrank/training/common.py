"""What both training stages share: the model and its adapter, settings of TRL's trainers, a run to the end."""

from __future__ import annotations

import importlib.util
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState

from ..models import load_model, save_merged
from ..profiles import Lora, Profile, Rl, Sft
from ..stages import read_json, usable_cores, write_json
from .checkpoints import MARK, Checkpoints, SaveRegularly
from .dev import DevCurve, first_window_score

logger = logging.getLogger(__name__)


@dataclass
class Trained:
    """What a training stage leaves beside its weights.

    `steps`: optimiser steps; `seconds`; `log`: TRL's, a row a logged step; `parts`: in RL, the parts of the reward, a
    row a batch of rollouts; `tokens`: computed with shared prompts (`packed`) and as many as the plain way takes
    (`plain`); `dev`: the curve on dev queries (see `dev.DevCurve`), of whose best step the weights are; `resumed`:
    the step it went on from; `processes`: how many trained.
    """

    steps: int
    seconds: float
    log: list[dict[str, Any]]
    parts: list[dict[str, float]] = field(default_factory=list)
    tokens: dict[str, int] = field(default_factory=dict)
    dev: list[dict[str, Any]] = field(default_factory=list)
    resumed: int = 0
    processes: int = 1

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


def trainable(name: str, profile: Profile, lora: Lora | None) -> Any:
    """A model to train: with LoRA in the profile's dtype, else in float32 (master weights)."""
    return load_model(name, profile.model.dtype if lora else "float32", attn_implementation="sdpa")


def peft_config(lora: Lora | None) -> Any:
    """PEFT's settings for LoRA without dropout, or None for full fine-tuning."""
    if lora is None:
        return None
    from peft import LoraConfig

    own = {"r": lora.rank, "lora_alpha": lora.alpha, "target_modules": lora.target_modules}
    return LoraConfig(**own, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM")


def trainer_settings(profile: Profile, settings: Sft | Rl, output: Path, cpu: bool) -> dict[str, Any]:
    """Settings of TRL's trainers that both stages take from the profile, none left to a default.

    Raises ValueError where `report_to` names a package that is not installed.
    """
    own = profile.report_to
    if own != "none" and importlib.util.find_spec(own) is None:
        raise ValueError(f"report_to: {own}: the package {own} is not installed; install it, or say none")
    return {
        "output_dir": str(output),
        "per_device_train_batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.scheduler,
        "warmup_steps": settings.warmup_ratio,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "gradient_checkpointing": settings.gradient_checkpointing,
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


def take_over(kept: Checkpoints, start: str, profile: Profile, output: Path | None) -> Trained:
    """What a launched training has left in `kept`, in `output`; an adapter alone is merged into `start`."""
    trained = Trained(**read_json(kept.trained / MARK))
    if output is None:
        return trained
    kept.take(output)
    logger.warning("nothing trained here: weights of a launched training, %s", trained.summary())
    if not (output / "model").is_dir():
        save_merged(start, output / "adapter", profile.model.dtype, output / "model")
    return trained


def run_to_end(
    trainer: Any,
    profile: Profile,
    settings: Sft | Rl,
    kept: Checkpoints,
    output: Path | None,
    *,
    per_batch: int = 1,
    save: bool = True,
    state: Callable[[], dict[str, Any]] = dict,
) -> Trained:
    """Train from the last checkpoint on where there is one, take the best weights, and save them.

    `output`: where `model` and `adapter` go; None leaves them in `kept` (see `take_over`). `per_batch`: optimiser
    steps of a batch of rollouts; `save`: whether checkpoints are written; `state`: what they keep beside.
    """
    began, before = time.monotonic(), kept.state.get("seconds", 0.0)
    if trainer.args.bf16:
        skip_input_casts(trainer.model)
    curve = None
    if settings.evaluate_every:
        score = first_window_score(profile, trainer.processing_class)
        every = settings.evaluate_every * per_batch
        curve = DevCurve(score, every, kept.folder, settings.patience, kept.state.get("dev"))
        trainer.add_callback(curve)

    def everything() -> dict[str, Any]:
        seconds = before + time.monotonic() - began
        return {**state(), "dev": curve.rows if curve else [], "seconds": seconds}

    if save:
        trainer.add_callback(SaveRegularly(per_batch, state=everything))
    if kept.last:
        logger.warning("going on from %s", kept.last.name)
    trainer.train(resume_from_checkpoint=str(kept.last) if kept.last else None)
    if curve:
        curve.restore(trainer.accelerator.unwrap_model(trainer.model))
    save_trained(trainer, output or kept.trained, profile.model.dtype)
    found = {
        name: value for name, value in everything().items() if name in ("dev", "seconds", "parts", "tokens")
    }
    trained = Trained(trainer.state.global_step, log=plain_log(trainer.state.log_history), **found)
    trained.resumed = int(kept.last.name.split("-")[1]) if kept.last else 0
    trained.processes = PartialState().num_processes
    if PartialState().is_main_process:
        if output is None:
            write_json(kept.trained / MARK, asdict(trained))
        kept.remove()
    return trained


def skip_input_casts(model: Any) -> None:
    """Under bfloat16 autocast: PEFT's casts of every input to the adapters' float32, which autocast undoes at once,
    are left out. The numbers are the same."""
    for module in model.modules():
        if hasattr(module, "cast_input_dtype_enabled"):
            module.cast_input_dtype_enabled = False


def save_trained(trainer: Any, folder: Path, dtype: str) -> None:
    """Save `folder/model`, whole and ready to serve, in `dtype`, and `folder/adapter` where LoRA was used.

    All processes of a training call it. With several, the trainer gathers what is spread over them, and of LoRA only
    the adapter is saved: merging takes the whole model, which one of many processes has no room for.
    """
    import torch

    model = trainer.accelerator.unwrap_model(trainer.model)
    lora = hasattr(model, "peft_config")
    if lora:
        model.peft_config["default"].base_model_name_or_path = None
    if PartialState().num_processes > 1:
        part = folder / ("adapter" if lora else "model")
        trainer.save_model(str(part))
        PartialState().wait_for_everyone()
        if PartialState().is_main_process:
            (part / "training_args.bin").unlink(missing_ok=True)
        return
    if lora:
        model.save_pretrained(folder / "adapter")
        model = model.merge_and_unload()
    model.to(getattr(torch, dtype)).save_pretrained(folder / "model")
    trainer.processing_class.save_pretrained(folder / "model")


def on_cpu() -> bool:
    """Whether training runs on the processor; sets PyTorch's threads to the cores this process may use."""
    import torch

    if torch.cuda.is_available():
        return False
    torch.set_num_threads(usable_cores())
    return True


def plain_log(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A trainer's log with finite figures alone, a row per logged step."""
    rows = [row for row in history if "train_runtime" not in row]
    return [
        {key: value for key, value in row.items() if isinstance(value, int | float) and math.isfinite(value)}
        for row in rows
    ]
