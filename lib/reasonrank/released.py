"""What the authors' released code does at inference and evaluation where we do otherwise, behind switches.

Each function has `variant`: "ours" or "released". The other differences have their switch where they belong
(data/paper/settings.yaml lists all): `rewards`, `runs.read_trec`, `evaluation.evaluate`, `rerank.windows`,
`benchmarks.read_run`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from . import answers
from .runs import Run, lines

Variant = Literal["ours", "released"]

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def read_answer(text: str, num_passages: int, variant: Variant = "ours") -> list[int]:
    """The permutation of 1..n that a completion stands for.

    "ours" is `answers.parse`: digits of the reasoning never count. "released" takes every run of digits in
    `<answer>`, and of the whole text, reasoning included, where there is none; numbers outside 1..n and those
    that come again are dropped, missing ones appended in input order.
    """
    if _checked(variant) == "ours":
        return answers.parse(text, num_passages).ranking
    found = _ANSWER.search(text)
    known = {str(i): i for i in range(1, num_passages + 1)}
    tokens = re.findall(r"[0-9]+", found[1] if found else text)
    named = [known[token.lstrip("0")] for token in tokens if token.lstrip("0") in known]
    return list(dict.fromkeys([*named, *known.values()]))


def read_scores(path: Path | str) -> dict[str, list[float]]:
    """Scores of a TREC run by query, descending, as in the file a row; ValueError names file and line."""
    scores: dict[str, list[float]] = {}
    for place, line in lines(path):
        try:
            scores.setdefault(line.split()[0], []).append(float(line.rsplit(maxsplit=2)[1]))
        except (IndexError, ValueError):
            raise ValueError(f"{place}: expected 'qid Q0 docid rank score tag'") from None
    return {qid: sorted(found, reverse=True) for qid, found in scores.items()}


def scored_order(
    run: Mapping[str, Sequence[str]], scores: Mapping[str, Sequence[float]], variant: Variant = "ours"
) -> Run:
    """The order that an evaluation sees of a reranked run (best first), ties broken as trec_eval breaks them.

    "ours": that of the run, since its scores are written strictly decreasing. "released": the run keeps the
    first stage's `scores` by position (query id -> descending), and where those tie, in single precision,
    documents are ordered by id, descending, whatever the model said. Raises ValueError, naming the query,
    where there are fewer scores than documents.
    """
    if _checked(variant) == "ours":
        return {qid: list(docids) for qid, docids in run.items()}
    order: Run = {}
    for qid, docids in run.items():
        own = list(scores.get(qid, ()))[: len(docids)]
        if len(own) < len(docids):
            raise ValueError(f"query {qid!r}: {len(docids)} documents, but {len(own)} scores")
        pairs = zip(np.float32(own).tolist(), docids, strict=True)
        order[qid] = [docid for _, docid in sorted(pairs, reverse=True)]
    return order


def tied_at(scores: Mapping[str, Sequence[float]], k: int = 10) -> list[str]:
    """Queries of which a tie touches the first `k` places, so that the released way may change NDCG@k."""
    return [qid for qid, own in scores.items() if _touches(np.float32(own), k)]


def _touches(own: np.ndarray, k: int) -> bool:
    return bool((own[:-1] == own[1:])[:k].any())


def _checked(variant: str) -> str:
    if variant not in ("ours", "released"):
        raise ValueError(f"variant is {variant!r}; expected 'ours' or 'released'")
    return variant
