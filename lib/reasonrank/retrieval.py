"""First stages: BM25 (bm25s) and dense retrieval (sentence-transformers)."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

import numpy as np

from .models import resolve, user_cache
from .runs import Run, write_bytes
from .sources import Collection

# bm25s starts JAX where it is installed, which would fill the memory of a GPU
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Thai to Lao, Burmese, Hangul, Khmer, kana, Han: written without blanks between words, or with few
_SCRIPTS = "\u0e00-\u0eff\u1000-\u11ff\u1780-\u17ff\u3005\u3040-\u30fa\u30fc-\u318f\u31f0-\u31ff\u3400-\u4dbf"
_SCRIPTS += "\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
_UNSPACED = re.compile(f"[{_SCRIPTS}]+")
# In the scripts of India, vowel signs are no letters to `\w`.
_TERM = rf"[{_SCRIPTS}]{{1,2}}|[\w\u0900-\u0963\u0966-\u0dff]{{2,}}"


@cache
def encoder():
    """The sentence encoder MiniLM, on the CPU or the GPU."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(resolve("minilm"))


def embed(texts: Sequence[str]) -> np.ndarray:
    """Unit vectors of texts: float32 of shape (len(texts), 384). Those of a hundred texts or more are kept in the
    user's cache, since most notebooks need the same passages."""
    if not len(texts):
        return np.zeros((0, 384), dtype=np.float32)
    key = hashlib.sha256("\x00".join(["minilm", *texts]).encode("utf-8")).hexdigest()[:32]
    path = user_cache("embeddings") / f"{key}.npy"
    if path.is_file():
        return np.load(path)
    vectors = encoder().encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
    if len(texts) >= 100:
        np.save(content := io.BytesIO(), vectors)
        write_bytes(path, content.getvalue())
    return vectors


def first_stage(kind: str, collection: Collection, queries: Mapping[str, str], top: int) -> Run:
    """A first-stage run by name, "dense" or "bm25", without excluded passages; `queries`: id -> text, as of
    `collection.searched`."""
    if kind not in FIRST_STAGES:
        raise ValueError(f"first stage {kind!r} is none of {', '.join(FIRST_STAGES)}")
    return FIRST_STAGES[kind](collection, queries, top)


def dense(collection: Collection, queries: Mapping[str, str], top: int = 100) -> Run:
    """Rank passages by cosine similarity of embeddings; ties by passage order. Returns at most `top` per query."""
    passages = embed(list(collection.texts().values()))
    scores = embed(list(queries.values())) @ passages.T
    return {qid: _best(collection, qid, row, top) for qid, row in zip(queries, scores, strict=True)}


def bm25(collection: Collection, queries: Mapping[str, str], top: int = 100) -> Run:
    """Rank passages by BM25 (k1 0.9, b 0.4 as Anserini's defaults, English stop words); ties by passage order.

    A passage without a term of the query is no candidate, so a query may have fewer than `top`. Those that have none
    are counted in the log, with the first ten ids.
    """
    import bm25s

    corpus = _terms(collection.texts().values())
    vocabulary = {term for terms in corpus for term in terms}
    index = bm25s.BM25(k1=0.9, b=0.4)
    if vocabulary:
        index.index(corpus, show_progress=False)
    run: Run = {}
    for qid, terms in zip(queries, _terms(queries.values()), strict=True):
        known = [term for term in terms if term in vocabulary]
        scores = index.get_scores(known) if known else np.zeros(len(corpus))
        run[qid] = _best(collection, qid, np.where(scores > 0, scores, -np.inf), top)
    if lost := [qid for qid, docids in run.items() if not docids]:
        named = ", ".join(lost[:10]) + (f" and {len(lost) - 10} more" if len(lost) > 10 else "")
        text = "%s, BM25: %d of %d queries share no term with a passage and have no candidate: %s"
        logging.getLogger(__name__).warning(text, collection.name, len(lost), len(run), named)
    return run


FIRST_STAGES = {"dense": dense, "bm25": bm25}


def _terms(texts: Iterable[str]) -> list[list[str]]:
    """Words of two letters or more without English stop words; of scripts without blanks, pairs of characters."""
    import bm25s

    def pairs(found: re.Match[str]) -> str:
        return f" {' '.join(found[0][i : i + 2] for i in range(max(1, len(found[0]) - 1)))} "

    spaced = [_UNSPACED.sub(pairs, text) for text in texts]
    return bm25s.tokenize(spaced, token_pattern=_TERM, stopwords="en", return_ids=False, show_progress=False)


def _best(collection: Collection, qid: str, scores: np.ndarray, top: int) -> list[str]:
    """The `top` passages with a finite score, best first, without those that are excluded."""
    docids, excluded = list(collection.passages), collection.excluded.get(qid, set())
    order = [i for i in np.argsort(-scores, kind="stable")[: top + len(excluded)] if np.isfinite(scores[i])]
    return [docids[i] for i in order if docids[i] not in excluded][:top]
