"""Scores of runs, intervals and paired tests, systems side by side."""

import math
from types import SimpleNamespace

import pytest

from fakes.engine import FakeEngine, FakePrompt, reverse
from fakes.tokenizer import CharTokenizer
from reasonrank import adapters, evaluation, metrics, profiles, runs
from reasonrank.evaluation import TestSet, compare, evaluate, mean_interval, paired_test
from reasonrank.prompts import DirectPrompt, ListwisePrompt, PointwisePrompt
from reasonrank.rerank.listwise import ListwiseReranker
from reasonrank.rerank.logits import LogitsReranker
from reasonrank.rerank.pointwise import PointwiseReranker
from reasonrank.rerank.topdown import TopDownReranker
from reasonrank.sources import Collection, Passage, Query
from reasonrank.stages import Stage

QRELS = {"q1": {"a": 1, "b": 1}, "q2": {"c": 1}, "q3": {"d": 0}, "q4": {}}
RUN = {"q1": ["a", "x", "b"], "other": ["a"]}
Q1 = (1 + 0.5) / (1 + 1 / math.log2(3))


@pytest.mark.parametrize(("dataset", "value"), [("biology", 43.37), ("stackoverflow", 30.73)])
def test_file_order_of_ties_gives_other_values(shared, dataset, value):
    folder = shared / "bright" / dataset
    run = runs.read_trec(folder / "reasonir_gpt4cot_top100.run.gz")
    scores = evaluate(run, runs.read_qrels(folder / "qrels.txt.gz"))
    assert 100 * scores.mean["nDCG@10"] == pytest.approx(value, abs=0.005)


@pytest.mark.parametrize(
    ("run", "settings", "expected"),
    [
        (RUN, {}, {"q1": Q1, "q2": 0, "q3": 0, "q4": 0}),
        (RUN, {"queries": "run"}, {"q1": Q1}),
        (RUN, {"queries": "run", "excluded": {"q1": ["x", "y"], "other": ["a"]}}, {"q1": 1}),
        ({"q1": ["a", "b"], "q2": []}, {}, {"q1": 1, "q2": 0, "q3": 0, "q4": 0}),
        ({}, {}, dict.fromkeys(("q1", "q2", "q3", "q4"), 0)),
    ],
)
def test_all_judged_queries_or_those_of_the_run(run, settings, expected):
    scores = evaluate(run, QRELS, ("nDCG@10",), **settings)
    assert scores.per_query["nDCG@10"] == pytest.approx(expected)
    assert scores.mean["nDCG@10"] == pytest.approx(sum(expected.values()) / len(expected))


def test_other_measures():
    assert evaluate(RUN, QRELS, ("RR", "R@2"), queries="run").mean == {"RR": 1.0, "R@2": 0.5}


def test_the_order_of_the_run_is_what_counts():
    """Ids in an order that trec_eval would turn around, were the scores tied."""
    run = {"q": [f"d{i:02}" for i in range(20)]}
    scores = evaluate(run, {"q": {"d00": 2, "d09": 1, "d15": 1}})
    expected = metrics.ndcg(run["q"], {"d00": 2, "d09": 1, "d15": 1})
    assert scores.mean["nDCG@10"] == pytest.approx(expected)


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


def test_interval_of_a_mean():
    values = [0.0, 1.0] * 50
    interval = mean_interval([values], seed=1)
    # normal approximation: 0.5 +- 1.96 * 0.5 / 10
    assert (interval.value, interval.low, interval.high) == pytest.approx((0.5, 0.402, 0.598), abs=0.02)
    assert mean_interval([values], seed=1) == interval


def test_interval_draws_within_each_collection():
    """One collection varies, the other does not: half the spread of the first."""
    interval = mean_interval([[0.0, 1.0] * 50, [0.25] * 3, [0.25]], seed=1)
    assert interval.value == pytest.approx(1 / 3)
    assert interval.high - interval.low == pytest.approx(0.196 / 3, abs=0.01)


def test_one_query_has_no_width_and_no_query_is_an_error():
    one, equal = mean_interval([[0.3]], seed=0), mean_interval([[0.1], [0.1] * 3, [0.1]], seed=0, draws=50)
    assert (one.value, one.low, one.high) == (0.3, 0.3, 0.3)
    assert equal.low <= equal.value <= equal.high  # whatever the mean is rounded to
    test = paired_test({"c": {"0": 1.0}}, {"c": {"0": 0.5}}, seed=0)
    assert (test.value, test.low, test.high, test.p_value) == (0.5, 0.5, 0.5, 1.0)
    for bad in ([], [[]], [[1.0], []], [[math.nan, 1.0]]):
        with pytest.raises(ValueError, match="expected finite values"):
            mean_interval(bad, seed=0)


def test_paired_test_of_three_queries_is_exact():
    """Three equal differences: 2 of the 8 sign patterns are as extreme."""
    a, b = {"c": {"x": 0.5, "y": 0.75, "z": 1.0}}, {"c": {"z": 0.75, "x": 0.25, "y": 0.5}}
    result = paired_test(a, b, seed=3)
    assert (result.value, result.low, result.high, result.p_value) == (0.25, 0.25, 0.25, 0.25)
    assert paired_test(b, a, seed=3).value == -0.25


def test_paired_test_weighs_collections_alike():
    """Two queries of one collection weigh as much as the one of the other: (+1/4 +1/4 -1/2) is 0."""
    a = {"one": {"x": 1.0, "y": 1.0}, "two": {"z": 0.0}}
    b = {"one": {"x": 0.0, "y": 0.0}, "two": {"z": 1.0}}
    result = paired_test(a, b, seed=0)
    assert (result.value, result.p_value) == (0.0, 1.0)


def test_paired_test_extremes():
    a = {"c": {str(i): 1.0 for i in range(30)}}
    assert paired_test(a, a, seed=0, draws=99).p_value == 1.0
    assert paired_test(a, {"c": dict.fromkeys(a["c"], 0.0)}, seed=0, draws=99).p_value == 0.01
    with pytest.raises(ValueError, match=r"differ in 2 queries, as \[\('c', '0'\), \('c', 'x'\)\]"):
        paired_test({"c": {"0": 1.0}}, {"c": {"x": 1.0}}, seed=0)


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
    found = {"retriever": {name: t.run for name, t in sets.items()}, "ours": best}
    rows = evaluation.score_rows(found, sets, seed=1, bootstrap=500)
    by = {(row["collection"], row["system"]): row for row in rows}
    second = 0.6309297535714575  # 1 / log2(3)
    assert by["one", "retriever"]["ndcg"] == pytest.approx(1)
    assert by["two", "retriever"]["ndcg"] == pytest.approx(second)
    assert by["average", "retriever"]["ndcg"] == pytest.approx((1 + second) / 2)  # not over the six queries
    assert by["average", "ours"]["difference"] == pytest.approx((1 - second) / 2)
    assert by["average", "ours"]["n"] == 6 and by["two", "ours"]["n"] == 2
    assert by["one", "ours"]["p_value"] == 1.0 and by["one", "retriever"]["p_value"] is None
    # two queries that differ can flip in four ways, two of them as extreme
    assert by["average", "ours"]["p_value"] == pytest.approx(0.5)
    assert all(row["low"] <= row["ndcg"] + 1e-9 and row["ndcg"] <= row["high"] + 1e-9 for row in rows)


def test_score_frame_shows_percent_interval_and_n():
    row = {"collection": "coding", "system": "SFT", "ndcg": 0.3123, "low": 0.25, "high": 0.361, "n": 12}
    frame = evaluation.score_frame([row, {**row, "collection": "average", "system": "retriever", "n": 60}])
    assert frame.loc["SFT", "coding (n = 12)"] == "31.2 [25.0, 36.1]"
    assert frame.loc["retriever", "coding (n = 12)"] == ""
    assert list(frame.columns) == ["coding (n = 12)", "average (n = 60)"]


@pytest.mark.parametrize("asked", [["zero-shot", "SFT", "SFT + RL"], ["SFT"], ["zero-shot"]])
def test_systems_are_named_by_where_their_weights_come_from(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(adapters, "released", lambda base, profile: {"SFT": tmp_path / base})
    for name in ("03_sft", "04_rl"):
        stage = Stage(tmp_path, name, {}, seed=0)
        stage.path("model").mkdir()
        stage.finish()
    profile = profiles.load("smoke", {"evaluation.systems": asked, "evaluation.adapters": "full"})
    base = profile.model.name
    every = {
        "zero-shot": (base, None),
        "SFT (this run)": (tmp_path / "03_sft" / "model", None),
        "SFT + RL (this run)": (tmp_path / "04_rl" / "model", None),
    }
    found = evaluation.systems(profile, tmp_path, {"SFT": "03_sft", "SFT + RL": "04_rl"})
    chosen = {label: place for label, place in every.items() if label.removesuffix(" (this run)") in asked}
    assert found == chosen | {"SFT (released adapter)": (base, tmp_path / base)}


def test_run_files_are_named_apart_and_read_back(tmp_path):
    sets = {"coding": made_up("coding", [1, 3])}
    labels = ("zero-shot", "SFT (this run)", "SFT + RL (this run)", "SFT (released adapter)")
    files = evaluation.write_runs(tmp_path, {label: {"coding": sets["coding"].run} for label in labels}, sets)
    assert files[2].name == "coding.sft-rl-this-run.trec" and len(set(files)) == 4
    assert [runs.read_trec(file) for file in files] == [sets["coding"].run] * 4
    assert runs.read_qrels(tmp_path / "coding.qrels") == sets["coding"].qrels


@pytest.mark.parametrize(
    ("strategy", "kind", "prompt"),
    [
        (None, ListwiseReranker, ListwisePrompt),
        ("topdown", TopDownReranker, ListwisePrompt),
        ("pointwise", PointwiseReranker, PointwisePrompt),
        ("direct", ListwiseReranker, DirectPrompt),
        ("logits", LogitsReranker, ListwisePrompt),
    ],
)
def test_rerankers_follow_the_profile(strategy, kind, prompt):
    profile = profiles.load("smoke", {"evaluation.retry": True, "evaluation.overlong": "error"})
    engine = FakeEngine(reverse)
    engine.tokenizer = CharTokenizer()
    built = evaluation.reranker(profile, engine, strategy, max_tokens=40)
    assert type(built) is kind and type(built.prompt) is prompt
    assert (built.prompt.passage_tokens, built.prompt.query_tokens) == (32, 80)
    assert (built.prompt.max_length, built.prompt.overlong) == (1536 - 40, "error")
    assert (built.sampling.max_tokens, built.sampling.seed, built.max_in_flight) == (40, 20250807, 32)
    if kind is not PointwiseReranker:
        assert (built.window, built.retry, built.constrained) == (10, kind is not LogitsReranker, False)


def test_one_engine_is_opened_once_and_changes_its_weights(monkeypatch):
    log, engine = [], FakeEngine(reverse)
    engine.tokenizer, engine.close = CharTokenizer(), lambda: log.append("closed")
    engine.load = lambda *asked: log.append(("load", *asked))
    monkeypatch.setattr(
        compare, "open_engine", lambda *asked, **options: log.append((asked, options)) or engine
    )
    with evaluation.OneEngine(profiles.load("smoke"), "single") as opened:
        assert opened.use("a") is opened.use("b", "adapter") is opened.use("b", "adapter") is opened.use("a")
    assert opened.use("c", "folder").strategy == "single"
    options = {"dtype": "bfloat16", "max_model_len": 1536, "seed": 20250807, "max_num_seqs": 32}
    assert log == [
        *[
            (("auto", "a"), options | {"adapter": None}),
            ("load", "b", "adapter"),
            ("load", "a", None),
            "closed",
        ],
        (("auto", "c"), options | {"adapter": "folder"}),
    ]


def test_a_recorded_evaluation_is_redone_query_by_query(monkeypatch):
    """The model turns lists around, which brings the relevant passage from place 3 to 1, and from 1 to 3."""
    sets = {"one": made_up("one", [1, 3]), "two": made_up("two", [2])}
    monkeypatch.setattr(compare, "test_sets", lambda *asked: sets)
    monkeypatch.setattr(compare, "reranker", lambda settings, engine: ListwiseReranker(engine, FakePrompt()))
    recorded = {"one": {"q0": 0.5, "q1": 0.0}, "two": {"q0": 0.6309, "other": 0.0}}
    found = evaluation.redone(profiles.load("smoke"), FakeEngine(reverse), recorded)
    assert (found["n"], found["same"]) == (3, 2)
    assert found["recorded"] == pytest.approx(100 * (0.5 + 0.6309) / 3)
    assert found["now"] == pytest.approx(100 * (0.5 + 1 + 1 / math.log2(3)) / 3)


def test_all_collections_are_reranked_together_under_one_bound():
    sets = {name: made_up(name, [1, 2, 3]) for name in ("one", "two", "three")}
    for bound, most in ((2, 2), (64, 9)):
        engine = FakeEngine(reverse)
        evaluation.rerank_sets(ListwiseReranker(engine, FakePrompt(), max_in_flight=bound), sets)
        assert engine.most_in_flight == most


def test_costs_of_all_collections_are_summed_but_for_seconds():
    sets = {"one": made_up("one", [1, 2]), "two": made_up("two", [3])}
    results = evaluation.rerank_sets(ListwiseReranker(FakeEngine(reverse), FakePrompt()), sets, top=2)
    assert results["one"].run == {"q0": ["a", "rel", "b"], "q1": ["rel", "a", "b"]}
    assert results["two"].run == {"q0": ["b", "a", "rel"]}
    counts, took = evaluation.answer_counts(results.values()), evaluation.cost(results.values())
    assert counts == {"ok": 3, "repaired": 0, "truncated": 0, "malformed": 0, "n": 3}
    tokens = sum(result.output_tokens for result in results.values())
    assert took["calls"] == 3 and took["output_tokens"] == tokens > 0
    assert took["seconds"] == max(result.seconds for result in results.values()) > 0
    unread = evaluation.answer_counts([SimpleNamespace(counts={"ok": 2, "undecided": 3})] * 2)
    assert unread == {"ok": 4, "repaired": 0, "truncated": 0, "malformed": 6, "n": 10}  # pointwise verdicts
