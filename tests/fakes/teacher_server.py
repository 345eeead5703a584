"""An endpoint on this machine that answers chats as a teacher and prompts as a reranker would, or fails in every way
that endpoints fail."""

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

PASSING = ("429", "500", "hang", "cut json", "cut body", "shape")  # no answer comes
POOR = ("length", "empty", "repeated", "invented")
FAULTS = PASSING + POOR
SHAPES = ({"choices": None}, {"choices": []}, [], 7, {"choices": [{"message": None, "text": None}]})
HANG = 1.0  # seconds; a client waits for half of it


class Handler(http_server.JsonHandler):
    def do_POST(self):
        body = self.body()
        server, chat, key = self.server, "messages" in body, self.headers["Authorization"]
        prompt = body["messages"][-1]["content"] if chat else "".join(map(chr, body["prompt"]))
        with server.lock:
            server.seen.append(body)
            server.asked.append(digest(prompt))
            server.keys.add(key)
            fault = server.next_fault() if chat else server.next_fault(PASSING) or poor(prompt)
            server.faults.update([fault] if isinstance(fault, str) else [])
            server.busy += 1
            server.most = max(server.most, server.busy)
        time.sleep(server.delay)
        with server.lock:
            server.busy -= 1
        if server.status != 200:
            said = f"no such thing: {key.removeprefix('Bearer ')}"
            return self.reply(server.status, {"error": {"message": said}})
        if isinstance(fault, dict | list):
            return self.reply(200, fault)
        if fault in ("429", "500"):
            return self.reply(int(fault), {"error": {"message": f"later, {key}"}}, [("Retry-After", "0.01")])
        if fault == "shape":
            shape = random.choice(SHAPES)
            return self.reply(200, shape | {"of": key} if isinstance(shape, dict) else shape)
        if fault == "hang":
            time.sleep(server.hang)
        answer = server.answer(prompt, fault, chat)
        answer["usage"] = {"prompt_tokens": len(prompt.split()), "completion_tokens": 10}
        with server.lock:
            server.billed += len(prompt.split()) + 10
            server.paid[prompt] += fault is None
            server.whole[digest(prompt)] += fault not in PASSING
            server.tokens[digest(prompt)] = len(prompt.split()) + 10
        data = json.dumps(answer).encode()
        self.reply(200, data[:-20] if fault == "cut json" else data, cut=fault == "cut body")

    def do_GET(self):
        self.reply(404, {"error": {"message": "this server lists no models"}})


class Server(http_server.Server):
    def next_fault(self, kinds=FAULTS):
        if self.script:
            return self.script.pop(0)
        return self.rng.choice(kinds) if self.rng.random() < self.rate else None

    def answer(self, prompt, fault, chat):
        wrong = {"length": "So", "empty": "", "invented": "<think>why</think> <answer> [1], [99] </answer>"}
        content = wrong.get(fault, right_answer(prompt))
        if fault == "repeated":
            content = re.sub(r"<answer> (\[\d+\])", r"<answer> \1, \1", content)
        reason = "length" if fault == "length" else "stop"
        said = {"message": {"role": "assistant", "content": content}} if chat else {"text": content}
        return {"choices": [said | {"finish_reason": reason}]}


def digest(prompt):
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


def poor(prompt):
    """What is wrong with the answer to a prompt of a reranker: with one in ten something, and each time the same."""
    rng = random.Random(prompt)
    return rng.choice(POOR) if rng.random() < 0.1 else None


def right_answer(prompt):
    """Two positives for a selection, an order made from a hash for a ranking: the same on every call. The reasoning
    holds the digest of the prompt."""
    rng = random.Random(prompt)
    order = [int(number) for number in re.findall(r"^\[(\d+)\] ", prompt, re.MULTILINE)]
    rng.shuffle(order)
    if "None </answer>" in prompt:
        return f"<think>as the solution says {digest(prompt)}</think> <answer> [{order[0]}], [{order[1]}] </answer>"
    ranking = " > ".join(f"[{number}]" for number in order)
    return f"<think>it starts with {order[0]} {digest(prompt)}</think> <answer> {ranking} </answer>"


@contextmanager
def serving(rate=0.0, seed=0, delay=0.0, script=(), status=200, hang=HANG):
    """A server with `rate` of its answers faulty. `script`: what the first ones are (None: right, a dict or a list:
    that JSON); `status`: that of every answer, an error unless it is 200."""
    with http_server.listening(Handler, Server) as server:
        server.rate, server.rng, server.delay, server.script = rate, random.Random(seed), delay, list(script)
        server.lock, server.seen, server.keys, server.status = threading.Lock(), [], set(), status
        server.busy = server.most = 0
        server.hang, server.asked, server.whole, server.tokens = hang, [], Counter(), {}
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
        "timeout": server.hang / 2 if server and (server.rate or server.script) else 5,
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
