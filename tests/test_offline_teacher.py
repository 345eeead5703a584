"""The offline teacher: what it ranks first, and the forms of its reasoning."""

import asyncio

import numpy as np
import pytest

from reasonrank.sources import Collection, Passage, Query
from reasonrank.teachers import OfflineTeacher, offline

QUERY = Query("q", "how many parts?", ("text.split(sep)", "the rest"))
PASSAGES = [
    Passage("1", "str.join: puts strings together"),
    Passage("2", "str.split: takes a string apart at [each] separator"),
    Passage("3", "split by hand: a story"),
]


@pytest.fixture
def teacher(monkeypatch):
    """Vectors that say nothing, so that calls in the solution alone decide."""
    monkeypatch.setattr(offline, "embed", lambda texts: np.ones((len(texts), 4), dtype=np.float32) / 2)

    def make(**options):
        c = Collection(
            "coding", "coding", "tests", {"q": QUERY}, {p.id: p for p in PASSAGES}, {}, {"q": "train"}
        )
        return OfflineTeacher(c, **options)

    return make


@pytest.mark.parametrize(
    ("chain", "said"),
    [
        ("needs", 'Useful here: "str.split: takes a string apart at (each)" [2].'),
        ("verdicts", "[1] no [2] yes [3] no"),
        ("evidence", "[2] str.split: takes a string apart at (each): the working needs it for"),
    ],
)
def test_what_the_solution_calls_comes_first_and_the_chain_names_it(teacher, chain, said):
    ranked = asyncio.run(teacher(chain=chain).rank(QUERY, PASSAGES))
    assert ranked.ranking == [2, 1, 3]
    assert ranked.reasoning.startswith(said)


def test_an_unknown_chain_is_refused(teacher):
    with pytest.raises(ValueError, match="chain 'long' is none of evidence, needs, verdicts"):
        teacher(chain="long")


def test_the_annotation_counts_as_much_as_it_is_told_to(teacher):
    """Passage 3 is judged relevant; what the solution calls, passage 2, adds 0.3."""
    for weight, expected in ((0.0, [2, 1, 3]), (0.5, [3, 1, 2])):
        own = teacher(annotated=weight)
        own.collection.qrels["q"] = {"3": 1}
        assert asyncio.run(own.rank(QUERY, PASSAGES)).ranking == expected
