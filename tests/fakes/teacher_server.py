"""A chat endpoint on this machine that answers as a teacher would, or fails in every way that endpoints fail."""

import hashlib
import json
import random
import re
import threading
import time
from collections import Counter
from contextlib import contextmanager

from fakes import http_server
from reasonrank.settings import RemoteTeacherSettings

FAULTS = ("429", "500", "hang", "cut json", "cut body", "length", "empty", "repeated", "invented")
HANG = 0.3  # seconds; a client waits for half of it


class Handler(http_server.JsonHandler):
    def do_POST(self):
        body = self.body()
        server, prompt = self.server, body["messages"][-1]["content"]
        with server.lock:
            server.seen.append(body)
            server.keys.add(self.headers["Authorization"])
            fault = server.next_fault()
            server.faults.update([fault] if isinstance(fault, str) else [])
            server.busy += 1
            server.most = max(server.most, server.busy)
        time.sleep(server.delay)
        with server.lock:
            server.busy -= 1
        if server.status != 200:
            key = self.headers["Authorization"].removeprefix("Bearer ")
            return self.reply(server.status, {"error": {"message": f"no such thing: {key}"}})
        if isinstance(fault, dict | list):
            return self.reply(200, fault)
        if fault in ("429", "500"):
            return self.reply(int(fault), {"error": {"message": "later"}}, [("Retry-After", "0.01")])
        if fault == "hang":
            time.sleep(HANG)
        answer = server.answer(prompt, fault)
        answer["usage"] = {"prompt_tokens": len(prompt.split()), "completion_tokens": 10}
        with server.lock:
            server.billed += len(prompt.split()) + 10
            server.paid[prompt] += fault is None
        data = json.dumps(answer).encode()
        self.reply(200, data[:-20] if fault == "cut json" else data, cut=fault == "cut body")


class Server(http_server.Server):
    def next_fault(self):
        if self.script:
            return self.script.pop(0)
        return self.rng.choice(FAULTS) if self.rng.random() < self.rate else None

    def answer(self, prompt, fault):
        wrong = {"length": "So", "empty": "", "invented": "<think>why</think> <answer> [1], [99] </answer>"}
        content = wrong.get(fault, right_answer(prompt))
        if fault == "repeated":
            content = re.sub(r"<answer> (\[\d+\])", r"<answer> \1, \1", content)
        reason = "length" if fault == "length" else "stop"
        return {"choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": reason}]}


def right_answer(prompt):
    """Two positives for a selection, an order made from a hash for a ranking: the same on every call."""
    rng = random.Random(hashlib.sha256(prompt.encode()).hexdigest())
    order = [int(number) for number in re.findall(r"^\[(\d+)\] ", prompt, re.MULTILINE)]
    rng.shuffle(order)
    if "None </answer>" in prompt:
        return f"<think>as the solution says</think> <answer> [{order[0]}], [{order[1]}] </answer>"
    ranking = " > ".join(f"[{number}]" for number in order)
    return f"<think>it starts with {order[0]}</think> <answer> {ranking} </answer>"


@contextmanager
def serving(rate=0.0, seed=0, delay=0.0, script=(), status=200):
    """A server with `rate` of its answers faulty. `script`: what the first ones are (None: right, a dict or a list:
    that JSON); `status`: that of every answer, an error unless it is 200."""
    with http_server.listening(Handler, Server) as server:
        server.rate, server.rng, server.delay, server.script = rate, random.Random(seed), delay, list(script)
        server.lock, server.seen, server.keys, server.status = threading.Lock(), [], set(), status
        server.busy = server.most = 0
        server.faults, server.paid, server.billed = Counter(), Counter(), 0
        yield server


def settings(server=None, **more):
    """Settings for that server, quick to time out and to try again."""
    port = server.server_address[1] if server else 9
    chosen = {
        "base_url": f"http://127.0.0.1:{port}/v1",
        "model": "made-up",
        "key_variable": "",
        "max_in_flight": 16,
        "timeout": HANG / 2 if server and (server.rate or server.script) else 5,
        "attempts": 30,
        "answers": 20,
        "backoff": 0.005,
        "max_tokens": 50,
        "temperature": 0.6,
        "top_p": 0.95,
        "input_price": 1.0,
        "output_price": 2.0,
        "token_budget": None,
        "money_budget": None,
    }
    return RemoteTeacherSettings(**(chosen | more))
