"""Engines that compute in this process: one thread owns the model, everything else only waits for it.

The same thread loads, steps and frees the model, so that event loops may come and go (each notebook cell
has its own) and numeric libraries keep one pool of threads. It is an executor's: what is submitted to it runs
between two steps.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import itertools
import threading
from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from .base import Completion, Engine, EngineError, Sampling

_numbers = itertools.count()


@dataclass(eq=False)
class Request:
    """One prompt on its way through an engine. A cancelled `future` means that nobody waits any more."""

    prompt: list[int]
    sampling: Sampling
    future: Future[Completion] = field(default_factory=Future)
    id: str = field(default_factory=lambda: f"request-{next(_numbers)}")

    def fail(self, error: Exception) -> None:
        with contextlib.suppress(InvalidStateError):  # cancelled in the meantime
            self.future.set_exception(error)


class InProcessEngine(Engine):
    """Base of the engines whose model lives in this process.

    A subclass stores its settings, calls `super().__init__()` last, and works on `self._active`, the requests that
    were added and have not ended. Only the engine's thread calls the methods that it has to provide.
    """

    def __init__(self) -> None:
        super().__init__()
        self._active: dict[str, Request] = {}
        self._stopped: EngineError | None = None
        self._lock = threading.Lock()
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

    @abstractmethod
    def _unload(self) -> None:
        """Free the model's memory; also called after a failed load."""

    @abstractmethod
    def _add(self, request: Request) -> None:
        """Take a request in. An exception fails this request alone."""

    @abstractmethod
    def _step(self) -> None:
        """Advance the active requests, `finish` those that are done. An exception fails all of them."""

    def finish(self, request: Request, completion: Completion) -> None:
        """Hand a completion to whoever waits for it."""
        self._active.pop(request.id, None)
        with contextlib.suppress(InvalidStateError):  # cancelled in the meantime
            request.future.set_result(completion)

    async def _generate(self, prompt: list[int], sampling: Sampling) -> Completion:
        request = Request(prompt, sampling)
        self.call(lambda: self._take(request), wait=False)
        return await asyncio.wrap_future(request.future)

    def call(self, action: Callable[[], Any], wait: bool = True) -> None:
        """Run `action` in the engine's thread, between two steps, and wait for it."""
        with self._lock:
            if self._stopped is not None:
                raise EngineError(str(self._stopped)) from self._stopped.__cause__
            done = self._thread.submit(action)
        if wait:
            done.result()

    def close(self) -> None:
        with self._lock:
            if self._stopped is None:
                self._stopped = EngineError(f"{self.kind} engine of {self.name}: closed")
                try:
                    self._thread.submit(self._end)
                except RuntimeError:  # the interpreter is ending, and the thread has ended
                    self._end()
        self._thread.shutdown()
        atexit.unregister(self.close)

    def _take(self, request: Request) -> None:
        if request.future.cancelled():
            return
        try:
            if self._stopped is not None:
                raise self._stopped
            self._add(request)
        except Exception as error:
            request.fail(error)
            return
        self._active[request.id] = request
        if len(self._active) == 1:  # with others in it, the next step is submitted already
            self._thread.submit(self._advance)

    def _advance(self) -> None:
        """One step, and the next one after what was submitted in the meantime."""
        try:
            if self._active:  # none after the end
                self._step()
            with self._lock:
                if self._active and self._stopped is None:
                    self._thread.submit(self._advance)
        except Exception as error:
            with self._lock:
                if self._stopped is not None:  # closed: the end is submitted already
                    return
                self._stopped = EngineError(f"{self.kind} engine of {self.name} failed: {error!r}")
                self._stopped.__cause__ = error
            self._end()

    def _end(self) -> None:
        """Fail who still waits, and free the model."""
        for request in self._active.values():
            request.fail(self._stopped)
        self._active.clear()
        self._unload()
