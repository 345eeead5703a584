"""The latency protocol: what is timed, and figures worked out by hand."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest

from fakes.engine import FakeEngine, FakePrompt, reverse
from reasonrank import evaluation, latency, profiles
from reasonrank.latency import LatencyResult, measure, pool, ratio, time_queries
from reasonrank.rerank import run_sync
from reasonrank.rerank.listwise import ListwiseReranker
from reasonrank.rerank.strategies import STRATEGIES


def result(name="a", seconds=(1.0, 2.0, 3.0), qids=("1", "2", "3")):
    n = len(seconds)
    return LatencyResult(
        name=name,
        qids=list(qids),
        seconds=list(seconds),
        engine_seconds=[s / 2 for s in seconds],
        calls=[2] * n,
        prompt_tokens=[10, 20, 30][:n],
        output_tokens=[5] * n,
        counts={"ok": 2 * n},
        together_seconds=1.5,
        together_engine_seconds=1.0,
    )


def test_quantiles():
    one = result()
    assert one.quantile(0.5).value == 2.0
    assert one.quantile(0.95).value == pytest.approx(2.9)
    assert one.quantile(0.5, "engine_seconds").value == 1.0
    median = one.quantile(0.5)
    assert 1.0 <= median.low <= median.value <= median.high <= 3.0
    assert one.quantile(0.5, seed=3) == one.quantile(0.5, seed=3)


def test_a_row_holds_means_per_query():
    row = result().row("coding")
    assert (row["collection"], row["method"], row["n"], row["p50"]) == ("coding", "a", 3, 2.0)
    assert (row["calls"], row["prompt_tokens"], row["together_seconds"]) == (2.0, 20.0, 0.5)


def test_pooled_measurements_keep_their_queries_apart():
    both = pool([result(), result(seconds=(4.0,), qids=("1",))])
    assert both.qids == ["0/1", "0/2", "0/3", "1/1"] and both.seconds == [1.0, 2.0, 3.0, 4.0]
    assert both.counts == {"ok": 8} and both.together_seconds == 3.0


def test_ratio_is_paired():
    """Twice as long on each query: the ratio of medians is 2 in every paired resample."""
    interval = ratio(result(seconds=(2.0, 4.0, 6.0)), result("b"))
    assert (interval.value, interval.low, interval.high) == (2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="different queries"):
        ratio(result(), result("b", qids=("1", "3", "2")))


TEXTS = dict.fromkeys("abcdef", "1")
RUN = {"x": ["a", "b", "c", "d", "e"], "y": ["c", "b", "a", "d", "e", "f"]}


def timed(run=RUN, top=5, calls=(2, 2), **options):
    """Two windows of a query's first five candidates: [1, 5) and [0, 3)."""
    engine = FakeEngine(reverse)
    reranker = ListwiseReranker(engine, FakePrompt(), window=4, step=2, **options)
    queries = {qid: f"q{qid}" for qid in run}
    return engine, run_sync(time_queries(reranker, run, queries, TEXTS, name="ours", top=top, calls=calls))


def test_measure_warms_up_then_times_one_by_one_and_together():
    engine, measured = timed()
    assert engine.finished[:6] == ["qx", "qx", "qx", "qx", "qy", "qy"]  # warm-up, then one by one
    assert sorted(engine.finished[6:]) == ["qx", "qx", "qy", "qy"]
    assert engine.resets == 2
    assert measured.qids == ["x", "y"] and measured.calls == [2, 2] and measured.counts == {"ok": 4}
    assert all(0 < e <= s for e, s in zip(measured.engine_seconds, measured.seconds, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"run": {}}, "no query"),
        ({"top": 6}, "query 'x' has 5 candidates; expected 6 or more"),
        ({"run": {"x": []}, "top": 1}, "query 'x' has 0 candidates; expected 1"),
        ({"calls": (3, 3)}, "ours, query 'x': 2 requests to the engine; expected 3 to 3 for 5 candidates"),
        ({"calls": (0, 1)}, "query 'x': 2 requests"),
    ],
)
def test_what_is_not_as_planned_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        timed(**options)


@pytest.fixture
def study(monkeypatch):
    """The study's settings over two queries of 15 candidates, and a reranker without a model."""

    def reranker(settings, engine, strategy, max_tokens):
        assert (strategy, max_tokens) in (("sliding", 60), ("single", 60))
        return ListwiseReranker(engine, FakePrompt(), window=10, step=5, strategy=strategy)

    changes = {"latency.top": 15, "latency.listwise_tokens": 60, "latency.collections": ["made_up"]}
    run = {qid: [f"d{n}" for n in range(15)] for qid in ("q1", "q2")}
    texts = SimpleNamespace(texts=lambda: {f"d{n}": "1" for n in range(15)}, excluded={}, scenario="coding")
    queries, qrels = {"q1": "one", "q2": "two"}, {qid: {"d14": 1} for qid in run}
    test = evaluation.TestSet(texts, "dense", queries, run, qrels)
    monkeypatch.setattr(evaluation, "reranker", reranker)
    monkeypatch.setattr(evaluation, "test_set", lambda settings, name, split, queries, top: test)
    return profiles.load("smoke", changes), test


def test_the_study_ranks_as_many_candidates_and_windows_as_the_profile_says(study):
    settings, test = study
    measured = measure(FakeEngine(reverse), settings, test, "listwise")
    assert measured.calls == [2, 2] and measured.name == "listwise"  # [5, 15) and [0, 10)
    short = replace(test, run={qid: docids[:14] for qid, docids in test.run.items()})
    with pytest.raises(ValueError, match="'q1' has 14 candidates; expected 15"):
        measure(FakeEngine(reverse), settings, short, "listwise")


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
