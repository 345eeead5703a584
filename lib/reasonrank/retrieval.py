"""First stages: BM25 (bm25s) and dense retrieval (sentence-transformers)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from .models import resolve, user_cache
from .runs import Run
from .sources import Collection


@lru_cache(maxsize=2)
def encoder(name: str = "minilm"):
    """A sentence encoder on the CPU or the GPU; `name` as in models.resolve. Kept for the next call."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(resolve(name))


def embed(texts: Sequence[str], model: str = "minilm") -> np.ndarray:
    """Unit vectors of texts: float32 of shape (len(texts), dimensions).

    Sets of a hundred texts or more are kept in the user's cache, named by a hash of model and texts, since
    most notebooks need the same passages.
    """
    if len(texts) < 100:
        return _encode(texts, model)
    key = hashlib.sha256("\x00".join([model, *texts]).encode("utf-8")).hexdigest()[:32]
    path = user_cache("embeddings") / f"{key}.npy"
    if path.is_file():
        return np.load(path)
    vectors = _encode(texts, model)
    partial = path.with_name(f".{key}.{os.getpid()}.npy")
    np.save(partial, vectors)
    os.replace(partial, path)
    return vectors


def _encode(texts: Sequence[str], model: str) -> np.ndarray:
    if not len(texts):
        return np.zeros((0, 384), dtype=np.float32)
    return encoder(model).encode(
        list(texts), batch_size=32, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True
    )


def dense(collection: Collection, queries: Mapping[str, str], top: int = 100, model: str = "minilm") -> Run:
    """Rank passages by cosine similarity of embeddings; ties by passage order. Returns at most `top` per query."""
    docids = list(collection.passages)
    passages = embed(list(collection.texts().values()), model)
    scores = embed(list(queries.values()), model) @ passages.T
    return _top(collection, list(queries), docids, scores, top)


def bm25(collection: Collection, queries: Mapping[str, str], top: int = 100) -> Run:
    """Rank passages by BM25 (k1 0.9, b 0.4 as Anserini's defaults, English stop words)."""
    import bm25s

    docids = list(collection.passages)
    index = bm25s.BM25(k1=0.9, b=0.4)
    corpus = bm25s.tokenize(list(collection.texts().values()), stopwords="en", show_progress=False)
    index.index(corpus, show_progress=False)
    tokens = bm25s.tokenize(list(queries.values()), stopwords="en", return_ids=False, show_progress=False)
    scores = np.stack([index.get_scores(words) if words else np.zeros(len(docids)) for words in tokens])
    return _top(collection, list(queries), docids, scores, top)


def first_stage(kind: str, collection: Collection, queries: Mapping[str, str], top: int) -> Run:
    """A first-stage run by name: "dense" or "bm25". Excluded passages are in no ranking."""
    stages = {"dense": dense, "bm25": bm25}
    if kind not in stages:
        raise ValueError(f"first stage {kind!r} is none of {', '.join(stages)}")
    return stages[kind](collection, queries, top)


def _top(collection: Collection, qids: list[str], docids: list[str], scores: np.ndarray, top: int) -> Run:
    run: Run = {}
    for qid, row in zip(qids, scores, strict=True):
        excluded = collection.excluded.get(qid, set())
        order = np.argsort(-row, kind="stable")
        run[qid] = [docids[i] for i in order[: top + len(excluded)] if docids[i] not in excluded][:top]
    return run
