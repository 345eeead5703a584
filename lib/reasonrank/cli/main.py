"""Arguments of `python -m reasonrank` and its exit codes: 0 done, 1 failed, 2 called wrongly."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from . import (
    DEADLINE,
    ablations,
    data_arguments,
    preflight,
    publish,
    release,
    rerank,
    rerank_options,
    summary,
    sweep,
    verify,
)
from .errors import CommandError

_RUN = (
    "Execute a notebook into a run's folder: this interpreter as kernel, known parameters only, a deadline."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `arguments` are the process's own by default."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except CommandError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="reasonrank", description="ReasonRank, reproducible.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands.add_parser("run", help="execute a notebook", description=_RUN))
    _add_publish(commands.add_parser("publish", help="keep a run's outputs", description=publish.__doc__))
    _add_release(commands.add_parser("release", help="release adapters", description=release.__doc__))
    _add_preflight(
        commands.add_parser("preflight", help="check before a long run", description=preflight.__doc__)
    )
    _add_summary(commands.add_parser("summary", help="show what a run gave", description=summary.__doc__))
    _add_rerank(commands.add_parser("rerank", help="rerank a TREC run", description=rerank.__doc__))
    data_arguments.add(commands)
    sweep.add(commands)
    ablations.add(commands)
    _add_verify(commands.add_parser("verify", help="check the paper's claims", description=verify.__doc__))
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("notebook", metavar="NOTEBOOK", help="a file, or a name such as 03_sft")
    parser.add_argument("--profile", required=True, metavar="NAME", help="in profiles/, or a YAML file")
    parser.add_argument("--run-dir", required=True, type=Path, metavar="DIR", help="the run's folder")
    parser.add_argument(
        "-p",
        "--parameter",
        dest="parameters",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a parameter of the notebook, its value as in YAML; may be repeated",
    )
    parser.add_argument(
        "--deadline",
        type=float,
        default=DEADLINE,
        metavar="SECONDS",
        help="for the whole notebook (default: %(default).0f)",
    )
    parser.set_defaults(command=_run)


def _run(options: argparse.Namespace) -> None:
    from . import run  # papermill takes seconds to import; no other command needs it

    run.command(options)


def _add_rerank(parser: argparse.ArgumentParser) -> None:
    rerank_options.add_options(parser)
    parser.set_defaults(command=rerank.command)


def _add_publish(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    parser.add_argument(
        "--to",
        type=Path,
        default=publish.NOTEBOOKS,
        metavar="DIR",
        help="the folder of the notebooks; data/records and figures lie beside it (default: the project's)",
    )
    parser.set_defaults(command=publish.command)


def _add_release(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    parser.add_argument("--to", type=Path, metavar="DIR", help="default: data/adapters")
    parser.set_defaults(command=release.command)


def _add_preflight(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", required=True, metavar="NAME", help="in profiles/, or a YAML file")
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="where the run will be, for its disk")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the plan; what this machine lacks is no refusal"
    )
    parser.add_argument("--gpus", type=int, metavar="N", help="in place of the profile's hardware.gpus")
    parser.add_argument("--gpu-memory", type=float, metavar="GIB", help="of one GPU, likewise")
    parser.add_argument("--zero", type=int, metavar="STAGE", help="DeepSpeed's ZeRO, 0 to 3, likewise")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=preflight.command)


def _add_summary(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dirs", type=Path, nargs="+", metavar="RUN_DIR")
    parser.set_defaults(command=summary.command)


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bright", type=Path, metavar="DIR", help="published runs and judgements of BRIGHT")
    parser.add_argument("--golden", type=Path, metavar="FILE", help="golden cases of the released reward")
    for name, default, what in (
        ("--records", verify.RECORDS, "records of runs"),
        ("--out", verify.OUT, "where verify.json and verify.md go"),
    ):
        parser.add_argument(name, type=Path, default=default, metavar="DIR", help=what)
    parser.add_argument("--brief", action="store_true", help="print a line of counts alone")
    parser.set_defaults(command=verify.command)
