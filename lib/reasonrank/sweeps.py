"""The points of sweeps in one table, with those that differ only in the seed taken together.

A point is a folder `<run>/sweep/alpha=0.3,seed=1`, made by the Snakefile and finished once its evaluation is. What it
came to is small: its settings, and NDCG@10 of each query by system. A table holds these of all its points, so tables
of several runs, seeds and machines can be committed, and merged into one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from .checks import read_result
from .settings import Strict, checked
from .stages import read_json, stage_file

STAGE = "05_gpu_evaluation"
PerQuery = dict[str, dict[str, float]]
"""Collection -> query id -> NDCG@10 in 0..1."""


class Point(Strict):
    """A finished point. `parameters`: by name, as text, without the seed; `commit`: of the code that evaluated it."""

    parameters: dict[str, str]
    seed: int
    commit: str
    config: dict[str, Any]
    scores: dict[str, PerQuery]

    @property
    def name(self) -> str:
        return point_name(self.parameters | {"seed": self.seed})

    @property
    def queries(self) -> set[tuple[str, str]]:
        """Collection and id of each test query."""
        first = next(iter(self.scores.values()))
        return {(name, qid) for name, values in first.items() for qid in values}


def percent(scores: PerQuery) -> float:
    """NDCG@10 in percent: mean over collections of their means over queries."""
    return 100 * fmean(fmean(values.values()) for values in scores.values())


def point_name(parameters: Mapping[str, Any]) -> str:
    """The folder of a point: `alpha=0.3,seed=1`, with `_` for slashes and blanks in a value."""
    return ",".join(f"{key}={re.sub(r'[/ ]', '_', str(value))}" for key, value in parameters.items())


def parameters_of(name: str) -> dict[str, str]:
    """The parameters that `point_name` wrote, values as text."""
    return dict(part.split("=", 1) for part in re.split(r",(?=[A-Za-z_][\w.]*=)", name))


def read(places: Iterable[Path]) -> tuple[list[Point], list[str]]:
    """The finished points of sweeps, and the names of those that have no evaluation (yet).

    `places`: folders of runs that were swept, and tables of earlier sweeps (`comparison.json`). A point may be in
    several of them. Raises FileNotFoundError where a run has no sweep; ValueError naming a record that is
    malformed, and a point that has other scores in another place.
    """
    found: dict[str, Point] = {}
    unfinished: list[str] = []
    for place in places:
        if place.is_file():
            points = checked(read_result(place).get("points"), list[Point], f"{place}, result.points")
        else:
            folders = sorted(path for path in place.glob("sweep/*=*") if path.is_dir())
            if not folders:
                raise FileNotFoundError(f"{place}: has no sweep, no folder as sweep/alpha=0.3")
            ready = [path for path in folders if (path / STAGE / "manifest.json").is_file()]
            unfinished += [path.name for path in folders if path not in ready]
            points = map(_of_folder, ready)
        for point in points:
            if found.setdefault(point.name, point).scores != point.scores:
                raise ValueError(f"{place}: {point.name} has other scores than in an earlier place")
    return list(found.values()), [name for name in unfinished if name not in found]


def _of_folder(folder: Path) -> Point:
    """A point from the record of notebook 05."""
    file = stage_file(folder, STAGE, "record.json")
    values = checked(read_result(file).get("values"), dict[str, PerQuery], f"{file}, result.values")
    scores = {
        system: {name: {qid: round(value, 6) for qid, value in found.items()} for name, found in own.items()}
        for system, own in values.items()
    }
    parameters = {key: value for key, value in parameters_of(folder.name).items() if key != "seed"}
    named = {key: value for key, value in read_json(file).items() if key in ("seed", "commit", "config")}
    return checked(named | {"parameters": parameters, "scores": scores}, Point, str(file))


def require_same(first: Point, other: Point, changes: Iterable[str] = ()) -> None:
    """ValueError where two points differ in test queries, or in a setting that is neither the seed nor in `changes`
    (dotted keys). Settings that one of the two does not know yet are no difference."""
    settings = [pd.json_normalize(point.config).to_dict("records")[0] for point in (first, other)]
    compared = settings[0].keys() & settings[1].keys() - {"seed", "name", "about", *changes}
    for key in sorted(key for key in compared if not key.startswith("overrides.")):
        one, two = (repr(each[key]) for each in settings)
        if one != two:
            raise ValueError(f"{other.name} has {key} = {two}, {first.name} has {one}; expected the same")
    if odd := sorted(first.queries ^ other.queries):
        raise ValueError(f"{other.name} and {first.name} differ in {len(odd)} test queries, as {odd[:2]}")


def table(points: Iterable[Point]) -> pd.DataFrame:
    """A line for each setting, in order of its values: parameters, seeds, n (test queries), and each system's NDCG@10
    in percent, where there are more seeds as "31.2 (30.1 to 32.0)", mean and spread.

    ValueError where points of one setting have other systems, settings or test queries: they are not comparable.
    """
    settings: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda point: (list(point.parameters.items()), point.seed)):
        settings.setdefault(point_name(point.parameters), []).append(point)
    names = dict.fromkeys(name for first, *_ in settings.values() for name in first.parameters)
    lines = []
    for first, *others in settings.values():
        for other in others:
            require_same(first, other)
            if odd := sorted(first.scores.keys() ^ other.scores.keys()):
                raise ValueError(f"{other.name} and {first.name} differ in systems, as {odd[0]}")
        seeds = ", ".join(str(point.seed) for point in (first, *others))
        line = dict.fromkeys(names, "-") | first.parameters | {"seeds": seeds, "n": str(len(first.queries))}
        for system in first.scores:
            values = [percent(point.scores[system]) for point in (first, *others)]
            spread = f" ({min(values):.1f} to {max(values):.1f})" if others else ""
            line[system] = f"{fmean(values):.1f}{spread}"
        lines.append(line)
    by_size = lambda column: pd.to_numeric(column, errors="coerce")  # noqa: E731 - words come last
    return pd.DataFrame(lines).fillna("-").sort_values(list(names), key=by_size, ignore_index=True)
