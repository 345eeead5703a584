"""NDCG, Recall and RBO against values worked out by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonrank.metrics import ndcg, rbo, recall

TWENTY = list(range(1, 21))


def test_worked_example_of_section_4_2():
    """Two relevant passages among 20: ranks 1 and 11 have more NDCG, ranks 9 and 10 more Recall."""
    assert round(ndcg(TWENTY, {1, 11}), 2) == 0.61
    assert round(ndcg(TWENTY, {9, 10}), 2) == 0.36
    assert recall(TWENTY, {1, 11}) == 0.5
    assert recall(TWENTY, {9, 10}) == 1.0


def test_ndcg_by_hand():
    assert ndcg("abc", {"a"}) == 1.0
    assert ndcg("abc", {"b"}) == pytest.approx(1 / math.log2(3))
    assert ndcg("abc", {"b", "c"}) == pytest.approx((1 / math.log2(3) + 0.5) / (1 + 1 / math.log2(3)))
    assert ndcg("abc", {"c"}, k=2) == 0.0
    # the ideal holds relevant items that were not ranked
    assert ndcg("a", {"a", "z"}) == pytest.approx(1 / (1 + 1 / math.log2(3)))
    # and is cut at k: 12 relevant, ten of them first
    assert ndcg(TWENTY, set(range(1, 13))) == pytest.approx(1.0)


def test_graded_gains_are_linear():
    gains = {"a": 1, "b": 3, "c": 0, "d": -1}
    assert ndcg("acb", gains) == pytest.approx((1 + 3 * 0.5) / (3 + 1 / math.log2(3)))
    assert recall("acd", gains) == 0.5


def test_duplicates_count_once_at_their_first_place():
    assert ndcg("aab", {"a", "b"}) == 1.0
    assert recall("aab", {"a", "b"}, k=2) == 1.0
    assert rbo("aab", "ab") == 1.0


def test_recall_and_nothing_relevant_or_ranked():
    assert ndcg("abc", set()) == recall("abc", set()) == 0.0
    assert ndcg("", {"a"}) == recall("", {"a"}) == 0.0
    assert ndcg("abc", ["a", "a"]) == 1.0
    assert recall(TWENTY, [1, 10, 11, 30]) == 0.5
    assert recall(TWENTY, [1, 10, 11, 30], k=1) == 0.25


def test_average_overlap_by_hand():
    assert rbo([1, 2], [2, 1]) == (0 + 1) / 2
    assert rbo([1, 2, 3], [1, 3, 2]) == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert rbo([3, 5, 4, 1, 2], [5, 1, 2, 3, 4]) == pytest.approx((0 + 1 / 2 + 1 / 3 + 3 / 4 + 1) / 5)
    assert rbo([1, 2], [3, 4]) == 0.0


def test_rbo_with_p_by_hand():
    assert rbo([1, 2], [2, 1], p=0.9) == pytest.approx(0.1 * (0 + 0.9 * 1))
    assert rbo([1, 2, 3], [1, 3, 2], p=0.5) == pytest.approx(0.5 * (1 + 0.5 * 0.5 + 0.25 * 1))
    assert rbo(TWENTY, TWENTY, p=0.9) == pytest.approx(1 - 0.9**20)
    # lists of unequal length: to the depth of the shorter
    assert (rbo([1], [1, 2, 3]), rbo([], []), rbo([], [1])) == (1.0, 1.0, 0.0)


def test_bad_arguments():
    for p in (0, 1, -0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="p is"):
            rbo([1], [1], p=p)
    for metric in (ndcg, recall):
        with pytest.raises(ValueError, match="k is 0"):
            metric([1], {1}, k=0)


rankings = st.integers(1, 12).flatmap(lambda n: st.permutations(range(n)))


@given(rankings, st.sets(st.integers(0, 15)), st.integers(1, 12))
def test_metrics_stay_in_the_unit_interval(ranking, relevant, k):
    assert 0 <= ndcg(ranking, relevant, k) <= 1 + 1e-12
    assert 0 <= recall(ranking, relevant, k) <= 1
