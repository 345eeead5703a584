"""Every claim and printed figure of the paper with ours beside it and a verdict; no model is loaded.

Verdicts: `OK` within the tolerance; `OKish` beyond it, but within the named noise; `FAIL` where the same thing
was run and came out otherwise; `not run`, with what is missing. A small run is no test of a claim about a
large model: where the registry declares a direction, it can support the claim (`OK` where the whole interval
is on the paper's side, `OKish` where our figure is and the interval reaches across) and otherwise the claim stays
`not run`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from . import paper, reproduction
from .checks import WAYS, Inputs, Measured, Missing, MissingRecord, read_result, retriever
from .paper import Check
from .settings import checked
from .sources.benchmarks import RUN

RETRIEVER = "ReasonIR (8B)"
Verdict = Literal["OK", "OKish", "FAIL", "not run"]
OPPOSITE = "this small run points the other way, and is no test of the claim at the paper's scale"


@dataclass(frozen=True)
class Outcome:
    """One line of the report. `difference` is ours - paper, in `unit`; `required`: it lacks a record it must have."""

    id: str
    text: str
    kind: str
    paper: float
    unit: str
    verdict: Verdict = "not run"
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
        has_interval = self.low is not None and self.high is not None
        interval = f" [{_number(self.low)}, {_number(self.high)}]" if has_interval else ""
        return {
            "verdict": self.verdict,
            "ours": _number(self.ours) + interval,
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
        lines = {o.id: o for group in (*self.claims.values(), self.figures) for o in group}.values()
        failed = [f"FAIL: {o.id}" for o in lines if o.verdict == "FAIL"]
        return failed + [f"missing: {o.missing} ({o.id})" for o in lines if o.required]

    @property
    def brief(self) -> str:
        """How many checks of claims came out how, in one line."""
        found = Counter(o.verdict for group in self.claims.values() for o in group).most_common()
        return "Claims of the paper checked: " + ", ".join(f"{n} {verdict}" for verdict, n in found)

    def page(self, form: Literal["simple", "pipe"], heading: str = "") -> str:
        """The claims, then the printed figures that have been measured, as tables of one of tabulate's formats."""
        found = Counter(o.verdict for o in self.figures)
        counts = ", ".join(f"{number} {verdict}" for verdict, number in sorted(found.items()))
        titles = {"exact": "What can be checked exactly, without a model"}
        titles |= {claim.id: claim.text for claim in paper.claims()}
        groups = {f"{name}: {titles[name]}": group for name, group in self.claims.items()}
        measured = [o for o in self.figures if o.verdict != "not run"]
        groups["Printed figures that have been measured"] = measured
        widths = [None] * 5 + [48, 48] if form == "simple" else None
        look = {"index": False, "disable_numparse": True, "tablefmt": form, "maxcolwidths": widths}
        parts = [f"Printed figures of the paper's tables, {len(self.figures)} in all: {counts}."]
        for title, group in groups.items():
            if group:
                parts += [heading + title, pd.DataFrame(o.cells() for o in group).to_markdown(**look)]
        return "\n\n".join(parts)


def published(inputs: Inputs) -> dict[str, Measured]:
    """Our figures by the id of the printed one: of runs at the paper's scale (`result.figures` of the records
    `published/*.json`), of a run on the benchmarks (see `reproduction.measured`), and the retriever's in Tables 1 and
    9, its average where all twelve sets are given.

    ValueError naming file and row for a malformed record, or the folder of BRIGHT where it holds no set.
    """
    known = {figure.id for figure in paper.printed()}
    found = reproduction.measured(inputs.records)
    for path in sorted((inputs.records / "published").glob("*.json")):
        rows = checked(read_result(path).get("figures", []), list[dict[str, Any]], f"{path}, result.figures")
        for number, row in enumerate(rows, start=1):
            place = f"{path}, figure {number}"
            key = " / ".join(str(row.get(name)) for name in ("table", "system", "column"))
            if key not in known or key in found:
                raise ValueError(
                    f"{place}: {key} is {'there twice' if key in found else 'no printed figure'}"
                )
            found[key] = checked(row, Measured, place)
    columns, place = paper.tables()["table1"].columns, inputs.bright
    sets = {name: own for name in columns if (own := retriever(place / name))} if place else {}
    if place and not sets:
        raise ValueError(f"{place}: holds no set of BRIGHT; expected one as biology/{RUN}")
    if len(sets) == len(columns):
        mean = sum(own.value for own in sets.values()) / len(columns)
        sets["avg"] = Measured(value=mean, n=sum(own.n or 0 for own in sets.values()))
    return found | {f"{t} / {RETRIEVER} / {c}": own for t in ("table1", "table9") for c, own in sets.items()}


def verdict(own: Measured, check: Check) -> Verdict:
    """How our figure compares with the published one, all in the same unit.

    A value is "OK" within the check's `tolerance`, the rounding or the spread that the paper's own figure has; "OKish"
    within `tolerance` + `noise`; "FAIL" beyond, on either side. A direction is "OK" where the whole interval is above
    the border `paper`, "OKish" where it reaches across, and "FAIL" where it is below; for scale "small" it is "not run"
    where our figure is not above, whatever the interval.
    """
    if check.kind == "value":
        gap = abs(own.value - check.paper) - 1e-9
        return "OK" if gap <= check.tolerance else "OKish" if gap <= check.tolerance + check.noise else "FAIL"
    low, high = (own.value if end is None else end for end in (own.low, own.high))
    if low > check.paper:
        return "OK"
    if check.scale == "paper":
        return "OKish" if high >= check.paper else "FAIL"
    return "OKish" if own.value > check.paper else "not run"


def verify(inputs: Inputs) -> Report:
    """Check all claims and figures. ValueError names a file that is malformed."""
    measured, figures = published(inputs), []
    given = sum(name.startswith(f"table1 / {RETRIEVER}") for name in measured)
    runs = f"published runs and judgements (--bright), for the average those of all 12 sets; {given} given"
    for check in paper.printed():
        missing = runs if f" / {RETRIEVER} / " in check.id else f"needs {check.needs}"
        figures.append(_outcome(check, measured.get(check.id), missing))
    found: dict[str, list[Outcome]] = {"exact": []}
    for claim in paper.claims():  # the averages of its rows, and what was measured of their columns
        rows = {f"{table} / {system}" for table, systems in claim.rows.items() for system in systems}
        about = [o for o in figures if o.id.rpartition(" / ")[0] in rows]
        found[claim.id] = [o for o in about if o.id.endswith(" / avg") or o.verdict != "not run"]
    for check in paper.checks():
        try:
            outcome = _outcome(check, WAYS[check.way](check, inputs))
        except Missing as gap:
            missing = f"{gap}; needs {check.needs}" if str(check.needs) else str(gap)
            required = check.required and isinstance(gap, MissingRecord)
            outcome = _outcome(check, None, missing, required)
        found[check.claim].append(outcome)
    return Report(found, figures)


def _outcome(check: Check, own: Measured | None, missing: str = "", required: bool = False) -> Outcome:
    """The verdict on `own`, or `missing` where there is none."""
    line = (check.id, check.text, check.kind, check.paper, check.unit)
    if own is None:
        return Outcome(*line, missing=missing, required=required)
    found = "not run" if own.partial else verdict(own, check)
    notes = (check.noise_text if found == "OKish" else "", own.note)
    said = {"missing": own.partial or (OPPOSITE if found == "not run" else "")}
    said |= {"note": "; ".join(filter(None, notes))}
    said |= {"ours": own.value, "low": own.low, "high": own.high, "n": own.n}
    return Outcome(*line, found, **said, difference=None if own.partial else own.value - check.paper)


def claims_frame(report: Report) -> pd.DataFrame:
    """All checks of claims as a table of text, a line each, by claim."""
    return pd.DataFrame({"claim": name} | o.cells() for name, group in report.claims.items() for o in group)


def beside_ours(report: Report, table: str) -> pd.DataFrame:
    """A table of the paper by system: printed values, then our figure of the last one (the average, where there is
    one), the verdict of the row, and what it takes where nothing was run."""
    frame = paper.tables()[table].frame()
    counts = {column: int for column in frame if (frame[column] % 1 == 0).all()}
    frame = frame.astype(counts).astype(object)
    own = {o.id: o for o in report.figures}
    rows = [own.get(f"{table} / {system} / {frame.columns[-1]}") for system in frame.index]
    shown = [(_number(o.ours), o.verdict, o.missing) if o else ("", "", "") for o in rows]
    return frame.assign(**dict(zip(("ours", "verdict", "needs"), zip(*shown, strict=True), strict=True)))


def _number(value: float | None, sign: str = "") -> str:
    if value is None:
        return "-"
    if value and abs(value) < 0.005:
        return f"{value:{sign}.1e}"
    return f"{value:{sign}.2f}" if value != int(value) else f"{value:{sign}.0f}"
