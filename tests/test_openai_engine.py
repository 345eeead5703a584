"""The engine for servers: what it asks a small server of our own, and what it makes of the answers."""

import asyncio
import threading

import pytest

from fakes.completion_server import SECRET, ask, completion, connect, url
from reasonrank.engines import Sampling
from reasonrank.engines.openai import endpoint
from reasonrank.rerank import run_sync


def test_a_vllm_server_gets_token_ids_and_all_settings(server):
    tops = {"top_logprobs": [{"a": -0.1}, {"</answer>": -0.2}]}
    server.answer = lambda body: completion("a</answer>", token_ids=[5, 6], logprobs=tops)
    drawn = {"temperature": 0.6, "top_p": 0.95, "top_k": 20}
    sampling = Sampling(max_tokens=500, **drawn, stop=("</answer>",), logprobs=1)
    with connect(server, seed=11) as engine:
        got = ask(engine, sampling, [1, 2, 3])
        again = ask(engine, sampling, [1, 2, 3])  # a new event loop, the same connections
    assert got == again
    assert (got.text, got.token_ids, got.finish_reason) == ("a</answer>", (5, 6), "stop")
    assert (got.prompt_tokens, got.output_tokens, got.logprobs) == (3, 2, tops["top_logprobs"])

    path, key, body = server.seen[0]
    assert (path, key) == ("/v1/completions", f"Bearer {SECRET}")
    assert body["prompt"] == [1, 2, 3] and body["model"] == "served-name"
    assert body["max_tokens"] == 97  # no more than the context that the server states
    assert (body["temperature"], body["top_p"], body["top_k"], body["seed"]) == (0.6, 0.95, 20, 11)
    assert body["stop"] == ["</answer>"] and body["include_stop_str_in_output"] is True


def test_log_probabilities_end_with_the_output(server):
    tops = {"tokens": ["so</think>", " true", "!", "!"], "top_logprobs": [{c: -0.1} for c in "abcd"]}
    server.answer = lambda body: completion("so</think> true!!", logprobs=tops)
    with connect(server) as engine:
        got = ask(engine, Sampling(stop=("true",), chain=True, logprobs=1))
        assert (got.text, got.logprobs) == ("so</think> true", tops["top_logprobs"][:2])
        del tops["tokens"]
        assert ask(engine, Sampling(stop=("true",), chain=True, logprobs=1)).logprobs == [{}]  # nobody knows


def test_another_server_gets_text_and_the_output_is_cut_here(server):
    server.answer = lambda body: completion("one </answer> two", "length")
    with connect(server, token_ids=False) as engine:
        ids = engine.tokenizer.encode("Hello there")
        got = ask(engine, Sampling(max_tokens=5, stop=("</answer>",)), ids)
    assert (got.text, got.finish_reason) == ("one </answer>", "stop")
    assert engine.tokenizer.decode(got.token_ids) == "one </answer>"
    body = server.seen[0][2]
    assert body["prompt"] == "Hello there"
    assert not {"stop", "top_k", "include_stop_str_in_output"} & set(body)


def test_a_stop_string_in_the_reasoning_is_left_to_us(server):
    chain = "<think> I end with </answer>. </think>"
    server.answer = lambda body: completion(
        f"{chain} <answer> [2] > [1] </answer> And on.", token_ids=[1] * 9
    )
    with connect(server) as engine:
        got = ask(engine, Sampling(stop=("</answer>",), chain=True))
        assert "stop" not in server.seen[0][2]
        assert got.text == f"{chain} <answer> [2] > [1] </answer>" and got.output_tokens == 2
        # the server's own are those of a longer text
        assert engine.tokenizer.decode(got.token_ids) == got.text
        server.answer = lambda body: completion(chain[:-9], "length")
        assert ask(engine, Sampling(stop=("</answer>",), chain=True)).finish_reason == "length"


def test_a_constraint_and_a_length_go_to_vllm_servers_alone(server):
    held = Sampling(constraint=r"\[(1|2)\]")
    with connect(server) as engine:
        ask(engine, held)
        ask(engine, Sampling(exact=True))
    assert server.seen[0][2]["structured_outputs"] == {"regex": r"\[(1|2)\]"}
    assert [body["ignore_eos"] for _, _, body in server.seen] == [False, True]
    with connect(server, token_ids=False) as engine:
        with pytest.raises(ValueError, match="regular expression"):
            ask(engine, held)
        with pytest.raises(ValueError, match="length"):
            ask(engine, Sampling(exact=True))


@pytest.mark.parametrize(
    ("text", "sent", "count"),
    [
        ("Bees.<|im_end|> Now", "Bees.< |im_end|> Now", 1),
        ("<|im_start|>system<|im_end|>", "< |im_start|>system< |im_end|>", 2),
        ("no control <|token|> here", "no control <|token|> here", 0),
    ],
)
def test_control_tokens_in_plain_text_are_broken_up_for_a_server_that_tokenises(server, text, sent, count):
    with connect(server, token_ids=False) as engine:
        plain = engine.tokenizer(text, split_special_tokens=True)["input_ids"]
        turn = engine.tokenizer.encode("<|im_start|>user\n"), engine.tokenizer.encode("<|im_end|>")
        ask(engine, prompt=[*turn[0], *plain, *turn[1]])
        assert engine.stats["control_tokens"] == count
    assert server.seen[0][2]["prompt"] == f"<|im_start|>user\n{sent}<|im_end|>"


def test_the_bound_on_requests(server):
    busy, most, lock, full = 0, 0, threading.Lock(), threading.Event()

    def answer(body):
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
            if busy == 2:
                full.set()
        full.wait(5)
        with lock:
            busy -= 1
        return completion()

    server.answer = answer
    with connect(server, max_num_seqs=2) as engine:

        async def go():
            await asyncio.gather(*(engine.generate([1], Sampling()) for _ in range(6)))

        run_sync(go())
        assert engine.stats["requests"] == 6
    assert most == 2


def test_null_counts_are_absent_and_parts_are_joined(server):
    parts = [{"type": "text", "text": "<answer> [2] "}, "> [1] </answer>"]
    _, body = completion(parts)
    server.answer = lambda _: (200, body | {"usage": {"prompt_tokens": None, "completion_tokens": None}})
    with connect(server) as engine:
        got = ask(engine, prompt=[1, 2])
        assert got.text == "<answer> [2] > [1] </answer>"
        assert got.prompt_tokens == 2 and got.output_tokens == len(got.token_ids) > 5
        said = {"prompt_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}
        server.answer = lambda _: (200, body | {"usage": said})
        assert (got.cached_tokens, ask(engine, prompt=[1, 2]).cached_tokens) == (0, 1)
        server.answer = lambda _: (200, body | {"usage": None})
        assert ask(engine, prompt=[1, 2]) == got


def test_blanks_around_address_and_key_do_not_count(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f" {SECRET}\r\n")
    with connect(server, base_url=f"\t{url(server)} \n", api_key=None) as engine:
        ask(engine)
    assert server.seen[0][1] == f"Bearer {SECRET}"
    monkeypatch.delenv("OPENAI_API_KEY")
    assert endpoint("https://host/v1") == ("https://host/v1", "none")
