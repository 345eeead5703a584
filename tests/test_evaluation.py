"""Scores of runs, intervals and paired tests; the retriever row of Table 1."""

import math

import numpy as np
import pytest
import yaml

from reasonrank import metrics, runs
from reasonrank.evaluation import bootstrap_interval, evaluate, paired_test

QRELS = {"q1": {"a": 1, "b": 1}, "q2": {"c": 1}, "q3": {"d": 0}}
RUN = {"q1": ["a", "x", "b"], "other": ["a"]}
Q1 = (1 + 0.5) / (1 + 1 / math.log2(3))


@pytest.mark.parametrize("dataset", ["biology", "stackoverflow", "leetcode", "aops", "theoremqa_questions"])
def test_retriever_row_of_table_1(shared, dataset):
    tables = yaml.safe_load((shared / "paper" / "tables.yaml").read_text())
    row = tables["table1_bright_reasonir_top100"]["rows"]["ReasonIR (8B)"]["values"]
    published = row[tables["columns"]["bright"].index(dataset)]
    folder = shared / "bright" / dataset
    run = runs.read_trec(folder / "reasonir_gpt4cot_top100.run.gz", lenient_ids=False, ties="trec_eval")
    scores = evaluate(run, runs.read_qrels(folder / "qrels.txt.gz"), queries="run")
    assert 100 * scores.mean["nDCG@10"] == pytest.approx(published, abs=0.01)


@pytest.mark.parametrize(("dataset", "value"), [("biology", 43.37), ("stackoverflow", 30.73)])
def test_file_order_of_ties_gives_other_values(shared, dataset, value):
    folder = shared / "bright" / dataset
    run = runs.read_trec(folder / "reasonir_gpt4cot_top100.run.gz")
    scores = evaluate(run, runs.read_qrels(folder / "qrels.txt.gz"))
    assert 100 * scores.mean["nDCG@10"] == pytest.approx(value, abs=0.005)


def test_excluded_documents_of_bright_are_in_none_of_its_runs(shared):
    folder = shared / "bright" / "leetcode"
    run = runs.read_trec(folder / "reasonir_gpt4cot_top100.run.gz")
    excluded = runs.read_excluded(folder / "excluded.txt.gz")
    assert evaluate(run, runs.read_qrels(folder / "qrels.txt.gz"), excluded=excluded).removed == 0


def test_all_judged_queries_or_those_of_the_run():
    judged, of_run = evaluate(RUN, QRELS), evaluate(RUN, QRELS, queries="run")
    assert judged.per_query["nDCG@10"] == pytest.approx({"q1": Q1, "q2": 0.0, "q3": 0.0})
    assert judged.mean["nDCG@10"] == pytest.approx(Q1 / 3)
    assert of_run.per_query["nDCG@10"] == pytest.approx({"q1": Q1})
    assert of_run.mean["nDCG@10"] == pytest.approx(Q1)


def test_several_measures():
    scores = evaluate(RUN, QRELS, measures=("RR", "R@2"), queries="run")
    assert scores.mean == {"RR": 1.0, "R@2": 0.5}


def test_the_order_of_the_run_is_what_counts():
    """Ids in an order that trec_eval would turn around, were the scores tied."""
    run = {"q": [f"d{i:02}" for i in range(20)]}
    scores = evaluate(run, {"q": {"d00": 2, "d09": 1, "d15": 1}})
    expected = metrics.ndcg(run["q"], {"d00": 2, "d09": 1, "d15": 1})
    assert scores.mean["nDCG@10"] == pytest.approx(expected)


def test_excluded_documents_are_removed_and_counted():
    scores = evaluate(RUN, QRELS, queries="run", excluded={"q1": ["x", "y"], "other": ["a"]})
    assert scores.mean["nDCG@10"] == pytest.approx(1.0)
    assert scores.removed == 1


def test_empty_rankings_and_empty_judgements_count_0():
    scores = evaluate({"q1": ["a", "b"], "q2": []}, QRELS | {"q4": {}})
    assert scores.per_query["nDCG@10"] == {"q1": 1.0, "q2": 0.0, "q3": 0.0, "q4": 0.0}
    assert evaluate({}, QRELS).mean["nDCG@10"] == 0.0


@pytest.mark.parametrize(
    ("run", "settings", "message"),
    [
        (RUN, {"measures": ["best@10"]}, "measure 'best@10'"),
        (RUN, {"measures": ["nDCG@0"]}, "cut-off"),
        (RUN, {"queries": "all"}, "queries is 'all'"),
        ({"other": ["a"]}, {}, "no query of the run is judged"),
        ({}, {"queries": "run"}, "no query of the run is judged"),
        ({"q1": ["a", "a"]}, {}, "query 'q1': a document comes twice"),
    ],
)
def test_bad_input(run, settings, message):
    with pytest.raises(ValueError, match=message):
        evaluate(run, QRELS, **settings)


def test_bootstrap_interval():
    values = [0.0, 1.0] * 50
    low, high = bootstrap_interval(values, seed=1)
    # normal approximation: 0.5 +- 1.96 * 0.5 / 10
    assert low == pytest.approx(0.402, abs=0.02)
    assert high == pytest.approx(0.598, abs=0.02)
    assert bootstrap_interval(values, seed=1) == (low, high)
    assert bootstrap_interval(values, seed=1, level=0.5)[0] == pytest.approx(0.466, abs=0.02)
    assert bootstrap_interval([0.3] * 4, seed=0, n_boot=10) == pytest.approx((0.3, 0.3))
    for bad in ([], [math.nan, 1.0]):
        with pytest.raises(ValueError, match="expected finite values"):
            bootstrap_interval(bad, seed=0)
    with pytest.raises(ValueError, match="level is 95"):
        bootstrap_interval([1.0], seed=0, level=95)


def test_paired_test_of_three_queries():
    """Three equal differences: 2 of the 8 sign patterns are as extreme, so p is about 0.25."""
    a, b = {"x": 0.5, "y": 0.75, "z": 1.0}, {"z": 0.75, "x": 0.25, "y": 0.5}
    result = paired_test(a, b, seed=3)
    assert (result.difference, result.low, result.high, result.n) == (0.25, 0.25, 0.25, 3)
    assert result.p_value == pytest.approx(0.25, abs=0.02)
    assert paired_test(b, a, seed=3).difference == -0.25


def test_paired_test_extremes():
    a = {str(i): 1.0 for i in range(30)}
    assert paired_test(a, a, seed=0, n_perm=99).p_value == 1.0
    assert paired_test(a, dict.fromkeys(a, 0.0), seed=0, n_perm=99).p_value == 0.01
    with pytest.raises(ValueError, match="differ in 2 queries, as \\['0', 'x'\\]"):
        paired_test({"0": 1.0}, {"x": 1.0}, seed=0)


def test_paired_test_agrees_with_a_t_test_on_many_queries():
    from scipy import stats

    rng = np.random.default_rng(5)
    a = {str(i): float(x) for i, x in enumerate(rng.normal(0.06, 0.3, 100))}
    b = dict.fromkeys(a, 0.0)
    expected = stats.ttest_1samp(list(a.values()), 0.0).pvalue
    assert paired_test(a, b, seed=0).p_value == pytest.approx(expected, abs=0.02)
