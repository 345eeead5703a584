"""An engine and a prompt without a model, for tests of what happens around them."""

import asyncio

from reasonrank.engines import Completion, Engine
from reasonrank.prompts import Rendered


class FakePrompt:
    """Token ids that an engine can read back: the code points of the query and the passages, by lines."""

    def __init__(self, chain=True):
        self.chain = chain

    def render(self, query, passages):
        return Rendered([ord(c) for c in "\n".join([query, *passages])])


class FakeTokenizer:
    def encode(self, text, add_special_tokens=True):
        return [ord(c) for c in text]


class FakeEngine(Engine):
    """Gives `answer(query, passages, sampling)`, a text or an exception, after `delay(query)` loop turns."""

    kind, name, tokenizer, max_model_len, prefixes = "fake", "fake", FakeTokenizer(), 10_000, True

    def __init__(self, answer, delay=lambda query: 1, logprobs=None):
        super().__init__()
        self.answer, self.delay, self.logprobs = answer, delay, logprobs
        self.in_flight = self.most_in_flight = self.cancelled = self.resets = 0
        self.finished, self.samplings, self.log = [], [], []

    async def _generate(self, prompt, sampling):
        query, *passages = "".join(map(chr, prompt)).split("\n")
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.samplings.append(sampling)
        self.log.append(("asked", prompt))
        try:
            for _ in range(self.delay(query)):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1
        self.finished.append(query)
        self.log.append(("answered", prompt))
        text = self.answer(query, passages, sampling)
        if isinstance(text, Exception):
            raise text
        tops = self.logprobs(query, passages) if sampling.logprobs else None
        return Completion(text, (1, 2, 3), len(prompt), 3, "stop", tops and [tops])

    def reset_prefix_cache(self):
        self.resets += 1

    def close(self):
        pass


def reverse(query, passages, sampling):
    """A model that turns every window around."""
    return (
        "<think> . </think> <answer> "
        + " > ".join(f"[{n}]" for n in range(len(passages), 0, -1))
        + " </answer>"
    )


def by_number(query, passages, sampling):
    """A model that puts the passages with the highest numbers first."""
    order = sorted(range(len(passages)), key=lambda i: -int(passages[i]))
    return "<think> . </think> <answer> " + " > ".join(f"[{i + 1}]" for i in order) + " </answer>"
