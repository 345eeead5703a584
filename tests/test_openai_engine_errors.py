"""The engine for servers: servers, answers and addresses that are not as they must be."""

import json

import pytest

from fakes.completion_server import SECRET, ask, completion, connect, url
from reasonrank.engines import EngineError, Sampling, open_engine
from reasonrank.engines.openai import endpoint


def test_errors_name_the_server_and_keep_the_key(server):
    said = {"error": {"message": f"too long, {SECRET}", "type": "x", "code": 400}}
    server.answer = lambda body: (400, said)
    with (
        connect(server) as engine,
        pytest.raises(EngineError, match=r"refused a request.*too long") as refused,
    ):
        ask(engine)
    assert SECRET not in str(refused.value)
    server.answer = lambda body: completion(reason="content_filter")
    with connect(server) as engine, pytest.raises(EngineError, match="content_filter"):
        ask(engine)


ODD = {
    "error": {"error": {"message": "overloaded", "code": 503}},
    "null": {"choices": None},
    "empty": {"choices": []},
    "no text": {"choices": [{"finish_reason": "stop"}]},
    "null text": {"choices": [{"text": None, "finish_reason": "stop"}]},
    "list": [],
    "number": 7,
}


@pytest.mark.parametrize("body", ODD.values(), ids=ODD)
def test_json_of_another_shape_is_an_error_that_shows_it(server, body):
    server.answer = lambda _: (200, body)
    with connect(server) as engine, pytest.raises(EngineError, match="expected a completion") as error:
        ask(engine)
    assert url(server) in str(error.value) and json.dumps(body) in str(error.value)


def test_an_answer_without_what_was_asked_for(server):
    with connect(server) as engine:
        for choice in ({"logprobs": None}, {"logprobs": {"top_logprobs": []}}):  # without what was asked for
            server.answer = lambda _, choice=choice: completion(**choice)
            with pytest.raises(
                EngineError, match="served-name: the openai engine gives no log-probabilities"
            ):
                ask(engine, Sampling(logprobs=2))
        server.answer = lambda _: (200, b'{"choices": [')
        with pytest.raises(EngineError, match="no JSON"):
            ask(engine)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ((200, {"data": [{"id": "other"}]}), "does not serve 'served-name'; it serves other"),
        ((200, {"data": None}), "expected a list of its models"),
        ((200, {"error": "no"}), "expected a list of its models"),
        ((401, {"error": {"message": "bad key"}}), "refused a request: .*bad key"),
    ],
)
def test_a_server_without_the_model_is_an_error_at_the_start(server, models, message):
    server.models = models
    with pytest.raises(EngineError, match=message):
        connect(server)


def test_a_404_hints_at_the_address(server):
    server.models, server.answer = (404, {"error": "no list"}), lambda body: (404, {"error": "not found"})
    with connect(server) as engine:
        assert engine.max_model_len == 32768  # a server may list nothing and still answer
        with pytest.raises(EngineError, match=r"not found$"):
            ask(engine)
    base = url(server).removesuffix("/v1")
    with connect(server, base_url=base) as engine, pytest.raises(EngineError, match=r"mostly end in /v1"):
        ask(engine)


def test_nobody_listens():
    with pytest.raises(EngineError, match=r"no server answers at http://127\.0\.0\.1:9/v1"):
        open_engine("openai", "m", base_url="http://127.0.0.1:9/v1", max_retries=0)


def test_a_closed_engine_answers_nothing(server):
    engine = connect(server)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        ask(engine)
    with pytest.raises(ValueError, match="adapter"):
        connect(server, adapter="somewhere")


@pytest.mark.parametrize(
    ("address", "key", "message"),
    [
        ("127.0.0.1:8230/v1", "k", "expected http://HOST:PORT/v1"),
        ("localhost:8000/v1", "k", "expected http://HOST:PORT/v1"),
        ("http://", "k", "expected http://HOST:PORT/v1"),
        ("http://host:x/v1", "k", "expected http://HOST:PORT/v1"),
        ("http://[::1/v1", "k", "expected http://HOST:PORT/v1"),
        ("http://a b/v1", "k", "expected http://HOST:PORT/v1"),
        ("http://host/v1", "", "OPENAI_API_KEY is empty"),
        ("http://host/v1", " \n", "OPENAI_API_KEY is empty"),
        ("http://host/v1", "two words", "holds blanks"),
        ("http://host/v1", "sch\u00fcssel", "no header can carry"),
    ],
)
def test_an_address_or_key_that_cannot_be_used(address, key, message):
    with pytest.raises(ValueError, match=message) as error:
        endpoint(address, key)
    assert not key.strip() or key not in str(error.value).partition(":")[0]
