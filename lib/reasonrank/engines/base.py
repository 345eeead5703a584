"""What every generation engine offers: token ids in, a completion out, asynchronously."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass as checked

from reasonrank.answers import THINK, THINK_END
from reasonrank.store import Store


class EngineError(RuntimeError):
    """An engine that failed, was closed, or could not be reached."""


@checked(frozen=True)
class Sampling:
    """How tokens are drawn. Temperature 0 is greedy decoding.

    `max_tokens`: upper bound of the output, by default the paper's 3,072 reasoning tokens and 100 more.
    `top_k`: 0 is off. `seed`: of this request alone; without one the engine's own seed serves. `stop`:
    strings that end the output and stay in its text. `chain`: where they count. None: anywhere; True: the output
    begins with reasoning, and they count after its `</think>`; False: they count unless the output has opened
    reasoning of its own with `<think>`. `logprobs`: the k most likely tokens of each output position, from the
    model's distribution before temperature and cuts. `constraint`: a regular expression that the whole output
    has to match, for engines that can (`Engine.constraints`). `exact`: an end token does not end the output, so that
    without stop strings it has `max_tokens` tokens, for measurements. Raises ValueError for values out of range.
    """

    max_tokens: int = Field(3172, ge=1)
    temperature: float = Field(0.0, ge=0, allow_inf_nan=False)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    seed: int | None = None
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    chain: bool | None = None
    logprobs: int = Field(0, ge=0)
    constraint: str | None = None
    exact: bool = False


GREEDY = Sampling()
"""The paper's decoding of its 7B and 32B models."""

QWEN3 = Sampling(temperature=0.6, top_p=0.95, top_k=20)
"""The paper's sampling of its Qwen3-8B model."""

PRESETS = {"greedy": GREEDY, "qwen3": QWEN3}


@dataclass(frozen=True)
class Completion:
    """The output of one request, or of several that made it together (`calls`).

    `text` has no special tokens; `token_ids` has the end token too. `finish_reason`: "stop" or "length". `logprobs`:
    one dictionary per output token, from the token's own string to its natural log-probability; None where they were
    not asked for. `cached_tokens`: of the prompt, that the engine had computed for an earlier one, where it says so.
    """

    text: str
    token_ids: tuple[int, ...]
    prompt_tokens: int
    output_tokens: int
    finish_reason: str
    logprobs: list[dict[str, float]] | None = None
    cached_tokens: int = 0
    calls: int = 1


class Engine(AbstractContextManager):
    """Generation behind one asynchronous interface; a context manager.

    `max_model_len`: tokens of prompt and output together. `constraints`: whether outputs can be held to a regular
    expression. `prefixes`: whether what a prompt shares with an earlier one, from its beginning, is computed once.
    `kept`: a store for every answer as it comes in; what it holds already is not computed again, nor counted, and comes
    without token ids, and with the log-probabilities of its last position alone.
    Requests may come from any number of tasks, threads and event loops at once.
    """

    kind: str = ""
    kept: Store | None = None
    constraints: bool = False
    prefixes: bool = False
    name: str
    tokenizer: Any
    max_model_len: int

    def __init__(self) -> None:
        self._counting = threading.Lock()
        self._done, self._in_flight, self._since = Counter(), 0, 0.0

    @abstractmethod
    async def _generate(self, prompt: list[int], sampling: Sampling) -> Completion:
        """One completion. The prompt was checked, `sampling.max_tokens` fits, counting is done by the caller."""

    @abstractmethod
    def close(self) -> None:
        """Free the model's memory; requests under way fail with EngineError. May be called again."""

    def load(self, model: str, adapter: str | Path | None = None) -> None:
        """Put other weights of the same form in place of the engine's, while no request is under way.

        `model` and `adapter` as for `open_engine`; takes seconds where opening takes tens. EngineError for a server.
        """
        raise EngineError(f"the {self.kind} engine has the weights of its server")

    def reset_prefix_cache(self) -> None:
        """Forget what earlier prompts left in the cache, so that a measurement starts afresh."""
        return None

    async def generate(self, prompt: Sequence[int], sampling: Sampling) -> Completion:
        """Complete `prompt` (token ids, at least 1 and fewer than `max_model_len`).

        Output that reaches `max_tokens` or the model's context ends with `finish_reason` "length". Raises
        ValueError for an empty or over-long prompt and for a constraint that the engine cannot keep,
        EngineError where the engine fails, is closed, or gives no log-probabilities that were asked for.
        """
        if sampling.constraint is not None and not self.constraints:
            raise ValueError(f"the {self.kind} engine cannot hold its output to a regular expression")
        prompt, who = list(prompt), f"{self.name}: the {self.kind} engine"
        if not 0 < len(prompt) < self.max_model_len:
            raise ValueError(
                f"prompt of {len(prompt)} tokens: expected 1 to {self.max_model_len - 1} "
                f"(max_model_len of {self.name} is {self.max_model_len})"
            )
        key = hashlib.sha256(json.dumps([prompt, asdict(sampling)]).encode()).hexdigest()
        if self.kept is not None and key in self.kept.done:
            return Completion(**self.kept.done[key])
        room = min(sampling.max_tokens, self.max_model_len - len(prompt))
        self._count(in_flight=1)
        try:
            done = await self._generate(prompt, replace(sampling, max_tokens=room))
        finally:
            self._count(in_flight=-1)
        if done.finish_reason not in ("stop", "length"):
            raise EngineError(f"{who} ended a request with {done.finish_reason!r}")
        if sampling.logprobs and not done.logprobs:
            raise EngineError(f"{who} gives no log-probabilities to rank by")
        self._count(requests=1, prompt_tokens=done.prompt_tokens, output_tokens=done.output_tokens)
        if self.kept is not None and key not in self.kept.done:  # the same may have been asked twice at once
            last = done.logprobs and done.logprobs[-1:]  # a chain's would fill the disk
            self.kept.append(key, asdict(done) | {"token_ids": (), "logprobs": last})
        return done

    @property
    def stats(self) -> Counter[str]:
        """Work done so far: "requests", "prompt_tokens", "output_tokens", and "seconds" of wall-clock time with at
        least one request in it; a snapshot, so that two of them can be subtracted. "control_tokens": those in queries
        and passages that were broken up for a server that tokenises."""
        return self._count()

    def _count(self, in_flight: int = 0, **work: int) -> Counter[str]:
        """Add to the counts (see `stats`); the clock runs while any request is under way. Safe between threads."""
        with self._counting:
            now = time.perf_counter()
            self._done["seconds"] += now - self._since if self._in_flight else 0.0
            self._done.update(work)
            self._since, self._in_flight = now, self._in_flight + in_flight
            return self._done.copy()

    def __exit__(self, *error: object) -> None:
        self.close()


def cut_at_stop(text: str, sampling: Sampling) -> str | None:
    """`text` up to and with the stop string that ends first, of those that count (`Sampling.chain`); or None."""
    start = text.find(THINK_END) if sampling.chain else 0
    if start < 0:
        return None
    ends = [place + len(stop) for stop in sampling.stop if (place := text.find(stop, start)) >= 0]
    if ends and sampling.chain is False and THINK in text[: min(ends)]:
        return cut_at_stop(text, replace(sampling, chain=True))
    return text[: min(ends)] if ends else None


@contextmanager
def own_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own; at the end what is still under way in it is cancelled."""
    started: Future[asyncio.AbstractEventLoop] = Future()

    def serve() -> None:
        with asyncio.Runner() as runner:
            started.set_result(runner.get_loop())
            runner.get_loop().run_forever()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    loop = started.result()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
