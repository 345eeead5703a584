"""What a run gave: where its notebooks and figures are, and NDCG@10 of each system on each collection."""

from __future__ import annotations

import os
from pathlib import Path

from .. import evaluation, stages
from .errors import CommandError


def summary(run_dir: Path) -> str:
    """The places and the scores of a run, as text. CommandError where it has no evaluation yet.

    Scores are NDCG@10 in percent with their 95 % intervals; paths are relative to the current folder.
    """
    try:
        record = stages.read_json(stages.stage_file(run_dir, "05_gpu_evaluation", "record.json"))
        scores = evaluation.score_frame(record["result"]["scores"])
    except (FileNotFoundError, ValueError) as error:
        raise CommandError(f"{_shown(run_dir)}: {error}") from None
    except (KeyError, TypeError) as error:
        raise CommandError(f"{_shown(run_dir)}/05_gpu_evaluation/record.json: lacks {error}") from None
    table = scores.T.rename_axis("collection").to_markdown(disable_numparse=True)
    title = f"NDCG@10 in % [95 % interval], profile {record['config']['name']}, seed {record['seed']}"
    return "\n".join([*_places(run_dir), "", title, table])


def _places(run_dir: Path) -> list[str]:
    notebooks = sorted((run_dir / "notebooks").glob("[0-9]*.ipynb"))
    lines = [f"executed notebooks: {_shown(run_dir / 'notebooks')} ({len(notebooks)})"]
    figures = run_dir / "07_figures"
    if (figures / "manifest.json").is_file():
        count = len(list(figures.glob("*.png")))
        lines.append(f"figures: {_shown(figures)} ({count}), on one page in {_shown(figures / 'results.md')}")
    return lines


def _shown(path: Path) -> str:
    return os.path.relpath(path)
