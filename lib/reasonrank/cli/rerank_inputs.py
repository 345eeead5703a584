"""What `rerank` reads: a first-stage run, the queries in it and the passages it needs, checked before any work."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runs import Run, read_trec
from ..sources.files import (
    Layout,
    Queries,
    corpus_files,
    layout,
    read_exclusions,
    read_passages,
    read_queries,
)
from .errors import UsageError


@dataclass(frozen=True)
class Inputs:
    """A run with all texts it needs.

    `run` is without excluded documents; `dropped` counts those that were in it, `ignored` the queries that are
    not in the run. `files`: those that were read.
    """

    run: Run
    queries: dict[str, str]
    texts: dict[str, str]
    dropped: int
    ignored: int
    files: list[Path]

    def digests(self) -> dict[str, str]:
        """Hashes of what was read and is used, whatever the files are called and however they are packed."""
        parts = {"run": self.run, "queries": self.queries, "passages": self.texts}
        return {name: digest(part) for name, part in parts.items()}


def read_inputs(
    run: Path, top: int, queries: Path | None, corpus: Path | None, data: Path | None, subset: str | None
) -> Inputs:
    """Read and check all inputs; UsageError with the file and line, or the query and document, at fault.

    `data` is a folder in a published layout; `queries` and `corpus` go before what it holds. `top`: documents
    of a query that need a text.
    """
    try:
        return _read(run, top, *_places(queries, corpus, data, subset))
    except FileNotFoundError as error:
        raise UsageError(
            str(error) if error.filename is None else f"{error.filename}: no such file"
        ) from None
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from None


def _places(
    queries: Path | None, corpus: Path | None, data: Path | None, subset: str | None
) -> tuple[Path, list[Path], Path | None]:
    found = layout(data, subset) if data else Layout(None, [], None)
    queries = queries or found.queries
    passages = corpus_files(corpus) if corpus else found.passages
    for name, given in (("queries", queries), ("corpus", passages)):
        if not given:
            raise UsageError(f"no {name}: give --{name} FILE" + (f"; {data} holds none" if data else ""))
    return queries, passages, found.excluded


def _read(run: Path, top: int, queries: Path, passages: list[Path], excluded: Path | None) -> Inputs:
    first = read_trec(run)
    if not first:
        raise UsageError(f"{run}: no row in it, nothing to do")
    known = read_queries(queries)
    if unknown := [qid for qid in first if qid not in known.texts]:
        more = f" (and {len(unknown) - 1} more queries)" if len(unknown) > 1 else ""
        raise UsageError(f"{run}: query {unknown[0]!r} has no text in {queries}{more}")
    kept, dropped = _without_excluded(first, known, excluded)
    needed = {docid: qid for qid, docids in kept.items() for docid in docids[:top]}
    texts = read_passages(passages, needed)
    if missing := [docid for docid in needed if docid not in texts]:
        more = f" (and {len(missing) - 1} more documents)" if len(missing) > 1 else ""
        where = passages[0] if len(passages) == 1 else passages[0].parent
        raise UsageError(
            f"query {needed[missing[0]]!r}: no text for document {missing[0]!r} in {where}{more}"
        )
    return Inputs(
        run=kept,
        queries={qid: known.texts[qid] for qid in kept},
        texts=texts,
        dropped=dropped,
        ignored=len(known.texts) - len(kept),
        files=[run, queries, *passages, *([excluded] if excluded else [])],
    )


def _without_excluded(run: Run, queries: Queries, file: Path | None) -> tuple[Run, int]:
    excluded = read_exclusions(queries, file)
    kept = {qid: [d for d in docids if d not in excluded.get(qid, ())] for qid, docids in run.items()}
    return kept, sum(map(len, run.values())) - sum(map(len, kept.values()))


def digest(value: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
