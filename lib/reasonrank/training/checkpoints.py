"""Checkpoints of a training: saved every few minutes, complete or not there, resumed where the work is the same.

A checkpoint is Hugging Face's (weights, optimiser, scheduler, random states, the log with what our callbacks add to
it) and an empty file that is written last: a folder without it was being written when the process died. What a launch
has trained to the end waits beside them in `trained`, until a notebook of the same work takes it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from ..stages import read_json, write_json

MINUTES = 4.0  # between checkpoints: with the step under way and the saving itself, a kill costs less than 5
MARK, WORK = "reasonrank.json", "work.json"


class Checkpoints:
    """Checkpoints in `folder` of a training and all it depends on, `work` (rows, settings, seeds).

    `last`: the newest complete checkpoint, or None; `trained`: where finished weights wait, `done` once they do.
    Checkpoints of other work, or half written, are removed. Raises ValueError where weights of other work wait.
    """

    def __init__(self, folder: Path, work: Any):
        self.folder, self.trained = Path(folder), Path(folder) / "trained"
        text = json.dumps(work, sort_keys=True, default=str, ensure_ascii=False)
        own = hashlib.sha256(text.encode()).hexdigest()
        with PartialState().main_process_first():  # the others find all in order
            file = self.folder / WORK
            if not file.is_file() or read_json(file)["work"] != own:
                if self.done:
                    raise ValueError(
                        f"{self.trained}: trained on other examples, weights or settings than these; "
                        "launch the training again after removing the folder, or remove it to train here"
                    )
                self.remove()
                write_json(file, {"work": own})
            for path in self.folder.glob("checkpoint-*"):
                if not (path / MARK).is_file():
                    shutil.rmtree(path, ignore_errors=True)
        self.last = get_last_checkpoint(str(self.folder))

    @property
    def done(self) -> bool:
        """Whether finished weights wait."""
        return (self.trained / MARK).is_file()

    def remove(self, *kept: str) -> None:
        """Delete all but the trainer's own logs (`runs`) and what `kept` names; one process calls it."""
        for path in list(self.folder.glob("*")):
            if path.name not in ("runs", *kept):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


class SaveRegularly(TrainerCallback):
    """Saves at the first step after `MINUTES` since the last time that is a multiple of `every` optimiser steps, those
    of a batch of rollouts, in the middle of which nothing could be resumed. Adds to each row of the log the `seconds`
    since the one before."""

    def __init__(self, every: int = 1):
        self.every = every
        self.saved = self.logged = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        before, self.logged = self.logged, time.monotonic()
        state.log_history[-1]["seconds"] = self.logged - before

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        (due,) = broadcast_object_list([time.monotonic() - self.saved >= 60 * MINUTES])
        if due and state.global_step % self.every == 0 and state.global_step < state.max_steps:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        PartialState().wait_for_everyone()  # until each has written its part of the checkpoint
        if PartialState().is_main_process:
            own = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            (own / MARK).touch()
            for path in own.parent.glob("checkpoint-*"):
                if path != own:
                    shutil.rmtree(path)
        self.saved = time.monotonic()
