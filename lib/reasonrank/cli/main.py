"""The commands of `python -m reasonrank` and their exit codes: 0 done, 1 failed, 2 called wrongly.

A command is a typed function of its own module, registered here. Modules that take seconds to import (papermill,
torch) are imported by the functions that use them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from . import (
    DEADLINE,
    preflight,
    synthesise,
)
from . import summary as summaries
from .errors import CommandError
from .parameters import Parameters, ProfileName, RunFolder, read_parameters
from .rerank import rerank
from .verify import verify

app = typer.Typer(
    help="ReasonRank, reproducible: notebooks in batches, data, reranking, checks.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `arguments` are the process's own by default."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(args=words, prog_name="reasonrank", standalone_mode=False)
    except (CommandError, FileNotFoundError, ValueError) as error:  # each says what is wrong in its own line
        print(f"error: {error}", file=sys.stderr)
        return getattr(error, "code", 1)
    except TyperException as error:  # called wrongly; without arguments, the help
        print(error.format_message() if not words else f"error: {error.format_message()}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)
        return 130
    return code if isinstance(code, int) else 0


@app.command()
def run(
    notebook: Annotated[str, typer.Argument(metavar="NOTEBOOK", help="a file, or a name such as 03_sft")],
    profile: ProfileName,
    run_dir: RunFolder,
    parameter: Parameters = [],  # noqa: B006 - typer makes a list of its own
    deadline: Annotated[float, typer.Option(metavar="SECONDS", help="for the whole notebook")] = DEADLINE,
) -> None:
    """Execute a notebook into a run's folder: this interpreter as kernel, known parameters only, a deadline."""
    from .run import run_notebook

    run_notebook(notebook, profile, run_dir, read_parameters(parameter), deadline)


@app.command()
def summary(run_dirs: Annotated[list[Path], typer.Argument(metavar="RUN_DIR")]) -> None:
    """Show what runs gave: where notebooks and figures are, and the scores of each system."""
    print("\n\n".join(map(summaries.summary, run_dirs)))


@app.command()
def release(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR")],
    to: Annotated[Path | None, typer.Option(metavar="DIR", help="default: data/adapters")] = None,
) -> None:
    """Release the adapters of a finished run: safetensors with a model card each."""
    from .. import adapters

    for folder in adapters.from_run(run_dir, to or adapters.ADAPTERS):
        print(f"{folder}: {(folder / adapters.WEIGHTS).stat().st_size / 1e6:.1f} MB")


@app.command()
def sweep(
    places: Annotated[
        list[Path],
        typer.Argument(metavar="PLACE", help="runs that were swept, and tables of earlier sweeps"),
    ],
) -> None:
    """Print one table of sweeps, with seeds taken together; a run that comes first keeps it in its sweep/comparison.*.

    Where `variant` was swept, each part of the recipe is compared with the whole too (Table 3 in small).
    """
    from .. import ablations, sweeps
    from ..stages import provenance, write_json, write_text

    points, unfinished = sweeps.read(places)
    rows = sweeps.rows(points)
    compared, missing = ablations.comparisons(points)
    text = sweeps.markdown(rows, unfinished)
    if compared:
        text += "\n\n" + "\n".join(ablations.lines({"comparisons": compared, "not_run": missing}))
    print(text)
    if places[0].is_dir():
        found = {"rows": rows, "comparisons": compared, "not_run": missing, "unfinished": unfinished}
        found["points"] = [point.model_dump(mode="json") for point in points]
        first = points[0] if points else None
        source = provenance(first.config, first.seed) if first else {}
        folder = places[0] / "sweep"
        write_json(folder / "comparison.json", {"stage": "sweep", **source, "result": found})
        write_text(folder / "comparison.md", text + "\n")


# Commands that still read their arguments with argparse: each is handed what follows its name. To convert one,
# write a typed function in its module, register it with `app.command()(function)` below, and remove it here.
BRIDGED = {
    "preflight": (preflight, "check before a long run"),
}


def _bridge(name: str, about: str) -> None:
    def command(context: typer.Context) -> None:
        try:
            options = _old_parser().parse_args([name, *context.args])
        except SystemExit as ended:
            raise typer.Exit(ended.code or 0) from None
        options.command(options)

    settings = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command(name, help=about, add_help_option=False, context_settings=settings)(command)


def _old_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="reasonrank")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, add in {
        "preflight": _add_preflight,
    }.items():
        if name in BRIDGED:
            module, about = BRIDGED[name]
            add(commands.add_parser(name, help=about, description=module.__doc__))
    return parser


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


for _name, (_module, _about) in BRIDGED.items():
    _bridge(_name, _about)
# Converted commands: app.command()(module.function)
app.command()(verify)
app.command()(rerank)
app.command()(synthesise.synthesise)
app.command("filter")(synthesise.filter_examples)
app.command()(synthesise.published)
