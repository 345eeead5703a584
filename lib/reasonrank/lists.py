"""The lists that a teacher labels (sections 4.1.1, 4.1.3): what may be a candidate, and how a list is put together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from random import Random

from .settings import Synthesis
from .sources import Passage

SHINGLE = 3  # words and signs
SHORT_QUERY = 8  # words; passages that answer shorter ones may well repeat them


def repeats(passage: Passage, query: str) -> bool:
    """Whether a passage contains the query word by word, as a copy of the page that asks it does; False for
    queries of less than 8 words."""
    asked, said = (re.findall(r"\w+", text.lower()) for text in (query, passage.full))
    return len(asked) >= SHORT_QUERY and f" {' '.join(asked)} " in f" {' '.join(said)} "


def without_copies(passages: Sequence[Passage], threshold: float) -> list[Passage]:
    """Passages without near-duplicates of earlier ones: a Jaccard similarity of their sets of shingles (three
    words or signs) of at least `threshold` (0..1)."""
    kept: list[Passage] = []
    for passage in passages:
        own = _shingles(passage.full)
        others = (_shingles(other.full) for other in kept)
        if all(len(own & other) / len(own | other) < threshold for other in others):
            kept.append(passage)
    return kept


@lru_cache(maxsize=100_000)
def _shingles(text: str) -> frozenset[str]:
    words = re.findall(r"\w+|[^\w\s]", text.lower())  # a formula differs by its signs
    return frozenset(" ".join(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1)))


def assemble(
    retrieved: Sequence[str],
    positives: Sequence[str],
    hard_negatives: Sequence[str],
    wanted: Synthesis,
    rng: Random,
) -> tuple[list[str], list[str], list[str]]:
    """List assembly (4.1.3): positives, hard negatives and other negatives, at most `wanted.window` passages.

    Passages of the first stage stay in its order, as a reranker meets them; those from elsewhere go to random
    places, so that the place tells nothing. `wanted` may ask for smaller windows, and for shares of lists in random
    order or without positives. Returns (list, positives in it, hard negatives in it).
    """
    bare = wanted.without_positives and rng.random() < wanted.without_positives
    window = rng.randint(wanted.smallest_window, wanted.window) if wanted.smallest_window else wanted.window
    some = [] if bare else list(positives)
    chosen = rng.sample(some, min(len(some), rng.randint(1, wanted.max_positives)))
    room = min(len(hard_negatives), wanted.max_hard_negatives, window - len(chosen))
    hard = rng.sample(list(hard_negatives), room)
    negatives = [docid for docid in retrieved if docid not in {*positives, *hard_negatives}]
    others = rng.sample(negatives, min(len(negatives), window - len(chosen) - len(hard)))
    members = {*chosen, *hard, *others}
    order = [docid for docid in retrieved if docid in members]
    for docid in [*chosen, *hard]:
        if docid not in order:
            order.insert(rng.randint(0, len(order)), docid)
    chosen, hard = ([docid for docid in order if docid in found] for found in (chosen, hard))
    if wanted.shuffled and rng.random() < wanted.shuffled:
        rng.shuffle(order)
    return order, chosen, hard
