"""Engines that compute in this process: one thread owns the model, everything else only waits for it.

The same thread loads, steps and frees the model, so that event loops may come and go (each notebook cell
has its own) and numeric libraries keep one pool of threads. It is an executor's: what is submitted to it runs
between two steps.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from .base import Completion, Engine, EngineError, Sampling


@dataclass(eq=False)
class Request:
    """One prompt on its way through an engine. A cancelled `future` means that nobody waits any more."""

    prompt: list[int]
    sampling: Sampling
    future: Future[Completion] = field(default_factory=Future)
    id: str = field(default_factory=lambda: uuid4().hex)


class InProcessEngine(Engine):
    """Base of the engines whose model lives in this process.

    A subclass stores its settings, calls `super().__init__()` last, and works on `self._active`, the requests that
    were added and have not ended. Only the engine's thread calls the methods that it provides.
    """

    def __init__(self, model: str, adapter: str | Path | None) -> None:
        super().__init__()
        self.name, self.adapter = model, adapter
        self._active: dict[str, Request] = {}
        self._stopped: EngineError | None = None
        self._thread = ThreadPoolExecutor(max_workers=1)
        try:
            self._thread.submit(self._load).result()
        except BaseException:
            self.close()
            raise
        atexit.register(self.close)

    @abstractmethod
    def _load(self) -> None:
        """Load the model; set `tokenizer` and `max_model_len`."""

    def _reload(self) -> None:
        """Put the weights of `name` and `adapter` in place of the others; set what differs."""
        self._load()

    @abstractmethod
    def _unload(self) -> None:
        """Free the model's memory; also called after a failed load."""

    @abstractmethod
    def _step(self) -> None:
        """Advance the active requests, `finish` those that are done. An exception fails all of them."""

    def _add(self, request: Request) -> None:
        """Take a request in. An exception fails this request alone."""

    def _drop(self, request: Request) -> None:
        """Forget a request that needs no more tokens, or that nobody waits for any more."""

    def finish(self, request: Request, result: Completion | Exception) -> None:
        """Hand a completion, or what is in its place, to whoever waits for it."""
        self._active.pop(request.id, None)
        with contextlib.suppress(InvalidStateError):  # cancelled in the meantime
            if isinstance(result, Exception):
                request.future.set_exception(result)
            else:
                request.future.set_result(result)

    async def _generate(self, prompt: list[int], sampling: Sampling) -> Completion:
        request = Request(prompt, sampling)
        self._submit(lambda: self._take(request))
        return await asyncio.wrap_future(request.future)

    def call(self, action: Callable[[], Any]) -> None:
        """Run `action` in the engine's thread, between two steps, and wait for it."""
        self._submit(action).result()

    def _submit(self, action: Callable[[], Any]) -> Future[Any]:
        if self._stopped is not None:
            raise EngineError(str(self._stopped)) from self._stopped.__cause__
        return self._thread.submit(action)

    def load(self, model: str, adapter: str | Path | None = None) -> None:
        self.name, self.adapter = model, adapter
        self.call(self._reload)

    def close(self) -> None:
        if self._stopped is None:
            self._stopped = EngineError(f"{self.kind} engine of {self.name}: closed")
            try:
                self._thread.submit(self._end)
            except RuntimeError:  # the interpreter is ending, and the thread has ended
                self._end()
        self._thread.shutdown()
        atexit.unregister(self.close)

    def _take(self, request: Request) -> None:
        try:
            if self._stopped is not None:
                raise self._stopped
            self._add(request)
        except Exception as error:
            self.finish(request, error)
            return
        self._active[request.id] = request
        if len(self._active) == 1:  # with others in it, the next step is submitted already
            self._thread.submit(self._advance)

    def _advance(self) -> None:
        """One step, and the next one after what was submitted in the meantime."""
        try:
            for request in [request for request in self._active.values() if request.future.cancelled()]:
                del self._active[request.id]
                self._drop(request)
            if self._active:
                self._step()
        except Exception as error:
            self._stopped = EngineError(f"{self.kind} engine of {self.name} failed: {error!r}")
            self._stopped.__cause__ = error
            self._end()
        if self._active and self._stopped is None:
            self._thread.submit(self._advance)

    def _end(self) -> None:
        """Fail who still waits, and free the model."""
        for request in list(self._active.values()):
            self.finish(request, self._stopped)
        self._unload()
