"""The rerankers around a fake engine: order, bounds, unfinished answers, errors."""

import asyncio
import math
import signal
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.engine import FakeEngine, FakePrompt, by_number, reverse
from reasonrank.engines import GREEDY, EngineError, Sampling
from reasonrank.rerank import run_sync
from reasonrank.rerank.listwise import ListwiseReranker
from reasonrank.rerank.pointwise import PointwiseReranker, verdict_score


def docs(n):
    return [f"d{i}" for i in range(n)]


def texts(n):
    return {f"d{i}": str(i) for i in range(n)}


def listwise(engine, window=4, step=2, **settings):
    return ListwiseReranker(engine, FakePrompt(), window=window, step=step, **settings)


def test_windows_go_from_the_back_and_build_on_each_other():
    result = run_sync(listwise(FakeEngine(reverse)).rerank("q", docs(6), texts(6)))
    first, second = result.windows
    assert (first.start, first.end, first.docids) == (2, 6, ("d2", "d3", "d4", "d5"))
    # [d5 d4 d3 d2] lie at 2..6 now, so the next window is d0 d1 d5 d4.
    assert (second.start, second.end, second.docids) == (0, 4, ("d0", "d1", "d5", "d4"))
    assert result.docids == ["d4", "d5", "d1", "d0", "d3", "d2"]
    assert first.reordered == ["d5", "d4", "d3", "d2"] and first.status == "ok"


@given(st.permutations(range(12)), st.integers(2, 6), st.data())
def test_a_perfect_model_carries_the_best_forward(numbers, window, data):
    step = data.draw(st.integers(1, window - 1))
    order = [f"d{n}" for n in numbers]
    result = run_sync(listwise(FakeEngine(by_number), window, step).rerank("q", order, texts(12)))
    kept = window - step  # as many come through every window
    assert result.docids[:kept] == [f"d{n}" for n in range(11, 11 - kept, -1)]
    assert sorted(result.docids) == sorted(order)


def test_top_and_what_lies_behind_it():
    run = {"a": docs(6), "b": docs(1), "c": []}
    reranked = run_sync(
        listwise(FakeEngine(reverse)).rerank_run(run, dict.fromkeys("abc", "q"), texts(4), top=4)
    )
    assert reranked.run == {"a": ["d3", "d2", "d1", "d0", "d4", "d5"], "b": ["d0"], "c": []}
    assert {qid: len(traces) for qid, traces in reranked.traces.items()} == {"a": 1, "b": 0, "c": 0}


def test_counts_tokens_and_progress():
    seen = []
    engine = FakeEngine(reverse)
    run = {"a": docs(6), "b": docs(4)}
    reranked = listwise(engine).rerank_run_sync(
        run, {"a": "qa", "b": "qb"}, texts(6), progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert reranked.counts == {"ok": 3} and reranked.calls == 3
    assert reranked.prompt_tokens == 3 * len("qa\n0\n1\n2\n3")
    assert reranked.output_tokens == 9
    assert 0 < reranked.engine_seconds <= reranked.seconds


@pytest.mark.parametrize(
    ("text", "status", "order"),
    [
        ("<think> [3] > [1] and on and on", "truncated", ["d0", "d1", "d2"]),
        ("<think> . </think> <answer> [3] > [1]", "truncated", ["d0", "d1", "d2"]),
        ("I cannot rank 3, 2 and 1.", "malformed", ["d0", "d1", "d2"]),
        ("", "malformed", ["d0", "d1", "d2"]),
        ("<think> . </think> <answer> [3] > [3] > [9] </answer>", "repaired", ["d2", "d0", "d1"]),
    ],
)
def test_unfinished_answers_keep_the_order(text, status, order):
    reranker = listwise(FakeEngine(lambda *_: text))
    reranked = reranker.rerank_run_sync({"q": docs(3)}, {"q": "q"}, texts(3))
    assert reranked.run == {"q": order}
    assert reranked.counts == {status: 1}


def test_each_query_goes_on_by_itself():
    """Two fast queries finish all their windows while the first window of the slow one is under way."""
    engine = FakeEngine(reverse, delay=lambda query: 200 if query == "slow" else 1)
    run = {"1": docs(8), "2": docs(8), "3": docs(8)}
    listwise(engine).rerank_run_sync(run, {"1": "slow", "2": "fast", "3": "swift"}, texts(8))
    assert engine.finished[:6].count("slow") == 0
    assert engine.finished[6:] == ["slow"] * 3


@pytest.mark.parametrize(("bound", "seen"), [(1, 1), (5, 5), (64, 20)])
def test_requests_in_flight_are_bounded(bound, seen):
    engine = FakeEngine(reverse, delay=lambda query: len(query))
    run = {str(n): docs(6) for n in range(20)}
    queries = {qid: "q" * (int(qid) + 3) for qid in run}
    result = listwise(engine, max_in_flight=bound).rerank_run_sync(run, queries, texts(6))
    assert engine.most_in_flight == seen
    assert len(engine.finished) == 40 and list(result.run) == list(run)


def test_an_error_ends_all_queries_and_is_raised_as_it_is():
    def answer(query, passages, sampling):
        return EngineError("lost") if query == "bad" else reverse(query, passages, sampling)

    engine = FakeEngine(answer, delay=lambda query: 2 if query == "bad" else 1000)
    with pytest.raises(EngineError, match="lost"):
        listwise(engine).rerank_run_sync({"1": docs(4), "2": docs(4)}, {"1": "good", "2": "bad"}, texts(4))
    assert engine.cancelled == 1 and engine.in_flight == 0


def test_cancellation_reaches_the_engine():
    engine = FakeEngine(reverse, delay=lambda query: 10**9)

    async def start_and_cancel():
        task = asyncio.create_task(
            listwise(engine).rerank_run({"1": docs(4), "2": docs(4)}, {"1": "a", "2": "b"}, texts(4))
        )
        while engine.in_flight < 2:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_sync(start_and_cancel())
    assert engine.cancelled == 2 and engine.in_flight == 0


def test_missing_texts_are_named_before_any_generation():
    engine = FakeEngine(reverse)
    with pytest.raises(KeyError, match="query 'q2': no text for document 'd4'"):
        listwise(engine).rerank_run_sync({"q1": docs(4), "q2": docs(5)}, {"q1": "a", "q2": "b"}, texts(4))
    with pytest.raises(KeyError, match="query 'q2' is in the run, but has no text"):
        listwise(engine).rerank_run_sync({"q2": docs(5)}, {"q1": "a"}, texts(5))
    assert engine.finished == []


@pytest.mark.parametrize(
    "wrong", [{"strategy": "zigzag"}, {"window": 0}, {"step": 5}, {"step": 0}, {"max_in_flight": 0}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=r"zigzag|size|step|max_in_flight"):
        listwise(FakeEngine(reverse), **wrong)
    with pytest.raises(ValueError, match="top is 0"):
        listwise(FakeEngine(reverse)).rerank_run_sync({}, {}, {}, top=0)


def test_outputs_end_at_the_answer_unless_told_otherwise():
    engine = FakeEngine(reverse)
    listwise(engine).rerank_run_sync({"q": docs(2)}, {"q": "q"}, texts(2))
    listwise(engine, sampling=Sampling(stop=("\n\n",))).rerank_run_sync({"q": docs(2)}, {"q": "q"}, texts(2))
    assert [sampling.stop for sampling in engine.samplings] == [("</answer>",), ("\n\n",)]


def test_run_sync_inside_a_running_loop_as_in_a_notebook():
    async def cell():
        return run_sync(listwise(FakeEngine(reverse)).rerank("q", docs(3), texts(3)))

    assert asyncio.run(cell()).docids == ["d2", "d1", "d0"]

    async def failing():
        raise LookupError("inside")

    async def failing_cell():
        run_sync(failing())

    with pytest.raises(LookupError, match="inside"):
        asyncio.run(failing_cell())


def test_an_interrupt_cancels_the_work_first():
    """Ctrl-C in a notebook: the cell's thread waits in `run_sync`, in a loop that takes no signals itself."""
    engine = FakeEngine(reverse, delay=lambda query: 10**6)
    found = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # ignored where started in the background

    async def cell():
        run_sync(listwise(engine).rerank("q", docs(3), texts(3)))

    loop = asyncio.new_event_loop()
    main = threading.main_thread().ident
    threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(cell())
    finally:
        signal.signal(signal.SIGINT, found)
        loop.close()
    assert engine.cancelled == 1 and engine.in_flight == 0


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
    reranker = PointwiseReranker(engine, FakePrompt(), sampling=GREEDY)
    result = reranker.rerank_run_sync({"q": docs(4)}, {"q": "q"}, texts(4))
    assert result.run == {"q": ["d1", "d2", "d3", "d0"]}
    assert [trace.score for trace in result.traces["q"]] == pytest.approx([0.25, 0.75, 0.75, 0.5])
    assert result.counts == {"truncated": 1, "ok": 2, "undecided": 1}
    assert result.calls == 8 == len(engine.samplings)
    assert result.traces["q"][0].text == "<think> hm</think>"
    assert engine.samplings[0].stop == ("</think>",)


def test_verdict_score():
    assert verdict_score({" true": math.log(0.6), "true": math.log(0.1), " false": math.log(0.3)}) == (
        pytest.approx(0.7)
    )
    assert verdict_score({" false": -0.1, "x": -3.0}) == 0.0
    assert verdict_score({"untrue": -0.1}) is None
