"""Arguments of the commands that make training data: synthesise, filter, published."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..sources import SCENARIOS
from . import synthesise


def add(commands: argparse._SubParsersAction) -> None:
    """Add the three commands."""
    _synthesise(commands)
    _filter(commands)
    _published(commands)


def _command(commands: argparse._SubParsersAction, name: str, run, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=run.__doc__)
    parser.add_argument("--profile", default="default", metavar="NAME", help="in profiles/, or a YAML file")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="the folder of the run")
    parser.add_argument(
        "-p",
        "--parameter",
        dest="parameters",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the profile, as synthesis.remote.model=NAME; may be repeated",
    )
    parser.set_defaults(command=run)
    return parser


def _synthesise(commands: argparse._SubParsersAction) -> None:
    parser = _command(commands, "synthesise", synthesise.command, "label your own data with a teacher")
    parser.add_argument(
        "--data",
        required=True,
        type=Path,
        metavar="FOLDER",
        help="queries.jsonl, passages.jsonl, labels.jsonl",
    )
    parser.add_argument("--scenario", choices=SCENARIOS, default=SCENARIOS[0], help="what relevance means")
    parser.add_argument("--teacher", choices=("offline", "remote"), help="default: the profile's")
    parser.add_argument("--first-stage", choices=("dense", "bm25"), help="default: the profile's")
    parser.add_argument("--candidates", type=_count, default=40, metavar="K", help="default: %(default)s")
    parser.add_argument("--queries", type=_count, metavar="N", help="the first N (default: all)")
    parser.add_argument(
        "--passage-words", type=_count, default=300, metavar="N", help="longer ones are split (%(default)s)"
    )
    parser.add_argument("--replay", action="store_true", help="answers from the journal alone, no network")


def _filter(commands: argparse._SubParsersAction) -> None:
    text = "keep examples whose labels agree"
    parser = _command(commands, "filter", synthesise.filter_command, text)
    parser.add_argument("--alpha", type=float, help="least NDCG@10, 0..1 (default: the profile's)")


def _published(commands: argparse._SubParsersAction) -> None:
    text = "take the authors' training data over"
    parser = _command(commands, "published", synthesise.published_command, text)
    parser.add_argument("--subset", choices=("13k", "sft", "rl"), default="13k")
    for name in ("13k", "sft", "rl"):
        place = f"a local copy of the {name} set (default: the hub)"
        parser.add_argument(f"--data-{name}", type=Path, metavar="FOLDER", help=place)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number, 1 or more")
    return int(text)
