"""Strategies by name: which windows each asks about, in which order, and how often."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.engine import FakeEngine, FakePrompt, by_number, reverse
from fakes.tokenizer import CharTokenizer
from reasonrank import profiles
from reasonrank.answers import parse
from reasonrank.rerank import run_sync, windows
from reasonrank.rerank.listwise import ListwiseReranker
from reasonrank.rerank.strategies import STRATEGIES, build
from reasonrank.rerank.topdown import TopDownReranker, topdown_calls


def docs(n):
    return [f"d{i}" for i in range(n)]


def texts(n):
    return {f"d{i}": str(i) for i in range(n)}


def rank(reranker, n):
    return run_sync(reranker.rerank("q", docs(n), texts(n)))


# The windows of each strategy


@given(n=st.integers(0, 200), size=st.integers(1, 40), data=st.data())
@settings(max_examples=300, deadline=None)
def test_the_schedule_is_the_papers(n, size, data):
    """The rule in its own words: from [N - w, N), both ends move by s, starts are clipped at 0."""
    step = data.draw(st.integers(1, size))
    start, end, expected = n - size, n, []
    while end > 0:
        expected.append((max(0, start), end))
        if start <= 0:
            break
        start, end = start - step, end - step
    assert windows(n, size, step) == expected


@pytest.mark.parametrize(
    ("strategy", "n", "places"),
    [
        ("sliding", 6, [(2, 6), (0, 4)]),
        ("single", 6, [(0, 4)]),
        ("single", 3, [(0, 3)]),
        ("full", 6, [(0, 6)]),
        ("full", 1, []),
        ("single", 0, []),
    ],
)
def test_windows_of_the_scheduled_strategies(strategy, n, places):
    reranker = ListwiseReranker(FakeEngine(reverse), FakePrompt(), window=4, step=2, strategy=strategy)
    result = rank(reranker, n)
    assert [(trace.start, trace.end) for trace in result.windows] == places
    assert sorted(result.docids) == docs(n)


def test_single_leaves_what_lies_behind_its_window():
    reranker = ListwiseReranker(FakeEngine(reverse), FakePrompt(), window=4, step=2, strategy="single")
    assert rank(reranker, 6).docids == ["d3", "d2", "d1", "d0", "d4", "d5"]


def test_the_released_window_rule_leaves_a_list_as_long_as_the_overlap_alone():
    for variant, places in (("ours", [(0, 2)]), ("released", [])):
        reranker = ListwiseReranker(FakeEngine(reverse), FakePrompt(), window=4, step=2, variant=variant)
        assert [(trace.start, trace.end) for trace in rank(reranker, 2).windows] == places
        assert reranker.answers_needed(2) == len(places)


# Top-down partitioning


def topdown(engine, window=4, **options):
    return TopDownReranker(engine, FakePrompt(), window=window, **options)


def test_topdown_worked_out_by_hand():
    """w = 4, k = 2, a model that puts high numbers first, documents d0 to d9."""
    result = rank(topdown(FakeEngine(by_number)), 10)
    asked = [(trace.start, trace.end, list(trace.docids)) for trace in result.windows]
    assert asked == [
        (0, 4, ["d0", "d1", "d2", "d3"]),  # d3 > d2 > d1 > d0: the pivot is d2
        (4, 7, ["d2", "d4", "d5", "d6"]),  # all three beat it
        (7, 10, ["d2", "d7", "d8", "d9"]),
        (0, 4, ["d3", "d6", "d5", "d4"]),  # the first four candidates; d9, d8, d7 are past the budget
    ]
    assert result.docids == ["d6", "d5", "d4", "d3", "d9", "d8", "d7", "d2", "d1", "d0"]


@pytest.mark.parametrize(("bound", "seen"), [(64, 3), (2, 2)])
def test_batches_of_a_query_run_side_by_side_under_the_bound(bound, seen):
    engine = FakeEngine(reverse)
    rank(topdown(engine, max_in_flight=bound), 13)
    assert engine.most_in_flight == seen


@pytest.mark.parametrize(
    ("n", "calls"), [(0, (0, 0)), (1, (0, 0)), (20, (1, 1)), (21, (2, 3)), (100, (6, 7))]
)
def test_calls_of_topdown(n, calls):
    assert topdown_calls(n, 20) == calls


def test_topdown_stops_where_nothing_beats_the_pivot():
    """The documents stand in their best order already: one window and its batches, and nothing moves."""
    n = 10
    engine = FakeEngine(by_number)
    order = docs(n)[::-1]
    result = run_sync(topdown(engine).rerank("q", order, texts(n)))
    assert result.docids == order and len(engine.finished) == 3


def test_unfinished_answers_promote_nothing():
    result = rank(topdown(FakeEngine(lambda *_: "no answer")), 10)
    assert result.docids == docs(10) and [t.status for t in result.windows] == ["malformed"] * 3


@given(st.permutations(range(14)), st.integers(2, 6))
@settings(deadline=None)
def test_topdown_keeps_all_documents_within_its_bounds(numbers, window):
    engine = FakeEngine(by_number)
    order = [f"d{n}" for n in numbers]
    result = run_sync(topdown(engine, window).rerank("q", order, texts(14)))
    low, high = topdown_calls(14, window)
    assert sorted(result.docids) == sorted(order)
    assert low <= len(engine.finished) == len(result.windows) <= high


def test_topdown_refuses_sizes_without_a_batch():
    with pytest.raises(ValueError, match="window is 1; top-down partitioning needs 2"):
        topdown(FakeEngine(reverse), window=1)


# The table


class TalkingEngine(FakeEngine):
    """Answers prompts of `prompts.py`: window sizes are read off the identifiers."""

    tokenizer = CharTokenizer()
    max_model_len = 100_000

    async def _generate(self, prompt, sampling):
        text = "".join(map(chr, prompt))
        lines = re.findall(r"^\[(\d+)\] (.*)$", text, re.MULTILINE)
        self.prompts = [*getattr(self, "prompts", []), text]
        shown = "\n".join(["q", *(line for _, line in lines)])
        return await super()._generate([ord(c) for c in shown], sampling)


CAPS = {"passage_tokens": 20, "query_tokens": 20, "max_length": 5000}


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("n", [0, 1, 4, 9])
def test_every_strategy_makes_the_calls_it_states(name, n):
    engine = TalkingEngine(by_number, logprobs=lambda query, passages: {"true": -int(passages[0]) - 1.0})
    reranker = build(name, engine, **CAPS, window=4, step=2)
    result = reranker.rerank_run_sync({"q": docs(n)}, {"q": "what?"}, texts(n))
    low, high = STRATEGIES[name].calls(n, 4, 2)
    assert low <= result.calls == engine.stats.requests <= high
    assert (low == high) or name == "topdown"
    assert sorted(result.run["q"]) == docs(n)


@pytest.mark.parametrize(
    ("name", "calls"),
    [("sliding", 9), ("direct", 9), ("single", 1), ("full", 1), ("pointwise", 200)],
)
def test_calls_at_the_papers_sizes(name, calls):
    assert STRATEGIES[name].calls(100, 20, 10) == (calls, calls)


def test_the_names_are_those_of_the_profiles():
    field = profiles.Evaluation.model_fields["strategy"].annotation
    assert set(field.__args__) == set(STRATEGIES)
    with pytest.raises(ValueError, match="unknown strategy 'zigzag': expected one of sliding, single"):
        build("zigzag", TalkingEngine(reverse), **CAPS)


def test_direct_asks_for_no_reasoning_and_reads_none():
    engine = TalkingEngine(lambda *_: "<answer> [2] > [1] </answer>")
    result = rank(build("direct", engine, **CAPS), 2)
    assert result.docids == ["d1", "d0"] and result.windows[0].status == "ok"
    assert "<think>" not in engine.prompts[0]
    sliding = rank(build("sliding", engine, **CAPS), 2)
    assert sliding.docids == ["d0", "d1"] and sliding.windows[0].status == "truncated"


@pytest.mark.parametrize(
    ("text", "status", "ranking", "reasoning"),
    [
        ("<answer> [2] > [1] </answer>", "ok", [2, 1], ""),
        ("Sure. [1]: <answer>[2] > [1]</answer>", "ok", [2, 1], ""),
        ("<answer> [2] </answer>", "repaired", [2, 1], ""),
        ("<answer> [2] > [1]", "truncated", [1, 2], ""),
        ("[2] > [1] </answer>", "malformed", [1, 2], ""),
        ("[2] > [1]", "malformed", [1, 2], ""),
        ("<think> hm </think> <answer> [2] > [1] </answer>", "ok", [2, 1], "hm"),
        ("<think> <answer> [2] > [1] </answer>", "truncated", [1, 2], "<answer> [2] > [1] </answer>"),
    ],
)
def test_answers_without_reasoning(text, status, ranking, reasoning):
    answer = parse(text, 2, reasoning=False)
    assert (answer.status, answer.ranking, answer.reasoning) == (status, ranking, reasoning)
