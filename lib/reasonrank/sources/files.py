"""Queries and passages from files: JSON lines, tab-separated lines, Parquet, and the folders BEIR and BRIGHT come in.

Only what a run needs is kept, so that a corpus may be larger than the memory. Every error names file and line.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..runs import lines, read_excluded
from .base import Passage

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".tsv", ".tsv.gz", ".parquet")
IDS = ("_id", "id", "qid", "query_id", "docid", "doc_id")
QUERY_TEXTS = ("text", "query", "question")
PASSAGE_TEXTS = ("text", "content", "contents", "passage")
NOT_EXCLUDED = "N/A"  # what BRIGHT writes where nothing is excluded


@dataclass(frozen=True)
class Queries:
    """Query id -> text, and the documents that may be in no ranking of a query (BRIGHT's `excluded_ids`)."""

    texts: dict[str, str]
    excluded: dict[str, set[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """Where a folder holds its queries, passages and excluded ids; None or empty for what it does not hold."""

    queries: Path | None
    passages: list[Path]
    excluded: Path | None


def read_queries(path: Path) -> Queries:
    """Read queries: JSON lines or Parquet rows with an id and a text, or lines `id TAB text`.

    The id is `_id`, `id`, `qid` or `query_id`; the text `text`, `query` or `question`. Raises ValueError, with
    file and line, for a row without them, an empty text, or an id that comes twice.
    """
    texts: dict[str, str] = {}
    excluded: dict[str, set[str]] = {}
    for place, qid, row in _unique(path):
        text = _text(place, row, QUERY_TEXTS)
        if not text.strip():
            raise ValueError(f"{place}: query {qid!r} is empty")
        texts[qid] = text
        if ids := {str(docid) for docid in _list(place, row, "excluded_ids")} - {NOT_EXCLUDED}:
            excluded[qid] = ids
    return Queries(texts, excluded)


def read_passages(paths: Iterable[Path], wanted: Collection[str]) -> dict[str, str]:
    """The texts, with their titles, of the `wanted` passages; those that are in no file are left out.

    Rows as for `read_queries`, the text in `text`, `content`, `contents` or `passage`, with an optional `title`.
    Raises ValueError, with file and line, for a malformed row or an id that comes twice, wanted or not.
    """
    seen: dict[str, str] = {}
    texts = {}
    for path in paths:
        for place, docid, row in _unique(path, seen):
            text = _text(place, row, PASSAGE_TEXTS)
            if docid in wanted:
                texts[docid] = Passage(docid, text, str(row.get("title") or "")).full
    return texts


def corpus_files(path: Path) -> list[Path]:
    """A corpus file, or those of a folder in the order of their names. FileNotFoundError where there is none."""
    if path.is_file():
        return [path]
    files = sorted(file for file in path.glob("*") if file.name.endswith(SUFFIXES))
    if not files:
        raise FileNotFoundError(f"{path}: no such file, nor a folder with files {', '.join(SUFFIXES)}")
    return files


def layout(folder: Path, subset: str | None = None) -> Layout:
    """Find the parts of a folder in BEIR's form (`corpus`, `queries`) or BRIGHT's (`documents`, `examples`).

    Each part is a file with one of SUFFIXES, or a folder with a file per `subset` (`examples/biology.parquet`);
    BRIGHT's `topics` and `excluded.txt`, as Anserini's tools write them, are read too. Raises FileNotFoundError
    for no such folder, ValueError where `subset` is needed to choose, or names none.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    queries = _part(folder, ("queries", "query", "examples", "topics"), subset)
    passages = _part(folder, ("corpus", "documents"), subset)
    if not queries and not passages:
        raise FileNotFoundError(f"{folder}: expected queries and corpus, or examples and documents, in it")
    if len(queries) > 1:
        raise ValueError(f"{folder}: several files of queries: {', '.join(file.name for file in queries)}")
    excluded = (folder / name for name in ("excluded.txt", "excluded.txt.gz"))
    found = next((file for file in excluded if file.is_file()), None)
    return Layout(queries[0] if queries else None, passages, found)


def read_exclusions(queries: Queries, path: Path | None) -> dict[str, set[str]]:
    """Excluded documents by query, from the queries' own lists and from a file `qid docid`."""
    excluded = {qid: set(ids) for qid, ids in queries.excluded.items()}
    for qid, ids in (read_excluded(path) if path else {}).items():
        excluded.setdefault(qid, set()).update(ids - {NOT_EXCLUDED})
    return excluded


def _part(folder: Path, names: tuple[str, ...], subset: str | None) -> list[Path]:
    """The files of the first part that is there."""
    for name in names:
        for suffix in SUFFIXES:
            if (folder / f"{name}{suffix}").is_file():
                return [folder / f"{name}{suffix}"]
        if (folder / name).is_dir():
            return _chosen(folder / name, subset)
    return []


def _chosen(folder: Path, subset: str | None) -> list[Path]:
    """The files of one subset, in shards ("biology-00000-of-00001.parquet") or whole."""
    groups: dict[str, list[Path]] = {}
    for file in corpus_files(folder):
        name = file.name.split(".")[0]
        stem, dash, shard = name.partition("-0")
        groups.setdefault(stem if dash and "-of-" in shard else name, []).append(file)
    if subset is None and len(groups) == 1:
        return next(iter(groups.values()))
    if subset not in groups:
        wrong = "there are several subsets" if subset is None else f"no subset {subset!r}"
        raise ValueError(f"{folder}: {wrong}; expected --subset with one of {', '.join(groups)}")
    return groups[subset]


def _unique(path: Path, seen: dict[str, str] | None = None) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Place, id and content of each row; `seen`: ids of earlier files and their places."""
    seen = {} if seen is None else seen
    for place, row in _rows(path):
        key = next((name for name in IDS if row.get(name) not in (None, "")), None)
        if key is None:
            raise ValueError(f"{place}: no id; expected one of {', '.join(IDS)}")
        id = str(row[key])
        if id in seen:
            raise ValueError(f"{place}: id {id!r} a second time; the first is {seen[id]}")
        seen[id] = place
        yield place, id, row


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a file with their places, "FILE, line N"."""
    name = path.name.removesuffix(".gz")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if not path.name.endswith(SUFFIXES):
        raise ValueError(f"{path}: expected a name that ends in one of {', '.join(SUFFIXES)}")
    if name.endswith(".parquet"):
        yield from _parquet(path)
        return
    for place, line in lines(path):
        yield place, _tabbed(place, line) if name.endswith(".tsv") else _object(place, line)


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        batches = ParquetFile(path).iter_batches(1000)
        rows = (row for batch in batches for row in batch.to_pylist())
        for number, row in enumerate(rows, start=1):
            yield f"{path}, row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a Parquet file ({error})") from None


def _tabbed(place: str, line: str) -> dict[str, str]:
    id, tab, text = line.partition("\t")
    if not tab:
        raise ValueError(f"{place}: expected 'id TAB text', got {line[:80]!r}")
    return {"id": id.strip(), "text": text}


def _object(place: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place}: not valid JSON ({error.msg})") from None
    if not isinstance(row, dict):
        raise ValueError(f"{place}: expected a JSON object, got {type(row).__name__}")
    return row


def _text(place: str, row: dict[str, Any], names: tuple[str, ...]) -> str:
    key = next((name for name in names if name in row), None)
    if key is None or not isinstance(row[key], str):
        raise ValueError(f"{place}: no text; expected a string under one of {', '.join(names)}")
    return row[key]


def _list(place: str, row: dict[str, Any], key: str) -> list[Any]:
    value = row.get(key)
    if value is not None and not isinstance(value, list):
        raise ValueError(f"{place}: {key} is {value!r:.60}; expected a list of ids")
    return value or []
