"""Queries, passages and judgements from the files of a folder: your own, or in a form that benchmarks come in.

A folder holds some of PARTS, each as JSON lines, tab-separated lines or Parquet, in one file or in shards, gzipped or
not. Columns have one of the names that the published sets give them. Every error names file and line.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Collection as Container
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..runs import Qrels, lines, objects, read_excluded, read_qrels
from .base import Collection, Passage, Query

PARTS = {
    "queries": ("queries", "query", "examples", "topics"),
    "passages": ("corpus", "documents", "passages"),
    "qrels": ("qrels/test", "qrels", "labels", "test"),
    "excluded": ("excluded",),
    "rewritten": ("gpt4_reason",),  # BRIGHT: the queries that the first stage searches with
}
TABLES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".tsv", ".tsv.gz", ".parquet")
IDS = ("_id", "id", "qid", "query_id", "docid", "doc_id")
QUERY_TEXTS = ("text", "query", "question")
PASSAGE_TEXTS = ("text", "content", "contents", "passage")
JUDGED_QUERY = ("query-id", "q_id", "qid", "query_id", "query")
JUDGED_PASSAGE = ("corpus-id", "p_id", "docid", "doc_id", "passage")
GRADES = ("score", "gain", "grade", "relevance")
NOTHING = "N/A"  # stands in BRIGHT's excluded ids where nothing is excluded
Row = tuple[str, dict[str, Any]]  # "FILE, line N", and the columns


def read(
    places: Path | str | Sequence[Path],
    name: str = "",
    scenario: str = "complex QA",
    source: str = "own data",
    split: str = "train",
    wanted: Container[str] | None = None,
    subset: str | None = None,
    needed: Sequence[str] = ("queries", "passages"),
) -> Collection:
    """The queries, passages and, if there are any, judgements of a folder, or of several that hold some parts each.

    `name`: by default the folder's; `split`: where all queries belong. Those of "train" need an `answer` (text) or a
    `solution` (text, or a list of steps), from which a teacher selects positives; "test" needs judgements. `wanted` as
    for `collection`: where it is empty, no passages need to be there. `subset` as for `parts`. Raises FileNotFoundError
    for a part of `needed` that is missing, ValueError with file and line for what does not fit.
    """
    places = [Path(places)] if isinstance(places, Path | str) else places
    unread = [] if wanted is None or wanted else ["passages"]
    found = {place: parts(place, subset, [part for part in PARTS if part not in unread]) for place in places}
    files = {part: paths for own in found.values() for part, paths in own.items()}
    for part in needed:
        if part not in (*files, *unread):
            expected = f"expected a file named {' or '.join(PARTS[part])}"
            raise FileNotFoundError(f"{places[0]}: no {part}; {expected}")
    made = collection(files, name or places[0].resolve().name, scenario, source, split, wanted)
    if split == "test" and not made.qrels:
        expected = f"expected qrels.txt, or one of {', '.join(PARTS['qrels'])}"
        raise ValueError(f"{places[0]}: no judgement; {expected}")
    for place, own in found.items():
        made.inputs |= hashes(place, [path for paths in own.values() for path in paths])
    return made


def parts(
    folder: Path | str, subset: str | None = None, wanted: Iterable[str] = PARTS
) -> dict[str, list[Path]]:
    """The files of the `wanted` parts, as far as a folder holds them.

    A part is a file, shards (`corpus-00000-of-00002.parquet`), or a folder of them with a group for each `subset`
    (`examples/biology-00000-of-00001.parquet`). Raises FileNotFoundError for no such folder, ValueError where a subset
    must be named, or there is none of that name.
    """
    folder, found = Path(folder), {}
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    for part in wanted:
        for name in PARTS[part]:
            ends = (*TABLES, ".txt", ".txt.gz", "-*-of-*.parquet")
            paths = next(filter(None, (sorted(folder.glob(name + end)) for end in ends)), [])
            if not paths and (folder / name).is_dir():
                paths = _of_subset(folder / name, subset)
            if paths:
                found[part] = paths
                break
    return found


def _of_subset(folder: Path, subset: str | None) -> list[Path]:
    groups: dict[str, list[Path]] = {}
    for file in tables(folder):
        groups.setdefault(re.sub(r"-\d+-of-\d+$", "", file.name.split(".")[0]), []).append(file)
    if subset is None and len(groups) == 1:
        return next(iter(groups.values()))
    if subset not in groups:
        wrong = "there are several subsets" if subset is None else f"no subset {subset!r}"
        raise ValueError(f"{folder}: {wrong}; expected one of {', '.join(groups)}")
    return groups[subset]


def tables(path: Path) -> list[Path]:
    """A file, or the tables of a folder in the order of their names; FileNotFoundError where there is none."""
    files = [path] if path.is_file() else sorted(f for f in path.glob("*") if f.name.endswith(TABLES))
    if not files:
        raise FileNotFoundError(f"{path}: no such file, nor a folder with files {', '.join(TABLES)}")
    return files


def collection(
    files: Mapping[str, list[Path]],
    name: str,
    scenario: str = "complex QA",
    source: str = "files",
    split: str = "test",
    wanted: Container[str] | None = None,
) -> Collection:
    """A collection from the files of its parts. `wanted`: ids of the passages that are kept (None: all); the others
    are read too, since no id may come twice. Errors as for `read`."""
    queries, passages, qrels, excluded = {}, {}, {}, {}
    for place, qid, text, row in rows(files.get("queries", ()), QUERY_TEXTS):
        if not text.strip():
            raise ValueError(f"{place}: query {qid!r} is empty")
        queries[qid] = Query(qid, text, steps(place, row) if split == "train" else ())
        gold, left_out = (_ids(place, row, key) for key in ("gold_ids", "excluded_ids"))
        qrels |= {qid: dict.fromkeys(gold, 1)} if gold else {}
        excluded |= {qid: set(left_out)} if left_out else {}
    for path in files.get("excluded", ()):
        for qid, docids in read_excluded(path).items():
            excluded.setdefault(qid, set()).update(docids - {NOTHING})
    for _, docid, text, row in rows(files.get("passages", ()), PASSAGE_TEXTS):
        if wanted is None or docid in wanted:
            passages[docid] = Passage(docid, text, str(row.get("title") or ""))
    if "qrels" in files:
        qrels = _judgements(files["qrels"], queries, passages if split == "train" else None)
    rewritten = {qid: text for _, qid, text, _ in rows(files.get("rewritten", ()), QUERY_TEXTS)}
    splits = dict.fromkeys(queries, split)
    return Collection(name, scenario, source, queries, passages, qrels, splits, excluded, rewritten=rewritten)


def steps(place: str, row: dict[str, Any]) -> tuple[str, ...]:
    """The gold answer in steps: a solution's own, its lines, or the sentences of an answer."""
    said = row.get("solution", row.get("answer"))
    if isinstance(said, str):
        said = said.splitlines() if "solution" in row else re.split(r"(?<=[.!?])\s+", said.strip())
    found = said if isinstance(said, list) else []
    if not all(isinstance(step, str) for step in found) or not "".join(found).strip():
        raise ValueError(f"{place}: no answer (text) or solution (text, or a list); the teacher needs one")
    return tuple(step for step in found if step.strip())


def _judgements(paths: list[Path], queries: Container[str], passages: Container[str] | None) -> Qrels:
    """Judgements from TREC rows, or from tables of query ids, passage ids and whole grades (1 where there are none)."""
    if not paths[0].name.endswith(TABLES):
        return read_qrels(paths[0])
    qrels: Qrels = {}
    for place, row in (found for path in paths for found in _rows(path)):
        qid, docid = _id(place, row, JUDGED_QUERY), _id(place, row, JUDGED_PASSAGE)
        said = next((row[key] for key in GRADES if key in row), 1)
        if not re.fullmatch(r"[+-]?\d+(\.0*)?", str(said)):
            raise ValueError(f"{place}: the grade is {said!r}; expected a whole number")
        for id, known in ((qid, queries), (docid, passages)):
            if known is not None and id not in known:
                raise ValueError(f"{place}: a judgement for {id!r}, which is not in this collection")
        if qrels.setdefault(qid, {}).setdefault(docid, int(float(said))) != int(float(said)):
            raise ValueError(f"{place}: {docid!r} is judged a second time for {qid!r}, with another grade")
    return qrels


def rows(paths: Sequence[Path], texts: tuple[str, ...]) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Place ("FILE, line N"), id, text (under one of `texts`) and columns of each row; no id comes twice."""
    seen: dict[str, str] = {}
    for place, row in (found for path in paths for found in _rows(path)):
        key = _id(place, row, IDS)
        if key in seen:
            raise ValueError(f"{place}: id {key!r} a second time; the first is {seen[key]}")
        seen[key] = place
        text = next((row[name] for name in texts if name in row), None)
        if not isinstance(text, str):
            raise ValueError(f"{place}: no text; expected a string under one of {', '.join(texts)}")
        yield place, key, text, row
    if paths and not seen:
        raise ValueError(f"{paths[0]}: no row in it")


def _id(place: str, row: dict[str, Any], names: tuple[str, ...]) -> str:
    """An id: text, or a whole number."""
    value = next((row[name] for name in names if row.get(name) not in (None, "")), None)
    if not isinstance(value, str | int) or isinstance(value, bool) or not str(value).strip():
        wrong = "no id" if value is None else f"the id is {value!r:.60}"
        raise ValueError(f"{place}: {wrong}; expected text or a whole number under one of {', '.join(names)}")
    return str(value).strip()


def _ids(place: str, row: dict[str, Any], key: str) -> list[str]:
    value = row.get(key) or []
    if not isinstance(value, list):
        raise ValueError(f"{place}: {key} is {value!r:.60}; expected a list of ids")
    return [str(docid) for docid in value if docid != NOTHING]


def _rows(path: Path) -> Iterator[Row]:
    if not path.name.endswith(TABLES):
        raise ValueError(f"{path}: expected a name that ends in one of {', '.join(TABLES)}")
    if path.name.endswith(".parquet"):
        return parquet(path)
    return _tabbed(path) if path.name.removesuffix(".gz").endswith(".tsv") else objects(path)


def _tabbed(path: Path) -> Iterator[Row]:
    """Rows under the names of a first line that begins with an id's name, or lines `id TAB text` without one."""
    names = ["id", "text"]
    for number, (place, line) in enumerate(lines(path)):
        fields = line.split("\t")
        if number == 0 and fields[0] in (*IDS, *JUDGED_QUERY):
            names = fields
        elif len(fields) < len(names):
            raise ValueError(f"{place}: expected '{' TAB '.join(names)}', got {line[:80]!r}")
        else:
            yield place, dict(zip(names, line.split("\t", len(names) - 1), strict=True))


def parquet(path: Path) -> Iterator[Row]:
    """The rows of a Parquet file, each with its place, "FILE, row N"."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        batches = ParquetFile(path).iter_batches(1000)
        for number, row in enumerate((row for batch in batches for row in batch.to_pylist()), start=1):
            yield f"{path}, row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a whole Parquet file ({error})") from None


def hashes(folder: Path | str, paths: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of each file's content (unpacked), by its path in `folder` without `.gz`."""
    found = {}
    for path in paths:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            name = path.relative_to(folder).as_posix().removesuffix(".gz")
            found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
