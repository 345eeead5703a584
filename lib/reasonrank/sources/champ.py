"""Mathematics: two collections from CHAMP (Mao et al., Findings of ACL 2024), package `champ-dataset`.

270 competition problems whose solution steps people annotated with the concepts that they use; 223 problems
name at least one of 89 concepts. Both collections split by problem, so that a problem is in the same split in both.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from ..models import package_folder
from ..stages import read_json
from .base import EXTRA, Collection, Passage, Query, split_of


@dataclass(frozen=True)
class Problem:
    """A problem, its solution steps and the concepts that the annotation names."""

    id: str
    text: str
    steps: tuple[str, ...]
    concepts: frozenset[str]


@cache
def _raw() -> dict:
    return read_json(package_folder("champ_dataset") / "dataset_files" / "v0.json")


def problems() -> dict[str, Problem]:
    """The problems that name at least one concept, by id."""
    found = {}
    for identifier, raw in _raw()["problems"].items():
        concepts = frozenset(name for name in raw["ch_list"] if name.startswith("C_"))
        if concepts:
            steps = tuple(step["_text"].strip() for step in raw["solution"]["steps"])
            found[identifier] = Problem(identifier, raw["_text"].strip(), steps, concepts)
    return found


def concepts() -> Collection:
    """CHAMP problem -> concept (scenario math: theorem). Relevant: the concepts that its solution uses.

    89 passages, each the statement of a concept with its name where it has one.
    """
    passages = {
        identifier: Passage(identifier, raw["_text"].strip(), (raw["name"] or "").strip())
        for identifier, raw in _raw()["concepts"].items()
    }
    chosen = problems()
    parts = _parts([p for p in chosen.values() if split_of(p.id) == "train"])
    return Collection(
        name="math_theorem",
        scenario="math: theorem",
        source="CHAMP, problem to concept",
        queries={p.id: Query(p.id, p.text, p.steps) for p in chosen.values()}
        | {query.id: query for query, _ in parts},
        passages=passages,
        qrels={p.id: dict.fromkeys(sorted(p.concepts), 1) for p in chosen.values()}
        | {query.id: dict.fromkeys(named, 1) for query, named in parts},
        splits={p.id: split_of(p.id) for p in chosen.values()} | {query.id: EXTRA for query, _ in parts},
    )


def _parts(chosen: list[Problem]) -> list[tuple[Query, list[str]]]:
    """Solution steps that the annotation ties to concepts, and the hints tied to the same steps, as queries of
    their own with those concepts."""
    raw = _raw()
    found = []
    for problem in chosen:
        entry = raw["problems"][problem.id]
        for number, step in enumerate(entry["solution"]["steps"], start=1):
            named = [entry["ch_list"][i] for i in step["ch_idxs"]]
            concepts_named = sorted(name for name in named if name.startswith("C_"))
            if not concepts_named:
                continue
            text = step["_text"].strip()
            found.append((Query(f"{problem.id}#step{number}", text, (text,)), concepts_named))
            for hint in (name for name in named if name.startswith("H_")):
                said = raw["hints"][hint]["_text"].strip()
                found.append((Query(f"{problem.id}#{number}/{hint}", said, (text,)), concepts_named))
    return found


def similar_problems() -> Collection:
    """CHAMP problem -> another problem with its solution (math: problem). Relevant: both use a concept in common.

    The passages are the problems of the training split alone: a label between two problems is symmetric, so a
    test problem among the passages would give away its own labels. The query's own problem is excluded.
    """
    chosen = problems()
    corpus = [p for p in chosen.values() if split_of(p.id) == "train"]
    qrels = {
        p.id: {other.id: 1 for other in corpus if other.id != p.id and other.concepts & p.concepts}
        for p in chosen.values()
    }
    return Collection(
        name="math_problem",
        scenario="math: problem",
        source="CHAMP, problem to solved problem",
        queries={p.id: Query(p.id, p.text, p.steps) for p in chosen.values()},
        passages={p.id: Passage(p.id, f"{p.text} Solution: {' '.join(p.steps)}") for p in corpus},
        qrels=qrels,
        splits={p.id: split_of(p.id) for p in chosen.values()},
        excluded={p.id: {p.id} for p in corpus},
    )
