"""Complex QA and web search: two sets written for this project, under data/authored.

A folder per subject with `passages.jsonl` (id, title, text), `questions.jsonl` (id, title, text, answer, positives,
hard_negatives) and `web.jsonl` (id, text, answer, positives, hard_negatives). Both sets search all passages. More
questions lie under `train` and `test`, a folder per subject too; those for training have a `chain`. `train` also holds
problems and tasks for the collections of `champ` and `humaneval`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

from ..stages import ROOT
from .base import Collection, Query, split_of
from .folder import QUERY_TEXTS, collection, rows, steps

FOLDER = ROOT / "data" / "authored"


def complex_qa() -> Collection:
    """Questions as people ask them on expert sites -> passages that carry a concept the answer needs."""
    return _collection("complex_qa", "complex QA", "questions.jsonl")


def web_search() -> Collection:
    """Short queries -> passages that answer them; the same passages as complex QA."""
    return _collection("web_search", "web search", "web.jsonl")


def written(file: str) -> Iterator[tuple[Query, dict[str, Any]]]:
    """The queries of a file under FOLDER, each with its row; without a file there are none."""
    path = FOLDER / file
    for place, qid, text, row in rows([path] if path.is_file() else [], QUERY_TEXTS):
        asked = f"{row['title']}. {text}" if row.get("title") else text
        yield Query(qid, asked, steps(place, row), row.get("chain", "")), row


def _collection(name: str, scenario: str, file: str) -> Collection:
    made = Collection(name, scenario, "written for this project", {}, {}, {})
    subjects = sorted(path.parent.name for path in FOLDER.glob("*/passages.jsonl"))
    for split, subject in product(("", "train", "test"), subjects):
        for query, row in written(f"{split}/{subject}/{file}".lstrip("/")):
            made.add(query, split or split_of(query.id), row["positives"])
            made.hard_negatives[query.id] = list(row.get("hard_negatives", []))
    made.passages = collection({"passages": [FOLDER / s / "passages.jsonl" for s in subjects]}, name).passages
    return made
