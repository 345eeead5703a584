"""A sweep in one table: what its points came to, with those that differ only in the seed taken together.

A point is a folder `<run>/sweep/alpha=0.3,seed=1`, made by the Snakefile and finished once its evaluation is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from .stages import commit, read_json

STAGE = "05_gpu_evaluation"
_PAIR = re.compile(r"(?:^|,)([A-Za-z_]\w*)=")


@dataclass(frozen=True)
class Point:
    """A finished point. `parameters`: by name, as text, without the seed; `scores`: NDCG@10 in percent on
    average over collections, by system; `n`: test queries; `commit`: of the code that evaluated it."""

    name: str
    parameters: dict[str, str]
    seed: int
    scores: dict[str, float]
    n: int
    commit: str


def point_name(parameters: Mapping[str, Any]) -> str:
    """The folder of a point: `alpha=0.3,seed=1`, with `_` for a slash in a value."""
    return ",".join(f"{key}={value}".replace("/", "_") for key, value in parameters.items())


def parameters_of(name: str) -> dict[str, str]:
    """The parameters that `point_name` wrote, values as text. ValueError for a name that is none of a point."""
    found = list(_PAIR.finditer(name))
    if not found or found[0].start():
        raise ValueError(f"{name!r}: expected the name of a point of a sweep, as 'alpha=0.3,seed=1'")
    ends = [match.start() for match in found[1:]] + [len(name)]
    return {match[1]: name[match.end() : end] for match, end in zip(found, ends, strict=True)}


def read(run_dir: Path) -> tuple[list[Point], list[str]]:
    """The finished points of a run's sweep, and the names of those that have no evaluation (yet).

    Raises FileNotFoundError where the run has no sweep, ValueError naming a record that is malformed.
    """
    folders = sorted(path for path in (run_dir / "sweep").glob("*=*") if path.is_dir())
    if not folders:
        raise FileNotFoundError(f"{run_dir}: has no sweep, no folder as sweep/alpha=0.3")
    finished = [path for path in folders if (path / STAGE / "manifest.json").is_file()]
    return [_point(path) for path in finished], [path.name for path in folders if path not in finished]


def _point(folder: Path) -> Point:
    file = folder / STAGE / "record.json"
    record = read_json(file)
    try:
        rows = [row for row in record["result"]["scores"] if row["collection"] == "average"]
        scores = {row["system"]: 100 * row["ndcg"] for row in rows}
        seed, (n,), code = record["seed"], {row["n"] for row in rows}, record["commit"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{file}: expected seed, commit and result.scores with the systems' averages over one number "
            f"of queries ({error!r})"
        ) from None
    parameters = parameters_of(folder.name)
    parameters.pop("seed", None)
    return Point(folder.name, parameters, seed, scores, n, code)


def rows(points: Iterable[Point]) -> list[dict[str, Any]]:
    """A row for each setting, in order of its values: `parameters`, `seeds`, `n` (test queries), `points`,
    `commits`, and by system `mean`, `least` and `most` over seeds of NDCG@10 in percent.

    ValueError where points of one setting have other systems or test queries: they are not comparable.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Point]] = {}
    for point in points:
        groups.setdefault(tuple(point.parameters.items()), []).append(point)
    return [_row(groups[key]) for key in sorted(groups, key=_in_order)]


def _in_order(key: tuple[tuple[str, str], ...]) -> list[tuple[str, bool, float, str]]:
    """Numbers by size, before words."""
    return [(name, *_sortable(value)) for name, value in key]


def _sortable(value: str) -> tuple[bool, float, str]:
    try:
        return False, float(value), value
    except ValueError:
        return True, 0.0, value


def _row(group: Sequence[Point]) -> dict[str, Any]:
    group = sorted(group, key=lambda point: point.seed)
    first = group[0]
    for point in group[1:]:
        if point.n != first.n or set(point.scores) != set(first.scores):
            raise ValueError(
                f"{point.name} has {point.n} test queries and {', '.join(point.scores)}; {first.name} has "
                f"{first.n} and {', '.join(first.scores)}: expected the same, to take a mean over seeds"
            )
    values = {system: [point.scores[system] for point in group] for system in first.scores}
    return {
        "parameters": first.parameters,
        "seeds": [point.seed for point in group],
        "n": first.n,
        "systems": {
            system: {"mean": fmean(v), "least": min(v), "most": max(v)} for system, v in values.items()
        },
        "points": [point.name for point in group],
        "commits": sorted({point.commit for point in group}),
    }


def as_json(rows: Sequence[Mapping[str, Any]], unfinished: Sequence[str]) -> dict[str, Any]:
    """The table with its unit, for a file. `commit`: of the code that made the table."""
    measure = "NDCG@10 in percent on average over collections; mean, least and most over seeds"
    return {"measure": measure, "commit": commit(), "rows": list(rows), "unfinished": list(unfinished)}


def markdown(rows: Sequence[Mapping[str, Any]], unfinished: Sequence[str]) -> str:
    """The table as a page: a line for each setting, cells "31.2 (30.1 to 32.0)" where there are more seeds."""
    parts = ["NDCG@10 in % on average over collections: mean over seeds (least to most); n = test queries."]
    if rows:
        parts.append(_frame(rows).to_markdown(index=False, disable_numparse=True))
    if unfinished:
        parts.append("Not finished: " + "; ".join(unfinished) + ".")
    return "\n\n".join(parts)


def _frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    names = list(dict.fromkeys(name for row in rows for name in row["parameters"]))
    systems = list(dict.fromkeys(system for row in rows for system in row["systems"]))
    return pd.DataFrame(
        {name: row["parameters"].get(name, "-") for name in names}
        | {"seeds": ", ".join(map(str, row["seeds"]))}
        | {system: _cell(row["systems"].get(system), len(row["seeds"])) for system in systems}
        | {"n": str(row["n"])}
        for row in rows
    )


def _cell(values: Mapping[str, float] | None, seeds: int) -> str:
    if values is None:
        return "-"
    spread = f" ({values['least']:.1f} to {values['most']:.1f})" if seeds > 1 else ""
    return f"{values['mean']:.1f}{spread}"
