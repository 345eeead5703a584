"""What `rerank` reads: a first-stage run, the queries in it and the passages it needs, checked before any work."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runs import Run, read_trec
from ..sources import Collection, folder
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
        return _read(run, top, _places(queries, corpus, data, subset))
    except FileNotFoundError as error:
        raise UsageError(
            str(error) if error.filename is None else f"{error.filename}: no such file"
        ) from None
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from None


def _places(
    queries: Path | None, corpus: Path | None, data: Path | None, subset: str | None
) -> dict[str, list[Path]]:
    files = folder.parts(data, subset, ("queries", "passages", "excluded")) if data else {}
    files |= {"queries": [queries]} if queries else {}
    files |= {"passages": folder.tables(corpus)} if corpus else {}
    for option, part in (("queries", "queries"), ("corpus", "passages")):
        if part not in files:
            raise UsageError(f"no {option}: give --{option} FILE" + (f"; {data} holds none" if data else ""))
    return files


def _read(run: Path, top: int, files: dict[str, list[Path]]) -> Inputs:
    first = read_trec(run)
    if not first:
        raise UsageError(f"{run}: no row in it, nothing to do")
    found = folder.collection(
        files, str(run), wanted={docid for docids in first.values() for docid in docids}
    )
    if unknown := [qid for qid in first if qid not in found.queries]:
        more = f" (and {len(unknown) - 1} more queries)" if len(unknown) > 1 else ""
        raise UsageError(f"{run}: query {unknown[0]!r} has no text in {files['queries'][0]}{more}")
    kept, dropped = _without_excluded(first, found)
    needed = {docid: qid for qid, docids in kept.items() for docid in docids[:top]}
    if missing := [docid for docid in needed if docid not in found.passages]:
        more = f" (and {len(missing) - 1} more documents)" if len(missing) > 1 else ""
        passages = files["passages"]
        where = passages[0] if len(passages) == 1 else passages[0].parent
        raise UsageError(
            f"query {needed[missing[0]]!r}: no text for document {missing[0]!r} in {where}{more}"
        )
    return Inputs(
        run=kept,
        queries={qid: found.queries[qid].text for qid in kept},
        texts={docid: passage.full for docid, passage in found.passages.items() if docid in needed},
        dropped=dropped,
        ignored=len(found.queries) - len(kept),
        files=[run, *(path for paths in files.values() for path in paths)],
    )


def _without_excluded(run: Run, found: Collection) -> tuple[Run, int]:
    kept = {qid: [d for d in docids if d not in found.excluded.get(qid, ())] for qid, docids in run.items()}
    return kept, sum(map(len, run.values())) - sum(map(len, kept.values()))


def digest(value: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
