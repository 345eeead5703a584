"""What a run gave: where its notebooks and figures are, and NDCG@10 of each system on each collection."""

from __future__ import annotations

import os
from pathlib import Path

from .. import evaluation, stages
from .errors import CommandError


def summary(run_dir: Path) -> str:
    """Where notebooks and figures of a run are, from the current folder, and its scores: NDCG@10 in percent with
    95 % intervals. CommandError where it has no evaluation yet."""
    shown = os.path.relpath(run_dir)
    try:
        record = stages.read_json(stages.stage_file(run_dir, "05_gpu_evaluation", "record.json"))
        scores = evaluation.score_frame(record["result"]["scores"])
        name, seed = record["config"]["name"], record["seed"]
    except (FileNotFoundError, ValueError) as error:
        raise CommandError(f"{shown}: {error}") from None
    except (KeyError, TypeError) as error:
        raise CommandError(f"{shown}/05_gpu_evaluation/record.json: lacks {error}") from None
    notebooks = list((run_dir / "notebooks").glob("[0-9]*.ipynb"))
    figures = list((run_dir / "07_figures").glob("*.png"))
    lines = [f"executed notebooks: {shown}/notebooks ({len(notebooks)})"]
    if figures:
        lines.append(
            f"figures: {shown}/07_figures ({len(figures)}), on one page in {shown}/07_figures/results.md"
        )
    lines += ["", f"NDCG@10 in % [95 % interval], profile {name}, seed {seed}"]
    return "\n".join([*lines, scores.T.rename_axis("collection").to_markdown(disable_numparse=True)])
