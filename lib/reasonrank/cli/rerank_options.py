"""The options of `rerank`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..engines import KINDS, PRESETS
from ..rerank.strategies import STRATEGIES


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add all of them, in groups."""
    _add_files(parser.add_argument_group("files"))
    _add_model(parser.add_argument_group("model"))
    _add_ranking(parser.add_argument_group("ranking"))


def _add_files(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--run", required=True, type=Path, metavar="FILE", help="the first stage's TREC run")
    group.add_argument(
        "--queries", type=Path, metavar="FILE", help="id TAB text, or JSON lines with _id and text"
    )
    group.add_argument(
        "--corpus", type=Path, metavar="PATH", help="JSON lines with _id, title, text; a file or a folder"
    )
    group.add_argument(
        "--data", type=Path, metavar="FOLDER", help="BEIR's or BRIGHT's form, for both of the above"
    )
    group.add_argument("--subset", metavar="NAME", help="of a --data folder with several, as biology")
    group.add_argument("--out", required=True, type=Path, metavar="FILE", help="the reranked TREC run")
    group.add_argument("--journal", type=Path, metavar="FILE", help="of finished queries (OUT.journal)")
    group.add_argument("--tag", default="reasonrank", help="last column of the run (%(default)s)")


def _add_model(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model",
        required=True,
        metavar="NAME",
        help="a folder, the embedded smollm2-135m-instruct, or what a server calls it",
    )
    group.add_argument("--adapter", type=Path, metavar="FOLDER", help="a LoRA adapter")
    group.add_argument("--engine", choices=["auto", *KINDS], default="auto", help="(%(default)s)")
    group.add_argument("--base-url", metavar="URL", help="of a server, with its /v1")
    group.add_argument(
        "--tokenizer", metavar="NAME", help="of a server's model, where MODEL is no name of one"
    )
    group.add_argument(
        "--text-prompts", action="store_true", help="for servers other than vLLM: text, not token ids"
    )
    group.add_argument("--dtype", default="auto", help="number format of the weights (%(default)s)")
    group.add_argument("--max-model-len", type=positive, metavar="N", help="context in tokens (the model's)")
    _add_counts(group, {"--max-in-flight": (64, "requests computed at a time")})


def _add_ranking(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--strategy", choices=list(STRATEGIES), default="sliding", help="(%(default)s)")
    counts = {
        "--top": (100, "candidates that are reranked; the others stay behind them"),
        "--window": (20, "candidates of one prompt"),
        "--step": (10, "candidates by which the window moves"),
        "--max-tokens": (3172, "tokens of an answer, reasoning included"),
        "--passage-tokens": (512, "tokens of a passage"),
        "--query-tokens": (4096, "tokens of a query"),
    }
    _add_counts(group, counts)
    group.add_argument(
        "--overlong",
        choices=["shorten", "error"],
        default="shorten",
        help="what becomes of a prompt that does not fit: passages cut shorter, or an error (%(default)s)",
    )
    group.add_argument("--sampling", choices=list(PRESETS), default="greedy", help="(%(default)s)")
    group.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    group.add_argument("--retry", action="store_true", help="ask once more for an unfinished answer")
    group.add_argument(
        "--constrained", action="store_true", help="hold answers to their form, where the engine can"
    )


def _add_counts(group: argparse._ArgumentGroup, options: dict[str, tuple[int, str]]) -> None:
    for option, (default, about) in options.items():
        group.add_argument(option, type=positive, default=default, metavar="N", help=f"{about} (%(default)s)")


def positive(text: str) -> int:
    """A number of 1 or more, as argparse takes it."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}: expected 1 or more")
    return value
