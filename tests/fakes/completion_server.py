"""A server of completions on this machine, and an engine that speaks to it."""

from fakes import http_server
from reasonrank.engines import Sampling, open_engine
from reasonrank.rerank import run_sync

SECRET = "sk-not-to-be-shown"


class Handler(http_server.JsonHandler):
    def do_POST(self):
        body = self.body()
        self.server.seen.append((self.path, self.headers["Authorization"], body))
        self.reply(*self.server.answer(body))

    def do_GET(self):
        self.reply(*self.server.models)


def completion(text="done", reason="stop", **choice):
    choices = [{"index": 0, "text": text, "finish_reason": reason, "logprobs": None, **choice}]
    return 200, {"choices": choices, "usage": {"prompt_tokens": 3, "completion_tokens": 2}}


def url(server):
    return f"http://127.0.0.1:{server.server_address[1]}/v1"


def connect(server, **options):
    settings = {"api_key": SECRET, "tokenizer": "smollm2-135m-instruct", "max_retries": 0}
    return open_engine("openai", "served-name", **({"base_url": url(server)} | settings | options))


def ask(engine, sampling=Sampling(), prompt=(1,)):  # noqa: B008
    return run_sync(engine.generate(prompt, sampling))
