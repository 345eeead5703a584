"""The paper as data/paper holds it: its tables, numbers and settings, its claims, and how each figure is checked.

Every value is as arXiv 2508.07050v3 prints it. The files are read strictly: an unknown key, a missing value
or a row of the wrong length is a ValueError that names file and key.
"""

from __future__ import annotations

import math
from functools import cache, reduce
from operator import getitem
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pandas as pd
from pydantic import Field, model_validator

from . import profiles
from .settings import Strict, T, checked, read_yaml
from .stages import ROOT

DATA = ROOT / "data" / "paper"
PROFILES = ("paper-7b", "paper-32b")


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
    """A row of a published table. `values` follow the table's columns; None where only `avg` is printed."""

    system: str  # also the model, where `needs` name none
    needs: dict[Literal["model", "hardware"], str] = Field(default_factory=dict)  # beside the table's
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
    """A setting in the paper, in the released code ("same": as in the paper) and here: either `key`, a dotted one with
    its `expected` values in PROFILES, or `ours`, a text."""

    setting: str
    paper: str
    released: str
    key: str | None = None
    expected: tuple[Any, Any] | None = None
    ours: str | None = None
    switch: str | None = None  # how to have theirs
    difference: int | None = Field(default=None, ge=1, le=11)  # its number in the list of differences
    why: str = ""


class Check(Strict):
    """A check (data/paper/checks.yaml), or a printed figure. `paper`, `tolerance` and `noise` (between two honest runs;
    `noise_text`: where it is from) are in `unit`."""

    id: str
    claim: str = ""
    text: str
    way: str = "published"
    kind: Literal["value", "direction"] = "value"
    scale: Literal["paper", "small"] = "paper"
    paper: float
    unit: str
    tolerance: float = Field(default=0.0, ge=0)
    noise: float = Field(default=0.0, ge=0)
    noise_text: str = ""
    needs: Needs
    part: str = ""
    record: str = ""
    required: bool = False  # a record that is not there is an error


def load(path: Path, kind: type[T]) -> T:
    """Read a YAML file as `kind`. ValueError names the file and the key, or the line, that is wrong."""
    return checked(read_yaml(path), kind, path.name)


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
    return _lines("notebooks.yaml")


def _lines(name: str) -> tuple[SimpleNamespace, ...]:
    return tuple(SimpleNamespace(**line) for line in load(DATA / name, tuple[dict[str, Any], ...]))


@cache
def settings() -> tuple[Setting, ...]:
    """What the paper, the released code and this project do, row by row."""
    return load(DATA / "settings.yaml", tuple[Setting, ...])


def setting(key: str) -> tuple[Any, ...]:
    """The values of a dotted setting in PROFILES; KeyError for a part of it that they do not have."""
    return tuple(reduce(getitem, key.split("."), profiles.load(p).model_dump(mode="json")) for p in PROFILES)


@cache
def claims() -> tuple[SimpleNamespace, ...]:
    """C1 to C7: `id`, `text`, `source`, what the `paper` has, what it `needs` at the paper's scale, and `rows`, the
    systems whose figures it is about, by table."""
    return _lines("claims.yaml")


@cache
def checks() -> tuple[Check, ...]:
    """What is checked beside the tables."""
    return load(DATA / "checks.yaml", tuple[Check, ...])


@cache
def printed() -> tuple[Check, ...]:
    """Every value of the paper's tables, as "table1 / ReasonRank (7B) / avg", with what it takes."""
    found = []
    rows = [(table, row) for table in tables().values() if table.needs for row in table.rows]
    for table, row in rows:
        needs = table.needs.model_copy(update={"model": table.needs.model or row.system} | row.needs)
        noise = noises()[row.noise or table.noise]
        values = dict(zip(table.columns, row.values or (), strict=False)) | {"avg": row.avg}
        for column, value in values.items():
            if value is not None:
                name = "avg" if column == "avg" else "value"
                labels = {"id": f"{table.id} / {row.system} / {column}", "unit": table.metric, "paper": value}
                labels["text"] = f"{table.id}: {row.system}, {column}"
                margins = {"tolerance": getattr(table.tolerance, name), "noise": getattr(noise, name)}
                found.append(Check(**labels, **margins, noise_text=noise.text, needs=needs))
    return tuple(found)
