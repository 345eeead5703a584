"""The published figures (data/paper), the claims made with them, and verdicts on our own.

Every value is as arXiv 2508.07050v3 prints it. The files are read strictly: an unknown key, a missing value
or a row of the wrong length is a ValueError that names file and key.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from .metrics import ndcg
from .stages import ROOT

DATA = ROOT / "data" / "paper"
Verdict = Literal["OK", "OKish", "FAIL", "not run"]
Kind = Literal["retriever", "non-reasoning", "reasoning", "ReasonRank"]
T = TypeVar("T")


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Needs(Strict):
    """What it takes to come to a figure; "none" where no model or no such hardware is needed."""

    data: str
    model: str = ""
    hardware: str

    def __str__(self) -> str:
        return ", ".join(part for part in (self.model, self.hardware, self.data) if part != "none")


class Change(Strict):
    """What a row needs that differs from its table's `Needs`."""

    model: str | None = None
    hardware: str | None = None


class Margin(Strict):
    """How far a figure may lie off, in the table's unit: one of a column, and the average."""

    value: float = Field(ge=0)
    avg: float = Field(ge=0)


class Noise(Margin):
    """A named spread between two honest runs of the same thing, and where it is from."""

    text: str


class Row(Strict):
    """A row of a published table. `values` follow the table's columns; None where only `avg` is printed.

    `needs`, `noise`: where they differ from the table's; the model is the system where none is named.
    """

    system: str
    needs: Change = Change()
    noise: str | None = None
    kind: Kind | None = None
    group: str | None = None
    values: tuple[float, ...] | None = None
    avg: float | None = None
    note: str | None = None


class Table(Strict):
    """A published table; `metric` names the unit of its values."""

    id: str
    source: str
    caption: str
    metric: str
    needs: Needs | None = None  # None: no figure of the paper, not to be reproduced
    tolerance: Margin | None = None
    noise: str = "none"
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> Table:
        systems = [row.system for row in self.rows]
        if twice := {system for system in systems if systems.count(system) > 1}:
            raise ValueError(f"rows: {sorted(twice)} stand there twice")
        for row in self.rows:
            if row.values is not None and len(row.values) != len(self.columns):
                raise ValueError(
                    f"row {row.system!r}: {len(row.values)} values, expected one for each of "
                    f"{len(self.columns)} columns"
                )
        return self

    def row(self, system: str) -> Row:
        """The row of `system`; KeyError names the systems of the table."""
        for row in self.rows:
            if row.system == system:
                return row
        raise KeyError(f"{self.id}: no row {system!r}; it has {[row.system for row in self.rows]}")

    def figures(self) -> list[Figure]:
        """Every printed value of the table with what it takes; none where the table says nothing of that."""
        if self.needs is None or self.tolerance is None:
            return []
        found = []
        for row in self.rows:
            values = dict(zip(self.columns, row.values or (), strict=False)) | {"avg": row.avg}
            change = {key: value for key, value in row.needs.model_dump().items() if value is not None}
            needs = self.needs.model_copy(update={"model": self.needs.model or row.system} | change)
            known = noises()[row.noise or self.noise]
            for column, value in values.items():
                if value is not None:
                    kind = "avg" if column == "avg" else "value"
                    margins = getattr(self.tolerance, kind), getattr(known, kind)
                    found.append(Figure(self.id, row.system, column, value, needs, *margins, known.text))
        return found

    def frame(self) -> pd.DataFrame:
        """Systems by columns, with the printed `avg` last where the table has one; missing values are NaN."""
        empty = (math.nan,) * len(self.columns)
        values = {row.system: row.values or empty for row in self.rows}
        frame = pd.DataFrame.from_dict(values, orient="index", columns=list(self.columns))
        if any(row.avg is not None for row in self.rows):
            frame["avg"] = [math.nan if row.avg is None else row.avg for row in self.rows]
        return frame.rename_axis("system")


@dataclass(frozen=True)
class Figure:
    """One printed value, in the unit of its table. `noise` is 0 where two runs must agree."""

    table: str
    system: str
    column: str
    paper: float
    needs: Needs
    tolerance: float
    noise: float
    noise_text: str

    @property
    def id(self) -> str:
        return f"{self.table} / {self.system} / {self.column}"


class Latency(Strict):
    """Figure 1, right: seconds per query by system on one BRIGHT collection."""

    source: str
    collection: str
    unit: str
    values: dict[str, float]


class Speedup(Strict):
    """Figure 5: how many times faster listwise is than pointwise, as a range over collections."""

    source: str
    setting: str
    ratio_low: float
    ratio_high: float
    collections: tuple[str, ...]


class Lengths(Strict):
    """Figure 13: mean reasoning tokens, one value a data set (their names are not printed beside them)."""

    source: str
    setting: str
    finding: str
    tokens: tuple[float, ...]


class Case(Strict):
    """Two relevant passages at these 1-based ranks of the window, and the published NDCG@10 in 0..1."""

    ranks: tuple[int, ...]
    ndcg_at_10: float

    def ndcg(self, window: int) -> float:
        """Our NDCG@10, in 0..1, of a window of `window` passages with relevant ones at `ranks`."""
        return ndcg(list(range(1, window + 1)), set(self.ranks), k=10)


class WorkedExample(Strict):
    """The example of section 4.2: why NDCG alone is no reward for one window of several."""

    source: str
    window: int
    cases: tuple[Case, ...]


class Facts(Strict):
    """Published numbers that stand in figures and text."""

    figure1: Latency
    figure5: Speedup
    figure13: Lengths
    worked_example: WorkedExample


class Claim(Strict):
    """A claim of the paper. `paper`: its figure; `needs`: what it takes to check it at the paper's scale.

    `rows`: table id to the systems whose figures the claim is about.
    """

    id: str = Field(pattern=r"^C\d+$")
    text: str
    source: str
    paper: str
    needs: str
    rows: dict[str, tuple[str, ...]] = {}


class Notebook(Strict):
    """A line of the project's map: notebook, what it shows, modules under `reasonrank`, paper section."""

    notebook: str
    shows: str
    modules: tuple[str, ...]
    section: str


def load(path: Path, kind: type[T]) -> T:
    """Read a YAML file as `kind`. ValueError names the file and the key, or the line, that is wrong."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "unknown"
        raise ValueError(f"{path.name}, line {line}: not valid YAML ({error.problem})") from None
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise ValueError(f"{path.name}: " + "; ".join(problems)) from None


@cache
def tables() -> dict[str, Table]:
    """All published tables by id ("table1" ... "table10", "reproduction"); read once."""
    found: dict[str, Table] = {}
    for path in sorted((DATA / "tables").glob("*.yaml")):
        table = load(path, Table)
        if table.id != path.stem:
            raise ValueError(f"{path.name}: id: {table.id!r}, expected the file's name {path.stem!r}")
        found[table.id] = table
    return found


@cache
def facts() -> Facts:
    """Published numbers that stand in figures and text."""
    return load(DATA / "facts.yaml", Facts)


@cache
def claims() -> tuple[Claim, ...]:
    """C1 to C7."""
    return load(DATA / "claims.yaml", tuple[Claim, ...])


@cache
def noises() -> dict[str, Noise]:
    """Named spreads between runs, "none" among them."""
    return {"none": Noise(value=0.0, avg=0.0, text="")} | load(DATA / "noise.yaml", dict[str, Noise])


@cache
def notebooks() -> tuple[Notebook, ...]:
    """The map notebook, modules, paper section, in order."""
    return load(DATA / "notebooks.yaml", tuple[Notebook, ...])


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
