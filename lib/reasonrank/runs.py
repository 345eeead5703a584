"""Runs and judgements: TREC and JSON-lines files, plain or gzipped (a name that ends in `.gz`).

Document ids may hold blanks (12 rows of BRIGHT's stackoverflow run do), so a row is read from both ends and
the id is what lies between, byte for byte. Files are UTF-8, their lines end in a newline; they are written
whole or not at all.
"""

from __future__ import annotations

import codecs
import gzip
import json
import math
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np

Run = dict[str, list[str]]
"""Query id -> document ids, best first."""
Qrels = dict[str, dict[str, int]]
"""Query id -> document id -> grade (0: judged, not relevant)."""

_FIELD, _DOCID, _GAP = r"([^ \t]+)", r"([^ \t](?:.*[^ \t])?)", r"[ \t]+"
_RUN_ROW = re.compile(_GAP.join([_FIELD, _FIELD, _DOCID, _FIELD, _FIELD, _FIELD]) + r"[ \t]*", re.DOTALL)
_QRELS_ROW = re.compile(_GAP.join([_FIELD, _FIELD, _DOCID, r"([+-]?[0-9]+)"]) + r"[ \t]*", re.DOTALL)
_EXCLUDED_ROW = re.compile(_GAP.join([_FIELD, _DOCID]) + r"[ \t]*", re.DOTALL)
_SURROGATE = re.compile(r"\\ud[89a-f]", re.IGNORECASE)  # as JSON escapes it


def read_trec(path: Path | str, lenient_ids: bool = True, ties: Literal["file", "trec_eval"] = "file") -> Run:
    """Read a TREC run (`qid Q0 docid rank score tag`), each query ordered by score, descending.

    The rank column is not used, as in trec_eval. `lenient_ids=False` drops rows whose id holds a blank, as
    the authors' released code does. `ties="file"` leaves equal scores in file order; `"trec_eval"` orders
    them by document id, descending, and takes scores as equal where they are so in single precision, as
    trec_eval does. Raises ValueError, with file and line, for a row of too few fields, a score that is no
    number, or a document that comes twice for a query.
    """
    if ties not in ("file", "trec_eval"):
        raise ValueError(f"ties is {ties!r}; expected 'file' or 'trec_eval'")
    scores: dict[str, dict[str, Any]] = _table(
        row for row in _scored(path) if lenient_ids or not re.search(r"[ \t]", row[2])
    )
    if ties == "trec_eval":
        with np.errstate(over="ignore"):
            scores = {qid: {d: (np.float32(v), d) for d, v in found.items()} for qid, found in scores.items()}
    return {qid: sorted(found, key=found.__getitem__, reverse=True) for qid, found in scores.items()}


def read_scores(path: Path | str, lenient_ids: bool = True) -> dict[str, list[float]]:
    """The scores of a TREC run by query, descending; `lenient_ids` and errors as for `read_trec`."""
    scores: dict[str, list[float]] = {}
    for _, qid, docid, score in _scored(path):
        if lenient_ids or not re.search(r"[ \t]", docid):
            scores.setdefault(qid, []).append(score)
    return {qid: sorted(found, reverse=True) for qid, found in scores.items()}


def released_order(run: Mapping[str, Sequence[str]], scores: Mapping[str, Sequence[float]]) -> Run:
    """The order in which the authors' released code evaluates a reranked run, where ours is that of the run.

    Theirs keeps the first stage's `scores` by position (query id -> descending). Where those tie, in single
    precision, documents are ordered by id, descending, whatever the model said. Raises ValueError, naming the
    query, where there are fewer scores than documents.
    """
    order: Run = {}
    for qid, docids in run.items():
        own = np.float32(list(scores.get(qid, ()))[: len(docids)]).tolist()
        if len(own) < len(docids):
            raise ValueError(f"query {qid!r}: {len(docids)} documents, but {len(own)} scores")
        order[qid] = [docid for _, docid in sorted(zip(own, docids, strict=True), reverse=True)]
    return order


def write_trec(path: Path | str, run: Mapping[str, Sequence[str]], tag: str) -> None:
    """Write a run in TREC form; the scores of a query of n documents are n - rank, strictly decreasing.

    A query without documents has no row. Raises ValueError, with the query and the document, for an id that
    could not be read back (empty, a newline in it, a blank at its ends; for a query id or `tag`: any blank)
    and for a document that comes twice.
    """
    _check_field("tag", tag)
    rows: list[str] = []
    for qid, docids in run.items():
        _check_ranking(qid, docids)
        ranked = enumerate(docids, start=1)
        rows += [f"{qid} Q0 {docid} {rank} {len(docids) - rank} {tag}\n" for rank, docid in ranked]
    write_bytes(path, "".join(rows).encode())


def read_qrels(path: Path | str) -> Qrels:
    """Read TREC judgements (`qid iteration docid grade`, tabs or blanks between the fields).

    Raises ValueError, with file and line, for a malformed row or a document that is judged twice.
    """
    rows = _rows(path, _QRELS_ROW, "'qid iteration docid grade'")
    return _table((place, qid, docid, int(grade)) for place, (qid, _, docid, grade) in rows)


def write_qrels(path: Path | str, qrels: Mapping[str, Mapping[str, int]]) -> None:
    """Write TREC judgements; ValueError for ids that could not be read back, as for `write_trec`."""
    rows: list[str] = []
    for qid, grades in qrels.items():
        _check_ranking(qid, list(grades))
        rows += [f"{qid} 0 {docid} {grade:d}\n" for docid, grade in grades.items()]
    write_bytes(path, "".join(rows).encode())


def read_excluded(path: Path | str) -> dict[str, set[str]]:
    """Read the documents that must be in no ranking (`qid docid`), a set for each query id."""
    excluded: dict[str, set[str]] = {}
    for _, (qid, docid) in _rows(path, _EXCLUDED_ROW, "'qid docid'"):
        excluded.setdefault(qid, set()).add(docid)
    return excluded


def objects(path: Path | str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file of JSON lines, each with its place, "FILE, line N"; their texts are `well_formed`.

    ValueError, with file and line, for one that is malformed.
    """
    for place, line in lines(path):
        try:
            row = json.loads(line)
        except ValueError as error:  # JSONDecodeError, or a number of too many digits
            raise ValueError(f"{place}: not valid JSON ({getattr(error, 'msg', error)})") from None
        if not isinstance(row, dict):
            raise ValueError(f"{place}: expected a JSON object, got {type(row).__name__}")
        yield place, well_formed(row) if _SURROGATE.search(line) else row


def well_formed(value: Any) -> Any:
    """A JSON value with U+FFFD for each lone surrogate in its texts, which no tokenizer takes and no file holds."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [well_formed(item) for item in value]
    if isinstance(value, dict):
        return {well_formed(key): well_formed(item) for key, item in value.items()}
    return value


def write_jsonl(path: Path | str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSON object a line; ValueError, with the row's number, for what JSON cannot hold (NaN too)."""
    written = []
    for number, row in enumerate(rows, start=1):
        try:
            written.append((json.dumps(dict(row), ensure_ascii=False, allow_nan=False) + "\n").encode())
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, row {number}: {error}") from None
    write_bytes(path, b"".join(written))


def lines(path: Path | str) -> Iterator[tuple[str, str]]:
    """The lines of a file that are not blank, each with its place, "FILE, line N", for errors.

    Plain or gzipped; a byte order mark at the beginning is skipped. ValueError for what is not UTF-8.
    """
    opened = gzip.open if str(path).endswith(".gz") else open
    with opened(path, "rb") as file:
        try:
            for number, raw in enumerate(file, start=1):
                place = f"{path}, line {number}"
                raw = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
                if raw.strip():
                    yield place, well_formed(raw.decode("utf-8", "surrogatepass")).rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"{place}: not valid UTF-8 ({error.reason})") from None
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: not a whole gzip file ({error})") from None


def _rows(path: Path | str, pattern: re.Pattern[str], expected: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for place, line in lines(path):
        match = pattern.fullmatch(line.lstrip(" \t"))
        if not match:
            raise ValueError(f"{place}: expected {expected}, got {line[:200]!r}")
        yield place, match.groups()


def _scored(path: Path | str) -> Iterator[tuple[str, str, str, float]]:
    """Place, query, document and score of each row of a run."""
    for place, (qid, _, docid, _, score, _) in _rows(path, _RUN_ROW, "'qid Q0 docid rank score tag'"):
        try:
            value = float(score)
        except ValueError:
            value = math.nan
        if math.isnan(value):
            raise ValueError(f"{place}: expected a number as the score, got {score!r}")
        yield place, qid, docid, value


def _table(rows: Iterable[tuple[str, str, str, Any]]) -> dict[str, dict[str, Any]]:
    """Query -> document -> value, from place, query, document and value."""
    table: dict[str, dict[str, Any]] = {}
    for place, qid, docid, value in rows:
        if docid in table.setdefault(qid, {}):
            raise ValueError(f"{place}: document {docid!r} comes twice for query {qid!r}")
        table[qid][docid] = value
    return table


def _check_ranking(qid: str, docids: Sequence[str]) -> None:
    _check_field("query id", qid)
    for docid in docids:
        if not docid or "\n" in docid or docid != well_formed(docid).strip(" \t\r"):
            expected = "an id of well-formed text that is not empty, with no newline and no blank at its ends"
            raise ValueError(f"query {qid!r}, document {docid!r}: expected {expected}")
    if len(set(docids)) < len(docids):
        twice = next(docid for docid in docids if docids.count(docid) > 1)
        raise ValueError(f"query {qid!r}: document {twice!r} comes twice")


def _check_field(name: str, value: str) -> None:
    if not value or re.search(r"^\ufeff|[ \t\r\n\ud800-\udfff]", value):
        raise ValueError(f"{name} {value!r}: expected a word without blanks, of well-formed text")


def write_bytes(path: Path | str, data: bytes) -> Path:
    """Write a file whole or not at all, gzipped where its name says so; the same data gives the same bytes.

    OSError names the file where it cannot be written; nothing is left of it then.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise type(error)(f"{path}: {error.strerror}") from error
    return path
