"""`python -m reasonrank.training {sft,rl}`: the training of notebook 03 or 04 alone, on one or more GPUs.

All processes train. The weights wait in the run's `.checkpoints`, and the notebook takes them when it is run next,
with the same examples and settings, in place of a training of its own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from accelerate import PartialState

from .. import profiles, stages
from ..examples import load, source
from . import train_grpo, train_sft, window_rows

STAGES = {"sft": "03_sft", "rl": "04_rl"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train a stage; returns the exit code: 0 done, 1 something is missing or wrong."""
    parser = argparse.ArgumentParser(prog="reasonrank.training", description="Train a stage of a run.")
    parser.add_argument("which", choices=sorted(STAGES), metavar="STAGE", help="sft or rl")
    parser.add_argument("--profile", required=True, metavar="NAME", help="in profiles/, or a YAML file")
    parser.add_argument("--run-dir", required=True, type=Path, metavar="DIR", help="the run's folder")
    options = parser.parse_args(arguments)
    try:
        train(options.which, options.profile, options.run_dir.absolute())
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    PartialState().destroy_process_group()
    return 0


def train(which: str, profile: str, run: Path) -> None:
    """Train in all processes; the main one leaves weights and log in the run.

    Raises FileNotFoundError for a profile or an earlier stage that is missing, ValueError for settings that do
    not go with several processes.
    """
    settings, here, stage = profiles.load(profile), PartialState(), STAGES[which]
    if here.num_processes > 1 and getattr(settings, which).evaluate_every:
        raise ValueError(
            f"{settings.name}: {which}.evaluate_every scores dev queries with an engine of its own, beside one "
            f"training process; with {here.num_processes} it must be null"
        )
    examples, kept = load(source(run, settings, "02_filtering")), run / ".checkpoints" / stage
    start = stages.stage_file(run, STAGES["sft"], "model") if which == "rl" else None
    if here.is_main_process:
        profiles.start(profile, str(run))
    profiles.seed_everything(settings.seed)
    rows = window_rows(run, examples, settings, settings.rl.max_prompt_tokens if start else None)
    trained = (
        train_grpo(rows, settings, start, None, kept) if start else train_sft(rows, settings, None, kept)
    )
    if here.is_main_process:
        print(f"trained: {trained.summary()}; notebooks/{stage}.ipynb takes the weights into the run")


if __name__ == "__main__":
    sys.exit(main())
