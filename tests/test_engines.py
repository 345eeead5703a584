"""Engines without a model: settings, where a stop string counts, and the thread that owns a model."""

import asyncio
import threading
import time

import pytest

from fakes.engine import FakeEngine, reverse
from reasonrank.engines import GREEDY, QWEN3, Completion, EngineError, Sampling, open_engine
from reasonrank.engines.base import cut_at_stop
from reasonrank.engines.inprocess import InProcessEngine
from reasonrank.rerank import run_sync


def test_presets_are_the_papers():
    assert (GREEDY.temperature, GREEDY.max_tokens) == (0.0, 3072 + 100)
    assert (QWEN3.temperature, QWEN3.top_p, QWEN3.top_k) == (0.6, 0.95, 20)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": 0},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"stop": "</answer>"},
        {"stop": ("",)},
        {"logprobs": -1},
    ],
)
def test_sampling_refuses_values_out_of_range(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampling(**wrong)


def test_unknown_engine_names_the_known_ones():
    with pytest.raises(
        ValueError, match="unknown engine 'vlm': expected one of auto, vllm, transformers, openai"
    ):
        open_engine("vlm", "smollm2-135m-instruct")


CHAIN = "<think> I end with <answer> </answer>. Bees: 2. </think> <answer> [2] > [1] </answer>"


@pytest.mark.parametrize(
    ("text", "chain", "cut"),
    [
        (CHAIN + " And so on.", True, CHAIN),
        (CHAIN.removeprefix("<think>"), True, CHAIN.removeprefix("<think>")),  # the template opened it
        (CHAIN[:40], True, None),
        ("<answer> [2] </answer> so", True, None),
        ("<answer> [2] </answer> so", False, "<answer> [2] </answer>"),
        ("<answer> [2] </answer> <think>", False, "<answer> [2] </answer>"),
        (CHAIN + " And so on.", False, CHAIN),
        (CHAIN, None, "<think> I end with <answer> </answer>"),
    ],
)
def test_a_stop_string_counts_only_behind_the_reasoning(text, chain, cut):
    assert cut_at_stop(text, Sampling(stop=("never", "</answer>"), chain=chain)) == cut


def test_stats_count_and_subtract():
    engine = FakeEngine(reverse)
    before = engine.stats
    run_sync(engine.generate([ord("q")], GREEDY))
    work = engine.stats - before
    assert (work["requests"], work["prompt_tokens"], work["output_tokens"]) == (1, 1, 3)
    assert work["seconds"] > 0
    assert engine.stats["seconds"] == engine.stats["seconds"]  # the clock stands while nothing is under way


@pytest.mark.parametrize("length", [0, 10_000])
def test_prompts_must_fit(length):
    with pytest.raises(ValueError, match=f"prompt of {length} tokens: expected 1 to 9999"):
        run_sync(FakeEngine(reverse).generate([1] * length, GREEDY))


class Countdown(InProcessEngine):
    """Takes as many steps for a request as its only prompt token says; -1 breaks it, -2 is refused."""

    kind = "countdown"

    def __init__(self, broken=False, gate=None):
        self.broken, self.gate, self.unloaded, self.threads = broken, gate, 0, set()
        self.left, self.order, self.most = {}, [], 0
        super().__init__("countdown", None)

    def _load(self):
        if self.broken:
            raise OSError("no such weights")
        self.max_model_len = 10

    def _unload(self):
        self.unloaded += 1

    def _add(self, request):
        if request.prompt == [-2]:
            raise ValueError("refused")
        self.left[request.id] = request.prompt[0]

    def _step(self):
        if self.gate:
            self.gate.wait()
        self.threads.add(threading.get_ident())
        self.most = max(self.most, len(self._active))
        for request in list(self._active.values()):
            if request.prompt == [-1]:
                raise RuntimeError("out of memory")
            self.left[request.id] -= 1
            if self.left[request.id] == 0:
                self.order.append(request.prompt[0])
                self.finish(request, Completion("done", (7,), 1, 1, "stop"))


async def ask(engine, *steps):
    return await asyncio.gather(*(engine.generate([n], GREEDY) for n in steps), return_exceptions=True)


def test_requests_are_computed_together_and_finish_each_in_its_time():
    gate = threading.Event()
    with Countdown(gate=gate) as engine:

        async def go():
            asyncio.get_running_loop().call_later(0.05, gate.set)
            return await ask(engine, 5, 1, 3)

        assert [c.text for c in run_sync(go())] == ["done"] * 3
        assert engine.order == [1, 3, 5] and engine.most == 3
        run_sync(ask(engine, 2))  # another event loop, the same thread in the engine
        assert len(engine.threads) == 1
        assert engine.stats["requests"] == 4
    assert engine.unloaded == 1
    engine.close()
    assert engine.unloaded == 1


def test_an_engine_error_fails_all_who_wait_and_all_who_come():
    with Countdown() as engine:
        first = run_sync(ask(engine, 10**9, -1))
        assert [type(error) for error in first] == [EngineError, EngineError]
        assert "out of memory" in str(first[0]) and isinstance(first[0].__cause__, RuntimeError)
        with pytest.raises(EngineError, match="out of memory"):
            run_sync(engine.generate([1], GREEDY))
    assert engine.unloaded == 1


def test_a_refused_request_fails_alone():
    with Countdown() as engine:
        good, bad = run_sync(ask(engine, 3, -2))
    assert good.text == "done" and isinstance(bad, ValueError)


def test_cancelled_requests_leave_the_engine():
    with Countdown() as engine:

        async def go():
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(engine.generate([10**9], GREEDY), timeout=0.05)
            return await engine.generate([1], GREEDY)

        assert run_sync(go()).text == "done"
        deadline = time.monotonic() + 5
        while engine._active and time.monotonic() < deadline:
            time.sleep(0.01)
        assert engine._active == {}


def test_closing_fails_who_waits_and_who_comes():
    gate = threading.Event()
    engine = Countdown(gate=gate)

    async def go():
        waiting = asyncio.create_task(engine.generate([10**9], GREEDY))
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(asyncio.to_thread(engine.close))  # in the middle of a step
        await asyncio.sleep(0.05)
        gate.set()
        await closing
        with pytest.raises(EngineError, match="closed"):
            await waiting
        with pytest.raises(EngineError, match="closed"):
            await engine.generate([1], GREEDY)

    run_sync(go())
    assert engine.unloaded == 1


def test_a_failed_load_is_raised_where_the_engine_is_opened():
    with pytest.raises(OSError, match="no such weights"):
        Countdown(broken=True)


def test_calls_run_in_the_engines_thread():
    with Countdown() as engine:
        engine.call(lambda: engine.threads.add(threading.get_ident()))
        with pytest.raises(ZeroDivisionError):
            engine.call(lambda: 1 / 0)
        assert run_sync(engine.generate([1], GREEDY)).text == "done"
        assert len(engine.threads) == 1
