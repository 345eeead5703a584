"""Candidate passages fit for a teacher: long documents in parts, no copies, none that repeats the query (4.1.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from .sources import Collection, Passage

SHINGLE = 3  # words and signs
SHORT_QUERY = 8  # words; passages that answer shorter ones may well repeat them
_WORD, _TOKEN = re.compile(r"\w+"), re.compile(r"\w+|[^\w\s]")  # a formula differs by its signs


def split(passage: Passage, words: int) -> list[Passage]:
    """A document cut at blank lines into parts of at most `words` words, with ids `id#1`, `id#2` and so on.

    Paragraphs are put together while they fit; one that is too long alone is cut between words. A document that
    fits is returned as it is.
    """
    if len(passage.text.split()) <= words:
        return [passage]
    parts: list[list[str]] = []
    for paragraph in _pieces(passage.text, words):
        if parts and sum(len(text.split()) for text in [*parts[-1], paragraph]) <= words:
            parts[-1].append(paragraph)
        else:
            parts.append([paragraph])
    return [
        Passage(f"{passage.id}#{number}", "\n\n".join(part), passage.title)
        for number, part in enumerate(parts, start=1)
    ]


def _pieces(text: str, words: int) -> list[str]:
    """Paragraphs, those of more than `words` words cut."""
    found = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        said = paragraph.split()
        cuts = range(0, len(said), words)
        found += [" ".join(said[i : i + words]) for i in cuts] if len(said) > words else [paragraph.strip()]
    return [piece for piece in found if piece]


def repeats(passage: Passage, query: str) -> bool:
    """Whether a passage contains the query word by word, as a copy of the page that asks it does; False for
    queries of less than 8 words."""
    asked = _words(query)
    return len(asked) >= SHORT_QUERY and f" {' '.join(asked)} " in f" {' '.join(_words(passage.full))} "


def without_copies(passages: Sequence[Passage], threshold: float) -> list[Passage]:
    """Passages without near-duplicates of earlier ones: a Jaccard similarity of their sets of shingles (three
    words or signs) of at least `threshold` (0..1)."""
    kept: list[Passage] = []
    for passage in passages:
        own = _shingles(passage.full)
        if all(_similarity(own, _shingles(other.full)) < threshold for other in kept):
            kept.append(passage)
    return kept


def _similarity(a: frozenset[str], b: frozenset[str]) -> float:
    smaller, larger = sorted((len(a), len(b)))
    if not smaller:
        return float(not larger)
    common = len(a & b)
    return common / (smaller + larger - common)


@lru_cache(maxsize=100_000)
def _shingles(text: str) -> frozenset[str]:
    words = _TOKEN.findall(text.lower())
    return frozenset(" ".join(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1)))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def with_parts(collection: Collection, words: int) -> Collection:
    """A collection whose documents of more than `words` words are in parts; a judgement holds for all parts."""
    parts = {docid: split(passage, words) for docid, passage in collection.passages.items()}
    qrels = {
        qid: {part.id: gain for docid, gain in judged.items() for part in parts[docid]}
        for qid, judged in collection.qrels.items()
    }
    passages = {part.id: part for found in parts.values() for part in found}
    if len(passages) != sum(map(len, parts.values())):
        raise ValueError(f"{collection.name}: an id such as 'x#1' is there already for a part of passage 'x'")
    return replace(
        collection,
        passages=passages,
        qrels=qrels,
        excluded={
            qid: {part.id for docid in ids if docid in parts for part in parts[docid]}
            for qid, ids in collection.excluded.items()
        },
        hard_negatives={
            qid: [part.id for docid in ids for part in parts[docid]]
            for qid, ids in collection.hard_negatives.items()
        },
    )
