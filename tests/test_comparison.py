"""Scores of several systems side by side, on a made-up collection."""

import pytest

from fakes.engine import FakeEngine, FakePrompt, reverse
from fakes.tokenizer import CharTokenizer
from reasonrank import comparison, profiles
from reasonrank.comparison import TestSet
from reasonrank.prompts import DirectPrompt, ListwisePrompt, PointwisePrompt
from reasonrank.rerank.listwise import ListwiseReranker
from reasonrank.rerank.pointwise import PointwiseReranker
from reasonrank.rerank.topdown import TopDownReranker
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


@pytest.mark.parametrize(
    ("strategy", "kind", "prompt"),
    [
        (None, ListwiseReranker, ListwisePrompt),
        ("topdown", TopDownReranker, ListwisePrompt),
        ("pointwise", PointwiseReranker, PointwisePrompt),
        ("direct", ListwiseReranker, DirectPrompt),
    ],
)
def test_rerankers_follow_the_profile(strategy, kind, prompt):
    profile = profiles.load("smoke", {"evaluation.retry": True, "evaluation.overlong": "error"})
    engine = FakeEngine(reverse)
    engine.tokenizer = CharTokenizer()
    built = comparison.reranker(profile, engine, strategy, max_tokens=40)
    assert type(built) is kind and type(built.prompt) is prompt
    assert (built.prompt.passage_tokens, built.prompt.query_tokens) == (32, 80)
    assert (built.prompt.max_length, built.prompt.overlong) == (1536 - 40, "error")
    assert (built.sampling.max_tokens, built.sampling.seed, built.max_in_flight) == (40, 20250807, 32)
    if kind is not PointwiseReranker:
        assert (built.window, built.retry, built.constrained) == (10, True, False)


@pytest.mark.parametrize("strategy", [None, "sliding", "single", "full", "topdown", "direct"])
def test_a_model_without_reasoning_is_asked_for_none(strategy):
    profile = profiles.load("smoke", {"prompting.reasoning": False})
    engine = FakeEngine(reverse)
    engine.tokenizer = CharTokenizer()
    built = comparison.reranker(profile, engine, strategy)
    assert type(built.prompt) is DirectPrompt and not built.reasoning
    assert type(comparison.reranker(profile, engine, "pointwise").prompt) is PointwisePrompt


def test_a_row_of_the_strategy_table():
    sets = {"one": made_up("one", [1, 2]), "two": made_up("two", [3])}
    reranker = ListwiseReranker(FakeEngine(reverse), FakePrompt())
    texts = dict.fromkeys(("rel", "a", "b"), "1")
    results = {name: reranker.rerank_run_sync(t.run, t.queries, texts) for name, t in sets.items()}
    row = comparison.strategy_row("sliding", results, sets)
    # turned round, the places 1, 2 and 3 become 3, 2 and 1
    assert row["ndcg"] == pytest.approx((0.5 + 0.6309297535714575 + 1) / 3)
    assert (row["strategy"], row["n"], row["calls"], row["output_tokens"]) == ("sliding", 3, 3, 9)
    assert row["prompt_tokens"] == 3 * len("text\n1\n1\n1") and row["finished"] == 1.0
    assert row["seconds"] > 0


def test_open_reranker_closes_its_engine(monkeypatch):
    opened, closed = [], []

    def fake(kind, model, **options):
        engine = FakeEngine(reverse)
        engine.tokenizer = CharTokenizer()
        engine.close = lambda: closed.append(model)
        opened.append((kind, model, options))
        return engine

    monkeypatch.setattr(comparison, "open_engine", fake)
    with comparison.open_reranker(profiles.load("smoke"), "weights", "single") as reranker:
        assert reranker.strategy == "single" and closed == []
    options = {"dtype": "bfloat16", "max_model_len": 1536, "seed": 20250807, "adapter": None}
    assert opened == [("auto", "weights", options)] and closed == ["weights"]
    with comparison.open_reranker(profiles.load("smoke"), "weights", adapter="folder"):
        assert opened[1][2]["adapter"] == "folder"


def test_rerank_sets_goes_through_all_collections():
    sets = {"one": made_up("one", [1]), "two": made_up("two", [3])}
    results = comparison.rerank_sets(ListwiseReranker(FakeEngine(reverse), FakePrompt()), sets, top=2)
    assert results["one"].run == {"q0": ["a", "rel", "b"]}
    assert results["two"].run == {"q0": ["b", "a", "rel"]}
