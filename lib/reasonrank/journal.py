"""A journal of finished work: JSON lines that are on the disk before they count, so that a kill loses nothing.

The first line is a header that says what the work depends on; each other line is a record with its key. What a
kill left half-written at the end of the file is dropped when the journal is opened again.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

FORMAT = 1


class JournalError(ValueError):
    """A journal that cannot be used: damaged, in use, or made with other settings."""


class Journal:
    """Records by key, appended durably; a context manager, safe between threads and tasks.

    `header`: what the records depend on (settings, hashes of inputs), as JSON can hold it. `replay_only`:
    nothing is written, `append` is refused, and the file must be there. `dropped`: bytes of a half-written last
    line that were dropped, 0 as a rule. Raises JournalError naming the file, and the line where one is damaged,
    where the journal was made with another header (each setting that differs is named) or is open elsewhere;
    OSError where the file cannot be made.
    """

    def __init__(self, path: Path | str, header: Mapping[str, Any], *, replay_only: bool = False) -> None:
        self.path, self.header = Path(path), json.loads(_line(dict(header)))
        self._lock, self._done, self.dropped = threading.Lock(), {}, 0
        self.replay_only = replay_only
        flags = os.O_RDONLY if replay_only else os.O_RDWR | os.O_CREAT | os.O_APPEND
        self._file: int | None = os.open(self.path, flags, 0o644)
        try:
            if not replay_only:
                self._take()
            self._replay()
        except BaseException:
            self.close()
            raise

    @property
    def done(self) -> Mapping[str, Any]:
        """Key -> value of all records, in the order in which they came in; it grows with `append`."""
        return MappingProxyType(self._done)

    def append(self, key: str, value: Any) -> None:
        """Add a record; when this returns it is on the disk, and where it raises nothing was added.

        Raises JournalError for a key that is there already or a journal that is closed or replayed only,
        TypeError or ValueError for what JSON cannot hold, OSError where the disk refuses.
        """
        line = _line({"key": key, "value": value})
        with self._lock:
            if self._file is None or self.replay_only:
                raise JournalError(f"{self.path}: closed, or opened for reading only")
            if key in self._done:
                raise JournalError(f"{self.path}: {key!r} is there already")
            self._write(line)
            self._done[key] = value

    def close(self) -> None:
        """Let go of the file; may be called again."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
            self._file = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _take(self) -> None:
        """Keep other processes out; the lock ends with the process, however that ends."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalError(f"{self.path}: in use by another process") from None

    def _replay(self) -> None:
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        self.dropped = len(data) - len(whole)
        if not whole and not self.replay_only and _starts_header(data):
            os.ftruncate(self._file, 0)
            self._write(whole := _line({"journal": FORMAT, "header": self.header}))
            _sync_folder(self.path.parent)
        rows = _rows(self.path, whole)
        _check(self.path, next(rows, {}), self.header)
        for number, row in enumerate(rows, start=2):
            if set(row) != {"key", "value"} or not isinstance(row["key"], str):
                raise JournalError(f"{self.path}, line {number}: expected a record with key and value")
            if row["key"] in self._done:
                raise JournalError(f"{self.path}, line {number}: {row['key']!r} a second time")
            self._done[row["key"]] = row["value"]
        if self.dropped and not self.replay_only:
            os.ftruncate(self._file, len(whole))

    def _write(self, line: bytes) -> None:
        """A whole line, on the disk, or none of it."""
        end = os.fstat(self._file).st_size
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except BaseException:
            os.ftruncate(self._file, end)
            raise


def _line(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _starts_header(data: bytes) -> bool:
    """Whether a file without a whole line is an empty one or a journal whose header is half-written."""
    mark = b'{"journal": '
    return data.startswith(mark) or mark.startswith(data)


def _rows(path: Path, data: bytes) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise JournalError(f"{path}, line {number}: expected a JSON object, got {line[:80]!r}")
        yield row


def _check(path: Path, found: Mapping[str, Any], header: Mapping[str, Any]) -> None:
    """The first line must be a header, and the same one."""
    if found.get("journal") != FORMAT or not isinstance(found.get("header"), dict):
        raise JournalError(f"{path}, line 1: no journal of this project; expected its header")
    there, now = _flat(found["header"]), _flat(header)
    changed = [key for key in {**there, **now} if there.get(key, "absent") != now.get(key, "absent")]
    if changed:
        named = "; ".join(
            f"{key} was {there.get(key, 'absent')!r} and is {now.get(key, 'absent')!r}" for key in changed
        )
        raise JournalError(
            f"{path}: made with other settings: {named}. Go on with those of the journal, "
            "or delete it or name another one to start anew"
        )


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, entry in value.items():
        inside = isinstance(entry, dict) and entry
        flat |= _flat(entry, f"{prefix}{key}.") if inside else {f"{prefix}{key}": entry}
    return flat


def _sync_folder(folder: Path) -> None:
    """Make a new file's name durable too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
