"""A real server and the engine in this process: the same windows, the same answers under greedy decoding.

In float32 every answer is the same, one request at a time and all windows at once. In bfloat16 a sum depends on how
it is split: over requests in the batch, and over threads, of which a server has one fewer, since it keeps a core for
its front. Where the two likeliest tokens are that close, an answer goes another way. So there the answers that differ
are counted and bounded; one engine differs as much from itself between a batch and single requests.
"""

from dataclasses import replace

import pytest

from fakes.serving import MODEL, needs_vllm, vllm_server
from reasonrank.engines import GREEDY, open_engine
from reasonrank.prompts import ListwisePrompt
from reasonrank.rerank.listwise import ListwiseReranker

pytestmark = [pytest.mark.slow, needs_vllm]

TOPICS = {
    "tides": "The pull of the moon raises the sea twice a day.",
    "bread": "Yeast turns sugar into gas, and the dough rises.",
    "rust": "Iron takes up oxygen where water lies on it.",
    "echo": "A wall throws sound back to where it came from.",
    "frost": "Water vapour turns to ice on cold glass.",
    "yawn": "Nobody knows for sure why people yawn.",
}
QUESTIONS = {
    "q1": "Why does the sea come and go?",
    "q2": "What makes dough grow?",
    "q3": "Why is my window white in the morning?",
}
BOUNDS = (1, 8)  # requests in flight
ALLOWED = 3  # windows of six that may differ in bfloat16; one or two did when this was written


def windows(engine, max_in_flight):
    """The answers of six windows, two for each question, as text and ranking."""
    prompt = ListwisePrompt(engine.tokenizer, passage_tokens=32, query_tokens=32, max_length=900)
    sampling = replace(GREEDY, max_tokens=48, stop=("</answer>",))
    reranker = ListwiseReranker(
        engine, prompt, window=4, step=2, sampling=sampling, max_in_flight=max_in_flight
    )
    result = reranker.rerank_run_sync({qid: list(TOPICS) for qid in QUESTIONS}, QUESTIONS, TOPICS)
    assert sorted(result.run) == sorted(QUESTIONS)
    traces = [trace for found in result.traces.values() for trace in found]
    assert len(traces) == 6 and all(trace.output_tokens > 0 for trace in traces)
    return result.run, [(trace.text, trace.reordered) for trace in traces]


def both(log, dtype):
    """The windows of the server and of the engine in this process, by requests in flight."""
    limits = {"max_model_len": 1024, "max_num_seqs": 8}
    with (
        vllm_server(log, dtype=dtype, **limits) as url,
        open_engine("openai", MODEL, base_url=url, max_model_len=1024) as engine,
    ):
        served = {bound: windows(engine, bound) for bound in BOUNDS}
    with open_engine("vllm", MODEL, dtype=dtype, kv_cache_gib=0.5, **limits) as engine:
        return served, {bound: windows(engine, bound) for bound in BOUNDS}


def test_in_float32_all_answers_are_the_same(tmp_path):
    served, inside = both(tmp_path / "log", "float32")
    assert served == inside
    assert served[1] == served[8]
    assert len({text for text, _ in served[1][1]}) > 1  # the model does say something


def test_in_bfloat16_the_answers_that_differ_are_few(tmp_path):
    served, inside = both(tmp_path / "log", "bfloat16")
    for bound in BOUNDS:
        pairs = list(zip(served[bound][1], inside[bound][1], strict=True))
        different = [(one[0], other[0]) for one, other in pairs if one != other]
        assert len(different) <= ALLOWED, different
