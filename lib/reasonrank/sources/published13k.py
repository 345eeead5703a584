"""The authors' published training data: the full set (13k), and the parts of it that SFT and RL use.

Folders as on the hub, under liuwenhan: `reasonrank_data_13k` with `training_data_all.jsonl`, `id_query/` and
`id_doc/` (a JSON file per data set: id -> text); `reasonrank_data_sft` with `reasonrank_sft-data.json`
(instruction, output, system); `reasonrank_data_rl` with `train.parquet` (extra_info: initial_list, final_list,
relevant_docids). The last two are renderings of examples of the first, and are read as these.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
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


def files(subset: Literal["13k", "sft", "rl"], data_dir: Path | None) -> dict[str, Path]:
    """The table of the full set, and of `subset`, in folders of `data_dir`, or fetched from the hub where that is None.

    Raises ConnectionError where the hub is needed and not there, FileNotFoundError for a file that is missing.
    """
    found = {}
    for name in ("13k", subset):
        repository = HUB[name]
        place = data_dir / repository.partition("/")[2] if data_dir else fetch(repository)
        found[name] = place / FILES[name]
        if not found[name].is_file():
            raise FileNotFoundError(
                f"{found[name]}: no such file; a folder as {repository} on the hub has it"
            )
    return found


def load(subset: Literal["13k", "sft", "rl"], data_dir: Path | None = None) -> tuple[list[Row], Texts, Texts]:
    """The rows of a published set, and the queries and passages of the full set: data set -> id -> text.

    `data_dir` as for `files`. Raises its errors, and ValueError, with the place, for what does not fit, or is a
    rendering of no row of the full set.
    """
    paths = files(subset, data_dir)
    full = rows(paths["13k"])
    queries, passages = (
        {path.stem: read_json(path) for path in sorted((paths["13k"].parent / name).glob("*.json"))}
        for name in ("id_query", "id_doc")
    )
    if not queries or not passages:
        raise FileNotFoundError(f"{paths['13k'].parent}: expected JSON files in id_query/ and id_doc/")
    return full if subset == "13k" else _rendered(subset, paths[subset], full), queries, passages


def prompts(data_dir: Path | None = None) -> Iterator[Row]:
    """Rows of the RL set as `recovery.recover` takes them: `messages`, `query`, `passages`; errors as for `load`."""
    examples, queries, texts = load("rl", data_dir)
    table = parquet(files("rl", data_dir)["rl"])
    for (place, row), example in zip(table, examples, strict=True):
        name = example["dataset"]
        try:
            query, passages = queries[name][example["qid"]], [texts[name][d] for d in example["initial_list"]]
        except KeyError as error:
            raise ValueError(f"{place}: no text for {error} of {name} in id_query/ or id_doc/") from None
        yield {"messages": _field(row, "prompt", place), "query": query, "passages": passages}


def rows(path: Path) -> list[Row]:
    """Rows of the full set, or of examples of our own, with their scenario; ValueError with file and line."""
    found = []
    for place, row in objects(path):
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
        name = row["dataset"].lower().replace("-", "_")
        named = row.get("scenario") or next((kind for part, kind in PARTS.items() if part in name), None)
        if named is None:
            wrong = f"{place}: data set {row['dataset']!r} is none of Table 5"
            raise ValueError(f"{wrong}; expected a key scenario in the row")
        found.append(row | {"scenario": named})
    return found


def _rendered(subset: str, path: Path, full: list[Row]) -> list[Row]:
    """The rows whose renderings a set holds: of SFT told by their reasoning, of RL by their two lists."""
    if subset == "sft":
        known = {" ".join(row["reasoning"].split()): row for row in full}
        entries = [(f"{path}, entry {number}", row) for number, row in enumerate(read_json(path), start=1)]
        said = {place: parse(_field(row, "output", place), 0).reasoning for place, row in entries}
        keys = {place: " ".join(text.split()) for place, text in said.items()}
    else:
        known = {_lists(row, "full set"): row for row in full}
        keys = {place: _lists(_field(row, "extra_info", place), place) for place, row in parquet(path)}
    for place, key in keys.items():
        if key not in known:
            raise ValueError(f"{place}: is no example of the full set: {key[:80]!r}")
    return [known[key] for key in keys.values()]


def _field(row: Any, key: str, place: str) -> Any:
    if not isinstance(row, dict) or key not in row:
        raise ValueError(f"{place}: no {key}")
    return row[key]


def _lists(row: Row, place: str) -> str:
    return json.dumps([list(map(str, _field(row, key, place))) for key in LISTS[:2]])
