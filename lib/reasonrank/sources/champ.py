"""Mathematics: two collections from CHAMP (Mao et al., Findings of ACL 2024), package `champ-dataset`.

270 competition problems whose solution steps people annotated with the concepts that they use; 223 problems
name at least one of 89 concepts. Both collections split by problem, so that a problem is in the same split in both.
Problems written for this project are training queries of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from ..models import package_folder
from ..stages import read_json
from .authored import written
from .base import EXTRA, Collection, Passage, Query, split_of


@cache
def _raw() -> dict[str, Any]:
    return read_json(package_folder("champ_dataset") / "dataset_files" / "v0.json")


def concepts() -> Collection:
    """CHAMP problem -> concept (scenario math: theorem). Relevant: the concepts that its solution uses.

    89 passages, each the statement of a concept with its name where it has one. Parts of training problems are extra
    queries.
    """
    passages = {
        docid: Passage(docid, raw["_text"].strip(), (raw["name"] or "").strip())
        for docid, raw in _raw()["concepts"].items()
    }
    made = Collection("math_theorem", "math: theorem", "CHAMP, problem to concept", {}, passages, {})
    for qid, raw in _raw()["problems"].items():
        if found := _concepts(raw["ch_list"]):
            steps = tuple(step["_text"].strip() for step in raw["solution"]["steps"])
            made.add(Query(qid, raw["_text"].strip(), steps), split_of(qid), found)
    parts = [part for qid, split in made.splits.items() if split == "train" for part in _parts(qid)]
    for query, row in written("train/math/problems.jsonl"):
        made.add(query, "train", row["concepts"])
    for query, found in parts:
        made.add(query, EXTRA, found)
    return made


def _concepts(named: Iterable[str]) -> list[str]:
    return sorted({name for name in named if name.startswith("C_")})


def _parts(qid: str) -> Iterator[tuple[Query, list[str]]]:
    """Solution steps that the annotation ties to concepts, and the hints tied to the same steps, as queries of
    their own with those concepts."""
    raw = _raw()["problems"][qid]
    for number, step in enumerate(raw["solution"]["steps"], start=1):
        named, text = [raw["ch_list"][i] for i in step["ch_idxs"]], step["_text"].strip()
        if found := _concepts(named):
            yield Query(f"{qid}#step{number}", text, (text,)), found
            for hint in (name for name in named if name.startswith("H_")):
                said = _raw()["hints"][hint]["_text"].strip()
                yield Query(f"{qid}#{number}/{hint}", said, (text,)), found


def similar_problems() -> Collection:
    """CHAMP problem -> another problem with its solution (math: problem). Relevant: both use a concept in common.

    The passages are the problems of the training split alone: a label between two problems is symmetric, so a
    test problem among the passages would give away its own labels. The query's own problem is excluded.
    """
    whole = concepts()
    splits = {qid: split for qid, split in whole.splits.items() if split != EXTRA}
    queries, named = {qid: whole.queries[qid] for qid in splits}, whole.qrels
    solved = [qid for qid, split in splits.items() if split == "train" and qid in _raw()["problems"]]
    texts = {qid: f"{queries[qid].text} Solution: {' '.join(queries[qid].solution)}" for qid in solved}
    passages = {qid: Passage(qid, text) for qid, text in texts.items()}
    qrels = {
        qid: {other: 1 for other in solved if other != qid and named[other].keys() & named[qid].keys()}
        for qid in queries
    }
    own = {qid: {qid} for qid in solved}
    source = "CHAMP, problem to solved problem"
    return Collection("math_problem", "math: problem", source, queries, passages, qrels, splits, own)
