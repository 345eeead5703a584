"""One line of progress per notebook: its name, the cell it is at, the time, and the bar of a long step."""

from __future__ import annotations

import re
import shutil
import sys
import threading
import time
from typing import TextIO

BAR = re.compile(r"\d+%\|.*\| *\d+/\d+|\d+it \[")


class ProgressLine:
    """The line of one notebook, kept up to date on a terminal; elsewhere its start and its end are written.

    Also a file: what the notebook writes to standard error goes to `write`, and the newest progress bar in it
    is shown at the end of the line. Use as a context manager; `outcome` is what the line says in the end.
    """

    def __init__(self, name: str, cells: int, stream: TextIO | None = None):
        self.name, self.cells = name, cells
        self.stream = stream or sys.stderr
        self.cell, self.bar, self.outcome = 0, "", "failed"
        self.started = time.monotonic()
        self._ended = threading.Event()
        self._clock = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> ProgressLine:
        if self.stream.isatty():
            self._clock.start()
        else:
            self._put(f"{self.name:20s}")
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        at = f"cell {self.cell} of {self.cells}"
        if self.stream.isatty():
            self._clock.join()
            self._put(f"\r\x1b[K{self.name:20s}")
        self._put(f"{at:16s}{clock(self.elapsed):>8s}  {self.outcome}\n")

    @property
    def elapsed(self) -> float:
        """Seconds since the line was made."""
        return time.monotonic() - self.started

    def next_cell(self) -> None:
        """Another code cell starts."""
        self.cell, self.bar = self.cell + 1, ""

    def write(self, text: str) -> None:
        """Take what the notebook writes to standard error; the figures of the last progress bar are kept."""
        bars = [part for part in re.split(r"[\r\n]", text) if BAR.search(part)]
        self.bar = re.sub(r"\|.*\| *", " ", bars[-1]).strip() if bars else self.bar

    def flush(self) -> None:
        """Nothing is held back."""

    def text(self, width: int) -> str:
        """The line as it stands, at most `width` characters."""
        at = f"cell {self.cell} of {self.cells}" if self.cell else "starting"
        return f"{self.name:20s}{at:16s}{clock(self.elapsed):>8s}  {self.bar}"[:width]

    def _tick(self) -> None:
        while not self._ended.wait(0.5):
            self._put("\r\x1b[K" + self.text(shutil.get_terminal_size().columns - 1))

    def _put(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


def clock(seconds: float) -> str:
    """Seconds as "1:02" or "1:02:03"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
