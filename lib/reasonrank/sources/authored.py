"""Complex QA and web search: two sets written for this project, under data/authored.

A folder per subject with `passages.jsonl` (id, title, text), `questions.jsonl` (id, title, text, answer, positives,
hard_negatives) and `web.jsonl` (id, text, answer, positives, hard_negatives). Both sets search all passages. More
questions lie under `train` and `test`, a folder per subject too; those for training have a `chain`. `train` also holds
problems and tasks for the collections of `champ` and `humaneval`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..stages import ROOT
from .base import Collection, Query, split_of
from .folder import QUERY_TEXTS, collection, rows, steps

FOLDER = ROOT / "data" / "authored"


def complex_qa(folder: Path = FOLDER) -> Collection:
    """Questions as people ask them on expert sites -> passages that carry a concept the answer needs."""
    return _collection("complex_qa", "complex QA", folder, "questions.jsonl")


def web_search(folder: Path = FOLDER) -> Collection:
    """Short queries -> passages that answer them; the same passages as complex QA."""
    return _collection("web_search", "web search", folder, "web.jsonl")


def written(file: Path | str, folder: Path = FOLDER) -> Iterator[tuple[Query, dict[str, Any]]]:
    """The queries of a file under `folder`, each with its row; without a file there are none."""
    path = folder / file
    for place, qid, text, row in rows([path] if path.is_file() else [], QUERY_TEXTS):
        asked = f"{row['title']}. {text}" if row.get("title") else text
        yield Query(qid, asked, steps(place, row), row.get("chain", "")), row


def _collection(name: str, scenario: str, folder: Path, file: str) -> Collection:
    made = Collection(name, scenario, "written for this project", {}, {}, {})
    subjects = sorted(path.parent.name for path in folder.glob("*/passages.jsonl"))
    for split, subject in ((split, subject) for split in ("", "train", "test") for subject in subjects):
        for query, row in written(Path(split, subject, file), folder):
            made.queries[query.id], made.splits[query.id] = query, split or split_of(query.id)
            made.qrels[query.id] = dict.fromkeys(row["positives"], 1)
            made.hard_negatives[query.id] = list(row.get("hard_negatives", []))
    made.passages = collection({"passages": [folder / s / "passages.jsonl" for s in subjects]}, name).passages
    return made
