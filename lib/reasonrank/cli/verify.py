"""Every claim of the paper with our figure beside the published one; fails on FAIL or a missing record."""

from __future__ import annotations

import argparse
from collections import Counter

from .. import paper
from ..checks import Inputs
from ..stages import ROOT, write_json, write_text
from ..verify import Outcome, Report, as_json, verify
from .errors import CommandError, UsageError

RECORDS = ROOT / "data" / "records"
OUT = ROOT / "runs" / "verify"
EXACT = "What can be checked exactly, without a model"
HEAD = ("verdict", "ours", "paper", "difference", "n", "what")


def command(options: argparse.Namespace) -> None:
    """`verify`: print the claims, write verify.json and verify.md, and fail where a check did."""
    for name, path in (("--bright", options.bright), ("--records", options.records)):
        if path is not None and not path.is_dir():
            raise UsageError(f"{name} {path}: no such folder")
    if options.golden is not None and not options.golden.is_file():
        raise UsageError(f"--golden {options.golden}: no such file")
    try:
        report = verify(Inputs(options.records, options.bright, options.golden))
    except ValueError as error:
        raise CommandError(f"verify: {error}") from None
    print(as_brief(report) if options.brief else as_text(report))
    write_json(options.out / "verify.json", as_json(report))
    write_text(options.out / "verify.md", as_markdown(report))
    if report.failures:
        raise CommandError("verify: " + "; ".join(report.failures))


def as_text(report: Report) -> str:
    """The claims, a line a check, and what is missing below it; then the printed figures by verdict."""
    lines = []
    for name, group in report.claims.items():
        lines += ["", f"{name}: {_titles()[name]}", _line(HEAD)]
        last = ""
        for outcome in group:
            lines.append(_line(cells(outcome)))
            remark = "; ".join(filter(None, (outcome.missing, outcome.note)))
            if remark and remark != last:
                lines.append(" " * 10 + remark)
            last = remark
    return "\n".join([*lines, "", _count(report)])


def as_brief(report: Report) -> str:
    """How many checks of claims came out how, in one line."""
    found = Counter(outcome.verdict for group in report.claims.values() for outcome in group)
    return "Claims of the paper checked: " + ", ".join(f"{n} {verdict}" for verdict, n in found.most_common())


def as_markdown(report: Report) -> str:
    """The same as a page, with every printed figure that has been measured."""
    parts = ["# Claims and figures of the paper, checked", _count(report)]
    for name, group in report.claims.items():
        rows = [(*cells(o), "; ".join(filter(None, (o.missing, o.note)))) for o in group]
        parts += [f"## {name}: {_titles()[name]}", _table((*HEAD, "missing, or a remark"), rows)]
    measured = [cells(outcome) for outcome in report.figures if outcome.verdict != "not run"]
    if measured:
        parts += ["## Printed figures that have been measured", _table(HEAD, measured)]
    return "\n\n".join(parts) + "\n"


def cells(outcome: Outcome) -> tuple[str, ...]:
    """Verdict, ours (with its interval), the paper's, difference, n and what it is, as text."""
    ours = _number(outcome.ours)
    if outcome.low is not None and outcome.high is not None:
        ours += f" [{_number(outcome.low)}, {_number(outcome.high)}]"
    border = "> " if outcome.kind == "direction" else ""
    difference = _number(outcome.difference, "+")
    n = "-" if outcome.n is None else str(outcome.n)
    return outcome.verdict, ours, border + _number(outcome.paper), difference, n, outcome.text


def _number(value: float | None, sign: str = "") -> str:
    if value is None:
        return "-"
    if value and abs(value) < 0.005:
        return f"{value:{sign}.1e}"
    return f"{value:{sign}.2f}" if value != int(value) else f"{value:{sign}.0f}"


def _titles() -> dict[str, str]:
    return {"exact": EXACT} | {claim.id: claim.text for claim in paper.claims()}


def _line(row: tuple[str, ...]) -> str:
    verdict, ours, published, difference, n, what = row
    return f"  {verdict:8}{ours:>10}{published:>10}{difference:>11}{n:>6}  {what}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def _count(report: Report) -> str:
    parts = ", ".join(f"{number} {verdict}" for verdict, number in sorted(report.count().items()))
    return f"Printed figures of the paper's tables, {len(report.figures)} in all: {parts}."
