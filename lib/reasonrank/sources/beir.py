"""BEIR (Thakur et al. 2021): the seven sets of the paper's Tables 4 and 7.

As published: `corpus.jsonl` (_id, title, text), `queries.jsonl` (_id, text) and `qrels/test.tsv` (query-id,
corpus-id, score), a folder for each set. The hub has four of the seven (BeIR/<set> and BeIR/<set>-qrels); the
texts of Signal-1M, Robust04 and TREC-News are licensed and come from a local folder only.
"""

from __future__ import annotations

from pathlib import Path

from .base import Passage, Query
from .layouts import Benchmark, check_hashes, fetch, find, hashes, judgements, keyed, rows

SETS = {
    "covid": "trec-covid",
    "dbpedia": "dbpedia-entity",
    "scifact": "scifact",
    "nfcorpus": "nfcorpus",
    "signal": "signal1m",
    "robust04": "robust04",
    "news": "trec-news",
}
LICENSED = ("signal", "robust04", "news")


def load(
    name: str,
    folder: Path | str | None = None,
    *,
    revision: str | None = None,
    pinned: dict[str, str] | None = None,
) -> Benchmark:
    """The test queries of a set, named as in the paper, from `<folder>/<BEIR's name>` or from the hub (None).

    `pinned`: file -> SHA-256. Raises KeyError for an unknown set, FileNotFoundError for a missing table or a
    licensed set without a folder, ConnectionError where the hub is needed and not there, ValueError for a
    malformed row or another hash.
    """
    if name not in SETS:
        raise KeyError(f"unknown set {name!r} of BEIR; known are {', '.join(SETS)}")
    texts, judged = _places(name, folder, revision)
    parts = [find(texts, f"{p}.jsonl", f"{p}/*.parquet", f"{p}-*.parquet") for p in ("corpus", "queries")]
    grades = find(judged, "qrels/test.tsv", "test.tsv")
    found = hashes(texts, [path for part in parts for path in part]) | hashes(judged, grades)
    check_hashes(found, pinned or {})
    table = rows(grades, ("query-id", "corpus-id", "score"))
    qrels = judgements(table, "query-id", "corpus-id", "score")
    corpus = keyed(rows(parts[0], ("_id", "text")), "_id")
    queries = {qid: row for qid, row in keyed(rows(parts[1], ("_id", "text")), "_id").items() if qid in qrels}
    return Benchmark(
        name=name,
        scenario="web search",
        source="BEIR",
        queries={qid: Query(qid, row["text"]) for qid, row in queries.items()},
        passages={i: Passage(i, row["text"], row.get("title") or "") for i, row in corpus.items()},
        qrels=qrels,
        splits=dict.fromkeys(queries, "test"),
        retrieval_queries={qid: row["text"] for qid, row in queries.items()},
        passage_tokens=100,
        inputs=found,
    )


def _places(name: str, folder: Path | str | None, revision: str | None) -> tuple[Path, Path]:
    """Folders of the texts and of the judgements."""
    if folder is not None:
        return (Path(folder) / SETS[name],) * 2
    if name in LICENSED:
        raise FileNotFoundError(f"{name} is licensed and not on the hub; give a folder with {SETS[name]}/")
    texts = fetch(f"BeIR/{SETS[name]}", ["corpus*", "queries*"], revision)
    return texts, fetch(f"BeIR/{SETS[name]}-qrels", ["test.tsv"])
