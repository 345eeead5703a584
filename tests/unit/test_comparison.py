"""Scores of several systems side by side, on a made-up collection."""

import pytest

from reasonrank import comparison
from reasonrank.comparison import TestSet
from reasonrank.sources import Collection, Passage, Query


def made_up(name: str, places: list[int]) -> TestSet:
    """One query for each place: its one relevant passage stands there (from 1) among three in the run."""
    queries = {f"q{i}": Query(f"q{i}", "text") for i in range(len(places))}
    passages = {docid: Passage(docid, docid) for docid in ("rel", "a", "b")}
    qrels = {qid: {"rel": 1} for qid in queries}
    c = Collection(name, "coding", "tests", queries, passages, qrels, dict.fromkeys(queries, "test"))
    run = {}
    for qid, place in zip(queries, places, strict=True):
        run[qid] = ["a", "b"]
        run[qid].insert(place - 1, "rel")
    return TestSet(c, "dense", {qid: "text" for qid in queries}, run, qrels)


def test_average_is_over_collections_and_tests_are_against_the_first_system():
    sets = {"one": made_up("one", [1, 1, 1, 1]), "two": made_up("two", [2, 2])}
    best = {name: {q: ["rel", "a", "b"] for q in t.run} for name, t in sets.items()}
    runs = {"retriever": {name: t.run for name, t in sets.items()}, "ours": best}
    rows = comparison.score_rows(runs, sets, seed=1, bootstrap=500)
    by = {(row["collection"], row["system"]): row for row in rows}
    second = 0.6309297535714575  # 1 / log2(3)
    assert by["one", "retriever"]["ndcg"] == pytest.approx(1)
    assert by["two", "retriever"]["ndcg"] == pytest.approx(second)
    assert by["average", "retriever"]["ndcg"] == pytest.approx((1 + second) / 2)  # not over the six queries
    assert by["average", "ours"]["difference"] == pytest.approx((1 - second) / 2)
    assert by["average", "ours"]["n"] == 6 and by["two", "ours"]["n"] == 2
    assert by["one", "ours"]["p_value"] == 1.0 and by["one", "retriever"]["p_value"] is None
    # two queries that differ can flip in four ways, two of them as extreme: p is near 1/2
    assert 0.4 < by["average", "ours"]["p_value"] < 0.6
    assert all(row["low"] <= row["ndcg"] + 1e-9 and row["ndcg"] <= row["high"] + 1e-9 for row in rows)


def test_head_takes_the_first_queries_of_everything():
    test = made_up("one", [1, 2, 3]).head(2)
    assert list(test.queries) == list(test.run) == list(test.qrels) == ["q0", "q1"]
