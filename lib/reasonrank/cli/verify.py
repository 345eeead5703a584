"""Every claim of the paper with our figure beside the published one; fails on FAIL or a missing record."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from ..checks import RECORDS, Inputs
from ..stages import ROOT, commit, versions, write_json, write_text
from ..verify import Outcome, Report, titles
from ..verify import verify as check_all
from .errors import CommandError

FOLDER = {"exists": True, "file_okay": False, "metavar": "DIR"}
OUT = ROOT / "runs" / "verify"
LINE = "  {:8}{:>10}{:>10}{:>11}{:>6}  {}"


def verify(
    bright: Annotated[
        Path | None, typer.Option(help="published runs and judgements of BRIGHT", **FOLDER)
    ] = None,
    golden: Annotated[
        Path | None,
        typer.Option(help="golden cases of the released reward", exists=True, dir_okay=False, metavar="FILE"),
    ] = None,
    records: Annotated[Path, typer.Option(help="records of runs", **FOLDER)] = RECORDS,
    out: Annotated[Path, typer.Option(help="where verify.json and verify.md go", metavar="DIR")] = OUT,
    brief: Annotated[bool, typer.Option("--brief", help="print a line of counts alone")] = False,
) -> None:
    """Check the paper's claims: ours beside each published figure. Fails on FAIL or a missing record."""
    try:
        report = check_all(Inputs(records, bright, golden))
    except ValueError as error:
        raise CommandError(f"verify: {error}") from None
    print(as_brief(report) if brief else as_text(report))
    groups = {name: [vars(o) for o in group] for name, group in report.claims.items()}
    body = {"commit": commit(), "versions": versions(), "failures": report.failures, "claims": groups}
    write_json(out / "verify.json", body | {"figures": [vars(outcome) for outcome in report.figures]})
    write_text(out / "verify.md", as_markdown(report))
    if report.failures:
        raise CommandError("verify: " + "; ".join(report.failures))


def as_text(report: Report) -> str:
    """The claims, a line a check, and what is missing below it; then the printed figures by verdict."""
    lines = []
    for name, group in report.claims.items():
        lines += ["", f"{name}: {titles()[name]}"]
        lines.append(LINE.format("verdict", "ours", "paper", "difference", "n", "what"))
        said = ""
        for outcome in group:
            *cells, remark = outcome.cells().values()
            lines.append(LINE.format(*cells))
            if remark and remark != said:
                lines.append(" " * 10 + remark)
            said = remark
    return "\n".join([*lines, "", _count(report)])


def as_brief(report: Report) -> str:
    """How many checks of claims came out how, in one line."""
    found = Counter(outcome.verdict for group in report.claims.values() for outcome in group)
    return "Claims of the paper checked: " + ", ".join(f"{n} {verdict}" for verdict, n in found.most_common())


def as_markdown(report: Report) -> str:
    """The same as a page, with every printed figure that has been measured."""
    parts = ["# Claims and figures of the paper, checked", _count(report)]
    for name, group in report.claims.items():
        parts += [f"## {name}: {titles()[name]}", _table(group)]
    if measured := [outcome for outcome in report.figures if outcome.verdict != "not run"]:
        parts += ["## Printed figures that have been measured", _table(measured)]
    return "\n\n".join(parts) + "\n"


def _table(outcomes: list[Outcome]) -> str:
    import pandas as pd

    frame = pd.DataFrame([outcome.cells() for outcome in outcomes])
    return frame.to_markdown(index=False, disable_numparse=True)


def _count(report: Report) -> str:
    found = Counter(outcome.verdict for outcome in report.figures)
    parts = ", ".join(f"{number} {verdict}" for verdict, number in sorted(found.items()))
    return f"Printed figures of the paper's tables, {len(report.figures)} in all: {parts}."
