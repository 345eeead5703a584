"""One line of progress for reranking: queries and answers that are done, how fast, and the time left."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

from .progress import clock


class RateLine:
    """Queries done of `queries`, and the rate at which `answers` (all that are to come) come in.

    Rewritten in place on a terminal, elsewhere a line every `every` seconds. `before`: queries that were done
    earlier; they are in `queries`, but not in `answers`. Call `close` in the end.
    """

    def __init__(
        self, queries: int, before: int, answers: int, stream: TextIO | None = None, every: float = 60.0
    ) -> None:
        self.queries, self.queries_done = queries, before
        self.answers, self.answers_done = answers, 0
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.every = 0.5 if self.live else every
        self.started = self.shown = time.monotonic()

    def answered(self, answers: int, spared: int = 0) -> None:
        """So many answers more are in, and so many turned out not to be needed."""
        self.answers_done += answers
        self.answers -= spared
        self._show()

    def query(self) -> None:
        """Another query is done."""
        self.queries_done += 1
        self._show()

    def text(self) -> str:
        """The line as it stands: "12/43 queries  108/387 answers  1.50/s  3:06 left"."""
        line = f"{self.queries_done}/{self.queries} queries  {self.answers_done}/{self.answers} answers"
        seconds = time.monotonic() - self.started
        if not self.answers_done or not seconds:
            return line
        left = clock(seconds / self.answers_done * (self.answers - self.answers_done))
        return f"{line}  {self.answers_done / seconds:.2f}/s  {left} left"

    def close(self) -> None:
        """On a terminal, show the last state and end the line."""
        if self.live:
            self._write(f"\r\x1b[K{self.text()}\n")

    def _show(self) -> None:
        if time.monotonic() - self.shown < self.every:
            return
        self.shown = time.monotonic()
        width = shutil.get_terminal_size().columns - 1
        self._write(f"\r\x1b[K{self.text()[:width]}" if self.live else f"{self.text()}\n")

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()
