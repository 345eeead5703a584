"""Every claim of the paper with our figure beside the published one; fails on FAIL or a missing record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import reproduction
from .. import verify as verdicts
from ..checks import RECORDS, Inputs
from ..stages import ROOT, commit, versions, write_json, write_text
from .errors import CommandError

FOLDER = {"exists": True, "file_okay": False, "metavar": "DIR"}
FILE = {"exists": True, "dir_okay": False, "metavar": "FILE"}
OUT = ROOT / "runs" / "verify"


def verify(
    bright: Annotated[
        Path | None, typer.Option(help="published runs and judgements of BRIGHT", **FOLDER)
    ] = None,
    golden: Annotated[Path | None, typer.Option(help="golden cases of the released reward", **FILE)] = None,
    records: Annotated[Path, typer.Option(help="records of runs", **FOLDER)] = RECORDS,
    out: Annotated[Path, typer.Option(help="where verify.json and verify.md go", metavar="DIR")] = OUT,
    brief: Annotated[bool, typer.Option("--brief", help="print a line of counts alone")] = False,
) -> None:
    """Check the paper's claims: ours beside each published figure. Fails on FAIL or a missing record."""
    try:
        report = verdicts.verify(Inputs(records, bright, golden))
    except ValueError as error:
        raise CommandError(f"verify: {error}") from None
    print(report.brief if brief else report.page("simple"))
    if table := reproduction.page({o.id: o for o in report.figures}, records):
        print("\n" + table)
    groups = {name: [vars(o) for o in group] for name, group in report.claims.items()}
    body = {"commit": commit(), "versions": versions(), "failures": report.failures, "claims": groups}
    write_json(out / "verify.json", body | {"figures": [vars(outcome) for outcome in report.figures]})
    page = report.page("pipe", heading="## ")
    write_text(out / "verify.md", f"# Claims and figures of the paper, checked\n\n{page}\n")
    if report.failures:
        raise CommandError("verify: " + "; ".join(report.failures))
