"""The self-consistency filter."""

import math
from types import SimpleNamespace

import pytest

from reasonrank.filtering import alpha_sweep, score, self_consistency


def example(relevant, scenario="math", **more):
    documents = list("abc")
    labels = {"initial_list": documents, "final_list": documents, "relevant_docids": relevant}
    return {"dataset": "d", "qid": "7", "scenario": scenario} | labels | more


FIRST, SECOND = example(["a"]), example(["b"])
THIRD, UNMOVED = example(["c"], "coding"), example([], "coding")
NONE = UNMOVED | {"initial_list": list("bac")}
EXAMPLES = [THIRD, NONE, FIRST, SECOND]


def test_score_is_the_ndcg_of_the_listwise_by_the_pointwise_label():
    expected = [1.0, 1 / math.log2(3), 0.5]
    assert [score(item) for item in (FIRST, SECOND, THIRD)] == pytest.approx(expected)


def test_without_a_relevant_document_the_list_has_to_stay_as_it_was():
    unknown = {"final_list": ["a"], "relevant_docids": []}
    assert [score(item) for item in (UNMOVED, NONE, unknown)] == [1.0, 0.0, 0.0]


def test_objects_are_taken_as_well_as_mappings():
    """They come back as they were given."""
    objects = [SimpleNamespace(**item) for item in EXAMPLES]
    result, plain = self_consistency(objects, 0.5), self_consistency(EXAMPLES, 0.5)
    assert result.scores == plain.scores and result.dropped == [objects[1]]
    assert alpha_sweep(objects, [0.5]) == alpha_sweep(EXAMPLES, [0.5])


def test_score_is_cut_at_10():
    documents = [str(i) for i in range(20)]
    assert score(example(["10"], final_list=documents)) == 0.0


def test_examples_under_alpha_are_dropped_in_order():
    result = self_consistency(EXAMPLES, alpha=0.5)
    assert result.kept == [THIRD, FIRST, SECOND]
    assert result.dropped == [NONE]
    assert result.scores == pytest.approx([0.5, 0.0, 1.0, 1 / math.log2(3)])
    assert self_consistency(EXAMPLES, alpha=0.51).dropped == [THIRD, NONE]


def test_default_alpha_is_the_papers():
    """One relevant document at place 4 has an NDCG of 0.43, at place 5 of 0.39."""
    fourth, fifth = (example([docid], final_list=list("vwxyz")) for docid in "yz")
    assert self_consistency([fourth, fifth]).kept == [fourth]


def test_sweep():
    rows = alpha_sweep(EXAMPLES, [0.0, 0.6, 1.0])
    assert [(row["alpha"], row["kept"], row["dropped"], row["share"]) for row in rows] == [
        (0.0, 4, 0, 1.0),
        (0.6, 2, 2, 0.5),
        (1.0, 1, 3, 0.25),
    ]
    assert rows[1]["mean_score"] == pytest.approx((1 + 1 / math.log2(3)) / 2)
    assert rows[1]["by_scenario"] == {"coding": 0, "math": 2}
    assert alpha_sweep([NONE], [0.5])[0]["mean_score"] is None
    assert alpha_sweep([], [0.5])[0]["share"] == 0.0
    named = {key: value for key, value in FIRST.items() if key != "scenario"}
    assert alpha_sweep([named], [0.5])[0]["by_scenario"] == {"d": 1}


def test_errors_name_the_example_and_the_key():
    broken = {key: value for key, value in FIRST.items() if key != "final_list"}
    with pytest.raises(ValueError, match="example d/7: key 'final_list' is missing"):
        self_consistency([SECOND, broken])
    with pytest.raises(ValueError, match="example d/7: 'relevant_docids' is str; expected a list"):
        score(example("a"))
    for alpha in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="alpha is"):
            self_consistency(EXAMPLES, alpha)
