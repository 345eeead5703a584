"""Engines without a large model: settings, where a stop string counts, the thread that owns a model, transformers."""

import asyncio
import threading
import time
from collections import Counter

import pytest
import torch

from fakes.engine import FakeEngine, reverse
from fakes.tiny import save_tiny_llama
from reasonrank.engines import GREEDY, QWEN3, Completion, EngineError, Sampling, Stats, open_engine
from reasonrank.engines.base import cut_at_stop
from reasonrank.engines.inprocess import InProcessEngine
from reasonrank.engines.transformers import draw
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
    assert (work.requests, work.prompt_tokens, work.output_tokens) == (1, 1, 3)
    assert work.seconds > 0
    assert engine.stats.seconds == engine.stats.seconds  # the clock stands while nothing is under way
    assert Stats(3, 5, 7, 2.5) - Stats(1, 1, 1, 1.0) == Stats(2, 4, 6, 1.5)


@pytest.mark.parametrize("length", [0, 10_000])
def test_prompts_must_fit(length):
    with pytest.raises(ValueError, match=f"prompt of {length} tokens: expected 1 to 9999"):
        run_sync(FakeEngine(reverse).generate([1] * length, GREEDY))


class Countdown(InProcessEngine):
    """Takes as many steps for a request as its only prompt token says; -1 breaks it, -2 is refused."""

    kind, name = "countdown", "countdown"

    def __init__(self, broken=False, gate=None):
        self.broken, self.gate, self.unloaded, self.threads = broken, gate, 0, set()
        self.left, self.order, self.most = {}, [], 0
        super().__init__()

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
            if request.future.cancelled():
                del self._active[request.id]
                continue
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
        assert engine.stats.requests == 4
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


# Transformers, with a tiny random model

PROMPTS = ["The capital of France is", "Once", "Water boils at a temperature of about", "def fib(n):"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return str(
        save_tiny_llama(folder, max_position_embeddings=128, initializer_range=0.5, tie_word_embeddings=False)
    )


@pytest.fixture(scope="module")
def engine(tiny):
    with open_engine("transformers", tiny, dtype="float32", device="cpu") as engine:
        yield engine


def complete(engine, prompts, *samplings):
    samplings = samplings * (len(prompts) // len(samplings))

    async def go():
        requests = zip([engine.tokenizer.encode(p) for p in prompts], samplings, strict=True)
        return await asyncio.gather(*(engine.generate(ids, sampling) for ids, sampling in requests))

    return run_sync(go())


def test_greedy_is_the_same_alone_and_in_a_batch(engine):
    sampling = Sampling(max_tokens=12)
    alone = [complete(engine, [prompt], sampling)[0] for prompt in PROMPTS]
    assert complete(engine, PROMPTS, sampling) == alone
    assert len({completion.text for completion in alone}) == 4
    assert all(c.output_tokens == len(c.token_ids) == 12 and c.finish_reason == "length" for c in alone)


def test_each_request_keeps_its_own_limit_and_stop(engine):
    prompt = PROMPTS[2]
    full = complete(engine, [prompt], Sampling(max_tokens=12))[0]
    pieces = [engine.tokenizer.decode([token]) for token in full.token_ids]
    stop = pieces[5]
    end = full.text.index(stop) + len(stop)
    samplings = [Sampling(max_tokens=12), Sampling(max_tokens=3), Sampling(max_tokens=12, stop=(stop,))]
    whole, short, stopped = complete(engine, [prompt] * 3, *samplings)
    assert whole == full
    assert short.token_ids == full.token_ids[:3] and short.finish_reason == "length"
    assert stopped.text == full.text[:end] and stopped.finish_reason == "stop"
    assert stopped.output_tokens <= 6


def test_the_context_bounds_the_output(engine):
    ids = engine.tokenizer.encode("a " * 200)[:120]
    completion = run_sync(engine.generate(ids, Sampling(max_tokens=50)))
    assert (completion.output_tokens, completion.finish_reason) == (8, "length")
    with pytest.raises(ValueError, match="prompt of 128 tokens: expected 1 to 127"):
        run_sync(engine.generate([5] * 128, Sampling()))


def test_log_probabilities_are_the_models(engine):
    ids = engine.tokenizer.encode(PROMPTS[0])
    got = run_sync(engine.generate(ids, Sampling(max_tokens=2, logprobs=3)))
    with torch.inference_mode():
        logits = engine._model(torch.tensor([[*ids, got.token_ids[0]]])).logits[0, -2:].float()
    for row, top in zip(logits.log_softmax(-1), got.logprobs, strict=True):
        assert list(top.values()) == pytest.approx(row.topk(3).values.tolist(), abs=1e-4)
    assert next(iter(got.logprobs[0])) == engine.tokenizer.decode([got.token_ids[0]])


def test_a_cancelled_request_leaves_the_engine(engine):
    ids = engine.tokenizer.encode(PROMPTS[0])

    async def go():
        task = asyncio.create_task(engine.generate(ids, Sampling(max_tokens=100)))
        await asyncio.sleep(0.02)
        task.cancel()
        return await engine.generate(ids, Sampling(max_tokens=3))

    assert run_sync(go()).output_tokens == 3


def test_transformers_looks_for_a_stop_string_behind_the_reasoning(engine):
    ids = engine.tokenizer.encode(PROMPTS[2])
    full = run_sync(engine.generate(ids, Sampling(max_tokens=12)))
    early = engine.tokenizer.decode([full.token_ids[2]])
    whole = run_sync(engine.generate(ids, Sampling(max_tokens=12, stop=(early,), chain=True)))
    assert whole.text == full.text and whole.finish_reason == "length"  # no </think> in it
    assert (
        run_sync(engine.generate(ids, Sampling(max_tokens=12, stop=(early,), chain=False))).output_tokens <= 3
    )


def test_seeds_rule_the_draw_whatever_the_batch(engine):
    sampled = Sampling(max_tokens=8, temperature=1.0, seed=5)
    other = Sampling(max_tokens=8, temperature=1.0, seed=6)
    alone = complete(engine, [PROMPTS[0]], sampled)[0]
    first, second, greedy = complete(engine, [PROMPTS[0]] * 3, sampled, other, Sampling(max_tokens=8))
    assert first == alone
    assert len({first.token_ids, second.token_ids, greedy.token_ids}) == 3


def test_the_end_token_ends_and_is_no_text(tiny):
    with open_engine("transformers", tiny, dtype="float32", device="cpu") as engine:
        ids = engine.tokenizer.encode(PROMPTS[0])
        third = run_sync(engine.generate(ids, Sampling(max_tokens=6))).token_ids[2]
        engine._end_ids.add(third)
        completion = run_sync(engine.generate(ids, Sampling(max_tokens=6)))
    assert completion.token_ids[-1] == third and len(completion.token_ids) <= 3
    assert completion.finish_reason == "stop"


def test_draw_cuts_to_top_k_and_top_p():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    generator = torch.Generator().manual_seed(0)

    def seen(**settings):
        sampling = Sampling(temperature=1.0, **settings)
        return Counter(draw(logits, sampling, generator) for _ in range(400))

    assert set(seen()) == {0, 1, 2, 3}
    assert set(seen(top_k=2)) == {0, 1}
    assert set(seen(top_p=0.8)) == {0, 1}  # 0.5 + 0.3 reach 0.8
    assert set(seen(top_p=0.81)) == {0, 1, 2}
    assert set(seen(top_p=0.1)) == {0}
    assert 0.4 < seen()[0] / 400 < 0.6
    cold = Sampling(temperature=0.01)
    assert {draw(logits, cold, generator) for _ in range(50)} == {0}
