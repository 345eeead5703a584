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
from pydantic import ValidationError

from .evaluation import MEASURE, evaluate, qrels_file, run_file
from .runs import read_qrels, read_trec
from .settings import Strict
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

    def mean(self, system: str) -> float:
        """NDCG@10 in percent: mean over collections of their means over queries."""
        return 100 * fmean(fmean(queries.values()) for queries in self.scores[system].values())


def point_name(parameters: Mapping[str, Any]) -> str:
    """The folder of a point: `alpha=0.3,seed=1`, with `_` for slashes and blanks in a value."""
    return ",".join(f"{key}={re.sub(r'[/ ]', '_', str(value))}" for key, value in parameters.items())


def parameters_of(name: str) -> dict[str, str]:
    """The parameters that `point_name` wrote, values as text. ValueError for a name that is none of a point."""
    found = list(re.finditer(r"(?:^|,)([A-Za-z_][\w.]*)=", name))
    if not found or found[0].start():
        raise ValueError(f"{name!r}: expected the name of a point of a sweep, as 'alpha=0.3,seed=1'")
    ends = [match.start() for match in found[1:]] + [len(name)]
    return {match[1]: name[match.end() : end] for match, end in zip(found, ends, strict=True)}


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
            points = _of_table(place)
        else:
            folders = sorted(path for path in (place / "sweep").glob("*=*") if path.is_dir())
            if not folders:
                raise FileNotFoundError(f"{place}: has no sweep, no folder as sweep/alpha=0.3")
            ready = [path for path in folders if (path / STAGE / "manifest.json").is_file()]
            unfinished += [path.name for path in folders if path not in ready]
            points = [_of_folder(path) for path in ready]
        for point in points:
            if found.setdefault(point.name, point).scores != point.scores:
                raise ValueError(f"{place}: {point.name} has other scores than in an earlier place")
    return list(found.values()), [name for name in unfinished if name not in found]


def _of_table(file: Path) -> list[Point]:
    try:
        return [Point.model_validate(point) for point in read_json(file)["result"]["points"]]
    except (KeyError, TypeError, ValidationError) as error:
        reason = str(error).replace("\n", " ")
        raise ValueError(
            f"{file}: expected the table of a sweep, with result.points ({reason:.200})"
        ) from None


def _of_folder(folder: Path) -> Point:
    """A point from the runs and judgements that notebook 05 kept; they have to give what it recorded."""
    file = stage_file(folder, STAGE, "record.json")
    record = read_json(file)
    try:
        rows = [(row["system"], row["collection"], float(row["ndcg"])) for row in record["result"]["scores"]]
        point = {key: record[key] for key in ("seed", "commit", "config")}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: expected seed, commit, config and result.scores ({error!r})") from None
    scores: dict[str, PerQuery] = {}
    for system, collection, recorded in rows:
        if collection != "average":
            run = file.parent / "runs" / run_file(collection, system)
            qrels = read_qrels(run.with_name(qrels_file(collection)))
            values = evaluate(read_trec(run), qrels).per_query[MEASURE]
            if abs((own := fmean(values.values())) - recorded) > 1e-6:
                raise ValueError(
                    f"{run}: NDCG@10 {own:.6f}, but the record has {recorded:.6f}; run notebook 05 again"
                )
            scores.setdefault(system, {})[collection] = {
                qid: round(value, 6) for qid, value in values.items()
            }
    parameters = {key: value for key, value in parameters_of(folder.name).items() if key != "seed"}
    return Point(parameters=parameters, scores=scores, **point)


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
    groups: dict[tuple[tuple[str, str], ...], list[Point]] = {}
    for point in sorted(points, key=lambda point: point.seed):
        groups.setdefault(tuple(point.parameters.items()), []).append(point)
    lines = []
    for key in sorted(groups, key=lambda key: [(name, _number(value), value) for name, value in key]):
        first, *others = groups[key]
        for other in others:
            require_same(first, other)
            if set(other.scores) != set(first.scores):
                names = [", ".join(point.scores) for point in (other, first)]
                raise ValueError(
                    f"{other.name} has {names[0]}; {first.name} has {names[1]}: expected the same"
                )
        line = first.parameters | {"seeds": ", ".join(str(point.seed) for point in groups[key])}
        line["n"] = str(len(first.queries))
        for system in first.scores:
            values = [point.mean(system) for point in groups[key]]
            spread = f" ({min(values):.1f} to {max(values):.1f})" if others else ""
            line[system] = f"{fmean(values):.1f}{spread}"
        lines.append(line)
    names = dict.fromkeys(name for key in groups for name, _ in key)
    return pd.DataFrame(lines, columns=list(names | dict.fromkeys(k for line in lines for k in line))).fillna(
        "-"
    )


def _number(value: str) -> float:
    """Numbers sort by size, before words."""
    try:
        return float(value)
    except ValueError:
        return float("inf")
