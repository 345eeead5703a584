"""The latency protocol: what is timed, and figures worked out by hand."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest

from fakes.engine import FakeEngine, FakePrompt, reverse
from reasonrank import evaluation, latency, profiles
from reasonrank.latency import LatencyResult, measure, pool, ratio
from reasonrank.rerank.listwise import ListwiseReranker
from reasonrank.rerank.strategies import STRATEGIES


def result(name="a", seconds=(1.0, 2.0, 3.0), qids=("1", "2", "3")):
    work = [{"calls": 2, "prompt_tokens": tokens, "output_tokens": 5} for tokens in (10, 20, 30)]
    single = [
        SimpleNamespace(seconds=s, engine_seconds=s / 2, **w) for s, w in zip(seconds, work, strict=False)
    ]
    return LatencyResult(name, dict(zip(qids, single, strict=True)), together=1.5)


def test_quantiles():
    one = result()
    assert one.quantile(0.5).value == 2.0
    assert one.quantile(0.95).value == pytest.approx(2.9)
    assert one.quantile(0.5, "engine_seconds").value == 1.0
    median = one.quantile(0.5)
    assert 1.0 <= median.low <= median.value <= median.high <= 3.0
    assert one.quantile(0.5) == median


def test_a_row_holds_means_per_query():
    row = result().row("coding")
    assert (row["collection"], row["method"], row["n"], row["p50"]) == ("coding", "a", 3, 2.0)
    assert (row["calls"], row["prompt_tokens"], row["together_seconds"]) == (2.0, 20.0, 0.5)


def test_pooled_measurements_keep_their_queries_apart():
    both = pool([result(), result(seconds=(4.0,), qids=("1",))])
    assert list(both.single) == ["0/1", "0/2", "0/3", "1/1"] and both.each("seconds") == [1.0, 2.0, 3.0, 4.0]
    assert both.together == 3.0


def test_ratio_is_paired():
    """Twice as long on each query: the ratio of medians is 2 in every paired resample."""
    interval = ratio(result(seconds=(2.0, 4.0, 6.0)), result("b"))
    assert (interval.value, interval.low, interval.high) == (2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="different queries"):
        ratio(result(), result("b", qids=("1", "3", "2")))


@pytest.fixture
def study(monkeypatch):
    """The study's settings over two queries of 15 candidates, and a reranker without a model."""

    def reranker(settings, engine, strategy, max_tokens):
        assert (strategy, max_tokens) in (("sliding", 60), ("single", 60))
        return ListwiseReranker(engine, FakePrompt(), window=10, step=5, strategy=strategy)

    changes = {"latency.top": 15, "latency.listwise_tokens": 60, "latency.collections": ["made_up"]}
    run = {qid: [f"d{n}" for n in range(15)] for qid in ("q1", "q2")}
    about = {"excluded": {}, "scenario": "coding", "passage_tokens": None}
    texts = SimpleNamespace(texts=lambda: {f"d{n}": "1" for n in range(15)}, **about)
    queries, qrels = {"q1": "one", "q2": "two"}, {qid: {"d14": 1} for qid in run}
    test = evaluation.TestSet(texts, "dense", queries, run, qrels)
    monkeypatch.setattr(evaluation, "reranker", reranker)
    monkeypatch.setattr(
        evaluation, "test_sets", lambda settings, names, split, queries, top: {"made_up": test}
    )
    return profiles.load("smoke", changes), test


def test_a_method_is_warmed_up_then_timed_one_by_one_and_together(study):
    engine = FakeEngine(reverse)
    measured = measure(engine, *study, "listwise")
    assert engine.finished[:6] == ["one", "one", "one", "one", "two", "two"]  # warm-up, then one by one
    assert sorted(engine.finished[6:]) == ["one", "one", "two", "two"]
    assert engine.resets == 2 and measured.together > 0
    assert list(measured.single) == ["q1", "q2"]
    assert measured.each("calls") == [2, 2] and measured.name == "listwise"  # [5, 15) and [0, 10)
    assert all(0 < one.engine_seconds <= one.seconds for one in measured.single.values())


@pytest.mark.parametrize(
    ("run", "windows", "message"),
    [
        ({"q1": [f"d{n}" for n in range(14)]}, 10, "query 'q1' has 14 candidates; expected 15"),
        (None, 5, "listwise, query 'q1': 2 requests; expected 3 to 3 for 15 candidates"),
        (None, 15, "query 'q1': 2 requests; expected 1 to 1"),
    ],
)
def test_what_is_not_as_planned_is_an_error(study, run, windows, message):
    settings, test = study
    own = settings.evaluation.model_copy(update={"window": windows})
    test = test if run is None else replace(test, run=run)
    with pytest.raises(ValueError, match=message):
        measure(FakeEngine(reverse), settings.model_copy(update={"evaluation": own}), test, "listwise")


def test_a_row_of_the_table_of_strategies(study, monkeypatch):
    settings, _ = study
    opened = nullcontext(SimpleNamespace(engine=FakeEngine(reverse)))
    monkeypatch.setattr(evaluation, "open_reranker", lambda settings, weights: opened)
    monkeypatch.setattr(latency, "STRATEGIES", {name: STRATEGIES[name] for name in ("sliding", "single")})
    rows = latency.strategy_rows(settings, "weights")
    assert [(row["strategy"], row["calls per query"], row["calls"]) for row in rows] == [
        ("sliding", "2", 4),
        ("single", "1", 2),
    ]
    assert [row["n"] for row in rows] == [2, 2] and rows[0]["finished"] == 1.0
    assert rows[0]["ndcg"] == pytest.approx(0.38685280723454163)  # rank 15 to 6, then to 5: 1 / log2(6)
