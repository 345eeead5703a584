"""Finished work by key, in a SQLite file: a record counts once it is on the disk, so that a kill loses nothing.

The file also holds a header that says what the records depend on. JSON lines, which earlier versions wrote, are
taken over when such a file is opened.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import threading
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

MARK = b'{"journal": 1, "header": '  # how a file of JSON lines begins


class StoreError(ValueError):
    """A store that cannot be used: damaged, in use, or made with other settings."""


class Store:
    """Records by key, appended durably; a context manager, safe between threads and tasks.

    `header`: what the records depend on (settings, hashes of inputs), as JSON can hold it. `replay`: nothing is
    written, `append` is refused, and the file must be there. `done`: key -> value of all records, in the order in
    which they came in. Raises StoreError naming the file where it is no store, was made with another header (each
    setting that differs is named) or is open elsewhere; OSError where the file cannot be made.
    """

    def __init__(self, path: Path | str, header: Mapping[str, Any], replay: bool = False) -> None:
        self.path, self.replay, self._lock = Path(path), replay, threading.Lock()
        header = json.loads(_json(dict(header)))
        if lines := _read_lines(self.path):
            if replay:
                self._check(lines[0], header)
                self._database, self._opened, self.done = None, ExitStack(), lines[1]
                return
            _take_over(self.path, *lines)
        with ExitStack() as opened:
            file = opened.enter_context(open(self.path, "rb" if replay else "ab"))
            try:
                if not replay:  # the lock ends with the process, however that ends
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._database = opened.enter_context(closing(_connect(self.path)))
                if not replay and not self._database.execute("SELECT name FROM sqlite_master").fetchone():
                    _begin(self._database, header)
                found = json.loads(*self._database.execute("SELECT value FROM header").fetchone())
                rows = self._database.execute("SELECT key, value FROM records ORDER BY rowid")
                self.done = {key: json.loads(value) for key, value in rows}
            except BlockingIOError:
                raise StoreError(f"{self.path}: in use by another process") from None
            except sqlite3.Error as error:
                raise StoreError(f"{self.path}: expected a store of this project ({error})") from None
            self._check(found, header)
            self._opened = opened.pop_all()

    def _check(self, found: Any, header: Mapping[str, Any]) -> None:
        if found != header:
            raise StoreError(f"{self.path}: made with other settings: {_differences(found, header)}")

    def append(self, key: str, value: Any) -> None:
        """Add a record; when this returns it is on the disk, and where it raises nothing was added.

        Raises StoreError for a key that is there already or a store that is closed or opened for replay, TypeError
        or ValueError for what JSON cannot hold, OSError where the disk refuses.
        """
        text = _json(value)
        with self._lock:
            if self._database is None or self.replay:
                raise StoreError(f"{self.path}: closed, or opened for reading only")
            try:
                self._database.execute("INSERT INTO records VALUES (?, ?)", (key, text))
            except sqlite3.IntegrityError:
                raise StoreError(f"{self.path}: {key!r} is there already") from None
            except sqlite3.OperationalError as error:
                raise OSError(f"{self.path}: {error}") from None
            self.done[key] = json.loads(text)

    def close(self) -> None:
        """Let go of the file; may be called again."""
        with self._lock:
            self._opened.close()
            self._database = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _connect(path: Path) -> sqlite3.Connection:
    """Each statement is a transaction, and durable when it returns."""
    database = sqlite3.connect(path.absolute(), isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA synchronous = EXTRA")
    return database


def _begin(
    database: sqlite3.Connection, header: Mapping[str, Any], records: Mapping[str, Any] | None = None
) -> None:
    """Make a store of an empty file, whole or not at all."""
    with database:
        database.execute("BEGIN")
        database.execute("CREATE TABLE header (value TEXT)")
        database.execute("CREATE TABLE records (key TEXT PRIMARY KEY, value TEXT)")
        database.execute("INSERT INTO header VALUES (?)", (_json(header),))
        rows = ((key, _json(value)) for key, value in (records or {}).items())
        database.executemany("INSERT INTO records VALUES (?, ?)", rows)


def _read_lines(path: Path) -> tuple[Any, dict[str, Any]] | None:
    """Header and records of a file of JSON lines, None for another file; a last line that a kill left half-written is
    dropped."""
    data, records = path.read_bytes() if path.is_file() else b"", {}
    if not data.startswith(MARK):
        return None
    header, *lines = data[: data.rfind(b"\n") + 1].splitlines()
    for number, line in enumerate(lines, start=2):
        try:
            row = json.loads(line)
            records[row["key"]] = row["value"]
        except (ValueError, TypeError, KeyError):
            raise StoreError(f"{path}, line {number}: expected a record with key and value") from None
    return json.loads(header)["header"], records


def _take_over(path: Path, header: Mapping[str, Any], records: Mapping[str, Any]) -> None:
    """Put a store in the place of JSON lines, whole or not at all."""
    made = path.with_name(f".{path.name}.partial")
    made.unlink(missing_ok=True)
    with closing(_connect(made)) as database:
        _begin(database, header, records)
    os.replace(made, path)


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def _differences(found: Any, header: Mapping[str, Any]) -> str:
    """What two headers differ in, by keys such as "model.seed", and what to do."""
    import pandas as pd

    was, now = (pd.json_normalize(each or {}).to_dict("records")[0] for each in (found, header))
    pairs = {key: (was.get(key, "absent"), now.get(key, "absent")) for key in {**was, **now}}
    named = [f"{key} was {old!r} and is {new!r}" for key, (old, new) in pairs.items() if old != new]
    return (
        f"{'; '.join(named)}. Go on with those of the store, or delete it or name another one to start anew"
    )
