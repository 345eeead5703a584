"""The listwise reranker around a fake engine: windows, order, bounds, errors."""

import asyncio
import signal
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.engine import FakeEngine, FakePrompt, reverse
from fakes.rerankers import docs, listwise, rank, texts
from reasonrank.engines import Completion, EngineError, Sampling
from reasonrank.models import load_tokenizer
from reasonrank.prompts import ListwisePrompt
from reasonrank.rerank import run_sync, windows

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
    answered, done = [], []
    run = {"a": docs(6), "b": docs(1), "c": []}
    result = listwise(FakeEngine(reverse)).rerank_run_sync(
        run,
        dict.fromkeys("abc", "qa"),
        texts(4),
        top=4,
        answered=lambda: answered.append(1),
        finished=lambda qid, one: done.append((qid, one.docids)),
    )
    assert result.run == {"a": ["d3", "d2", "d1", "d0", "d4", "d5"], "b": ["d0"], "c": []}
    assert (answered, sorted(done)) == ([1], [("a", ["d3", "d2", "d1", "d0"]), ("b", ["d0"]), ("c", [])])
    assert (result.counts, result.calls, result.output_tokens) == ({"ok": 1}, 1, 3)
    assert result.prompt_tokens == len("qa\n0\n1\n2\n3") and 0 < result.engine_seconds <= result.seconds


def test_outputs_end_at_the_answer_behind_the_reasoning_unless_told_otherwise():
    engine = FakeEngine(reverse)
    for prompt in (FakePrompt(), FakePrompt(chain=False)):
        rank(listwise(engine, prompt=prompt), 2)
    rank(listwise(engine, sampling=Sampling(stop=("\n\n",))), 2)
    stops = [(sampling.stop, sampling.chain) for sampling in engine.samplings]
    assert stops == [(("</answer>",), True), (("</answer>",), False), (("\n\n",), None)]


# Prefetch


def log_of(engine, prompt=None, **options):
    """The requests of one query of eight documents, and what became of them; prompts as text, prefixes marked."""
    result = rank(listwise(engine, prompt=prompt, **options), 8)
    text = lambda ids: "".join(map(chr, ids)).replace("\n", " ")  # noqa: E731
    return result, [(what, text(ids)) for what, ids in engine.log]


def test_the_next_windows_new_passages_are_asked_for_while_an_answer_is_under_way():
    """Windows [4, 8), [2, 6), [0, 4): the prefix of the second prompt holds d2 and d3, of the third d0 and d1."""
    plain, asked = log_of(FakeEngine(reverse, delay=lambda query: 9))
    result, log = log_of(FakeEngine(reverse, delay=lambda query: 9), prefetch=True)
    assert result == plain and [trace.text for trace in result.windows] == [t.text for t in plain.windows]
    prompts = [prompt for what, prompt in asked if what == "asked"]
    assert prompts == ["q 4 5 6 7", "q 2 3 7 6", "q 0 1 6 7"]
    assert log[:3] == [("asked", prompts[0]), ("asked", "q 2 3 "), ("answered", prompts[0])]
    assert [prompt for what, prompt in log if what == "asked"] == [
        *(prompts[0], "q 2 3 ", prompts[1], "q 0 1 ", prompts[2])
    ]
    assert all(after.startswith(ahead) for ahead, after in (("q 2 3 ", prompts[1]), ("q 0 1 ", prompts[2])))


def test_a_prefix_takes_a_slot_is_dropped_when_late_and_its_failure_is_nobodys():
    engine = FakeEngine(reverse, delay=lambda query: 9)
    result, log = log_of(
        engine, prefetch=True, max_in_flight=1
    )  # no slot is free while the answer is under way
    assert engine.most_in_flight == 1 and len(log) == 6 and engine.samplings[0].max_tokens > 1
    fails = FakeEngine(
        lambda q, p, sampling: EngineError("no") if sampling.max_tokens == 1 else reverse(q, p, 0)
    )
    late = FakeEngine(reverse)
    ask = late._generate
    late._generate = lambda ids, sampling: (
        asyncio.sleep(9) if sampling.max_tokens == 1 else ask(ids, sampling)
    )
    for engine in (fails, late):
        assert log_of(engine, prefetch=True)[0] == result
        assert engine.stats["requests"] == 3 and engine.in_flight == 0
    engine.prefixes = False
    with pytest.raises(
        ValueError, match="prefetch: the fake engine keeps no prefixes; expected vllm or openai"
    ):
        listwise(engine, prefetch=True)


class RealPrompts(FakeEngine):
    """Turns windows of 20 around, whatever the prompt says; keeps the prompts."""

    def __init__(self, tokenizer):
        super().__init__(None)
        self.tokenizer, self.asked = tokenizer, []

    async def _generate(self, prompt, sampling):
        self.asked.append(prompt)
        await asyncio.sleep(0 if sampling.max_tokens == 1 else 0.001)
        size = self.tokenizer.decode(prompt).count("Passage ")
        return Completion(reverse("", [""] * size, sampling), (1,), len(prompt), 1, "stop")


@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize(("n", "step"), [(50, 10), (45, 10), (50, 20), (60, 19)])
def test_the_prefix_of_a_real_prompt_holds_all_new_passages(repeat, n, step):
    """With the embedded model's tokens, at whose edges it could split otherwise."""
    tokenizer = load_tokenizer("smollm2-135m-instruct")
    caps = {"passage_tokens": 32, "query_tokens": 32, "max_length": 4000}
    prompt, engine = ListwisePrompt(tokenizer, **caps, repeat=repeat), RealPrompts(tokenizer)
    passages = {f"d{i}": f"Passage {i}: {'tides ' * (i % 5)}{i * 37} m" for i in range(n)}
    reranker = listwise(engine, 20, step, prompt, prefetch=True)
    result = reranker.rerank_run_sync({"q": list(passages)}, {"q": "How high?"}, passages)
    traces = result.traces["q"]
    found = zip(engine.asked[1::2], engine.asked[2::2], traces[:-1], traces[1:], strict=True)
    for prefix, following, before, after in found:
        assert following[: len(prefix)] == prefix
        last = passages[after.docids[before.start - after.start - 1]]
        assert last in tokenizer.decode(prefix)


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


ONE = {"q": docs(3)}, {"q": "q"}, texts(3)


def test_run_sync_inside_a_running_loop_as_in_a_notebook():
    async def cell(coroutine):
        return run_sync(coroutine)

    async def failing():
        raise LookupError("inside")

    reranked = asyncio.run(cell(listwise(FakeEngine(reverse)).rerank_run(*ONE)))
    assert reranked.run["q"] == ["d2", "d1", "d0"]
    with pytest.raises(LookupError, match="inside"):
        asyncio.run(cell(failing()))


def test_an_interrupt_cancels_the_work_first():
    """Ctrl-C in a notebook: the cell's thread waits in `run_sync`, in a loop that takes no signals itself."""
    engine = FakeEngine(reverse, delay=lambda query: 10**6)
    # It is ignored where tests run in the background.
    found = signal.signal(signal.SIGINT, signal.default_int_handler)

    async def cell():
        run_sync(listwise(engine).rerank_run(*ONE))

    loop = asyncio.new_event_loop()
    threading.Timer(0.3, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(cell())
    finally:
        signal.signal(signal.SIGINT, found)
        loop.close()
    assert engine.cancelled == 1 and engine.in_flight == 0
