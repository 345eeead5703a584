"""The engine for servers, against a small server of our own."""

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from reasonrank.engines import EngineError, Sampling, open_engine
from reasonrank.rerank.listwise import run_sync

SECRET = "sk-not-to-be-shown"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, answer = self.server.answer(body)
        self.server.seen.append((self.path, self.headers["Authorization"], body))
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


def completion(text="done", reason="stop", **choice):
    return 200, {
        "id": "1",
        "object": "text_completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "text": text, "finish_reason": reason, "logprobs": None, **choice}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen, server.answer = [], lambda body: completion()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def connect(server, **options):
    settings = {
        "base_url": f"http://127.0.0.1:{server.server_address[1]}/v1",
        "api_key": SECRET,
        "tokenizer": "smollm2-135m-instruct",
        "max_model_len": 100,
        "max_retries": 0,
    }
    return open_engine("openai", "served-name", **(settings | options))


def test_a_vllm_server_gets_token_ids_and_all_settings(server):
    server.answer = lambda body: completion(
        "a</answer>", token_ids=[5, 6], logprobs={"top_logprobs": [{"a": -0.1}, {"</answer>": -0.2}]}
    )
    sampling = Sampling(
        max_tokens=500, temperature=0.6, top_p=0.95, top_k=20, stop=("</answer>",), logprobs=1
    )
    with connect(server, seed=11) as engine:
        got = run_sync(engine.generate([1, 2, 3], sampling))
        again = run_sync(engine.generate([1, 2, 3], sampling))  # a new event loop, the same connections
    assert got == again
    assert (got.text, got.token_ids, got.finish_reason) == ("a</answer>", (5, 6), "stop")
    assert (got.prompt_tokens, got.output_tokens) == (3, 2)
    assert got.logprobs == [{"a": -0.1}, {"</answer>": -0.2}]
    path, key, body = server.seen[0]
    assert (path, key) == ("/v1/completions", f"Bearer {SECRET}")
    assert body["prompt"] == [1, 2, 3] and body["model"] == "served-name"
    assert body["max_tokens"] == 97  # no more than the context holds
    assert (body["temperature"], body["top_p"], body["top_k"], body["seed"]) == (0.6, 0.95, 20, 11)
    assert body["stop"] == ["</answer>"] and body["include_stop_str_in_output"] is True


def test_another_server_gets_text_and_the_output_is_cut_here(server):
    server.answer = lambda body: completion("one </answer> two", "length")
    with connect(server, token_ids=False) as engine:
        ids = engine.tokenizer.encode("Hello there")
        got = run_sync(engine.generate(ids, Sampling(max_tokens=5, stop=("</answer>",))))
    assert (got.text, got.finish_reason) == ("one </answer>", "stop")
    assert engine.tokenizer.decode(got.token_ids) == "one </answer>"
    body = server.seen[0][2]
    assert body["prompt"] == "Hello there"
    assert not {"stop", "top_k", "include_stop_str_in_output"} & set(body)


def test_a_constraint_goes_to_vllm_servers_alone(server):
    held = Sampling(constraint=r"\[(1|2)\]")
    with connect(server) as engine:
        run_sync(engine.generate([1], held))
    assert server.seen[0][2]["structured_outputs"] == {"regex": r"\[(1|2)\]"}
    with connect(server, token_ids=False) as engine, pytest.raises(ValueError, match="regular expression"):
        run_sync(engine.generate([1], held))


def test_the_bound_on_requests(server):
    busy, most, lock = 0, 0, threading.Lock()
    full = threading.Event()

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
        assert engine.stats.requests == 6
    assert most == 2


def test_errors_name_the_server_and_keep_the_key(server):
    server.answer = lambda body: (400, {"error": {"message": "too long", "type": "x", "code": 400}})
    with (
        connect(server) as engine,
        pytest.raises(EngineError, match=r"refused a request.*too long") as refused,
    ):
        run_sync(engine.generate([1], Sampling()))
    assert SECRET not in str(refused.value)
    server.answer = lambda body: completion(reason="content_filter")
    with connect(server) as engine, pytest.raises(EngineError, match="content_filter"):
        run_sync(engine.generate([1], Sampling()))


def test_nobody_listens():
    with (
        open_engine(
            "openai",
            "m",
            base_url="http://127.0.0.1:9/v1",
            tokenizer="smollm2-135m-instruct",
            max_retries=0,
        ) as engine,
        pytest.raises(EngineError, match=r"no server answers at http://127\.0\.0\.1:9/v1"),
    ):
        run_sync(engine.generate([1], Sampling()))
    with pytest.raises(EngineError, match="closed"):
        run_sync(engine.generate([1], Sampling()))


def test_adapters_are_the_servers_affair(server):
    with pytest.raises(ValueError, match="adapter"):
        connect(server, adapter="somewhere")
