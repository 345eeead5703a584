"""Take the outputs of a run over into the project, for committing: notebooks, result records, figures.

python -m tools.publish runs/default
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import nbformat
import typer
import yaml

from reasonrank.runs import write_bytes
from reasonrank.stages import ROOT, write_text

from . import results
from .clean import clean, machine_path

LIMIT = 10**6  # bytes of a notebook; more is slow to show


def main(run_dir: Path, to: Annotated[Path, typer.Option(help="the project's folder")] = ROOT) -> None:
    """Publish a run, print what was written, and renew the tables of README.md and docs/RESULTS.md."""
    try:
        for path in publish(run_dir, to):
            print(path)
        for page in (to / "README.md", to / "docs" / "RESULTS.md"):
            if page.is_file():
                write_text(page, results.fill(page.read_text(encoding="utf-8"), to / "data" / "records"))
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"error: {error}")


def publish(run_dir: Path, to: Path = ROOT) -> list[Path]:
    """Copy what a run gave beside its sources, and return the files written.

    Executed notebooks go to notebooks/, each over its source, cleaned (see `clean.clean`); the record of each
    stage to data/records/<profile>/<stage>.json; figures of 07_figures to figures/. FileNotFoundError where
    `run_dir` is no run; ValueError, before anything is written, for a notebook that ended in an error, is over
    1 MB or was changed since the run, and for a record that names a machine's path.
    """
    profile, notebooks = run_dir / "profile.yaml", sorted((run_dir / "notebooks").glob("[0-9]*.ipynb"))
    if not profile.is_file():
        raise FileNotFoundError(f"{run_dir}: not the folder of a run; it has no profile.yaml")
    failed = [path.name for path in notebooks if path.name.endswith(".failed.ipynb")]
    if failed or not notebooks:
        raise ValueError(f"{run_dir}/notebooks: {', '.join(failed) or 'no notebook'}; run it first")
    texts = {to / "notebooks" / path.name: _notebook(path, to, run_dir) for path in notebooks}
    name = yaml.safe_load(profile.read_text(encoding="utf-8"))["name"]
    for record in sorted(run_dir.glob("[0-9]*/record.json")):
        text = record.read_text(encoding="utf-8")
        if found := machine_path(text):
            raise ValueError(f"{record}: names {found}, a path of this machine; expected none in a record")
        texts[to / "data" / "records" / name / f"{record.parent.name}.json"] = text
    figures = sorted((run_dir / "07_figures").glob("*.png"))
    written = [write_text(path, text) for path, text in texts.items()]
    return written + [write_bytes(to / "figures" / figure.name, figure.read_bytes()) for figure in figures]


def _notebook(path: Path, to: Path, run_dir: Path) -> str:
    """The text of an executed notebook, cleaned; later edits of its source must not be lost."""
    try:
        notebook = clean(nbformat.read(path, as_version=4), [run_dir])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    source = to / "notebooks" / path.name
    if source.is_file():
        cells = nbformat.read(source, as_version=4).cells
        if [cell.source for cell in notebook.cells] != [cell.source for cell in cells]:
            raise ValueError(f"{path.name} was changed since the run; run it again, then publish")
    text = nbformat.writes(notebook).rstrip("\n") + "\n"
    if len(text.encode()) > LIMIT:
        raise ValueError(f"{path}: {len(text.encode()) / 1e6:.1f} MB; expected {LIMIT / 1e6:g} MB at most")
    return text


if __name__ == "__main__":
    typer.run(main)
