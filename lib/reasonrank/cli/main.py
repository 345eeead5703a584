"""The commands of `python -m reasonrank` and their exit codes: 0 done, 1 failed, 2 called wrongly,
130 interrupted.

A command is a typed function, here or, where it is more than a few calls, in a module of its own. Modules that take
seconds to import (papermill, torch) are imported by the functions that use them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from .. import profiles, stages
from . import DEADLINE, synthesise
from .parameters import CommandError, Parameters, ProfileName, RunFolder, read_parameters
from .rerank import rerank

app = typer.Typer(
    help="ReasonRank, reproducible: notebooks in batches, data, reranking, checks.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)
FOLDER = {"exists": True, "file_okay": False, "metavar": "DIR"}
FILE = {"exists": True, "dir_okay": False, "metavar": "FILE"}
PLACE = {"file_okay": False, "metavar": "DIR"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `arguments` are the process's own by default."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(args=words, prog_name="reasonrank", standalone_mode=False)
    except TyperException as error:  # without arguments, the help
        print(("error: " if words else "") + error.format_message(), file=sys.stderr)
        return error.exit_code
    except (OSError, ValueError) as error:  # each says what is wrong in its own line
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)
        return 130
    return code if isinstance(code, int) else 0


app.command()(rerank)
app.command()(synthesise.synthesise)
app.command("filter")(synthesise.filter_examples)


@app.command()
def run(
    notebook: Annotated[str, typer.Argument(metavar="NOTEBOOK", help="a file, or a name such as 03_sft")],
    profile: ProfileName,
    run_dir: RunFolder,
    parameter: Parameters = [],  # noqa: B006 - typer makes a list of its own
    deadline: Annotated[float, typer.Option(min=1, help="seconds for the whole notebook")] = DEADLINE,
    fingerprint: Annotated[str, typer.Option(help="of the code; finished with it, nothing is run")] = "",
) -> None:
    """Execute a notebook into a run's folder: this interpreter as kernel, known parameters only, a deadline."""
    from .run import run_notebook

    run_notebook(notebook, profile, run_dir, read_parameters(parameter), deadline, fingerprint)


@app.command()
def summary(run_dirs: Annotated[list[Path], typer.Argument(metavar="RUN_DIR")]) -> None:
    """Show what runs gave: where notebooks and figures are, and NDCG@10 of each system with 95 % intervals."""
    from .. import evaluation

    for run_dir in run_dirs:
        shown = os.path.relpath(run_dir)
        try:
            record = stages.read_json(stages.stage_file(run_dir, "05_gpu_evaluation", "record.json"))
            scores = evaluation.score_frame(record["result"]["scores"])
            about = f"NDCG@10 in % [95 % interval], profile {record['config']['name']}, seed {record['seed']}"
        except (KeyError, TypeError) as error:
            raise CommandError(f"{shown}/05_gpu_evaluation/record.json: lacks {error}") from None
        except (FileNotFoundError, ValueError) as error:
            raise CommandError(f"{shown}: {error}") from None
        print(f"executed notebooks: {shown}/notebooks ({len(list(run_dir.glob('notebooks/[0-9]*.ipynb')))})")
        if figures := list(run_dir.glob("07_figures/*.png")):
            page = f"{shown}/07_figures/results.md"
            print(f"figures: {shown}/07_figures ({len(figures)}), on one page in {page}")
        print(f"\n{about}\n{scores.T.rename_axis('collection').to_markdown(disable_numparse=True)}\n")


@app.command()
def preflight(
    profile: ProfileName,
    run_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="of the run, for its disk")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="what this machine lacks is a note")] = False,
    gpus: Annotated[int | None, typer.Option(metavar="N", help="in place of hardware.gpus")] = None,
    gpu_memory: Annotated[float | None, typer.Option(metavar="GIB", help="of one GPU, likewise")] = None,
    zero: Annotated[int | None, typer.Option(metavar="STAGE", help="ZeRO, 0 to 3, likewise")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Check before a long run: batches, memory, disk, packages, devices, and the hours it would take."""
    from ..preflight import Preflight

    changes = {"hardware.gpus": gpus, "hardware.gpu_memory": gpu_memory, "hardware.zero_stage": zero}
    found = Preflight(profiles.load(profile, changes), dry_run, run_dir or stages.ROOT)
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
    place: Annotated[Path, typer.Argument(metavar="RUN", help="a folder, or what `rerank --traces` wrote")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="the page, which needs nothing beside it")],
    qrels: Annotated[Path | None, typer.Option(metavar="FILE", help="TREC judgements of its queries")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="queries shown, the first ones")] = 200,
) -> None:
    """Write a page that shows each window before and after, with the reasoning that reordered it."""
    from .. import runs, traces

    rows = list(islice(traces.read(traces.find(place), qrels and runs.read_qrels(qrels)), limit))
    stages.write_text(out, traces.page(rows))
    print(f"{len(rows)} queries -> {out}")


@app.command()
def sweep(
    places: Annotated[list[Path], typer.Argument(metavar="PLACE", help="runs, and tables of earlier sweeps")],
) -> None:
    """Print one table of sweeps, with seeds taken together; a run that comes first keeps it in its sweep/comparison.*.

    Where `variant` was swept, each part of the recipe is compared with the whole too (Table 3 in small).
    """
    from .. import ablations, sweeps

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
        source, folder = stages.provenance(points[0].config, points[0].seed), places[0] / "sweep"
        stages.write_json(folder / "comparison.json", {"stage": "sweep", **source, "result": found})
        stages.write_text(folder / "comparison.md", "\n\n".join(parts) + "\n")


@app.command()
def verify(
    bright: Annotated[Path | None, typer.Option(help="BRIGHT's published runs, judgements", **FOLDER)] = None,
    golden: Annotated[Path | None, typer.Option(help="golden cases of the released reward", **FILE)] = None,
    records: Annotated[Path, typer.Option(help="records of runs", **FOLDER)] = stages.ROOT / "data/records",
    out: Annotated[Path, typer.Option(help="for verify.json and .md", **PLACE)] = stages.ROOT / "runs/verify",
    brief: Annotated[bool, typer.Option("--brief", help="print a line of counts alone")] = False,
) -> None:
    """Check the paper's claims: ours beside each published figure. Fails on FAIL or a missing record."""
    from .. import reproduction
    from ..verify import Inputs, verify

    report = verify(Inputs(records, bright, golden))
    print(report.brief if brief else report.page("simple"))
    if table := reproduction.page({o.id: o for o in report.figures}, records):
        print("\n" + table)
    body = {"commit": stages.commit(), "versions": stages.versions(), "failures": report.failures}
    body["claims"] = {name: [vars(o) for o in group] for name, group in report.claims.items()}
    stages.write_json(out / "verify.json", body | {"figures": [vars(outcome) for outcome in report.figures]})
    page = report.page("pipe", heading="## ")
    stages.write_text(out / "verify.md", f"# Claims and figures of the paper, checked\n\n{page}\n")
    if report.failures:
        raise CommandError("verify: " + "; ".join(report.failures))
