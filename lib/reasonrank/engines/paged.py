"""Continuous batching of transformers itself (its paged cache), for greedy requests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from .base import Sampling
from .inprocess import Request

_BLOCK = 32  # tokens


class Paged:
    """The manager of `model`'s continuous batching: requests come and go while others are computed.

    It runs a thread of its own from the first `add` to `pause`; in between, the model must not be used in
    another way, since its attention is another. `cache_tokens`: size of the key-value cache; None leaves it to
    transformers, which takes most of the memory that is free (here at most 70 %).
    """

    def __init__(self, model: Any, end_ids: set[int], max_num_seqs: int, cache_tokens: int | None) -> None:
        self._model, self._end_ids = model, end_ids
        self._limits = {"max_requests_per_batch": max_num_seqs, "max_memory_percent": 0.7}
        if cache_tokens is not None:
            self._limits |= {"block_size": _BLOCK, "num_blocks": -(-cache_tokens // _BLOCK)}
        self._manager: Any = None
        self.sent: set[str] = set()

    @staticmethod
    def takes(sampling: Sampling) -> bool:
        """Greedy decoding without log-probabilities: it knows no seeds per request and no likely tokens."""
        return sampling.temperature == 0 and sampling.logprobs == 0

    @property
    def running(self) -> bool:
        """Between the first `add` and `pause`."""
        return self._manager is not None

    def start(self) -> None:
        """Raises what transformers raises where the model or the device cannot do it."""
        from transformers import GenerationConfig
        from transformers.generation import ContinuousBatchingConfig

        if self.running:
            return
        ends = sorted(self._end_ids) or -1
        manager = self._model.init_continuous_batching(
            generation_config=GenerationConfig(do_sample=False, eos_token_id=ends),
            continuous_batching_config=ContinuousBatchingConfig(**self._limits),
        )
        manager.start()
        self._manager = manager

    def add(self, request: Request, limit: int) -> None:
        """At most `limit` output tokens. With stop strings each token is reported, else the end alone."""
        streaming = bool(request.sampling.stop)
        self._manager.add_request(request.prompt, request.id, max_new_tokens=limit, streaming=streaming)
        self.sent.add(request.id)

    def drop(self, id: str) -> None:
        """The request is not needed any more."""
        self._manager.cancel_request(id)
        self.sent.discard(id)

    def outputs(self, seconds: float) -> Iterator[Any]:
        """What came in, after a wait of `seconds` at most. Raises RuntimeError where the thread has ended."""
        deadline = time.monotonic() + seconds
        while (
            output := self._manager.get_result(timeout=max(deadline - time.monotonic(), 1e-4))
        ) is not None:
            if output.request_id in self.sent:
                yield output
        if self.sent and not self._manager.is_running():
            error = self._manager.background_thread_status.fatal_error
            raise RuntimeError(f"continuous batching ended: {error}")

    def pause(self) -> None:
        """End the thread and give the model its attention back; the cache stays for the next start."""
        if self.running:
            self._manager.stop(block=True, keep_for_next_session=True, hard_stop=True)
            self._manager = None
            self.sent.clear()

    def close(self) -> None:
        """Free the cache."""
        self.pause()
        self._model.destroy_cached_continuous_batching_manager()
