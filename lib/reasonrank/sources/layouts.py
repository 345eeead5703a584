"""What the published benchmarks share: finding and reading their files, and a collection with its first stage.

Tables come as Parquet, JSON lines or tab-separated text, in one file or in shards, gzipped or not. A hub
repository is fetched as it is and then read like a local folder.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..runs import Run, read_jsonl, read_trec
from .base import Collection

Row = dict[str, Any]


@dataclass
class Benchmark(Collection):
    """A published test collection; all its queries are in the split "test".

    `queries` are what a reranker reads, `retrieval_queries` (query id -> text) what a first stage searches
    with; `passage_tokens`: the paper's cap on a passage (section 5.1); `inputs`: file -> SHA-256 of its text.
    Judgements may name documents that the corpus lacks, as some published ones do: they count in the ideal
    ranking, as in trec_eval.
    """

    retrieval_queries: dict[str, str] = field(default_factory=dict)
    passage_tokens: int = 512
    inputs: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for qid, judged in self.qrels.items():
            if qid not in self.queries:
                raise ValueError(f"{self.name}: judgements for {qid!r}, which is no query of this collection")
            if both := self.excluded.get(qid, set()) & judged.keys():
                raise ValueError(f"{self.name}: {min(both)!r} is both judged and excluded for {qid!r}")

    def read_run(
        self, path: Path | str, *, candidates: int | None = 100, variant: str = "ours", top: int | None = None
    ) -> Run:
        """A first-stage run from a TREC file, checked against this collection, `top` documents a query.

        `candidates`: documents that each query must have (None: any; fewer only where all that may be
        retrieved are there). `variant="ours"` takes excluded documents out and reads ids with blanks;
        `"released"` does as the authors' code, which drops such ids and leaves excluded documents of a run
        that is not its own. Raises ValueError naming file and query for a query that is missing or foreign,
        a document that is no passage, or another count.
        """
        if variant not in ("ours", "released"):
            raise ValueError(f"variant is {variant!r}; expected 'ours' or 'released'")
        run = read_trec(path)
        self._check(run, str(path), candidates)
        if variant == "released":
            return {qid: docids[:top] for qid, docids in read_trec(path, lenient_ids=False).items()}
        none: set[str] = set()
        return {
            qid: [d for d in docids if d not in self.excluded.get(qid, none)][:top]
            for qid, docids in run.items()
        }

    def _check(self, run: Run, path: str, candidates: int | None) -> None:
        judged = {qid for qid in self.queries if self.qrels.get(qid)}
        if odd := sorted((judged - run.keys()) | (run.keys() - self.queries.keys())):
            raise ValueError(f"{path}: query {odd[0]!r} is only in the run, or only in {self.name}")
        for qid, docids in run.items():
            foreign = [docid for docid in docids if self.passages and docid not in self.passages]
            if foreign:
                raise ValueError(f"{path}: query {qid!r}: {foreign[0]!r} is no passage of {self.name}")
            if candidates is not None and len(docids) != self._expected(qid, candidates):
                expected = self._expected(qid, candidates)
                raise ValueError(f"{path}: query {qid!r} has {len(docids)} candidates, expected {expected}")

    def _expected(self, qid: str, candidates: int) -> int:
        if not self.passages:
            return candidates
        allowed = len(self.passages) - len(self.excluded.get(qid, set()) & self.passages.keys())
        return min(candidates, allowed)


def find(folder: Path | str, *names: str) -> list[Path]:
    """The files of one table: all that match the first of `names` (glob patterns) that any file matches.

    Each name is tried as it is and with `.gz`. FileNotFoundError says what was looked for.
    """
    for name in names:
        found = sorted(Path(folder).glob(name)) or sorted(Path(folder).glob(f"{name}.gz"))
        if found:
            return found
    raise FileNotFoundError(f"{folder}: found none of {', '.join(names)}")


def rows(paths: Iterable[Path], keys: Iterable[str]) -> Iterator[tuple[str, Row]]:
    """The rows of a table's files, each with its place for errors; ValueError for a row without one of `keys`."""
    keys = tuple(keys)
    for path in paths:
        for number, row in enumerate(_read(path), start=1):
            place = f"{path}, row {number}"
            if missing := [key for key in keys if row.get(key) is None]:
                raise ValueError(f"{place}: expected the keys {', '.join(keys)}; lacks {', '.join(missing)}")
            yield place, row


def _read(path: Path) -> Iterable[Row]:
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        return _parquet(path)
    if name.endswith(".jsonl"):
        return read_jsonl(path)
    if name.endswith(".tsv"):
        return csv.DictReader(io.StringIO(content(path).decode()), delimiter="\t", quoting=csv.QUOTE_NONE)
    raise ValueError(f"{path}: expected a .parquet, .jsonl or .tsv file")


def _parquet(path: Path) -> list[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: not a whole Parquet file ({error})") from None


def keyed(found: Iterable[tuple[str, Row]], key: str) -> dict[str, Row]:
    """Rows by their id, as a string; ValueError for one that comes a second time."""
    table: dict[str, Row] = {}
    for place, row in found:
        identifier = str(row[key])
        if identifier in table:
            raise ValueError(f"{place}: {key} {identifier!r} a second time")
        table[identifier] = row
    return table


def judgements(
    found: Iterable[tuple[str, Row]], query: str, document: str, grade: str
) -> dict[str, dict[str, int]]:
    """Judgements from rows of a query id, a document id and a whole-numbered grade."""
    qrels: dict[str, dict[str, int]] = {}
    for place, row in found:
        try:
            value = float(row[grade])
        except (TypeError, ValueError):
            value = 0.5
        if value != int(value):
            raise ValueError(f"{place}: {grade} is {row[grade]!r}, expected a whole number")
        qrels.setdefault(str(row[query]), {})[str(row[document])] = int(value)
    return qrels


def content(path: Path) -> bytes:
    """A file's bytes, unpacked where it is gzipped."""
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError) as error:
        raise ValueError(f"{path}: not a whole gzip file ({error})") from None


def hashes(folder: Path | str, paths: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of each file's text (unpacked), by its path in `folder` without `.gz`."""
    return {
        path.relative_to(folder).as_posix().removesuffix(".gz"): hashlib.sha256(content(path)).hexdigest()
        for path in paths
    }


def differing(found: Mapping[str, str], pinned: Mapping[str, str]) -> list[str]:
    """Names of the files whose hash is not the pinned one; files that are not pinned pass."""
    return [name for name, digest in found.items() if pinned.get(name, digest) != digest]


def check_hashes(found: Mapping[str, str], pinned: Mapping[str, str]) -> None:
    """ValueError that names the first file whose hash is not the pinned one."""
    for name in differing(found, pinned):
        raise ValueError(f"{name}: SHA-256 {found[name]}, expected {pinned[name]}")


def fetch(repository: str, patterns: Iterable[str], revision: str | None = None) -> Path:
    """A dataset repository of the hub, or what `patterns` name of it, as a folder in the hub's cache.

    ConnectionError, with what to do instead, where the hub is switched off or cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                repository, repo_type="dataset", revision=revision, allow_patterns=list(patterns)
            )
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ConnectionError(
            f"{repository}: not to be had from the hub ({type(error).__name__}); unset HF_HUB_OFFLINE, or "
            "give a local folder in the published layout"
        ) from None


def candidate_counts(run: Run) -> dict[int, int]:
    """Number of candidates -> how many queries have so many."""
    return dict(Counter(len(docids) for docids in run.values()))
