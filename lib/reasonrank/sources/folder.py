"""Your own data: a folder with `queries.jsonl`, `passages.jsonl` and, if there are any, `labels.jsonl`.

queries.jsonl: `id`, `text`, and `answer` (text) or `solution` (text, or a list of steps). passages.jsonl: `id`,
`text`, and `title` if it has one. labels.jsonl: `query`, `passage`, and `gain` (1 where it is missing): passages that
are known to be relevant, such as the pages that an accepted answer links to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..runs import Qrels
from .base import Collection, Passage, Query
from .jsonl import numbered_jsonl


def read(folder: Path | str, scenario: str = "complex QA", name: str | None = None) -> Collection:
    """A collection of your own, all of its queries for training; `name` is the folder's by default.

    Raises FileNotFoundError for a missing file, ValueError with file and line for a row that does not fit.
    """
    folder = Path(folder)
    queries = {row["id"]: _query(row, place) for place, row in _rows(folder / "queries.jsonl")}
    passages = {
        row["id"]: Passage(row["id"], row["text"], _text(row, "title", place, needed=False))
        for place, row in _rows(folder / "passages.jsonl")
    }
    labels = folder / "labels.jsonl"
    qrels = _labels(labels, queries, passages) if labels.is_file() else {}
    return Collection(
        name=name or folder.resolve().name,
        scenario=scenario,
        source="own data",
        queries=queries,
        passages=passages,
        qrels=qrels,
        splits=dict.fromkeys(queries, "train"),
    )


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows with an id of their own and a text, each with its place for errors; at least one."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; your folder needs queries.jsonl and passages.jsonl")
    seen: dict[str, str] = {}
    for place, row in numbered_jsonl(path):
        for key in ("id", "text"):
            row[key] = _text(row, key, place)
        if row["id"] in seen:
            raise ValueError(f"{place}: id {row['id']!r} a second time, after {seen[row['id']]}")
        seen[row["id"]] = place
        yield place, row
    if not seen:
        raise ValueError(f"{path}: empty; expected a JSON object with id and text on each line")


def _text(row: dict[str, Any], key: str, place: str, needed: bool = True) -> str:
    value = row.get(key, "")
    if not isinstance(value, str):
        raise ValueError(f"{place}: {key} is {type(value).__name__}; expected text")
    if needed and not value.strip():
        raise ValueError(f"{place}: {key} is missing or empty; expected text")
    return value.strip()


def _query(row: dict[str, Any], place: str) -> Query:
    """The gold answer in steps: a solution's own, its lines, or the sentences of an answer."""
    solution = row.get("solution")
    if isinstance(solution, list):
        steps = [_text({"solution": step}, "solution", place) for step in solution]
    elif "solution" in row:
        steps = [line.strip() for line in _text(row, "solution", place).splitlines() if line.strip()]
    else:
        steps = re.split(r"(?<=[.!?])\s+", _text(row, "answer", place, needed="answer" in row))
    if not any(steps):
        raise ValueError(f"{place}: neither answer nor solution; the teacher needs one to select positives")
    return Query(row["id"], row["text"], tuple(steps))


def _labels(path: Path, queries: dict[str, Query], passages: dict[str, Passage]) -> Qrels:
    qrels: Qrels = {}
    for place, row in numbered_jsonl(path):
        qid, docid, gain = _text(row, "query", place), _text(row, "passage", place), row.get("gain", 1)
        if qid not in queries:
            raise ValueError(f"{place}: query {qid!r} is not in queries.jsonl")
        if docid not in passages:
            raise ValueError(f"{place}: passage {docid!r} is not in passages.jsonl")
        if not isinstance(gain, int) or gain < 0:
            raise ValueError(f"{place}: gain is {gain!r}; expected a whole number, 0 or more")
        if docid in qrels.setdefault(qid, {}):
            raise ValueError(f"{place}: passage {docid!r} is judged a second time for {qid!r}")
        qrels[qid][docid] = gain
    return qrels
