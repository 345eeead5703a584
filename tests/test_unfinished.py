"""Answers that are not whole: asked for again, held to their form; and what is cut from a prompt."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.engine import FakeEngine, FakePrompt, reverse
from fakes.rerankers import docs, listwise, rank, texts
from reasonrank.engines import GREEDY, QWEN3
from reasonrank.prompts import Rendered
from reasonrank.rerank.listwise import answer_pattern, second_try
from reasonrank.rerank.pointwise import PointwiseReranker

# A second try


def recovering(query, passages, sampling):
    """A model that rambles when it decodes greedily."""
    return reverse(query, passages, sampling) if sampling.temperature else "<think> and on and on"


def test_a_second_try_has_another_seed_and_is_counted():
    engine = FakeEngine(recovering)
    reranker = listwise(engine, sampling=replace(GREEDY, seed=7), retry=True)
    result = reranker.rerank_run_sync({"q": docs(3)}, {"q": "q"}, texts(3))
    trace = result.traces["q"][0]
    assert result.run == {"q": ["d2", "d1", "d0"]} and result.counts == {"ok": 1}
    assert (trace.attempts, trace.calls, trace.output_tokens, result.retries, result.calls) == (2, 2, 6, 1, 2)
    first, second = engine.samplings
    assert (first.temperature, first.seed) == (0.0, 7)
    assert (second.temperature, second.top_p, second.top_k, second.seed) == (0.6, 0.95, 20, 8)
    assert second.stop == first.stop and second.max_tokens == first.max_tokens
    assert second_try(replace(QWEN3, temperature=1.0, seed=None)) == replace(QWEN3, temperature=1.0, seed=1)


@pytest.mark.parametrize(("text", "attempts"), [("<think> on and on", 2), ("nothing", 2), (None, 1)])
def test_only_unfinished_answers_are_asked_for_again(text, attempts):
    engine = FakeEngine(reverse if text is None else lambda *_: text)
    trace = rank(listwise(engine, retry=True), 3).windows[0]
    assert trace.attempts == attempts and (trace.reordered == docs(3)) == (text is not None)


# Constrained answers


class ConstrainedEngine(FakeEngine):
    """Reasons freely; under a constraint it names the passages from the last to the first."""

    constraints = True

    def __init__(self, chain="<think> why </think>"):
        held = " [3] > [2] > [1] </answer>"
        super().__init__(lambda query, passages, sampling: held if sampling.constraint else chain)


def test_only_the_answer_is_constrained():
    engine = ConstrainedEngine()
    trace = rank(listwise(engine, sampling=replace(GREEDY, max_tokens=200), constrained=True), 3).windows[0]
    assert trace.text == "<think> why </think> <answer> [3] > [2] > [1] </answer>"
    assert (trace.status, trace.calls, trace.attempts) == ("ok", 2, 1)
    free, constrained = engine.samplings
    room = len(" <answer> [3] > [3] > [3] </answer>") + 3
    assert (free.stop, free.constraint, free.max_tokens) == (("</think>",), None, 200 - room)
    assert constrained.constraint == answer_pattern(3) and constrained.max_tokens == room
    assert trace.prompt_tokens == len("q\n0\n1\n2") and trace.output_tokens == 6


def test_constrained_answers_without_reasoning_without_an_end_and_without_an_engine_that_can():
    direct = rank(listwise(ConstrainedEngine(), prompt=FakePrompt(chain=False), constrained=True), 3).windows[
        0
    ]
    assert direct.text == "<answer> [3] > [2] > [1] </answer>"
    assert (direct.status, direct.calls, direct.reordered) == ("ok", 1, ["d2", "d1", "d0"])
    endless = rank(listwise(ConstrainedEngine("<think> on and on"), constrained=True), 3).windows[0]
    assert (endless.status, endless.calls) == ("truncated", 1)
    with pytest.raises(ValueError, match="the fake engine cannot hold its output"):
        rank(listwise(FakeEngine(reverse), prompt=FakePrompt(chain=False), constrained=True), 3)


@given(st.integers(1, 12), st.data())
def test_the_pattern_takes_every_permutation_and_no_foreign_identifier(n, data):
    order = data.draw(st.permutations(range(1, n + 1)))
    answer = " " + " > ".join(f"[{i}]" for i in order) + " </answer>"
    assert re.fullmatch(answer_pattern(n), answer)
    for wrong in (answer.replace(f"[{n}]", f"[{n + 1}]"), answer.replace(f"[{n}]", "[0]"), answer + " ."):
        assert not re.fullmatch(answer_pattern(n), wrong)
    assert n == 1 or not re.fullmatch(answer_pattern(n), " [1] </answer>")


# What was cut


class CuttingPrompt(FakePrompt):
    """Says that it cut the passages with an even number."""

    def render(self, query, passages):
        cut = tuple(place for place, passage in enumerate(passages) if int(passage) % 2 == 0)
        return Rendered(super().render(query, passages).ids, 5, len(passages) > 3, cut, query == "long")


def test_cuts_are_counted_once_for_each_document():
    run, queries = {"a": docs(6), "b": docs(3)}, {"a": "long", "b": "short"}
    result = listwise(FakeEngine(reverse), prompt=CuttingPrompt()).rerank_run_sync(run, queries, texts(6))
    first = result.traces["a"][0]
    assert (first.cut, first.shortened, first.query_cut) == (("d2", "d4"), True, True)
    assert (result.shortened, result.capped_passages, result.capped_queries) == (2, 3 + 2, 1)
    engine = FakeEngine(lambda *_: "<think> </think>", logprobs=lambda *_: {"true": -1.0})
    point = PointwiseReranker(engine, CuttingPrompt()).rerank_run_sync({"q": docs(3)}, {"q": "q"}, texts(3))
    assert (point.capped_passages, point.shortened, point.retries, point.calls) == (2, 0, 0, 6)
