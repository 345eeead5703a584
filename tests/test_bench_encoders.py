"""What benchmarks/encoders.py learns from a list."""

import numpy as np

from benchmarks import encoders
from reasonrank.examples import Example


def test_pairs_and_triples_of_a_list():
    some = Example("d", "s", "1", list("abc"), list("bac"), "So two. [2]", ["b"], ["c"])
    none = Example("d", "s", "2", list("abc"), list("abc"), "None of these.", [])
    texts = {"d": {docid: f"passage {docid}" for docid in "abc"}}
    rows = encoders.pairs([some, none], {"d": {"1": "one?", "2": "two?"}}, texts)
    assert [(row["query"], row["label"]) for row in rows] == [
        *[("one?", 1.0), ("one?", 0.0), ("one?", 0.0)],
        *[("two?", 0.0), ("two?", 0.0)],
    ]
    assert encoders.triples(rows) == [{"query": "one?", "passage": "passage b", "other": "passage c"}]


def test_candidates_by_falling_score():
    class Test:
        collection = type("C", (), {"texts": lambda self: {"a": "1", "b": "3", "c": "1"}})()
        run, queries = {"q": ["a", "b", "c"]}, {"q": "?"}

    found = encoders.rerank(lambda query, passages: np.array([float(p) for p in passages]), {"d": Test})
    assert found == {"d": {"q": ["b", "a", "c"]}}  # ties stay
