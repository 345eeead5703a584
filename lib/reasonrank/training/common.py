"""What both training stages share: the model and its adapter, settings of TRL's trainers, a run to the end."""

from __future__ import annotations

import importlib.util
import logging
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState

from ..models import load_model, save_merged
from ..settings import Lora, Profile, Rl, Sft
from ..stages import read_json, usable_cores, write_json
from .checkpoints import MARK, WORK, Checkpoints, SaveRegularly
from .dev import DevCurve, first_window_score

logger = logging.getLogger(__name__)


@dataclass
class Trained:
    """What a training stage leaves beside its weights.

    `steps`: optimiser steps; `seconds`; `log`: TRL's finite figures, a row a logged step; `parts`: in RL, the parts of
    the reward, a row a batch of rollouts; `tokens`: computed with shared prompts (`packed`) and as many as the plain
    way takes (`plain`); `dev`: the curve on dev queries (see `dev.DevCurve`), of whose best step the weights are.
    """

    steps: int
    seconds: float
    log: list[dict[str, Any]]
    parts: list[dict[str, float]] = field(default_factory=list)
    tokens: dict[str, int] = field(default_factory=dict)
    dev: list[dict[str, Any]] = field(default_factory=list)
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


def trainable(name: str, profile: Profile, lora: Lora | None, attention: str = "sdpa") -> Any:
    """A model to train: with LoRA in the profile's dtype, else in float32 (master weights)."""
    return load_model(name, profile.model.dtype if lora else "float32", attn_implementation=attention)


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


def finished(
    make_trainer: Callable[[], Any],
    kept: Checkpoints,
    profile: Profile,
    settings: Sft | Rl,
    start: str,
    output: Path | None,
    **more: Any,
) -> Trained:
    """What a training leaves in `output`: this one's, or that of a launch of the same work, which waits in `kept`.

    `start`: the model that an adapter is merged into. `output` None leaves all in `kept`, as a launch does. `more`:
    for `run_to_end`.
    """
    waiting = kept.done
    if not waiting:
        run_to_end(make_trainer(), kept, profile, settings, **more)
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


def run_to_end(
    trainer: Any,
    kept: Checkpoints,
    profile: Profile,
    settings: Sft | Rl,
    per_batch: int = 1,
    state: Callable[[Any], dict[str, Any]] = lambda trainer: {},
) -> None:
    """Train from the last checkpoint on where there is one; leaves the best weights and their `Trained` in `kept`.

    `per_batch`: optimiser steps of a batch of rollouts; `state`: what checkpoints keep of the trainer beside.
    """
    began, before, curve = time.monotonic(), kept.state.get("seconds", 0.0), None
    if trainer.args.bf16:
        skip_input_casts(trainer.model)
    if settings.evaluate_every:
        score = first_window_score(profile, trainer.processing_class, getattr(trainer, "rollouts", None))
        every = settings.evaluate_every * per_batch
        curve = DevCurve(score, every, kept.folder, settings.patience, kept.state.get("dev", ()))
        trainer.add_callback(curve)

    def everything() -> dict[str, Any]:
        seconds = before + time.monotonic() - began
        return {**state(trainer), "dev": curve.rows if curve else [], "seconds": seconds}

    trainer.add_callback(SaveRegularly(per_batch, state=everything))
    if kept.last:
        logger.warning("going on from %s", kept.last.name)
    trainer.train(resume_from_checkpoint=str(kept.last) if kept.last else None)
    if curve:
        curve.restore(trainer.accelerator.unwrap_model(trainer.model))
    save_trained(trainer, kept.trained, profile.model.dtype)
    finite = lambda value: isinstance(value, int | float) and math.isfinite(value)  # noqa: E731
    log = [{k: v for k, v in row.items() if finite(v)} for row in trainer.state.log_history]
    own = {name: value for name, value in everything().items() if name in Trained.__dataclass_fields__}
    where = {"steps": trainer.state.global_step, "processes": PartialState().num_processes}
    if PartialState().is_main_process:
        log = [row for row in log if "train_runtime" not in row]
        write_json(kept.trained / MARK, asdict(Trained(**where, log=log, **own)))
        kept.remove(WORK, kept.trained.name)
    PartialState().wait_for_everyone()


def skip_input_casts(model: Any) -> None:
    """Under bfloat16 autocast: PEFT's casts of every input to the adapters' float32, which autocast undoes at once,
    are left out. The numbers are the same."""
    for module in model.modules():
        if hasattr(module, "cast_input_dtype_enabled"):
            module.cast_input_dtype_enabled = False


def save_trained(trainer: Any, folder: Path, dtype: str) -> None:
    """Save `folder/adapter` where LoRA was used, else `folder/model`, as safetensors; all processes call it.

    With several, the trainer gathers what is spread over them.
    """
    import torch

    model = trainer.accelerator.unwrap_model(trainer.model)
    part = folder / ("adapter" if hasattr(model, "peft_config") else "model")
    if part.name == "adapter":
        model.peft_config["default"].base_model_name_or_path = None
    elif PartialState().num_processes == 1:
        model.to(getattr(torch, dtype))
    trainer.save_model(str(part))
    PartialState().wait_for_everyone()
    if PartialState().is_main_process:
        (part / "training_args.bin").unlink(missing_ok=True)


def on_cpu() -> bool:
    """Whether training runs on the processor; sets PyTorch's threads to the cores this process may use."""
    import torch

    if torch.cuda.is_available():
        return False
    torch.set_num_threads(usable_cores())
    return True
