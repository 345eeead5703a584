"""The transformers engine on a tiny model: batches, limits, stops, log-probabilities, seeds."""

import asyncio
from collections import Counter

import pytest
import torch

from fakes.tiny import save_tiny_llama
from reasonrank.engines import Sampling, open_engine
from reasonrank.engines.transformers import draw
from reasonrank.rerank import run_sync

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
        engine.end_ids.add(third)
        completion = run_sync(engine.generate(ids, Sampling(max_tokens=6)))
        exact = run_sync(engine.generate(ids, Sampling(max_tokens=6, exact=True)))
    assert completion.token_ids[-1] == third and len(completion.token_ids) <= 3
    assert completion.finish_reason == "stop"
    assert (exact.output_tokens, exact.finish_reason) == (6, "length")


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
