"""Complex QA and web search: two sets written for this project, under data/authored.

A folder per subject with `passages.jsonl` (id, title, text), `questions.jsonl` (id, title, text, answer, positives,
hard_negatives) and `web.jsonl` (id, text, answer, positives, hard_negatives). Both sets search all passages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..runs import read_jsonl
from ..stages import ROOT
from .base import Collection, Passage, Query, split_of

FOLDER = ROOT / "data" / "authored"


def complex_qa(folder: Path = FOLDER) -> Collection:
    """Questions as people ask them on expert sites -> passages that carry a concept the answer needs."""
    return _collection("complex_qa", "complex QA", folder, "questions.jsonl")


def web_search(folder: Path = FOLDER) -> Collection:
    """Short queries -> passages that answer them; the same passages as complex QA."""
    return _collection("web_search", "web search", folder, "web.jsonl")


def _collection(name: str, scenario: str, folder: Path, file: str) -> Collection:
    subjects = sorted(path.parent for path in Path(folder).glob(f"*/{file}"))
    if not subjects:
        raise FileNotFoundError(f"{folder}: no subject folder with a {file} in it")
    passages = {
        row["id"]: Passage(row["id"], row["text"], row["title"])
        for subject in subjects
        for row in _rows(subject / "passages.jsonl", ("id", "title", "text"))
    }
    rows = [
        row for subject in subjects for row in _rows(subject / file, ("id", "text", "answer", "positives"))
    ]
    return Collection(
        name=name,
        scenario=scenario,
        source="written for this project",
        queries={row["id"]: _query(row) for row in rows},
        passages=passages,
        qrels={row["id"]: dict.fromkeys(row["positives"], 1) for row in rows},
        splits={row["id"]: split_of(row["id"]) for row in rows},
        hard_negatives={row["id"]: list(row.get("hard_negatives", [])) for row in rows},
    )


def _query(row: dict) -> Query:
    text = f"{row['title']}. {row['text']}" if row.get("title") else row["text"]
    return Query(row["id"], text, tuple(re.split(r"(?<=[.!?])\s+", row["answer"].strip())))


def _rows(path: Path, keys: tuple[str, ...]) -> Iterator[dict]:
    seen = set()
    for number, row in enumerate(read_jsonl(path), start=1):
        missing = [key for key in keys if not row.get(key)]
        if missing:
            raise ValueError(f"{path}, line {number}: {', '.join(missing)} missing or empty")
        if row["id"] in seen:
            raise ValueError(f"{path}, line {number}: id {row['id']!r} a second time")
        seen.add(row["id"])
        yield row
