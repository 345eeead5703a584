"""`python -m reasonrank.training {sft,rl}`: the stage of notebook 03 or 04 without its figures, on one or more GPUs.

All processes train, and the main one keeps weights and log in the run's folder `.trained`. It then starts itself
anew with `--trained`, since the memory of a GPU, a process group and an engine beside the training are given back
for certain only so. The new process counts valid answers and writes the stage, as the notebook does.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import evaluation, models, profiles, stages, synthesis
from . import Trained, processes, train_grpo, train_sft, window_prompt, windows_of
from .common import load_model, save_model

STAGES = {"sft": "03_sft", "rl": "04_rl"}
LOG = "trained.json"


@dataclass(frozen=True)
class Work:
    """A stage to be trained: `which` of `STAGES`, and where from: `start`, a model's name or folder."""

    which: str
    settings: profiles.Profile
    run: Path
    start: str
    inputs: tuple[Path, ...]

    @property
    def stage(self) -> str:
        """Name of the stage's folder in the run."""
        return STAGES[self.which]

    @property
    def trained(self) -> Path:
        """What was trained, until the stage is written."""
        return self.run / ".trained" / self.stage


def main(arguments: Sequence[str] | None = None) -> int:
    """Train a stage, or finish a trained one; returns the exit code: 0 done, 1 something is missing or wrong."""
    options = _parser().parse_args(arguments)
    try:
        work = prepare(options.which, options.profile, options.run_dir)
        if options.trained:
            print("written:", finish(work).name)
            return 0
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    train(work)
    processes.leave()
    if processes.is_main():
        start_anew(
            [options.which, "--profile", options.profile, "--run-dir", str(options.run_dir), "--trained"]
        )
    return 0


def prepare(which: str, profile: str, run_dir: Path) -> Work:
    """Settings and inputs of a stage; the main process writes the run's profile.yaml.

    Raises FileNotFoundError for a profile or an earlier stage that is missing, ValueError for settings that do
    not go with several processes.
    """
    settings, run = profiles.load(profile), Path(run_dir).absolute()
    if processes.count() > 1 and getattr(settings, which).evaluate_every:
        raise ValueError(
            f"{settings.name}: {which}.evaluate_every scores dev queries with an engine of its own, beside one "
            f"training process; with {processes.count()} it must be null"
        )
    kept = stages.stage_file(run, "02_filtering", "kept.jsonl")
    start, inputs = settings.model.name, (kept,)
    if which == "rl":
        folder = stages.stage_file(run, STAGES["sft"], "model")
        start, inputs = str(folder), (kept, *sorted(folder.glob("*.safetensors")))
    if processes.is_main():
        profiles.start(profile, str(run))
    profiles.seed_everything(settings.seed)
    return Work(which, settings, run, start, inputs)


def windows(work: Work) -> list[dict[str, Any]]:
    """The kept examples as training rows, in prompts of the length that the stage allows."""
    settings = work.settings
    longest = settings.rl.max_prompt_tokens if work.which == "rl" else None
    prompt = window_prompt(settings, work.start, longest)
    folder = stages.stage_file(work.run, "01_synthesis", "manifest.json").parent
    queries, texts = (stages.read_json(folder / name) for name in ("id_query.json", "id_doc.json"))
    return windows_of(synthesis.load(work.inputs[0]), prompt, queries, texts)


def train(work: Work) -> None:
    """Train in all processes; the main one leaves weights and log in `work.trained`."""
    rows, settings = windows(work), work.settings
    if processes.is_main():
        shutil.rmtree(work.trained, ignore_errors=True)
        work.trained.mkdir(parents=True)
    judged = evaluation.dev_sets(settings) if getattr(settings, work.which).evaluate_every else None
    more = {"dev": judged, "checkpoints": work.run / ".checkpoints" / work.stage}
    if work.which == "sft":
        trained = train_sft(rows, settings, work.trained, **more)
    else:
        trained = train_grpo(rows, settings, work.start, work.trained, **more)
    if processes.is_main():
        stages.write_json(work.trained / LOG, _log(trained, len(rows)))


def finish(work: Work) -> Path:
    """Write the stage of what `train` has left, and return its folder.

    An adapter without whole weights, as several processes leave it, is merged first. Raises FileNotFoundError
    where nothing was trained, ValueError under a launcher.
    """
    if processes.count() > 1:
        raise ValueError("--trained is for one process; call it without a launcher")
    if not (work.trained / LOG).is_file():
        raise FileNotFoundError(f"{work.stage}: nothing trained is waiting in the run; leave out --trained")
    log = stages.read_json(work.trained / LOG)
    stage = stages.Stage(work.run, work.stage, work.settings, work.settings.seed, work.inputs)
    stage.started -= log["seconds"]
    if not (work.trained / "model").is_dir():
        _merge(work)
    result = _sft_result(work, log, stage) if work.which == "sft" else _rl_result(work, log)
    for name in ("model", "adapter"):
        if (work.trained / name).is_dir():
            os.replace(work.trained / name, stage.path(name))
    stage.record(result)
    folder = stage.finish()
    shutil.rmtree(work.trained)
    return folder


def answers(settings: profiles.Profile, weights: str | Path) -> tuple[dict[str, int], str]:
    """Counts of answers by status over the first windows of some dev queries, and the text of one answer."""
    count = -(-settings.sft.validity_queries // len(settings.collections))
    dev = [evaluation.test_set(settings, name, "dev", count) for name in settings.collections]
    with evaluation.open_reranker(settings, weights, "sliding") as reranker:
        top = settings.evaluation.window
        found = [reranker.rerank_run_sync(t.run, t.queries, t.collection.texts(), top=top) for t in dev]
    counts = evaluation.answer_row(str(weights), found)
    counts.pop("system")
    return counts, next(iter(found[len(dev) // 2].traces.values()))[0].text


def start_anew(words: Sequence[str]) -> None:
    """Put a new process of this module in the place of this one, outside of any launcher's group."""
    sys.stdout.flush()
    sys.stderr.flush()
    command = [sys.executable, "-m", __spec__.parent, *words]
    os.execve(sys.executable, command, processes.without_launcher(os.environ))


def _log(trained: Trained, examples: int) -> dict[str, Any]:
    """What the record needs of a training."""
    return {
        "examples": examples,
        "steps": trained.steps,
        "seconds": round(trained.seconds, 1),
        "loss": [{"step": int(row["step"]), "loss": row["loss"]} for row in trained.log if "loss" in row],
        "dev": trained.dev,
        "parts": trained.parts,
        "tokens": trained.tokens,
    }


def _sft_result(work: Work, log: dict[str, Any], stage: stages.Stage) -> dict[str, Any]:
    """The result that notebook 03 records; its sample answers go to samples.json, which notebook 04 reads."""
    weights = {"before": work.start, "after": work.trained / "model"}
    found = {label: answers(work.settings, place) for label, place in weights.items()}
    stages.write_json(stage.path("samples.json"), {label: text for label, (_, text) in found.items()})
    own = {key: log[key] for key in ("examples", "steps", "seconds", "loss", "dev")}
    validity = {label: counts for label, (counts, _) in found.items()}
    method = "LoRA" if work.settings.sft.lora else "full"
    return {"adopted": None, "method": method, **own, "validity": validity}


def _rl_result(work: Work, log: dict[str, Any]) -> dict[str, Any]:
    """The result that notebook 04 records."""
    sft = stages.read_json(stages.stage_file(work.run, STAGES["sft"], "record.json"))["result"]
    counts, _ = answers(work.settings, work.trained / "model")
    rl = work.settings.rl
    own = {key: log[key] for key in ("seconds", "tokens", "parts", "loss", "dev")}
    return {
        "steps": len(log["parts"]),
        "optimiser_steps": log["steps"],
        "rollouts_per_step": rl.prompts_per_step * rl.rollouts,
        **own,
        "validity": {"SFT": sft["validity"]["after"], "SFT + RL": counts},
    }


def _merge(work: Work) -> None:
    """Whole weights of `start` and the trained adapter."""
    from peft import PeftModel

    base = load_model(work.start, work.settings.model, getattr(work.settings, work.which).lora)
    model = PeftModel.from_pretrained(base, work.trained / "adapter")
    save_model(model, models.load_tokenizer(work.start), work.trained, work.settings.model.dtype)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="reasonrank.training", description="Train a stage of a run.")
    parser.add_argument("which", choices=sorted(STAGES), metavar="STAGE", help="sft or rl")
    parser.add_argument("--profile", required=True, metavar="NAME", help="in profiles/, or a YAML file")
    parser.add_argument("--run-dir", required=True, type=Path, metavar="DIR", help="the run's folder")
    parser.add_argument(
        "--trained",
        action="store_true",
        help="the training is done, and the rest failed: count valid answers and write the stage",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
