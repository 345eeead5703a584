"""What a collection is, how its queries are split, and long documents in parts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

SCENARIOS = ("complex QA", "coding", "math: problem", "math: theorem", "web search")
EXTRA = "extra"  # queries made from parts of training queries


@dataclass(frozen=True)
class Query:
    """A query. `solution` holds its gold answer or solution in steps, and `chain` what a person wrote on which passage
    it needs, and why; only a teacher may see these."""

    id: str
    text: str
    solution: tuple[str, ...] = ()
    chain: str = ""


@dataclass(frozen=True)
class Passage:
    """A passage: what is indexed, and what a reranker reads (`full`: title and text)."""

    id: str
    text: str
    title: str = ""

    @property
    def full(self) -> str:
        return f"{self.title}: {self.text}" if self.title else self.text


@dataclass
class Collection:
    """Queries, passages and human judgements of one retrieval task.

    `qrels`: query id -> {passage id: gain}; `splits`: query id -> "train" | "dev" | "test" | "extra", by default
    `split_of` the id; the last for queries made from parts of training queries, which serve for training alone;
    `excluded`: query id -> passages that may be in no ranking of that query; `hard_negatives`: query id -> passages
    judged to share words only, where people marked them; `rewritten`: query id -> the text that a first stage searches
    with, where a reranker reads another one; `passage_tokens`: the paper's cap on a passage of a benchmark; `inputs`:
    file -> SHA-256 of what was read. Passages that are judged for a test query may be missing, as in some published
    sets: they count in the ideal ranking, as in trec_eval.
    """

    name: str
    scenario: str
    source: str
    queries: dict[str, Query]
    passages: dict[str, Passage]
    qrels: dict[str, dict[str, int]]
    splits: dict[str, str] = field(default_factory=dict)
    excluded: dict[str, set[str]] = field(default_factory=dict)
    hard_negatives: dict[str, list[str]] = field(default_factory=dict)
    rewritten: dict[str, str] = field(default_factory=dict)
    passage_tokens: int | None = None
    inputs: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.splits = self.splits or {qid: split_of(qid) for qid in self.queries}
        if self.scenario not in SCENARIOS:
            raise ValueError(f"{self.name}: scenario {self.scenario!r} is none of {SCENARIOS}")
        for qid, judged in self.qrels.items():
            if qid not in self.queries:
                raise ValueError(f"{self.name}: judgements for {qid!r}, which is no query of this collection")
            for docid in judged:
                if docid not in self.passages and self.splits[qid] != "test":
                    raise ValueError(f"{self.name}: {qid!r} is judged on {docid!r}, which is no passage here")
                if docid in self.excluded.get(qid, ()):
                    raise ValueError(f"{self.name}: {docid!r} is both judged and excluded for {qid!r}")

    def add(self, query: Query, split: str, relevant: Iterable[str]) -> None:
        """Enter a query with the ids of the passages that are relevant to it."""
        self.queries[query.id], self.splits[query.id] = query, split
        self.qrels[query.id] = dict.fromkeys(relevant, 1)

    def ids(self, split: str, limit: int | None = None) -> list[str]:
        """Ids of the judged queries of a split, in an order fixed by their hash; the first `limit` of them."""
        chosen = [qid for qid in self.queries if self.splits[qid] == split and self.qrels.get(qid)]
        return sorted(chosen, key=_digest)[:limit]

    def texts(self) -> dict[str, str]:
        """Passage id -> the text that retrievers and rerankers read."""
        return {docid: passage.full for docid, passage in self.passages.items()}

    def searched(self, qids: Iterable[str]) -> dict[str, str]:
        """Query id -> the text that a first stage searches with: the rewritten one, where there is one."""
        return {qid: self.rewritten.get(qid, self.queries[qid].text) for qid in qids}


def split_of(key: str) -> str:
    """train, dev or test (50, 15, 35 %) for an id, by its SHA-256; the same on every machine and forever."""
    place = int(_digest(key), 16) % 100
    return "train" if place < 50 else "dev" if place < 65 else "test"


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8")).hexdigest()


def split(passage: Passage, words: int) -> list[Passage]:
    """A document cut at blank lines into parts of at most `words` words, with ids `id#1`, `id#2` and so on.

    Paragraphs are put together while they fit; one that is too long alone is cut between words. A document that
    fits is returned as it is.
    """
    if len(passage.text.split()) <= words:
        return [passage]
    texts: list[str] = []
    for paragraph in re.split(r"\n\s*\n", passage.text.strip()):
        said = paragraph.split()
        cuts = [" ".join(said[i : i + words]) for i in range(0, len(said), words)]
        for piece in cuts if len(cuts) > 1 else [paragraph.strip()]:
            if texts and len(f"{texts[-1]} {piece}".split()) <= words:
                texts[-1] += f"\n\n{piece}"
            else:
                texts.append(piece)
    return [Passage(f"{passage.id}#{n}", text, passage.title) for n, text in enumerate(texts, start=1)]


def with_parts(collection: Collection, words: int) -> Collection:
    """A collection whose documents of more than `words` words are in parts; a judgement holds for all parts."""
    parts = {docid: split(passage, words) for docid, passage in collection.passages.items()}
    passages = {part.id: part for found in parts.values() for part in found}
    if len(passages) != sum(map(len, parts.values())):
        raise ValueError(f"{collection.name}: an id such as 'x#1' is there already for a part of passage 'x'")

    def ids(docids: Iterable[str]) -> list[str]:
        return [part.id for docid in docids if docid in parts for part in parts[docid]]

    return replace(
        collection,
        passages=passages,
        qrels={
            qid: {part: gain for docid, gain in judged.items() for part in ids([docid])}
            for qid, judged in collection.qrels.items()
        },
        excluded={qid: set(ids(found)) for qid, found in collection.excluded.items()},
        hard_negatives={qid: ids(found) for qid, found in collection.hard_negatives.items()},
    )
