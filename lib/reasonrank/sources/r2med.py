"""R2MED (Li et al. 2025): eight sets of medical questions; hub: R2MED/<set>.

As published: `corpus.jsonl` (id, text), `query.jsonl` (id, text) and `qrels.jsonl` (q_id, p_id, score), a
folder for each set.
"""

from __future__ import annotations

from pathlib import Path

from .base import Passage, Query
from .layouts import Benchmark, check_hashes, fetch, find, hashes, judgements, keyed, rows

SETS = (
    "Biology",
    "Bioinformatics",
    "Medical-Sciences",
    "MedXpertQA-Exam",
    "MedQA-Diag",
    "PMC-Treatment",
    "PMC-Clinical",
    "IIYi-Clinical",
)


def load(
    name: str,
    folder: Path | str | None = None,
    *,
    revision: str | None = None,
    pinned: dict[str, str] | None = None,
) -> Benchmark:
    """A set of R2MED from `<folder>/<name>`, or from the hub (None); first stage and reranker read one query.

    `pinned`: file -> SHA-256. Raises KeyError for an unknown set, FileNotFoundError for a missing table,
    ConnectionError where the hub is needed and not there, ValueError for a malformed row or another hash.
    """
    if name not in SETS:
        raise KeyError(f"unknown set {name!r} of R2MED; known are {', '.join(SETS)}")
    parts = ("corpus", "query", "qrels")
    wanted = [f"{part}*" for part in parts]
    place = fetch(f"R2MED/{name}", wanted, revision) if folder is None else Path(folder) / name
    files = [find(place, f"{part}.jsonl", f"{part}/*.parquet", f"{part}-*.parquet") for part in parts]
    found = hashes(place, [path for part in files for path in part])
    check_hashes(found, pinned or {})
    queries = keyed(rows(files[1], ("id", "text")), "id")
    corpus = keyed(rows(files[0], ("id", "text")), "id")
    return Benchmark(
        name=name,
        scenario="complex QA",
        source="R2MED",
        queries={qid: Query(qid, row["text"]) for qid, row in queries.items()},
        passages={docid: Passage(docid, row["text"]) for docid, row in corpus.items()},
        qrels=judgements(rows(files[2], ("q_id", "p_id", "score")), "q_id", "p_id", "score"),
        splits=dict.fromkeys(queries, "test"),
        retrieval_queries={qid: row["text"] for qid, row in queries.items()},
        inputs=found,
    )
