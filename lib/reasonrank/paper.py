"""The paper as data/paper holds it: its tables, numbers and settings, and which notebook shows which part.

Every value is as arXiv 2508.07050v3 prints it. The files are read strictly: an unknown key, a missing value
or a row of the wrong length is a ValueError that names file and key.
"""

from __future__ import annotations

import math
from functools import cache, reduce
from operator import getitem
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, TypeVar

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from . import profiles
from .stages import ROOT

DATA = ROOT / "data" / "paper"
PROFILES = ("paper-7b", "paper-32b")
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


class Margin(Strict):
    """How far a figure may lie off, in the table's unit: one of a column, and the average; and where it is from."""

    value: float = Field(ge=0)
    avg: float = Field(ge=0)
    text: str = ""


class Row(Strict):
    """A row of a published table. `values` follow the table's columns; None where only `avg` is printed.

    `needs`, `noise`: where they differ from the table's; the model is the system where none is named.
    """

    system: str
    needs: dict[Literal["model", "hardware"], str] = {}
    noise: str | None = None
    kind: Literal["retriever", "non-reasoning", "reasoning", "ReasonRank"] | None = None
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
        for row in self.rows:
            if row.values is not None and len(row.values) != len(self.columns):
                expected = f"expected one for each of {len(self.columns)} columns"
                raise ValueError(f"row {row.system!r}: {len(row.values)} values, {expected}")
        return self

    def row(self, system: str) -> Row:
        """The row of `system`; KeyError names the systems of the table."""
        rows = {row.system: row for row in self.rows}
        if system not in rows:
            raise KeyError(f"{self.id}: no row {system!r}; it has {list(rows)}")
        return rows[system]

    def frame(self) -> pd.DataFrame:
        """Systems by columns, with the printed `avg` last where the table has one; missing values are NaN."""
        rows = {row.system: (*(row.values or [math.nan] * len(self.columns)), row.avg) for row in self.rows}
        frame = pd.DataFrame.from_dict(rows, orient="index", columns=[*self.columns, "avg"], dtype=float)
        return frame.dropna(axis="columns", how="all").rename_axis("system")


class Setting(Strict):
    """A setting or a behaviour in the paper, in the released code ("same": as in the paper) and here.

    Either `key`, a dotted setting of the profiles paper-7b and paper-32b with its `expected` values there, or
    `ours`, a text; `switch`: how to have theirs; `difference`: its number in the list of differences.
    """

    setting: str
    paper: str
    released: str
    key: str | None = None
    expected: tuple[Any, Any] | None = None
    ours: str | None = None
    switch: str | None = None
    difference: int | None = Field(default=None, ge=1, le=11)
    why: str = ""

    def values(self) -> tuple[Any, ...]:
        """Those of `key` in the two profiles; KeyError for a part of it that they do not have."""
        parts = (self.key or "").split(".")
        return tuple(reduce(getitem, parts, profiles.load(name).model_dump(mode="json")) for name in PROFILES)


def checked(content: Any, kind: type[T], place: str) -> T:
    """`content` as `kind`; ValueError that names `place` and each key that is wrong."""
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise ValueError(f"{place}: " + "; ".join(problems)) from None


def load(path: Path, kind: type[T]) -> T:
    """Read a YAML file as `kind`. ValueError names the file and the key, or the line, that is wrong."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "unknown"
        raise ValueError(f"{path.name}, line {line}: not valid YAML ({error.problem})") from None
    return checked(content, kind, path.name)


@cache
def tables() -> dict[str, Table]:
    """All published tables by id ("table1" ... "table10", "reproduction"); read once."""
    return {path.stem: load(path, Table) for path in sorted((DATA / "tables").glob("*.yaml"))}


@cache
def facts() -> SimpleNamespace:
    """Published numbers that stand in figures and text, each with its `source` (data/paper/facts.yaml).

    `figure1`: `values`, seconds per query by system on one `collection`. `figure5`: how many times faster listwise is
    than pointwise, `ratio_low` to `ratio_high` over `collections`. `figure13`: `tokens`, mean reasoning tokens, one
    value a data set (their names are not printed beside them). `worked_example` (section 4.2): `cases` of two
    relevant passages at `ranks` of a `window`, with their `ndcg_at_10` in 0..1.
    """
    found = load(DATA / "facts.yaml", dict[str, dict[str, Any]])
    return SimpleNamespace(**{name: SimpleNamespace(**numbers) for name, numbers in found.items()})


@cache
def noises() -> dict[str, Margin]:
    """Named spreads between two honest runs of the same thing, "none" among them."""
    return {"none": Margin(value=0.0, avg=0.0)} | load(DATA / "noise.yaml", dict[str, Margin])


@cache
def notebooks() -> tuple[SimpleNamespace, ...]:
    """The map of the project, in order: `notebook`, what it `shows`, `modules`, `section` of the paper."""
    lines = load(DATA / "notebooks.yaml", tuple[dict[str, Any], ...])
    return tuple(SimpleNamespace(**line) for line in lines)


@cache
def settings() -> tuple[Setting, ...]:
    """What the paper, the released code and this project do, row by row."""
    return load(DATA / "settings.yaml", tuple[Setting, ...])
