"""Every published figure and claim with ours beside it and a verdict; no model is loaded.

Verdicts: `OK` within the tolerance; `OKish` beyond it, but within the named noise; `FAIL` where the same thing
was run and came out otherwise; `not run`, with what is missing. A small run is no test of a claim about a
large model: where the registry declares a direction, it can support the claim (`OK` where the whole interval
is on the paper's side, `OKish` where it reaches across) and otherwise the claim stays `not run`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import paper
from .checks import Check, Inputs, Measured, Missing, checks, measure, result, retriever
from .paper import Figure, Verdict
from .sources.benchmarks import RUN
from .stages import commit, versions

RETRIEVER = "ReasonIR (8B)"
OPPOSITE = "this small run points the other way, and is no test of the claim at the paper's scale"


@dataclass(frozen=True)
class Outcome:
    """One line of the report. `difference` is ours - paper, in `unit`; `required`: it lacks a record it must have."""

    id: str
    text: str
    kind: str
    paper: float
    unit: str
    verdict: Verdict
    missing: str
    note: str
    ours: float | None = None
    low: float | None = None
    high: float | None = None
    difference: float | None = None
    n: int | None = None
    required: bool = False


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

    def count(self) -> dict[str, int]:
        """Printed figures by verdict."""
        return dict(Counter(outcome.verdict for outcome in self.figures))


def verify(inputs: Inputs) -> Report:
    """Check all claims and figures. ValueError names a file that is malformed."""
    measured = _published(inputs.records) | _retriever_row(inputs.bright)
    figures = [_figure(f, measured) for table in paper.tables().values() for f in table.figures()]
    claims: dict[str, list[Outcome]] = {"exact": []}
    for claim in paper.claims():
        claims[claim.id] = _rows(claim, figures)
    for check in checks():
        claims[check.claim].append(_check(check, inputs))
    return Report(claims, figures)


def _rows(claim: paper.Claim, figures: Sequence[Outcome]) -> list[Outcome]:
    """The figures a claim is about: the averages, and what was measured of the columns."""
    wanted = {f"{table} / {system}" for table, systems in claim.rows.items() for system in systems}
    mine = [o for o in figures if o.id.rpartition(" / ")[0] in wanted]
    if len({o.id.rpartition(" / ")[0] for o in mine}) != len(wanted):
        raise ValueError(f"claims.yaml: {claim.id}: rows: {sorted(wanted)}: one is in no table")
    return [o for o in mine if o.id.endswith(" / avg") or o.verdict != "not run"]


def _retriever_row(folder: Path | None) -> dict[str, Measured]:
    """Figure id -> ours, of the retriever row in Tables 1 and 9; the average only of all twelve sets."""
    columns = paper.tables()["table1"].columns
    found: dict[str, Measured] = {}
    for name in columns if folder else ():
        try:
            found[name] = retriever(name, folder)
        except Missing:
            continue
    if folder and not found:
        raise ValueError(f"{folder}: holds no set of BRIGHT, as <set>/{RUN} and <set>/qrels.txt")
    if len(found) == len(columns):
        mean = sum(m.value for m in found.values()) / len(columns)
        found["avg"] = Measured(mean, n=sum(m.n or 0 for m in found.values()))
    tables = ("table1", "table9")
    return {f"{t} / {RETRIEVER} / {name}": m for t in tables for name, m in found.items()}


def _published(folder: Path) -> dict[str, Measured]:
    """Figure id -> ours, from records of runs at the paper's scale, `published/*.json`.

    Their result has `figures`: rows of `table`, `system`, `column`, `value` (in the table's unit) and `n`.
    """
    known = {figure.id for table in paper.tables().values() for figure in table.figures()}
    found: dict[str, Measured] = {}
    for path in sorted((folder / "published").glob("*.json")):
        for number, row in enumerate(result(path).get("figures", []), start=1):
            place = f"{path}, figure {number}"
            try:
                key, value = f"{row['table']} / {row['system']} / {row['column']}", float(row["value"])
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{place}: expected table, system, column and value ({error!r})") from None
            if key not in known or key in found:
                raise ValueError(
                    f"{place}: {key} is {'there twice' if key in found else 'no printed figure'}"
                )
            found[key] = Measured(value, n=row.get("n"))
    return found


def _figure(figure: Figure, measured: dict[str, Measured]) -> Outcome:
    own = measured.get(figure.id)
    verdict = paper.verdict(own.value if own else None, figure.paper, figure.tolerance, figure.noise)
    labels = {
        "id": figure.id,
        "text": f"{figure.table}: {figure.system}, {figure.column}",
        "unit": paper.tables()[figure.table].metric,
        "note": figure.noise_text if verdict == "OKish" else "",
    }
    missing = "" if own else _lacks(figure, measured)
    return _outcome(own, figure.paper, verdict=verdict, missing=missing, kind="value", **labels)


def _lacks(figure: Figure, measured: dict[str, Measured]) -> str:
    """What a figure that was not run takes."""
    if figure.system != RETRIEVER:
        return f"needs {figure.needs}"
    if figure.column != "avg":
        return "published run and judgements of this set (--bright)"
    given = sum(name.startswith(f"{figure.table} / {RETRIEVER} / ") for name in measured)
    return f"published runs and judgements of all 12 sets (--bright); {given} given"


def _check(check: Check, inputs: Inputs) -> Outcome:
    labels = {"id": check.id, "text": check.text, "kind": check.kind, "unit": check.unit}
    labels["note"] = _beside(check)
    try:
        own = measure(check, inputs)
    except Missing as gap:
        needs = f"; needs {check.needs}" if str(check.needs) else ""
        required = check.required and gap.record
        labels |= {"verdict": "not run", "missing": f"{gap}{needs}"}
        return _outcome(None, check.paper, required=required, **labels)
    if check.kind == "value":
        verdict, missing = paper.verdict(own.value, check.paper, check.tolerance), ""
    else:
        verdict = direction(own, check.paper, check.scale)
        missing = OPPOSITE if verdict == "not run" else ""
    return _outcome(own, check.paper, verdict=verdict, missing=missing, **labels)


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


def _beside(check: Check) -> str:
    """The paper's own difference, for a part of the recipe that a small run leaves out."""
    if check.published is None:
        return ""
    table = paper.tables()[check.published.table]
    whole, without = table.row("ReasonRank (7B)").avg, table.row(check.published.system).avg
    return f"paper, 7B: {whole - without:+.2f}"


def _outcome(own: Measured | None, published: float, *, note: str, **labels: Any) -> Outcome:
    if own is None:
        return Outcome(paper=published, note=note, **labels)
    return Outcome(
        paper=published,
        ours=own.value,
        low=own.low,
        high=own.high,
        n=own.n,
        difference=own.value - published,
        note="; ".join(filter(None, (note, own.note))),
        **labels,
    )


def as_json(report: Report) -> dict[str, Any]:
    """The report with its provenance, for a file."""
    return {
        "commit": commit(),
        "versions": versions(),
        "failures": report.failures,
        "count": report.count(),
        "claims": {name: [vars(o) for o in group] for name, group in report.claims.items()},
        "figures": [vars(outcome) for outcome in report.figures],
    }
