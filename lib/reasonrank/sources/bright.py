"""BRIGHT (Su et al. 2024): twelve sets of questions that take reasoning to retrieve for; hub: xlangai/BRIGHT.

As published: tables `examples`, `documents` and `gpt4_reason`, each with a part for every set. First stages
search with the queries of `gpt4_reason`, rerankers read those of `examples` (section 5.1 of the paper).
Excluded ids are documents that may be in no ranking of a query, since they give its answer away.
"""

from __future__ import annotations

from pathlib import Path

from ..runs import read_excluded, read_qrels
from .base import Passage, Query
from .layouts import Benchmark, Row, check_hashes, fetch, find, hashes, keyed, rows

REPOSITORY = "xlangai/BRIGHT"
SCENARIOS = {
    "economics": "complex QA",
    "earth_science": "complex QA",
    "robotics": "complex QA",
    "biology": "complex QA",
    "psychology": "complex QA",
    "stackoverflow": "complex QA",
    "sustainable_living": "complex QA",
    "leetcode": "coding",
    "pony": "coding",
    "aops": "math: problem",
    "theoremqa_questions": "math: problem",
    "theoremqa_theorems": "math: theorem",
}
RUN = "reasonir_gpt4cot_top100.run"
NOTHING = "N/A"  # stands in excluded_ids where nothing is excluded


def load(
    name: str,
    folder: Path | str | None = None,
    *,
    rewritten: str = "gpt4_reason",
    revision: str | None = None,
    pinned: dict[str, str] | None = None,
) -> Benchmark:
    """A set of BRIGHT from a local folder in the published layout, or from the hub (None).

    Tables are `<table>/<name>-*.parquet` or `<table>/<name>.jsonl`. `rewritten`: the table whose queries the
    first stage searches with; `pinned`: file -> SHA-256. Raises KeyError for an unknown set,
    FileNotFoundError for a missing table, ConnectionError where the hub is needed and not there, ValueError
    for a malformed row, a query without its rewritten twin, or another hash.
    """
    _known(name)
    tables = ("examples", "documents", rewritten)
    if folder is None:
        folder = fetch(REPOSITORY, [f"{table}/{name}-*" for table in tables], revision)
    files = [find(folder, f"{table}/{name}-*.parquet", f"{table}/{name}.jsonl") for table in tables]
    found = hashes(folder, [path for part in files for path in part])
    check_hashes(found, pinned or {})
    examples = keyed(rows(files[0], ("id", "query", "gold_ids", "excluded_ids")), "id")
    documents = keyed(rows(files[1], ("id", "content")), "id")
    searched = keyed(rows(files[2], ("id", "query")), "id")
    if odd := sorted(examples.keys() ^ searched.keys()):
        raise ValueError(f"{folder}: query {odd[0]!r} of {name} is in only one of examples and {rewritten}")
    return _benchmark(name, examples, documents, {qid: searched[qid]["query"] for qid in examples}, found)


def load_topics(name: str, folder: Path | str) -> Benchmark:
    """A set in the form that Anserini's tools give it: `<name>/topics.jsonl` and `qrels.txt`, no passages.

    Excluded ids are those of the topics and of `excluded.txt`, where there is one. Serves to evaluate runs;
    errors as for `load`.
    """
    _known(name)
    place = Path(folder) / name
    files = [*find(place, "topics.jsonl"), *find(place, "qrels.txt")]
    topics = keyed(rows(files[:1], ("id", "query", "gold_ids", "excluded_ids")), "id")
    benchmark = _benchmark(name, topics, {}, {}, hashes(place, files))
    for path in [*place.glob("excluded.txt"), *place.glob("excluded.txt.gz")]:
        for qid, docids in read_excluded(path).items():
            benchmark.excluded.setdefault(qid, set()).update(docids)
    benchmark.qrels = read_qrels(files[1])
    benchmark.__post_init__()
    return benchmark


def _known(name: str) -> None:
    if name not in SCENARIOS:
        raise KeyError(f"unknown set {name!r} of BRIGHT; known are {', '.join(SCENARIOS)}")


def _benchmark(
    name: str,
    examples: dict[str, Row],
    documents: dict[str, Row],
    searched: dict[str, str],
    inputs: dict[str, str],
) -> Benchmark:
    excluded = {qid: set(map(str, row["excluded_ids"])) - {NOTHING} for qid, row in examples.items()}
    return Benchmark(
        name=name,
        scenario=SCENARIOS[name],
        source="BRIGHT",
        queries={qid: Query(qid, row["query"]) for qid, row in examples.items()},
        passages={docid: Passage(docid, row["content"]) for docid, row in documents.items()},
        qrels={qid: dict.fromkeys(map(str, row["gold_ids"]), 1) for qid, row in examples.items()},
        splits=dict.fromkeys(examples, "test"),
        excluded={qid: docids for qid, docids in excluded.items() if docids},
        retrieval_queries=searched,
        inputs=inputs,
    )
