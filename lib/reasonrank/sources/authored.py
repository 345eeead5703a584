"""Complex QA and web search: two sets written for this project, under data/authored.

A folder per subject with `passages.jsonl` (id, title, text), `questions.jsonl` (id, title, text, answer, positives,
hard_negatives) and `web.jsonl` (id, text, answer, positives, hard_negatives). Both sets search all passages.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..stages import ROOT
from .base import Collection, Query
from .folder import QUERY_TEXTS, collection, rows

FOLDER = ROOT / "data" / "authored"


def complex_qa(folder: Path = FOLDER) -> Collection:
    """Questions as people ask them on expert sites -> passages that carry a concept the answer needs."""
    return _collection("complex_qa", "complex QA", sorted(folder.glob("*/questions.jsonl")))


def web_search(folder: Path = FOLDER) -> Collection:
    """Short queries -> passages that answer them; the same passages as complex QA."""
    return _collection("web_search", "web search", sorted(folder.glob("*/web.jsonl")))


def _collection(name: str, scenario: str, files: list[Path]) -> Collection:
    queries, qrels, hard = {}, {}, {}
    for _, qid, text, row in rows(files, QUERY_TEXTS):
        asked = f"{row['title']}. {text}" if row.get("title") else text
        queries[qid] = Query(qid, asked, tuple(re.split(r"(?<=[.!?])\s+", row["answer"].strip())))
        qrels[qid] = dict.fromkeys(row["positives"], 1)
        hard[qid] = list(row.get("hard_negatives", []))
    passages = collection({"passages": [file.parent / "passages.jsonl" for file in files]}, name).passages
    source = "written for this project"
    return Collection(name, scenario, source, queries, passages, qrels, hard_negatives=hard)
