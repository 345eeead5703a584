"""What every generation engine offers: token ids in, a completion out, asynchronously."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from reasonrank.answers import THINK, THINK_END
from reasonrank.store import Store

FinishReason = Literal["stop", "length"]


class EngineError(RuntimeError):
    """An engine that failed, was closed, or could not be reached."""


@dataclass(frozen=True)
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

    max_tokens: int = 3172
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    chain: bool | None = None
    logprobs: int = 0
    constraint: str | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        wrong = {
            "max_tokens (at least 1)": self.max_tokens < 1,
            "temperature (at least 0)": not self.temperature >= 0,
            "top_p (over 0, at most 1)": not 0 < self.top_p <= 1,
            "top_k (at least 0)": self.top_k < 0,
            "stop (a tuple of non-empty strings)": isinstance(self.stop, str) or not all(self.stop),
            "logprobs (at least 0)": self.logprobs < 0,
        }
        if any(wrong.values()):
            bad = ", ".join(name for name, is_wrong in wrong.items() if is_wrong)
            raise ValueError(f"sampling: {bad}, got {self}")


GREEDY = Sampling()
"""The paper's decoding of its 7B and 32B models."""

QWEN3 = Sampling(temperature=0.6, top_p=0.95, top_k=20)
"""The paper's sampling of its Qwen3-8B model."""

PRESETS = {"greedy": GREEDY, "qwen3": QWEN3}


@dataclass(frozen=True)
class Completion:
    """The output of one request.

    `text` has no special tokens; `token_ids` has the end token too. `logprobs`: one dictionary per output token,
    from the token's own string to its natural log-probability; None where they were not asked for. `cached_tokens`:
    tokens of the prompt that the engine had computed for an earlier one, where it says so.
    """

    text: str
    token_ids: tuple[int, ...]
    prompt_tokens: int
    output_tokens: int
    finish_reason: FinishReason
    logprobs: list[dict[str, float]] | None = None
    cached_tokens: int = 0


@dataclass(frozen=True)
class Stats:
    """Work done by an engine. `seconds`: wall-clock time with at least one request in it.

    `control_tokens`: those in queries and passages that were broken up for a server that tokenises.
    """

    requests: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    control_tokens: int = 0

    def __sub__(self, earlier: Stats) -> Stats:
        """The work done since `earlier`."""
        return Stats(*(getattr(self, name) - getattr(earlier, name) for name in self.__dataclass_fields__))


class Engine(ABC):
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
        self._done, self._in_flight, self._since = Stats(), 0, 0.0

    @abstractmethod
    async def _generate(self, prompt: list[int], sampling: Sampling) -> Completion:
        """One completion; the prompt was checked, counting is done by the caller."""

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
        prompt = list(prompt)
        if not 0 < len(prompt) < self.max_model_len:
            raise ValueError(
                f"prompt of {len(prompt)} tokens: expected 1 to {self.max_model_len - 1} "
                f"(max_model_len of {self.name} is {self.max_model_len})"
            )
        key = "" if self.kept is None else _key(prompt, sampling)
        if key and key in self.kept.done:
            return Completion(**self.kept.done[key])
        self._count(in_flight=1)
        try:
            completion = await self._generate(prompt, sampling)
            if sampling.logprobs and not completion.logprobs:
                raise EngineError(
                    f"{self.name}: the {self.kind} engine gives no log-probabilities to rank by"
                )
            self._count(requests=1, prompt=completion.prompt_tokens, output=completion.output_tokens)
            if key and key not in self.kept.done:  # the same may have been asked twice at once
                last = completion.logprobs and completion.logprobs[-1:]  # a chain's would fill the disk
                self.kept.append(key, asdict(completion) | {"token_ids": (), "logprobs": last})
        finally:
            self._count(in_flight=-1)
        return completion

    @property
    def stats(self) -> Stats:
        """Work done so far; a snapshot, so that two of them can be subtracted."""
        return self._count()

    def _count(
        self, in_flight: int = 0, requests: int = 0, prompt: int = 0, output: int = 0, control: int = 0
    ) -> Stats:
        """Add to the counts; the clock runs while any request is under way. Safe between threads."""
        with self._counting:
            now = time.perf_counter()
            seconds = now - self._since if self._in_flight else 0.0
            self._since, self._in_flight = now, self._in_flight + in_flight
            self._done -= Stats(-requests, -prompt, -output, -seconds, -control)
            return self._done

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _key(prompt: list[int], sampling: Sampling) -> str:
    return hashlib.sha256(json.dumps([prompt, asdict(sampling)]).encode()).hexdigest()


def cut_at_stop(text: str, sampling: Sampling) -> str | None:
    """`text` up to and with the stop string that ends first, of those that count (`Sampling.chain`); or None."""
    start = text.find(THINK_END) if sampling.chain else 0
    if start < 0:
        return None
    ends = [place + len(stop) for stop in sampling.stop if (place := text.find(stop, start)) >= 0]
    if ends and sampling.chain is False and THINK in text[: min(ends)]:
        return cut_at_stop(text, replace(sampling, chain=True))
    return text[: min(ends)] if ends else None
