"""The points of sweeps in one table, with those that differ only in the seed taken together.

A point is a folder `<run>/sweep/alpha=0.3,seed=1`, made by the Snakefile and finished once its evaluation is. What it
came to is small: its settings, and NDCG@10 of each query by system. A table holds these of all its points, so tables
of several runs, seeds and machines can be committed, and merged into one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd
from pydantic import ValidationError

from .evaluation import MEASURE, evaluate, run_file
from .profiles import Strict
from .runs import read_qrels, read_trec
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

    def mean(self, system: str) -> float:
        """NDCG@10 in percent: mean over collections of their means over queries."""
        return 100 * fmean(fmean(queries.values()) for queries in self.scores[system].values())

    @property
    def n(self) -> int:
        """Test queries."""
        return sum(map(len, next(iter(self.scores.values())).values()))


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
    body = read_json(file)
    try:
        return [Point.model_validate(point) for point in body["result"]["points"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file}: expected the table of a sweep, with result.points ({error!r})") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{file}: result.points: {where}: {first['msg']}") from None


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
        if collection == "average":
            continue
        run = file.parent / "runs" / run_file(collection, system)
        values = evaluate(read_trec(run), read_qrels(run.with_name(f"{collection}.qrels"))).per_query[MEASURE]
        if abs(fmean(values.values()) - recorded) > 1e-6:
            own = fmean(values.values())
            raise ValueError(
                f"{run}: NDCG@10 {own:.6f}, but the record has {recorded:.6f}; run notebook 05 again"
            )
        scores.setdefault(system, {})[collection] = {qid: round(value, 6) for qid, value in values.items()}
    parameters = {key: value for key, value in parameters_of(folder.name).items() if key != "seed"}
    return Point(parameters=parameters, scores=scores, **point)


def require_same(first: Point, other: Point, changes: Iterable[str] = ()) -> None:
    """ValueError where two points differ in test queries, or in a setting that is neither the seed nor in `changes`
    (dotted keys). Settings that one of the two does not know yet are no difference."""
    settings = [_flat(point.config) for point in (first, other)]
    ignored = {"seed", "name", "about", "overrides", *changes}
    for key in sorted(settings[0].keys() & settings[1].keys() - ignored):
        if key.partition(".")[0] not in ignored and settings[0][key] != settings[1][key]:
            raise ValueError(
                f"{other.name} has {key} = {settings[1][key]}, {first.name} has {settings[0][key]}; expected the same"
            )
    queries = [
        {(name, qid) for name, values in next(iter(point.scores.values())).items() for qid in values}
        for point in (first, other)
    ]
    if odd := sorted(queries[0] ^ queries[1]):
        raise ValueError(f"{other.name} and {first.name} differ in {len(odd)} test queries, as {odd[:2]}")


def _flat(config: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """{"sft": {"epochs": 1}} -> {"sft.epochs": 1}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return flat


def rows(points: Iterable[Point]) -> list[dict[str, Any]]:
    """A row for each setting, in order of its values: `parameters`, `seeds`, `n` (test queries), `commits`, and by
    system `mean`, `least` and `most` over seeds of NDCG@10 in percent.

    ValueError where points of one setting have other systems, settings or test queries: they are not comparable.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Point]] = {}
    for point in sorted(points, key=lambda point: point.seed):
        groups.setdefault(tuple(point.parameters.items()), []).append(point)
    return [_row(groups[key]) for key in sorted(groups, key=_in_order)]


def _in_order(key: tuple[tuple[str, str], ...]) -> list[tuple[str, bool, float, str]]:
    """Numbers by size, before words."""
    is_number = re.compile(r"[-+]?[\d.]+(?:e[-+]?\d+)?", re.IGNORECASE).fullmatch
    return [(k, not is_number(v), float(v) if is_number(v) else 0.0, v) for k, v in key]


def _row(group: Sequence[Point]) -> dict[str, Any]:
    first, *others = group
    for point in others:
        require_same(first, point)
        if set(point.scores) != set(first.scores):
            names = [", ".join(each.scores) for each in (point, first)]
            raise ValueError(f"{point.name} has {names[0]}; {first.name} has {names[1]}: expected the same")
    values = {system: [point.mean(system) for point in group] for system in first.scores}
    return {
        "parameters": first.parameters,
        "seeds": [point.seed for point in group],
        "n": first.n,
        "systems": {name: {"mean": fmean(v), "least": min(v), "most": max(v)} for name, v in values.items()},
        "commits": sorted({point.commit for point in group}),
    }


def markdown(rows: Sequence[Mapping[str, Any]], unfinished: Sequence[str]) -> str:
    """The table as a page: a line for each setting, cells "31.2 (30.1 to 32.0)" where there are more seeds."""
    parts = ["NDCG@10 in % on average over collections: mean over seeds (least to most); n = test queries."]
    if rows:
        names = list(dict.fromkeys(name for row in rows for name in row["parameters"]))
        systems = list(dict.fromkeys(system for row in rows for system in row["systems"]))
        frame = pd.DataFrame(
            {name: row["parameters"].get(name, "-") for name in names}
            | {"seeds": ", ".join(map(str, row["seeds"]))}
            | {system: _cell(row["systems"].get(system), len(row["seeds"])) for system in systems}
            | {"n": str(row["n"])}
            for row in rows
        )
        parts.append(frame.to_markdown(index=False, disable_numparse=True))
    if unfinished:
        parts.append("Not finished: " + "; ".join(unfinished) + ".")
    return "\n\n".join(parts)


def _cell(values: Mapping[str, float] | None, seeds: int) -> str:
    if values is None:
        return "-"
    spread = f" ({values['least']:.1f} to {values['most']:.1f})" if seeds > 1 else ""
    return f"{values['mean']:.1f}{spread}"
