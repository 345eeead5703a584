"""Take the outputs of a run over into the project, for committing: notebooks, result records, figures."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

import nbformat
import yaml

from ..stages import ROOT, write_text
from . import readme
from .clean import clean, machine_path
from .errors import CommandError, UsageError

NOTEBOOKS = ROOT / "notebooks"
LIMIT = 10**6  # bytes of a notebook; more is slow to show


def command(options: argparse.Namespace) -> None:
    """`publish`: see `publish`; prints what was written, and renews the README's tables."""
    for path in publish(options.run_dir, options.to):
        print(path)
    page = options.to.resolve().parent / "README.md"
    if page.is_file():
        write_text(page, readme.fill(page.read_text(encoding="utf-8"), page.parent / "data" / "records"))


def publish(run_dir: Path, to: Path = NOTEBOOKS) -> list[Path]:
    """Copy what a run gave beside its sources, and return the files written.

    Executed notebooks go to `to`, each over its source, cleaned (see `clean.clean`); the record of each stage
    goes to data/records/<profile>/<stage>.json and figures of 07_figures go to figures/, both beside `to`.
    UsageError where `run_dir` is no run. CommandError, before anything is written, for a notebook that ended
    in an error, is over 1 MB or was changed since the run, and for a record that names a machine's path.
    """
    run_dir, beside = run_dir.resolve(), to.resolve().parent
    profile = _profile(run_dir)
    texts = {to / path.name: _notebook(path, to, run_dir) for path in _executed(run_dir)}
    for record in sorted(run_dir.glob("[0-9]*/record.json")):
        target = beside / "data" / "records" / profile / f"{record.parent.name}.json"
        texts[target] = _record(record)
    for path, text in texts.items():
        write_text(path, text)
    figures = sorted((run_dir / "07_figures").glob("*.png"))
    return [*texts, *(_copy(figure, beside / "figures" / figure.name) for figure in figures)]


def _profile(run_dir: Path) -> str:
    """Name of the profile of a run."""
    path = run_dir / "profile.yaml"
    if not path.is_file():
        raise UsageError(f"{run_dir}: not the folder of a run; it has no profile.yaml")
    return yaml.safe_load(path.read_text(encoding="utf-8"))["name"]


def _executed(run_dir: Path) -> list[Path]:
    """Executed notebooks of complete stages, in order."""
    notebooks = sorted((run_dir / "notebooks").glob("[0-9]*.ipynb"))
    failed = [path.name for path in notebooks if path.name.endswith(".failed.ipynb")]
    if failed or not notebooks:
        raise CommandError(f"{run_dir}/notebooks: {', '.join(failed) or 'no notebook'}; run it first")
    return notebooks


def _notebook(path: Path, to: Path, run_dir: Path) -> str:
    """The text of an executed notebook, cleaned."""
    notebook = nbformat.read(path, as_version=4)
    try:
        clean(notebook, [run_dir])
    except ValueError as error:
        raise CommandError(f"{path}: {error}") from None
    if (to / path.name).is_file():
        _same_sources(notebook, nbformat.read(to / path.name, as_version=4), path.name)
    text = nbformat.writes(notebook).rstrip("\n") + "\n"
    size = len(text.encode())
    if size > LIMIT:
        raise CommandError(f"{path}: {size / 1e6:.1f} MB; expected {LIMIT / 1e6:g} MB at most")
    return text


def _same_sources(executed: nbformat.NotebookNode, source: nbformat.NotebookNode, name: str) -> None:
    """Later edits of a notebook must not be lost."""
    if [cell.source for cell in executed.cells] != [cell.source for cell in source.cells]:
        raise CommandError(f"{name} was changed since the run; run it again, then publish")


def _record(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if found := machine_path(text):
        raise CommandError(f"{path}: names {found}, a path of this machine; expected none in a record")
    return text


def _copy(source: Path, target: Path) -> Path:
    """Copy a file so that it appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(source, partial)
    os.replace(partial, target)
    return target
