"""Policies of the rerankers: unfinished answers, constrained answers, what was cut, and what is told meanwhile."""

import asyncio
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.engine import FakeEngine, FakePrompt, by_number, reverse
from reasonrank.engines import GREEDY, QWEN3
from reasonrank.prompts import Rendered
from reasonrank.rerank import run_sync
from reasonrank.rerank.listwise import ListwiseReranker, answer_pattern, second_try
from reasonrank.rerank.pointwise import PointwiseReranker
from reasonrank.rerank.topdown import TopDownReranker


def docs(n):
    return [f"d{i}" for i in range(n)]


def texts(n):
    return {f"d{i}": str(i) for i in range(n)}


def rank(reranker, n):
    return run_sync(reranker.rerank("q", docs(n), texts(n)))


# A second try


def recovering(query, passages, sampling):
    """A model that rambles when it decodes greedily."""
    return reverse(query, passages, sampling) if sampling.temperature else "<think> and on and on"


def test_a_second_try_has_another_seed_and_is_counted():
    engine = FakeEngine(recovering)
    reranker = ListwiseReranker(engine, FakePrompt(), sampling=replace(GREEDY, seed=7), retry=True)
    result = reranker.rerank_run_sync({"q": docs(3)}, {"q": "q"}, texts(3))
    trace = result.traces["q"][0]
    assert result.run == {"q": ["d2", "d1", "d0"]} and result.counts == {"ok": 1}
    assert (trace.attempts, trace.calls, trace.output_tokens, result.retries, result.calls) == (2, 2, 6, 1, 2)
    first, second = engine.samplings
    assert (first.temperature, first.seed) == (0.0, 7)
    assert (second.temperature, second.top_p, second.top_k, second.seed) == (0.6, 0.95, 20, 8)
    assert second.stop == first.stop and second.max_tokens == first.max_tokens


@pytest.mark.parametrize("text", ["<think> on and on", "nothing"])
def test_a_second_try_that_fails_too_keeps_the_order(text):
    reranker = ListwiseReranker(FakeEngine(lambda *_: text), FakePrompt(), retry=True)
    result = reranker.rerank_run_sync({"q": docs(3)}, {"q": "q"}, texts(3))
    assert result.run == {"q": docs(3)} and result.retries == 1 and sum(result.counts.values()) == 1


def test_finished_answers_are_not_asked_for_again():
    reranker = ListwiseReranker(FakeEngine(reverse), FakePrompt(), retry=True)
    result = reranker.rerank_run_sync({"q": docs(3)}, {"q": "q"}, texts(3))
    assert (result.calls, result.retries) == (1, 0)


def test_sampled_requests_keep_their_sampling():
    assert second_try(replace(QWEN3, temperature=1.0, seed=None)) == replace(QWEN3, temperature=1.0, seed=1)


# Constrained answers


class ConstrainedEngine(FakeEngine):
    constraints = True


def held(query, passages, sampling):
    """Reasons freely; under a constraint it names the passages from the last to the first."""
    if sampling.constraint is None:
        return "<think> why </think>"
    return " [3] > [2] > [1] </answer>"


def test_only_the_answer_is_constrained():
    engine = ConstrainedEngine(held)
    sampling = replace(GREEDY, max_tokens=200)
    reranker = ListwiseReranker(engine, FakePrompt(), sampling=sampling, constrained=True)
    trace = rank(reranker, 3).windows[0]
    assert trace.text == "<think> why </think> <answer> [3] > [2] > [1] </answer>"
    assert (trace.status, trace.calls, trace.attempts, trace.answer.reasoning) == ("ok", 2, 1, "why")
    free, constrained = engine.samplings
    room = len(" <answer> [3] > [3] > [3] </answer>") + 3
    assert (free.stop, free.constraint, free.max_tokens) == (("</think>",), None, 200 - room)
    assert constrained.constraint == answer_pattern(3) and constrained.max_tokens == room
    assert trace.prompt_tokens == len("q\n0\n1\n2") and trace.output_tokens == 6


def test_reasoning_that_meets_its_limit_stays_truncated():
    engine = ConstrainedEngine(lambda *_: "<think> on and on")
    reranker = ListwiseReranker(engine, FakePrompt(), constrained=True)
    trace = rank(reranker, 3).windows[0]
    assert (trace.status, trace.calls) == ("truncated", 1)


def test_a_direct_answer_is_constrained_from_its_start():
    engine = ConstrainedEngine(held)
    trace = rank(ListwiseReranker(engine, FakePrompt(chain=False), constrained=True), 3).windows[0]
    assert trace.text == "<answer> [3] > [2] > [1] </answer>"
    assert (trace.status, trace.calls, trace.reordered) == ("ok", 1, ["d2", "d1", "d0"])


def test_engines_that_cannot_constrain_say_so():
    with pytest.raises(ValueError, match="the fake engine cannot hold its output"):
        rank(ListwiseReranker(FakeEngine(held), FakePrompt(), constrained=True), 3)


@given(st.integers(1, 12), st.data())
def test_the_pattern_takes_every_permutation_and_no_foreign_identifier(n, data):
    order = data.draw(st.permutations(range(1, n + 1)))
    answer = " " + " > ".join(f"[{i}]" for i in order) + " </answer>"
    assert re.fullmatch(answer_pattern(n), answer)
    for wrong in (answer.replace(f"[{n}]", f"[{n + 1}]"), answer.replace(f"[{n}]", "[0]"), answer + " ."):
        assert not re.fullmatch(answer_pattern(n), wrong)
    if n > 1:
        assert not re.fullmatch(answer_pattern(n), " [1] </answer>")


# What was cut, progress, results as they come


class CuttingPrompt(FakePrompt):
    """Says that it cut the passages with an even number."""

    def render(self, query, passages):
        cut = tuple(place for place, passage in enumerate(passages) if int(passage) % 2 == 0)
        return Rendered(super().render(query, passages).ids, 5, len(passages) > 3, cut, query == "long")


def test_cuts_are_counted_once_for_each_document():
    reranker = ListwiseReranker(FakeEngine(reverse), CuttingPrompt(), window=4, step=2)
    run = {"a": docs(6), "b": docs(3)}
    result = reranker.rerank_run_sync(run, {"a": "long", "b": "short"}, texts(6))
    first = result.traces["a"][0]
    assert (first.cut, first.shortened, first.query_cut) == (("d2", "d4"), True, True)
    assert (result.shortened, result.capped_passages, result.capped_queries) == (2, 3 + 2, 1)


def test_pointwise_counts_cuts_too():
    tops = {"true": -1.0}
    engine = FakeEngine(lambda *_: "<think> </think>", logprobs=lambda *_: tops)
    result = PointwiseReranker(engine, CuttingPrompt()).rerank_run_sync({"q": docs(3)}, {"q": "q"}, texts(3))
    assert (result.capped_passages, result.shortened, result.retries, result.calls) == (2, 0, 0, 6)


def test_progress_ends_at_its_total_where_answers_are_spared():
    seen = []
    run = {"q": docs(10)[::-1]}
    TopDownReranker(FakeEngine(by_number), FakePrompt(), window=4).rerank_run_sync(
        run, {"q": "q"}, texts(10), progress=lambda *now: seen.append(now)
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (3, 3)]


def test_queries_are_handed_over_as_they_finish():
    order = []
    engine = FakeEngine(reverse, delay=lambda query: 100 if query == "slow" else 1)
    reranker = ListwiseReranker(engine, FakePrompt(), window=4, step=2)
    run = {"1": docs(6), "2": docs(6)}

    async def go():
        finished = lambda qid, result: order.append((qid, result.docids))  # noqa: E731
        return await reranker.rerank_run(run, {"1": "slow", "2": "fast"}, texts(6), top=4, finished=finished)

    result = asyncio.run(go())
    assert order == [("2", ["d3", "d2", "d1", "d0"]), ("1", ["d3", "d2", "d1", "d0"])]
    assert result.run["1"] == ["d3", "d2", "d1", "d0", "d4", "d5"]
