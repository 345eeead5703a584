"""Engines that compute in this process: one thread owns the model, everything else only waits for it.

The same thread loads, steps and frees the model, so that event loops may come and go (each notebook cell
has its own) and numeric libraries keep one pool of threads.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import itertools
import queue
import threading
from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field

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
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._active: dict[str, Request] = {}
        self._stopped: EngineError | None = None
        self._lock = threading.Lock()
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._work, args=(started,), daemon=True)
        self._thread.start()
        started.result()
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
        self._post(lambda: self._take(request))
        return await asyncio.wrap_future(request.future)

    def call(self, action: Callable[[], None]) -> None:
        """Run `action` in the engine's thread, between two steps, and wait for it."""
        done: Future[None] = Future()

        def run() -> None:
            try:
                done.set_result(action())
            except Exception as error:
                done.set_exception(error)

        self._post(run)
        done.result()

    def close(self) -> None:
        with self._lock:
            if self._stopped is None:
                self._stopped = EngineError(f"{self.kind} engine of {self.name}: closed")
                self._inbox.put(None)
        self._thread.join()
        atexit.unregister(self.close)

    def _post(self, item: Callable[[], None]) -> None:
        """Have the engine's thread call `item` between two steps."""
        with self._lock:
            if self._stopped is not None:
                raise EngineError(str(self._stopped)) from self._stopped.__cause__
            self._inbox.put(item)

    def _work(self, started: Future[None]) -> None:
        """The engine's thread, from the load to the end."""
        try:
            self._load()
        except BaseException as error:
            self._unload()
            started.set_exception(error)
            return
        started.set_result(None)
        try:
            while self._admit():
                if self._active:
                    self._step()
        except Exception as error:
            failure = EngineError(f"{self.kind} engine of {self.name} failed: {error!r}")
            failure.__cause__ = error
            with self._lock:
                self._stopped = failure
        finally:
            while not self._inbox.empty():  # nobody is left to wait for an engine that has ended
                if item := self._inbox.get():
                    item()
            for request in self._active.values():
                request.fail(self._stopped)
            self._active.clear()
            self._unload()

    def _admit(self) -> bool:
        """Take in all that waits, and wait while there is nothing to do. False: time to end."""
        while not self._active or not self._inbox.empty():
            item = self._inbox.get()
            if item is None:
                return False
            item()
        return True

    def _take(self, request: Request) -> None:
        if request.future.cancelled():
            return
        try:
            if self._stopped is None:
                self._add(request)
            self._active[request.id] = request
        except Exception as error:
            request.fail(error)
