"""The authors' published training data: the full set (13k), and the parts of it that SFT and RL use.

Folders as on the hub, under liuwenhan: `reasonrank_data_13k` with `training_data_all.jsonl`, `id_query/` and
`id_doc/` (a JSON file per data set: id -> text); `reasonrank_data_sft` with `reasonrank_sft-data.json`
(instruction, output, system); `reasonrank_data_rl` with `train.parquet` (extra_info: initial_list, final_list,
relevant_docids). The last two are renderings of examples of the first, and are read as these.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from ..answers import parse
from ..runs import objects
from ..stages import read_json
from .benchmarks import fetch
from .folder import parquet

HUB = {subset: f"liuwenhan/reasonrank_data_{subset}" for subset in ("13k", "sft", "rl")}
FILES = {"13k": "training_data_all.jsonl", "sft": "reasonrank_sft-data.json", "rl": "train.parquet"}
LISTS = ("initial_list", "final_list", "relevant_docids")
SITES = ("biology", "earth_science", "economics", "robotics", "stackoverflow", "sustainable_living")
PARTS = dict.fromkeys(SITES, "complex QA") | {"theorem": "math: theorem", "math": "math: problem"}
PARTS |= {"leetcode": "coding", "marco": "web search"}  # of a data set's name -> its scenario
Texts = dict[str, dict[str, str]]
Row = dict[str, Any]


def download(subset: Literal["13k", "sft", "rl"]) -> Path:
    """The folder of a published set, fetched from the hub into its cache where it is not there already."""
    return fetch(HUB[subset])


def rows(folder: Path | str) -> list[Row]:
    """Rows of the full set, or of an export of our own, as `examples.example_of` takes them, with their scenario.

    Raises FileNotFoundError, or ValueError with file and line, for what is missing or does not fit.
    """
    found = []
    for place, row in objects(_file(folder, "13k")):
        row["qid"] = str(row["qid"]) if isinstance(row.get("qid"), int) else row.get("qid")
        for key in ("dataset", "qid", "reasoning"):
            if not isinstance(row.get(key), str):
                raise ValueError(f"{place}: {key} is missing or no text")
        for key in LISTS:
            if not isinstance(row.get(key), list) or not all(isinstance(i, str | int) for i in row[key]):
                raise ValueError(f"{place}: {key} is missing or no list of ids")
            row[key] = [str(docid) for docid in row[key]]
        if sorted(row["initial_list"]) != sorted(row["final_list"]):
            raise ValueError(f"{place}: final_list is no permutation of initial_list")
        if not set(row["relevant_docids"]) <= set(row["initial_list"]):
            raise ValueError(f"{place}: relevant_docids names a passage that is not in initial_list")
        found.append(row | {"scenario": row.get("scenario") or scenario_of(row["dataset"], place)})
    return found


def texts(folder: Path | str) -> tuple[Texts, Texts]:
    """Queries and passages of the full set: dataset -> id -> text."""
    queries, passages = (
        {path.stem: read_json(path) for path in sorted((Path(folder) / name).glob("*.json"))}
        for name in ("id_query", "id_doc")
    )
    if not queries or not passages:
        raise FileNotFoundError(f"{folder}: expected JSON files in id_query/ and id_doc/")
    return queries, passages


def sft_rows(folder: Path | str, full: Iterable[Row]) -> list[Row]:
    """The rows of `full` that the SFT set holds, told by their reasoning. ValueError names the first that is
    in none of them."""
    path = _file(folder, "sft")
    known = {" ".join(row["reasoning"].split()): row for row in full}
    entries = ((f"{path}, entry {number}", row) for number, row in enumerate(read_json(path), start=1))
    keys = ((place, parse(_field(row, "output", place), 0).reasoning) for place, row in entries)
    return [_known(known, " ".join(reasoning.split()), place) for place, reasoning in keys]


def rl_rows(folder: Path | str, full: Iterable[Row]) -> list[Row]:
    """The rows of `full` that the RL set holds, told by their two lists; errors as `sft_rows`."""
    known = {_lists(row, "full set"): row for row in full}
    lists = ((place, _field(row, "extra_info", place)) for place, row in parquet(_file(folder, "rl")))
    return [_known(known, _lists(row, place), place) for place, row in lists]


def scenario_of(dataset: str, place: str = "") -> str:
    """The scenario of a data set of Table 5, by its name; ValueError for another name."""
    for part, scenario in PARTS.items():
        if part in dataset.lower().replace("-", "_"):
            return scenario
    raise ValueError(f"{place}: data set {dataset!r} is none of Table 5; expected a key scenario in the row")


def _file(folder: Path | str, subset: str) -> Path:
    path = Path(folder) / FILES[subset]
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; a folder as {HUB[subset]} on the hub has it")
    return path


def _field(row: Any, key: str, place: str) -> Any:
    if not isinstance(row, dict) or key not in row:
        raise ValueError(f"{place}: no {key}")
    return row[key]


def _lists(row: Row, place: str) -> str:
    return json.dumps([list(map(str, _field(row, key, place))) for key in ("initial_list", "final_list")])


def _known(known: dict[str, Row], key: str, place: str) -> Row:
    if key not in known:
        raise ValueError(f"{place}: is no example of the full set: {key[:80]!r}")
    return known[key]
