"""The store: what is in it stays in it, and what cannot be used is refused with its place."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest

from reasonrank.store import Store, StoreError

HEADER = {"model": {"name": "m", "seed": 1}, "top": 100}
JOURNAL = (
    b'{"journal": 1, "header": {"model": {"name": "m", "seed": 1}, "top": 100}}\n'
    b'{"key": "q0", "value": {"docids": ["d\xe2\x80\xa8"]}}\n{"key": "q1", "value": 2}\n'
)
WORKER = """
import sys
from reasonrank.store import Store
with Store(sys.argv[1], {"model": {"name": "m", "seed": 1}, "top": 100}) as store:
    for number in range(len(store.done), 10_000):
        store.append(f"q{number}", {"n": number})
        print(number, flush=True)
"""
WORKER = """
import sys
from reasonrank.store import Store
with Store(sys.argv[1], {"model": {"name": "m", "seed": 1}, "top": 100}) as store:
    for number in range(len(store.done), 10_000):
        store.append(f"q{number}", {"n": number})
        print(number, flush=True)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a b%20.journal"


def test_records_come_back_in_their_order(path):
    with Store(path, HEADER) as store:
        for key in ("q2", "q0", "\u2028"):
            store.append(key, {"docids": [f"{key} \ud83d"]})
    with Store(path, HEADER) as store:
        assert list(store.done) == ["q2", "q0", "\u2028"] and store.done["q0"] == {"docids": ["q0 \ud83d"]}
        store.append("q3", None)
        assert store.done["q3"] is None


def test_other_settings_are_named(path):
    Store(path, HEADER).close()
    with pytest.raises(StoreError) as error:
        Store(path, {"model": {"name": "m", "seed": 2}, "window": 20})
    assert str(path) in str(error.value)
    for part in ("model.seed was 1 and is 2", "top was 100 and is 'absent'", "window was 'absent' and is 20"):
        assert part in str(error.value)
    assert "name was" not in str(error.value) and "delete it" in str(error.value)


@pytest.mark.parametrize(
    "content", [b'{"qid": "q"}\n', b"one", b"SQLite format 3\0, cut", b"\0" * 5000, None]
)
def test_other_files_and_databases_are_left_alone(path, content):
    if content is None:
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("CREATE TABLE mine (x)")
        content = path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(StoreError, match="expected a store of this project"):
        Store(path, HEADER)
    assert path.read_bytes() == content


def test_nothing_comes_twice_or_after_the_end(path):
    with Store(path, HEADER) as store:
        store.append("a", 1)
        with pytest.raises(StoreError, match="'a' is there already"):
            store.append("a", 2)
        with pytest.raises(ValueError, match="Out of range"):
            store.append("b", float("nan"))
        with pytest.raises(TypeError):
            store.append("b", {1, 2})
        assert dict(store.done) == {"a": 1}
    with pytest.raises(StoreError, match="closed"):
        store.append("b", 1)


def test_one_process_at_a_time(path):
    with Store(path, HEADER) as first, pytest.raises(StoreError, match="in use"):
        first.append("a", 1)
        Store(path, HEADER)
    with Store(path, HEADER) as again:
        assert dict(again.done) == {"a": 1}


def test_replaying_changes_nothing(path):
    with pytest.raises(FileNotFoundError):
        Store(path, HEADER, replay=True)
    with Store(path, HEADER) as store:
        store.append("a", 1)
        with Store(path, HEADER, replay=True) as replayed:
            assert dict(replayed.done) == {"a": 1}
            with pytest.raises(StoreError, match="reading only"):
                replayed.append("b", 1)
    path.write_bytes(b"")
    with pytest.raises(StoreError, match="no such table"):
        Store(path, HEADER, replay=True)
    assert path.read_bytes() == b""


def test_a_full_disk_is_an_error_that_loses_nothing(path):
    with Store(path, HEADER) as store:
        store.append("a", 1)
        store._database.execute("PRAGMA max_page_count = 1")
        with pytest.raises(OSError, match="full"):
            store.append("b", "long" * 5000)
        assert dict(store.done) == {"a": 1}
        store._database.execute("PRAGMA max_page_count = 1000")
        store.append("b", 2)
    with Store(path, HEADER) as store:
        assert dict(store.done) == {"a": 1, "b": 2}


def test_many_threads(path):
    with Store(path, HEADER) as store:
        add = lambda part: [store.append(f"{part}-{n}", n) for n in range(10)]  # noqa: E731
        threads = [threading.Thread(target=add, args=(part,)) for part in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with Store(path, HEADER) as store:
        assert dict(store.done) == {f"{p}-{n}": n for p in range(8) for n in range(10)}


def test_a_kill_loses_nothing_that_counted(path):
    worker = subprocess.Popen([sys.executable, "-c", WORKER, path], stdout=subprocess.PIPE, text=True)
    for line in worker.stdout:
        if line == "20\n":
            break
    os.kill(worker.pid, signal.SIGKILL)
    said = 20 + len(worker.communicate()[0].split())
    with Store(path, HEADER) as store:
        assert len(store.done) >= said + 1
        assert all(store.done[f"q{n}"] == {"n": n} for n in range(len(store.done)))


def test_json_lines_of_earlier_versions_are_taken_over(path):
    path.write_bytes(JOURNAL + b'{"key": "q2", "va')
    with Store(path, HEADER, replay=True) as replayed:
        assert list(replayed.done) == ["q0", "q1"]
    assert path.read_bytes().startswith(JOURNAL)
    with Store(path, HEADER) as store:
        assert dict(store.done) == {"q0": {"docids": ["d\u2028"]}, "q1": 2}
        store.append("q2", 3)
        with pytest.raises(StoreError, match="in use"):
            Store(path, HEADER)
    with Store(path, HEADER) as store:
        assert list(store.done) == ["q0", "q1", "q2"]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("line", [b"{oops}\n", b"[1]\n", b"\xff\n", b'{"key": "a"}\n'])
def test_a_damaged_line_of_theirs_is_named(path, line):
    path.write_bytes(JOURNAL + line)
    with pytest.raises(StoreError, match="line 4: expected a record"):
        Store(path, HEADER)
    assert path.read_bytes() == JOURNAL + line
    with pytest.raises(StoreError, match="seed was 1 and is 2"):
        path.write_bytes(JOURNAL)
        Store(path, HEADER | {"model": {"name": "m", "seed": 2}})
