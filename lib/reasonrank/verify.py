"""Every claim and printed figure of the paper with ours beside it and a verdict; no model is loaded.

Verdicts: `OK` within the tolerance; `OKish` beyond it, but within the named noise; `FAIL` where the same thing
was run and came out otherwise; `not run`, with what is missing. A small run is no test of a claim about a
large model: where the registry declares a direction, it can support the claim (`OK` where the whole interval
is on the paper's side, `OKish` where it reaches across) and otherwise the claim stays `not run`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pandas as pd

from . import paper
from .checks import Check, Claim, Inputs, Measured, Missing, checks, claims, measure, read_result, retriever

Verdict = Literal["OK", "OKish", "FAIL", "not run"]
RETRIEVER = "ReasonIR (8B)"
OPPOSITE = "this small run points the other way, and is no test of the claim at the paper's scale"


class PublishedFigure(Measured):
    """A figure of a run at the paper's scale, in the unit of its table."""

    table: str
    system: str
    column: str


@dataclass(frozen=True)
class Outcome:
    """One line of the report. `difference` is ours - paper, in `unit`; `required`: it lacks a record it must have."""

    id: str
    text: str
    kind: str
    paper: float
    unit: str
    verdict: Verdict
    missing: str = ""
    note: str = ""
    required: bool = False
    ours: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    difference: float | None = None

    def cells(self) -> dict[str, str]:
        """The line as text: ours with its interval, the paper's figure ("> 1": a border), and what is missing."""
        ours = _number(self.ours)
        if self.low is not None and self.high is not None:
            ours += f" [{_number(self.low)}, {_number(self.high)}]"
        return {
            "verdict": self.verdict,
            "ours": ours,
            "paper": ("> " if self.kind == "direction" else "") + _number(self.paper),
            "difference": _number(self.difference, "+"),
            "n": "-" if self.n is None else str(self.n),
            "what": self.text,
            "missing, or a remark": "; ".join(filter(None, (self.missing, self.note))),
        }


@dataclass(frozen=True)
class Report:
    """Outcomes by claim (C1 ... C7, "exact") and of all printed figures."""

    claims: dict[str, list[Outcome]]
    figures: list[Outcome]

    @property
    def failures(self) -> list[str]:
        """Why the command ends other than well: each FAIL, and each required record that is not there."""
        lines = {o.id: o for group in self.claims.values() for o in group} | {o.id: o for o in self.figures}
        failed = [f"FAIL: {o.id}" for o in lines.values() if o.verdict == "FAIL"]
        return failed + [f"missing: {o.missing} ({o.id})" for o in lines.values() if o.required]


def verdict(ours: float | None, paper: float, tolerance: float, noise: float = 0.0) -> Verdict:
    """How our figure compares with the published one, in both directions; all four in the same unit.

    "OK": within `tolerance`, the rounding or the spread that the paper's own figure has. "OKish": further
    off, but within `tolerance` + `noise`, the half-width of our interval. "FAIL": beyond. "not run": `ours`
    is None. ValueError where `ours` is not finite, or tolerance or noise is negative.
    """
    if tolerance < 0 or noise < 0:
        raise ValueError(f"tolerance {tolerance} and noise {noise}: expected 0 or more")
    if ours is None:
        return "not run"
    if not math.isfinite(ours):
        raise ValueError(f"ours is {ours}, expected a finite number, or None where nothing was run")
    gap = abs(ours - paper) - 1e-9
    return "OK" if gap <= tolerance else "OKish" if gap <= tolerance + noise else "FAIL"


def direction(own: Measured, border: float, scale: str) -> Verdict:
    """Whether a figure with its interval is above `border`, the paper's side.

    "OK": the whole interval is; "OKish": it reaches across; below it "FAIL", or "not run" for scale "small".
    """
    low, high = (own.value if end is None else end for end in (own.low, own.high))
    if low > border:
        return "OK"
    if high >= border:
        return "OKish"
    return "FAIL" if scale == "paper" else "not run"


def verify(inputs: Inputs) -> Report:
    """Check all claims and figures. ValueError names a file that is malformed."""
    measured = _published(inputs) | _retriever_row(inputs)
    figures = [_figure(f, measured) for table in paper.tables().values() for f in table.figures()]
    found = {"exact": []} | {claim.id: _rows(claim, figures) for claim in claims()}
    for check in checks():
        found[check.claim].append(_check(check, inputs))
    return Report(found, figures)


def _published(inputs: Inputs) -> dict[str, Measured]:
    """Figure id -> ours, from `result.figures` of records of runs at the paper's scale, `published/*.json`."""
    known = {figure.id for table in paper.tables().values() for figure in table.figures()}
    found: dict[str, Measured] = {}
    for path in sorted((inputs.records / "published").glob("*.json")):
        rows = read_result(path).get("figures", [])
        for number, row in enumerate(paper.checked(rows, list[Any], f"{path}, result.figures"), start=1):
            place = f"{path}, figure {number}"
            own = paper.checked(row, PublishedFigure, place)
            key = f"{own.table} / {own.system} / {own.column}"
            if key not in known or key in found:
                problem = "there twice" if key in found else "no printed figure"
                raise ValueError(f"{place}: {key} is {problem}")
            found[key] = own
    return found


def _retriever_row(inputs: Inputs) -> dict[str, Measured]:
    """Figure id -> ours, of the retriever row in Tables 1 and 9; the average only of all twelve sets."""
    found: dict[str, Measured] = {}
    columns = paper.tables()["table1"].columns if inputs.bright else ()
    for name in columns:
        try:
            found[name] = retriever(name, inputs.bright)
        except Missing as gap:
            last = gap
    if columns and not found:
        raise ValueError(f"{inputs.bright}: holds no set of BRIGHT; the last one looked for: {last}")
    if found and len(found) == len(columns):
        mean = sum(m.value for m in found.values()) / len(columns)
        found["avg"] = Measured(value=mean, n=sum(m.n or 0 for m in found.values()))
    return {f"{t} / {RETRIEVER} / {name}": m for t in ("table1", "table9") for name, m in found.items()}


def _figure(figure: paper.Figure, measured: Mapping[str, Measured]) -> Outcome:
    own = measured.get(figure.id)
    found = verdict(own.value if own else None, figure.paper, figure.tolerance, figure.noise)
    missing = "" if own else f"needs {figure.needs}"
    if not own and figure.system == RETRIEVER:
        given = sum(name.startswith(f"{figure.table} / {RETRIEVER} / ") for name in measured)
        missing = "published run and judgements of this set (--bright)"
        if figure.column == "avg":
            missing = f"published runs and judgements of all 12 sets (--bright); {given} given"
    text, unit = f"{figure.table}: {figure.system}, {figure.column}", paper.tables()[figure.table].metric
    note = figure.noise_text if found == "OKish" else ""
    return _outcome(own, figure.id, text, "value", figure.paper, unit, found, missing, note)


def _rows(claim: Claim, figures: Iterable[Outcome]) -> list[Outcome]:
    """The figures a claim is about: the averages, and what was measured of the columns."""
    wanted = {f"{table} / {system}" for table, systems in claim.rows.items() for system in systems}
    mine = [o for o in figures if o.id.rpartition(" / ")[0] in wanted]
    if len({o.id.rpartition(" / ")[0] for o in mine}) != len(wanted):
        raise ValueError(f"claims.yaml: {claim.id}: rows: {sorted(wanted)}: one is in no table")
    return [o for o in mine if o.id.endswith(" / avg") or o.verdict != "not run"]


def _check(check: Check, inputs: Inputs) -> Outcome:
    labels, note = (check.id, check.text, check.kind, check.paper, check.unit), ""
    if check.beside:
        table = paper.tables()["table3_6"]
        note = f"paper, 7B: {table.row('ReasonRank (7B)').avg - table.row(check.beside).avg:+.2f}"
    try:
        own = measure(check, inputs)
    except Missing as gap:
        needs = f"; needs {check.needs}" if str(check.needs) else ""
        return _outcome(None, *labels, "not run", f"{gap}{needs}", note, check.required and gap.record)
    if check.kind == "value":
        return _outcome(own, *labels, verdict(own.value, check.paper, check.tolerance), "", note)
    found = direction(own, check.paper, check.scale)
    return _outcome(own, *labels, found, OPPOSITE if found == "not run" else "", note)


def _outcome(own: Measured | None, *labels: Any) -> Outcome:
    """An outcome with what was measured; `labels`: its first fields, in their order."""
    line = Outcome(*labels)
    if own is None:
        return line
    note = "; ".join(filter(None, (line.note, own.note)))
    figures = {"ours": own.value, "low": own.low, "high": own.high, "n": own.n}
    return Outcome(**asdict(line) | figures | {"note": note, "difference": own.value - line.paper})


def titles() -> dict[str, str]:
    """Claim ("exact", C1 ... C7) -> its text."""
    return {"exact": "What can be checked exactly, without a model"} | {c.id: c.text for c in claims()}


def claims_frame(report: Report) -> pd.DataFrame:
    """All checks of claims as a table of text, a line each, by claim."""
    return pd.DataFrame(
        {"claim": name} | outcome.cells() for name, group in report.claims.items() for outcome in group
    )


def beside_ours(report: Report, table: str) -> pd.DataFrame:
    """A table of the paper by system: printed values, then our figure of the last one (the average, where there is
    one), the verdict of the row, and what it takes where nothing was run."""
    frame = paper.tables()[table].frame()
    last = frame.columns[-1]
    own = {o.id: o for o in report.figures}
    rows = [own.get(f"{table} / {system} / {last}") for system in frame.index]
    return frame.assign(
        ours=[_number(o.ours) if o else "" for o in rows],
        verdict=[o.verdict if o else "" for o in rows],
        needs=[o.missing if o else "" for o in rows],
    )


def _number(value: float | None, sign: str = "") -> str:
    if value is None:
        return "-"
    if value and abs(value) < 0.005:
        return f"{value:{sign}.1e}"
    return f"{value:{sign}.2f}" if value != int(value) else f"{value:{sign}.0f}"
