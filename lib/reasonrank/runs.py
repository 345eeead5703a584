"""Runs and judgements: TREC and JSON-lines files, plain or gzipped (a name that ends in `.gz`).

Document ids may hold blanks (12 rows of BRIGHT's stackoverflow run do), so a row is read from both ends and
the id is what lies between, byte for byte. Files are UTF-8 and are written whole or not at all.
"""

from __future__ import annotations

import codecs
import gzip
import json
import math
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np

Run = dict[str, list[str]]
"""Query id -> document ids, best first."""
Qrels = dict[str, dict[str, int]]
"""Query id -> document id -> grade (0: judged, not relevant)."""

_RUN, _QRELS = "qid Q0 docid rank score tag", "qid iteration docid grade"
_SURROGATE = re.compile(r"\\ud[89a-f]", re.IGNORECASE)  # as JSON escapes it
# What can be written as an id, or a tag, and read back.
_WORD = re.compile(r"(?!\ufeff)[^ \t\r\n\ud800-\udfff]+")
_DOCID = re.compile(r"(?![ \t\r])[^\n\ud800-\udfff]+(?<![ \t\r])")


def read_trec(path: Path | str, lenient_ids: bool = True, ties: Literal["file", "trec_eval"] = "file") -> Run:
    """Read a TREC run (`qid Q0 docid rank score tag`), each query ordered by score, descending.

    The rank column is not used, as in trec_eval. `lenient_ids=False` drops rows whose id holds a blank, as
    the authors' released code does. `ties="file"` leaves equal scores in file order; `"trec_eval"` is
    `released_order`. Raises ValueError, with file and line, for a row of too few fields, a score that is no number,
    or a document that comes twice for a query.
    """
    if ties not in ("file", "trec_eval"):
        raise ValueError(f"ties is {ties!r}; expected 'file' or 'trec_eval'")
    scores = _table(path, _RUN, float, lenient_ids)
    run = {qid: sorted(found, key=found.__getitem__, reverse=True) for qid, found in scores.items()}
    return run if ties == "file" else released_order(run, read_scores(path, lenient_ids))


def read_scores(path: Path | str, lenient_ids: bool = True) -> dict[str, list[float]]:
    """The scores of a TREC run by query, descending; `lenient_ids` and errors as for `read_trec`."""
    scores = _table(path, _RUN, float, lenient_ids)
    return {qid: sorted(found.values(), reverse=True) for qid, found in scores.items()}


def released_order(run: Mapping[str, Sequence[str]], scores: Mapping[str, Sequence[float]]) -> Run:
    """The order in which the authors' released code evaluates a reranked run, where ours is that of the run.

    Theirs keeps the first stage's `scores` by position (query id -> descending). Where those tie, in single
    precision, documents are ordered by id, descending, whatever the model said. Raises ValueError, naming the
    query, where there are fewer scores than documents.
    """
    order: Run = {}
    for qid, docids in run.items():
        with np.errstate(over="ignore"):
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
    if not _WORD.fullmatch(tag):
        raise ValueError(f"tag {tag!r}: expected a word without blanks, of well-formed text")
    rows = (
        (qid, docid, f"{qid} Q0 {docid} {rank} {len(docids) - rank} {tag}\n")
        for qid, docids in run.items()
        for rank, docid in enumerate(docids, start=1)
    )
    _write(path, rows)


def read_qrels(path: Path | str) -> Qrels:
    """Read TREC judgements (`qid iteration docid grade`, tabs or blanks between the fields); ValueError, with file
    and line, for a malformed row or a document that is judged twice."""
    return _table(path, _QRELS, int)


def write_qrels(path: Path | str, qrels: Mapping[str, Mapping[str, int]]) -> None:
    """Write TREC judgements; ValueError for ids that could not be read back, as for `write_trec`."""
    judged = ((qid, docid, grade) for qid, grades in qrels.items() for docid, grade in grades.items())
    _write(path, ((qid, docid, f"{qid} 0 {docid} {grade:d}\n") for qid, docid, grade in judged))


def read_excluded(path: Path | str) -> dict[str, set[str]]:
    """Read the documents that must be in no ranking (`qid docid`), a set for each query id."""
    excluded: dict[str, set[str]] = {}
    for _, row in _rows(path, "qid docid"):
        excluded.setdefault(row["qid"], set()).add(row["docid"])
    return excluded


def objects(path: Path | str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file of JSON lines, each with its place, "FILE, line N"; their texts are `well_formed`.
    ValueError, with file and line, for one that is malformed."""
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
    return json.loads(well_formed(json.dumps(value, ensure_ascii=False)))


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


def _rows(path: Path | str, form: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Place and fields of each row; `form` names the fields, of which only the docid may hold blanks."""
    docid, word = r"[^ \t](?:.*[^ \t])?", r"[^ \t]+"
    groups = (f"(?P<{name}>{docid if name == 'docid' else word})" for name in form.split())
    fields = r"[ \t]+".join(groups)
    pattern = re.compile(rf"[ \t]*{fields}[ \t]*", re.DOTALL)
    for place, line in lines(path):
        match = pattern.fullmatch(line)
        if not match:
            raise ValueError(f"{place}: expected {form!r}, got {line[:200]!r}")
        yield place, match.groupdict()


def _table(
    path: Path | str, form: str, number: Callable[[str], float], lenient_ids: bool = True
) -> dict[str, dict[str, Any]]:
    """Query -> document -> score or grade, the one field of `form` that is a `number`."""
    table: dict[str, dict[str, Any]] = {}
    name = "score" if "score" in form else "grade"
    for place, row in _rows(path, form):
        qid, docid, value = row["qid"], row["docid"], math.nan
        with suppress(ValueError):
            value = number(row[name])
        if math.isnan(value):
            raise ValueError(f"{place}: expected a number as the {name}, got {row[name]!r}")
        if lenient_ids or not re.search(r"[ \t]", docid):
            if docid in table.setdefault(qid, {}):
                raise ValueError(f"{place}: document {docid!r} comes twice for query {qid!r}")
            table[qid][docid] = value
    return table


def _write(path: Path | str, rows: Iterable[tuple[str, str, str]]) -> None:
    """Write rows, each given with its query and its document."""
    written: dict[tuple[str, str], str] = {}
    for qid, docid, row in rows:
        if not _WORD.fullmatch(qid) or not _DOCID.fullmatch(docid):
            expected = "well-formed text, the query's without blanks, the document's with none at its ends"
            raise ValueError(f"query {qid!r}, document {docid!r}: expected ids of {expected}")
        if (qid, docid) in written:
            raise ValueError(f"query {qid!r}: document {docid!r} comes twice")
        written[qid, docid] = row
    write_bytes(path, "".join(written.values()).encode())


def write_bytes(path: Path | str, data: bytes) -> Path:
    """Write a file whole or not at all, gzipped where its name says so; the same data gives the same bytes. OSError
    names the file where it cannot be written; nothing is left of it then."""
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
