"""A sweep's points in one table: parameters, seeds, and each system's NDCG@10 with mean and spread."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import sweeps
from ..stages import write_json, write_text
from .errors import CommandError, UsageError


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = commands.add_parser("sweep", help="compare the points of a sweep", description=__doc__)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="the run that was swept")
    parser.set_defaults(command=command)


def command(options: argparse.Namespace) -> None:
    """`sweep`: print the table, and write it to RUN_DIR/sweep/comparison.json and comparison.md.

    UsageError where the run has no sweep; CommandError for a record that is malformed. Points that are not
    finished are listed under the table.
    """
    try:
        finished, unfinished = sweeps.read(options.run_dir)
        rows = sweeps.rows(finished)
    except FileNotFoundError as error:
        raise UsageError(str(error)) from None
    except ValueError as error:
        raise CommandError(str(error)) from None
    text = sweeps.markdown(rows, unfinished)
    folder = options.run_dir / "sweep"
    write_json(folder / "comparison.json", sweeps.as_json(rows, unfinished))
    write_text(folder / "comparison.md", text + "\n")
    print(text)
