"""The latency protocol: what is timed, and figures worked out by hand."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from fakes.engine import FakeEngine, FakePrompt, reverse
from reasonrank import evaluation, latency, paper, profiles, stages
from reasonrank.latency import Held, Timed, measure, ratios, study, weights_of
from reasonrank.rerank import run_sync
from reasonrank.rerank.listwise import ListwiseReranker
from reasonrank.rerank.strategies import STRATEGIES


def timed(method="listwise", spans=None, scale=1.0, alone=(), **changed):
    """Two queries; of each answer, when it began and ended."""
    spans = spans or {"q1": [(0.0, 2.0), (2.0, 4.0)], "q2": [(0.0, 2.0)]}
    traces = {q: [SimpleNamespace(began=b, ended=scale * e) for b, e in own] for q, own in spans.items()}
    work = {"calls": 6, "prompt_tokens": 30, "cached_tokens": 10, "output_tokens": 12}
    seconds = scale * max(end for own in spans.values() for _, end in own)
    run = {qid: ["d1", "d2"] for qid in spans}
    about = {"counts": {"ok": 3, "truncated": 1}, "seconds": seconds, "engine_seconds": seconds, "run": run}
    together = SimpleNamespace(traces=traces, **work, **about)
    each = {f"q{n}": SimpleNamespace(**{**vars(together), "seconds": s}) for n, s in enumerate(alone)}
    values = {"collection": "coding", "lengths": "own", "top": 15} | changed
    return Timed(method=method, together=together, alone=each, **values)


def test_the_time_of_all_queries_is_divided_among_the_answers_under_way():
    """Both are under way for 2 s, then q1 alone for 2 s: 1 + 2 and 1."""
    assert timed().shares == pytest.approx([3.0, 1.0])
    apart = {"q1": [(0.0, 1.0)], "q2": [(3.0, 4.0)]}  # the pause is shared as the rest is
    assert timed(spans=apart).shares == pytest.approx([2.0, 2.0])


def test_a_row_holds_means_per_query_and_quantiles_of_each_alone():
    row = timed(alone=(1.0, 2.0, 3.0)).row()
    assert (row["collection"], row["method"], row["n"], row["seconds"]) == ("coding", "listwise", 2, 2.0)
    assert 1.0 <= row["low"] <= 2.0 <= row["high"] <= 3.0
    means = ("calls", "prompt_tokens", "cached_tokens", "tokens_per_second")
    assert [row[name] for name in means] == [3, 15, 5, 3]
    assert (row["batch"], row["finished"], row["p50"], row["p95"]) == (1.5, 0.75, 2.0, pytest.approx(2.9))
    assert timed().row()["p50"] is None


def test_points_have_the_tokens_that_were_computed():
    together, alone = timed(alone=(1.0,)).points()
    figures = [together[name] for name in ("mode", "prompt", "output", "batch")]
    assert figures == ["together", 20, 12, 1.5]
    assert (alone["mode"], alone["seconds"]) == ("alone", 1.0)


def test_ratio_is_paired_and_of_all_queries_together():
    """Twice as long on each query: the ratio is 2 in every paired resample."""
    slow = timed("pointwise", spans={"q1": [(0.0, 6.0)], "q2": [(6.0, 8.0)]})
    with pytest.raises(ValueError, match="pointwise and listwise were measured on different queries"):
        ratios([slow, timed(spans={"q2": [(0.0, 1.0)], "q1": [(0.0, 1.0)]})])
    rows = ratios([timed(), slow, timed(lengths="declared"), timed("pointwise", lengths="declared")])
    assert [rows[0][key] for key in ("ratio", "low", "high")] == pytest.approx([2.0, 2.0, 2.0])
    assert [(row["method"], row["lengths"], row["n"], row["same"]) for row in rows] == [
        ("pointwise", "own", 2, 1.0),
        ("pointwise", "declared", 2, 1.0),
    ]
    assert [row["ratio"] for row in rows] == pytest.approx([2.0, 1.0])


def test_declared_lengths_are_those_of_the_paper_and_scale():
    lengths = latency.declared()
    assert np.mean(lengths["listwise"]) == pytest.approx(
        np.mean(paper.facts().figure13.tokens) + 100, abs=0.5
    )
    assert lengths["listwise, prefetch"] == lengths["listwise"] and max(lengths["pointwise"]) < 8192
    assert latency.declared(0.0)["pointwise"] == [2] * 8


def test_held_outputs_have_a_length_of_their_own_that_is_always_the_same():
    engine = FakeEngine(reverse)
    held = Held(engine, [5, 6, 7])
    limits = []
    for text in ("ab", "cd", "ef", "gh", "ab"):
        run_sync(held.generate([ord(c) for c in text], latency.Sampling(stop=("x",))))
        limits.append(engine.samplings[-1].max_tokens)
    assert limits[0] == limits[4] and len(set(limits)) > 1 and set(limits) <= {5, 6, 7}
    assert engine.samplings[-1].exact and engine.samplings[-1].stop == ()
    run_sync(held.generate([1], latency.Sampling(max_tokens=1, stop=("x",))))
    assert not engine.samplings[-1].exact and held.stats["requests"] == 6


def test_each_method_has_its_weights_and_those_with_the_same_share_an_engine(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "ROOT", tmp_path)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    load = lambda **changes: profiles.load("smoke", {f"latency.weights.{k}": v for k, v in changes.items()})  # noqa: E731
    assert weights_of(load(), tmp_path) == {(tmp_path, None): list(latency.METHODS)}
    name = load().model.name
    assert weights_of(load(pointwise="adapter"), None) == {
        (name, None): ["listwise", "listwise, prefetch"],
        (name, tmp_path / "adapter"): ["pointwise"],
    }
    with pytest.raises(FileNotFoundError, match=r"latency.weights: missing is not there"):
        weights_of(load(listwise="missing"), None)


@pytest.fixture
def settings_and_test(monkeypatch):
    """The study's settings over two queries of 15 candidates, and a reranker without a model."""

    def reranker(settings, engine, strategy, max_tokens, **changes):
        return ListwiseReranker(engine, FakePrompt(), window=10, step=5, strategy=strategy, **changes)

    changes = {"latency.top": 15, "latency.collections": ["made_up"], "latency.growth": [12]}
    run = {qid: [f"d{n}" for n in range(15)] for qid in ("q1", "q2")}
    about = {"excluded": {}, "scenario": "coding", "passage_tokens": None, "name": "made_up"}
    texts = SimpleNamespace(texts=lambda: {f"d{n}": "1" for n in range(15)}, **about)
    queries, qrels = {"q1": "one", "q2": "two"}, {qid: {"d14": 1} for qid in run}
    test = evaluation.TestSet(texts, "dense", queries, run, qrels)
    monkeypatch.setattr(evaluation, "reranker", reranker)
    monkeypatch.setattr(
        evaluation, "test_sets", lambda settings, names, split, queries, top: {"made_up": test}
    )
    return profiles.load("smoke", changes), test


def test_a_method_is_warmed_up_then_timed_alone_and_together(settings_and_test):
    engine = FakeEngine(reverse)
    measured = measure(engine, *settings_and_test, "listwise", warmup=1, alone=1)
    assert engine.finished[:4] == ["one"] * 4  # warm-up, then the first query alone
    assert sorted(engine.finished[4:]) == ["one", "one", "two", "two"]
    assert engine.resets == 3 and measured.together.seconds > 0
    assert list(measured.alone) == ["q1"] and measured.row()["calls"] == 2  # [5, 15) and [0, 10)
    assert sum(measured.shares) == pytest.approx(measured.together.seconds)


def test_the_study_measures_each_method_with_both_kinds_of_length_and_other_sizes(settings_and_test):
    settings, test = settings_and_test
    listwise = ["listwise", "listwise, prefetch"]
    measured = study(FakeEngine(reverse), settings, {"made_up": test}, listwise)
    assert [(one.method, one.lengths, one.top, len(one.together.run)) for one in measured] == [
        (method, lengths, top, n)
        for method in listwise
        for lengths, top, n in (("own", 15, 2), ("declared", 15, 2), ("own", 12, 1))
        if (method, lengths) != ("listwise, prefetch", "declared")
    ]
    assert [row["same"] for row in ratios(measured)] == [1.0, 1.0]
    without = FakeEngine(reverse)
    without.prefixes = False
    assert {one.method for one in study(without, settings, {"made_up": test}, listwise)} == {"listwise"}


@pytest.mark.parametrize(
    ("run", "windows", "message"),
    [
        ({"q1": [f"d{n}" for n in range(14)]}, 10, "query 'q1' has 14 candidates; expected 15"),
        (None, 5, "listwise, query 'q1': 2 requests; expected 3 to 3 for 15 candidates"),
        (None, 15, "query 'q1': 2 requests; expected 1 to 1"),
    ],
)
def test_what_is_not_as_planned_is_an_error(settings_and_test, run, windows, message):
    settings, test = settings_and_test
    own = settings.evaluation.model_copy(update={"window": windows})
    test = test if run is None else replace(test, run=run)
    with pytest.raises(ValueError, match=message):
        measure(FakeEngine(reverse), settings.model_copy(update={"evaluation": own}), test, "listwise")


def test_a_row_of_the_table_of_strategies(settings_and_test, monkeypatch):
    settings, _ = settings_and_test
    monkeypatch.setattr(latency, "STRATEGIES", {name: STRATEGIES[name] for name in ("sliding", "single")})
    rows = latency.strategy_rows(settings, FakeEngine(reverse))
    assert [(row["strategy"], row["calls per query"], row["calls"]) for row in rows] == [
        ("sliding", "2", 4),
        ("single", "1", 2),
    ]
    assert [row["n"] for row in rows] == [2, 2] and rows[0]["finished"] == 1.0
    assert rows[0]["ndcg"] == pytest.approx(0.38685280723454163)  # rank 15 to 6, then to 5: 1 / log2(6)
