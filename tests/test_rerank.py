"""The rerankers around a fake engine: windows, order, bounds, unfinished answers, errors; and strategies by name."""

import asyncio
import math
import re
import signal
import threading
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.engine import FakeEngine, FakePrompt, by_number, reverse
from fakes.tokenizer import CharTokenizer
from reasonrank import profiles
from reasonrank.engines import GREEDY, QWEN3, EngineError, Sampling
from reasonrank.prompts import Rendered
from reasonrank.rerank import run_sync, windows
from reasonrank.rerank.listwise import ListwiseReranker, answer_pattern, second_try
from reasonrank.rerank.pointwise import PointwiseReranker, verdict_score
from reasonrank.rerank.strategies import STRATEGIES, build
from reasonrank.rerank.topdown import TopDownReranker, topdown_calls


def docs(n):
    return [f"d{i}" for i in range(n)]


def texts(n):
    return {f"d{i}": str(i) for i in range(n)}


def listwise(engine, window=4, step=2, prompt=None, **options):
    return ListwiseReranker(engine, prompt or FakePrompt(), window=window, step=step, **options)


def topdown(engine, window=4, **options):
    return TopDownReranker(engine, FakePrompt(), window=window, **options)


def rank(reranker, n):
    return run_sync(reranker.rerank("q", docs(n), texts(n)))


# The schedule


@given(n=st.integers(0, 200), size=st.integers(1, 40), data=st.data())
@settings(max_examples=300, deadline=None)
def test_every_schedule_follows_the_rule(n, size, data):
    """Window k is [max(0, N - w - k * s), N - k * s); the first that starts at 0 is the last."""
    step = data.draw(st.integers(1, size))
    count = 1 + max(0, -(-(n - size) // step)) if n else 0
    expected = [(max(0, n - size - k * step), n - k * step) for k in range(count)]
    assert windows(n, size, step) == expected
    assert windows(n, size, step, "released") == (expected if n != size - step else [])
    assert {place for start, end in expected for place in range(start, end)} == set(range(n))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 20, 10), "num_candidates is -1"),
        ((10, 0, 1), "size is 0"),
        ((10, 5, 0), "step is 0"),
        ((10, 5, 6), "step is 6; expected 1 to 5"),
        ((10, 5, 5, "theirs"), "variant is 'theirs'"),
    ],
)
def test_sizes_that_make_no_schedule(arguments, message):
    with pytest.raises(ValueError, match=message):
        windows(*arguments)


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
    step = 2 if strategy == "sliding" else 99  # no other takes one
    result = rank(listwise(FakeEngine(reverse), step=step, strategy=strategy), n)
    assert [(trace.start, trace.end) for trace in result.windows] == places
    assert sorted(result.docids) == docs(n)


# Listwise


def test_windows_go_from_the_back_and_build_on_each_other():
    result = rank(listwise(FakeEngine(reverse)), 6)
    first, second = result.windows
    assert (first.start, first.end, first.docids) == (2, 6, ("d2", "d3", "d4", "d5"))
    # [d5 d4 d3 d2] lie at 2..6 now, so the next window is d0 d1 d5 d4.
    assert (second.start, second.end, second.docids) == (0, 4, ("d0", "d1", "d5", "d4"))
    assert result.docids == ["d4", "d5", "d1", "d0", "d3", "d2"]
    assert first.reordered == ["d5", "d4", "d3", "d2"] and first.status == "ok"


def test_counts_progress_and_what_lies_behind_the_top():
    seen, done = [], []
    run = {"a": docs(6), "b": docs(1), "c": []}
    result = listwise(FakeEngine(reverse)).rerank_run_sync(
        run,
        dict.fromkeys("abc", "qa"),
        texts(4),
        top=4,
        progress=lambda *now: seen.append(now),
        finished=lambda qid, one: done.append((qid, one.docids)),
    )
    assert result.run == {"a": ["d3", "d2", "d1", "d0", "d4", "d5"], "b": ["d0"], "c": []}
    assert (seen, sorted(done)) == ([(1, 1)], [("a", ["d3", "d2", "d1", "d0"]), ("b", ["d0"]), ("c", [])])
    assert (result.counts, result.calls, result.output_tokens) == ({"ok": 1}, 1, 3)
    assert result.prompt_tokens == len("qa\n0\n1\n2\n3") and 0 < result.engine_seconds <= result.seconds


def test_outputs_end_at_the_answer_behind_the_reasoning_unless_told_otherwise():
    engine = FakeEngine(reverse)
    for prompt in (FakePrompt(), FakePrompt(chain=False)):
        rank(listwise(engine, prompt=prompt), 2)
    rank(listwise(engine, sampling=Sampling(stop=("\n\n",))), 2)
    stops = [(sampling.stop, sampling.chain) for sampling in engine.samplings]
    assert stops == [(("</answer>",), True), (("</answer>",), False), (("\n\n",), None)]


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("<answer> [2] > [1] </answer>", "ok"),
        ("<answer> [2] </answer>", "repaired"),
    ],
)
def test_what_the_prompt_closed_counts_as_closed(text, status):
    """A chat template that ends with `<think> </think>`, thinking switched off."""
    trace = rank(
        listwise(FakeEngine(lambda *_: text), prompt=FakePrompt(chain=False), retry=True), 2
    ).windows[0]
    assert (trace.status, trace.attempts, trace.reordered) == (status, 1, ["d1", "d0"])


# Many queries at once


def test_each_query_goes_on_by_itself():
    """Two fast queries finish all their windows while the first window of the slow one is under way."""
    engine, done = FakeEngine(reverse, delay=lambda query: 200 if query == "slow" else 1), []
    run = {"1": docs(8), "2": docs(8), "3": docs(8)}
    queries = {"1": "slow", "2": "fast", "3": "swift"}
    listwise(engine).rerank_run_sync(run, queries, texts(8), finished=lambda qid, _: done.append(qid))
    assert engine.finished[:6].count("slow") == 0 and engine.finished[6:] == ["slow"] * 3
    assert done[-1] == "1"


@pytest.mark.parametrize(("bound", "seen"), [(1, 1), (5, 5), (64, 20)])
def test_requests_in_flight_are_bounded(bound, seen):
    engine = FakeEngine(reverse, delay=lambda query: len(query))
    run = {str(n): docs(6) for n in range(20)}
    queries = {qid: "q" * (int(qid) + 3) for qid in run}
    result = listwise(engine, max_in_flight=bound).rerank_run_sync(run, queries, texts(6))
    assert engine.most_in_flight == seen
    assert len(engine.finished) == 40 and list(result.run) == list(run)


@pytest.mark.parametrize(
    ("error", "message"), [(EngineError("lost"), "^lost$"), (ValueError("long"), "^query '2': long$")]
)
def test_an_error_ends_all_queries_and_is_raised(error, message):
    engine = FakeEngine(
        lambda query, *rest: error if query == "bad" else reverse(query, *rest),
        delay=lambda query: 2 if query == "bad" else 1000,
    )
    with pytest.raises(type(error), match=message):
        listwise(engine).rerank_run_sync({"1": docs(4), "2": docs(4)}, {"1": "good", "2": "bad"}, texts(4))
    assert engine.cancelled == 1 and engine.in_flight == 0


def test_what_is_missing_or_wrong_is_named_before_any_generation():
    engine = FakeEngine(reverse)
    with pytest.raises(KeyError, match="query 'q2': no text for document 'd4'"):
        listwise(engine).rerank_run_sync({"q1": docs(4), "q2": docs(5)}, {"q1": "a", "q2": "b"}, texts(4))
    with pytest.raises(KeyError, match="query 'q2' is in the run, but has no text"):
        listwise(engine).rerank_run_sync({"q2": docs(5)}, {"q1": "a"}, texts(5))
    with pytest.raises(ValueError, match="top is 0"):
        listwise(engine).rerank_run_sync({}, {}, {}, top=0)
    for wrong in ({"strategy": "zigzag"}, {"window": 0}, {"step": 5}, {"max_in_flight": 0}):
        with pytest.raises(ValueError, match=r"zigzag|size|step|max_in_flight"):
            listwise(engine, **wrong)
    assert engine.finished == []


def test_run_sync_inside_a_running_loop_as_in_a_notebook():
    async def cell(coroutine):
        return run_sync(coroutine)

    async def failing():
        raise LookupError("inside")

    reranked = asyncio.run(cell(listwise(FakeEngine(reverse)).rerank("q", docs(3), texts(3))))
    assert reranked.docids == ["d2", "d1", "d0"]
    with pytest.raises(LookupError, match="inside"):
        asyncio.run(cell(failing()))


def test_an_interrupt_cancels_the_work_first():
    """Ctrl-C in a notebook: the cell's thread waits in `run_sync`, in a loop that takes no signals itself."""
    engine = FakeEngine(reverse, delay=lambda query: 10**6)
    # It is ignored where tests run in the background.
    found = signal.signal(signal.SIGINT, signal.default_int_handler)

    async def cell():
        run_sync(listwise(engine).rerank("q", docs(3), texts(3)))

    loop = asyncio.new_event_loop()
    threading.Timer(0.3, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(cell())
    finally:
        signal.signal(signal.SIGINT, found)
        loop.close()
    assert engine.cancelled == 1 and engine.in_flight == 0


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
    assert (trace.status, trace.calls, trace.attempts, trace.answer.reasoning) == ("ok", 2, 1, "why")
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


# Pointwise


def test_pointwise_scores_sorts_and_keeps_ties_in_order():
    scores = {"0": (0.2, 0.6), "1": (0.3, 0.1), "2": (0.3, 0.1), "3": (0.0, 0.0)}

    def logprobs(query, passages):
        yes, no = scores[passages[0]]
        tops = {"\n": math.log(0.1)}
        return tops | ({" true": math.log(yes), "False": math.log(no)} if yes else {})

    def answer(query, passages, sampling):
        return "" if sampling.logprobs else "<think> hm </think>" if passages[0] != "0" else "<think> hm"

    engine = FakeEngine(answer, logprobs=logprobs)
    # The fake engine reads the second prompt back too: its last passage holds the reasoning behind a digit.
    scores |= {f"{d}<think> hm </think>": v for d, v in scores.items()}
    scores["0<think> hm</think>"] = scores["0"]
    result = PointwiseReranker(engine, FakePrompt()).rerank_run_sync({"q": docs(4)}, {"q": "q"}, texts(4))
    assert result.run == {"q": ["d1", "d2", "d3", "d0"]}
    assert [trace.score for trace in result.traces["q"]] == pytest.approx([0.25, 0.75, 0.75, 0.5])
    assert result.counts == {"truncated": 1, "ok": 2, "undecided": 1}
    assert result.calls == 8 == len(engine.samplings)
    assert result.traces["q"][0].text == "<think> hm</think>" and engine.samplings[0].stop == ("</think>",)


def test_a_verdict_alone_where_the_prompt_closed_the_reasoning():
    engine = FakeEngine(
        lambda *_: "", logprobs=lambda query, passages: {"true": -int(passages[0]) - 1.0, "false": -2.0}
    )
    result = rank(PointwiseReranker(engine, FakePrompt(chain=False)), 3)
    assert result.docids == docs(3) and [(t.calls, t.status) for t in result.windows] == [(1, "ok")] * 3


def test_verdict_score():
    tops = {" true": math.log(0.6), "true": math.log(0.1), " false": math.log(0.3)}
    assert verdict_score(tops) == pytest.approx(0.7)
    assert verdict_score({" false": -0.1, "x": -3.0}) == 0.0
    assert verdict_score({"untrue": -0.1}) is None


# Top-down partitioning


def test_topdown_worked_out_by_hand():
    """w = 4, k = 2, a model that puts high numbers first, documents d0 to d9."""
    seen = []
    reranker = topdown(FakeEngine(by_number))
    result = reranker.rerank_run_sync(
        {"q": docs(10)}, {"q": "q"}, texts(10), progress=lambda *now: seen.append(now)
    )
    asked = [(trace.start, trace.end, list(trace.docids)) for trace in result.traces["q"]]
    assert asked == [
        (0, 4, ["d0", "d1", "d2", "d3"]),  # d3 > d2 > d1 > d0: the pivot is d2
        (4, 7, ["d2", "d4", "d5", "d6"]),  # all three beat it
        (7, 10, ["d2", "d7", "d8", "d9"]),
        (0, 4, ["d3", "d6", "d5", "d4"]),  # the first four candidates; d9, d8, d7 are past the budget
    ]
    assert result.run["q"] == ["d6", "d5", "d4", "d3", "d9", "d8", "d7", "d2", "d1", "d0"]
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_topdown_stops_where_nothing_beats_the_pivot():
    """The documents stand in their best order already: one window and its batches, and nothing moves."""
    seen, order = [], docs(10)[::-1]
    result = topdown(FakeEngine(by_number)).rerank_run_sync(
        {"q": order}, {"q": "q"}, texts(10), progress=lambda *now: seen.append(now)
    )
    assert result.run["q"] == order and seen == [(1, 4), (2, 4), (3, 4), (3, 3)]  # one answer was spared
    unfinished = rank(topdown(FakeEngine(lambda *_: "no answer")), 10)
    assert unfinished.docids == docs(10) and [t.status for t in unfinished.windows] == ["malformed"] * 3


@pytest.mark.parametrize(("bound", "seen"), [(64, 3), (2, 2)])
def test_batches_of_a_query_run_side_by_side_under_the_bound(bound, seen):
    engine = FakeEngine(reverse)
    rank(topdown(engine, max_in_flight=bound), 13)
    assert engine.most_in_flight == seen


# Strategies by name


class TalkingEngine(FakeEngine):
    """Answers prompts of `prompts.py`: window sizes are read off the identifiers."""

    tokenizer, max_model_len = CharTokenizer(), 100_000

    async def _generate(self, prompt, sampling):
        text = "".join(map(chr, prompt))
        lines = re.findall(r"^\[(\d+)\] (.*)$", text, re.MULTILINE)
        self.prompts = [*getattr(self, "prompts", []), text]
        return await super()._generate(
            [ord(c) for c in "\n".join(["q", *(line for _, line in lines)])], sampling
        )


CAPS = {"passage_tokens": 20, "query_tokens": 20, "max_length": 5000}


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("n", [0, 1, 4, 9])
def test_every_strategy_makes_the_calls_it_states(name, n):
    engine = TalkingEngine(by_number, logprobs=lambda query, passages: {"true": -int(passages[0]) - 1.0})
    result = build(name, engine, **CAPS, window=4, step=2).rerank_run_sync(
        {"q": docs(n)}, {"q": "?"}, texts(n)
    )
    low, high = STRATEGIES[name].calls(n, 4, 2)
    assert low <= result.calls == engine.stats.requests <= high
    assert (low == high) or name == "topdown"
    assert sorted(result.run["q"]) == docs(n)


def test_calls_at_the_papers_sizes():
    calls = {name: strategy.calls(100, 20, 10) for name, strategy in STRATEGIES.items()}
    assert calls == {
        "sliding": (9, 9),
        "single": (1, 1),
        "full": (1, 1),
        "topdown": (6, 7),
        "pointwise": (200, 200),
        "direct": (9, 9),
    }
    assert [topdown_calls(n, 20) for n in (0, 1, 20, 21)] == [(0, 0), (0, 0), (1, 1), (2, 3)]
    with pytest.raises(ValueError, match="window is 1; top-down partitioning needs 2"):
        topdown_calls(10, 1)


def test_the_names_are_those_of_the_profiles():
    field = profiles.Evaluation.model_fields["strategy"].annotation
    assert set(field.__args__) == set(STRATEGIES)
    with pytest.raises(ValueError, match="unknown strategy 'zigzag': expected one of sliding, single"):
        build("zigzag", TalkingEngine(reverse), **CAPS)


def test_direct_asks_for_no_reasoning_and_reads_none():
    engine = TalkingEngine(lambda *_: "<answer> [2] > [1] </answer>")
    direct = rank(build("direct", engine, **CAPS), 2)
    assert direct.docids == ["d1", "d0"] and direct.windows[0].status == "ok"
    assert "<think>" not in engine.prompts[0]
    sliding = rank(build("sliding", engine, **CAPS), 2)
    assert sliding.docids == ["d0", "d1"] and sliding.windows[0].status == "truncated"
