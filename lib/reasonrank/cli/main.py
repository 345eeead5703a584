"""The commands of `python -m reasonrank` and their exit codes: 0 done, 1 failed, 2 called wrongly.

A command is a typed function of its own module, registered here. Modules that take seconds to import (papermill,
torch) are imported by the functions that use them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from .. import profiles
from . import DEADLINE, synthesise
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
    except (CommandError, OSError, ValueError) as error:  # each says what is wrong in its own line
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
def preflight(
    profile: ProfileName,
    run_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="where the run will be, for its disk")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="the plan; what this machine lacks is a note")
    ] = False,
    gpus: Annotated[
        int | None, typer.Option(metavar="N", help="in place of the profile's hardware.gpus")
    ] = None,
    gpu_memory: Annotated[float | None, typer.Option(metavar="GIB", help="of one GPU, likewise")] = None,
    zero: Annotated[
        int | None, typer.Option(metavar="STAGE", help="DeepSpeed's ZeRO, 0 to 3, likewise")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Check before a long run: batches, memory, disk, packages, devices, and the hours it would take."""
    from ..preflight import Preflight
    from ..stages import ROOT

    changes = {"hardware.gpus": gpus, "hardware.gpu_memory": gpu_memory, "hardware.zero_stage": zero}
    found = Preflight(profiles.load(profile, changes), dry_run, run_dir or ROOT)
    print(json.dumps(found.as_json(), indent=1) if as_json else found)
    if found.refusals:
        raise CommandError("; ".join(found.refusals))


@app.command()
def release(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR")],
    to: Annotated[Path | None, typer.Option(metavar="DIR", help="default: data/adapters/<profile>")] = None,
) -> None:
    """Release the adapters of a finished run: safetensors with a model card each."""
    from .. import adapters

    for folder in adapters.from_run(run_dir, to):
        print(f"{folder}: {(folder / adapters.WEIGHTS).stat().st_size / 1e6:.1f} MB")


@app.command()
def trace(
    place: Annotated[
        Path, typer.Argument(metavar="RUN_OR_RECORD", help="a run's folder, or what `rerank --traces` wrote")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="the page, which needs nothing beside it")],
    qrels: Annotated[Path | None, typer.Option(metavar="FILE", help="TREC judgements of its queries")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="queries shown, the first ones")] = 200,
) -> None:
    """Write a page that shows each window before and after, with the reasoning that reordered it."""
    from itertools import islice

    from .. import stages, traces
    from ..runs import read_qrels

    rows = list(islice(traces.read(traces.find(place), qrels and read_qrels(qrels)), limit))
    stages.write_text(out, traces.page(rows))
    print(f"{len(rows)} queries -> {out}")


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
    compared, missing = ablations.comparisons(points)
    parts = ["NDCG@10 in % on average over collections: mean over seeds (least to most); n = test queries."]
    if points:
        parts.append(sweeps.table(points).to_markdown(index=False, disable_numparse=True))
    if compared:
        parts.append("\n".join(ablations.lines({"comparisons": compared, "not_run": missing})))
    if unfinished:
        parts.append(f"Not finished: {'; '.join(unfinished)}.")
    print("\n\n".join(parts))
    if points and places[0].is_dir():
        found = {"comparisons": compared, "not_run": missing, "unfinished": unfinished}
        found["points"] = [point.model_dump(mode="json") for point in points]
        source, folder = provenance(points[0].config, points[0].seed), places[0] / "sweep"
        write_json(folder / "comparison.json", {"stage": "sweep", **source, "result": found})
        write_text(folder / "comparison.md", "\n\n".join(parts) + "\n")


for function in (rerank, synthesise.synthesise, verify):
    app.command()(function)
app.command("filter")(synthesise.filter_examples)
