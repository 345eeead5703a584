"""The offline teacher: what comes first, and what its chain says."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from reasonrank import profiles
from reasonrank.sources import Collection, Passage, Query
from reasonrank.teachers import OfflineTeacher, offline

QUERY = Query("q", "how many parts?", ("text.split(sep)", "the rest"))


PASSAGES = [
    Passage("1", "str.join: puts strings together"),
    Passage("2", "str.split: takes a string apart at [each] separator"),
    Passage("3", "split by hand: a story"),
]


@pytest.fixture
def offline_teacher(monkeypatch):
    """Vectors that say nothing, so that calls in the solution alone decide."""
    monkeypatch.setattr(offline, "embed", lambda texts: np.ones((len(texts), 4), dtype=np.float32) / 2)

    def make(**changes):
        queries, passages = {"q": QUERY}, {p.id: p for p in PASSAGES}
        c = Collection("coding", "coding", "tests", queries, passages, {"q": {"3": 1}}, {"q": "train"})
        settings = profiles.load("default", {f"synthesis.{k}": v for k, v in changes.items()})
        return OfflineTeacher(c, settings.synthesis)

    return make


@pytest.mark.parametrize(
    ("chain", "said"),
    [
        ("needs", 'Useful here: "str.split: takes a string apart at (each)" [2].'),
        ("evidence", "[2] str.split: takes a string apart at (each): the working needs it for"),
    ],
)
def test_what_the_solution_calls_comes_first_and_the_chain_names_it(offline_teacher, chain, said):
    ranked = asyncio.run(offline_teacher(chain=chain, annotated=0.0).rank(QUERY, PASSAGES))
    assert ranked.docids == ["2", "1", "3"] and ranked.reasoning.startswith(said)


@pytest.mark.parametrize(("weight", "first"), [(0.0, "2"), (0.5, "3")])
def test_the_annotation_counts_as_much_as_it_is_told_to(offline_teacher, weight, first):
    """Passage 3 is judged relevant; what the solution calls, passage 2, adds 0.3."""
    teacher = offline_teacher(annotated=weight)
    assert asyncio.run(teacher.rank(QUERY, PASSAGES)).docids[0] == first
    assert asyncio.run(teacher.select_positives(QUERY, PASSAGES)) == ["3"]


def test_where_the_annotation_counts_and_names_none_the_order_stays(offline_teacher):
    teacher, query = offline_teacher(annotated=0.3), replace(QUERY, chain="Words [2] are split. More.")
    ranked = asyncio.run(teacher.rank(query, PASSAGES[:2]))
    assert ranked.docids == ["1", "2"] and ranked.reasoning == "Words (2) are split. None of these."
    said = asyncio.run(teacher.rank(query, PASSAGES)).reasoning
    assert said.startswith("Words (2) are split. Useful here: ")
