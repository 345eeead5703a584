"""The journal: what is in it stays in it, and what cannot be used is refused with its place."""

import json
import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonrank.journal import Journal, JournalError

HEADER = {"model": {"name": "m", "seed": 1}, "top": 100}
FIRST = b'{"journal": 1, "header": {"model": {"name": "m", "seed": 1}, "top": 100}}\n'


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.journal"


def write(path, count=3):
    with Journal(path, HEADER) as journal:
        for number in range(count):
            journal.append(f"q{number}", {"docids": [f"d\u2028 {number}"]})


def test_records_come_back_in_their_order(path):
    write(path)
    assert path.read_bytes().startswith(FIRST + b'{"key": "q0", "value": {"docids": ["d')
    with Journal(path, HEADER) as journal:
        assert dict(journal.done) == {f"q{n}": {"docids": [f"d\u2028 {n}"]} for n in range(3)}
        assert list(journal.done) == ["q0", "q1", "q2"] and journal.dropped == 0
        journal.append("q3", None)
        assert journal.done["q3"] is None
    assert len(path.read_bytes().splitlines()) == 5


@settings(deadline=None, max_examples=50)  # each waits for the disk
@given(st.data())
def test_a_file_cut_anywhere_loses_only_its_last_line(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("cut") / "x"
    write(path)
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    lines = whole[:cut].count(b"\n")
    with Journal(path, HEADER) as journal:
        assert list(journal.done) == [f"q{n}" for n in range(max(0, lines - 1))]
        assert journal.dropped == len(whole[:cut].rpartition(b"\n")[2])
        for number in range(len(journal.done), 3):
            journal.append(f"q{number}", {"docids": [f"d\u2028 {number}"]})
    assert path.read_bytes() == whole


def test_other_settings_are_named(path):
    write(path)
    other = {"model": {"name": "m", "seed": 2}, "window": 20}
    with pytest.raises(JournalError) as error:
        Journal(path, other)
    assert str(path) in str(error.value)
    for part in ("model.seed was 1 and is 2", "top was 100 and is 'absent'", "window was 'absent' and is 20"):
        assert part in str(error.value)
    assert "name was" not in str(error.value) and "delete it" in str(error.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{oops}\n", "line 3: expected a JSON object"),
        (b"[1]\n", "line 3: expected a JSON object"),
        (b"\xff\n", "line 3: expected a JSON object"),
        (b'{"key": 1, "value": 2}\n', "line 3: expected a record"),
        (b'{"key": "a"}\n', "line 3: expected a record"),
        (b'{"key": "q0", "value": 2}\n', "line 3: 'q0' a second time"),
    ],
)
def test_a_damaged_line_is_named(path, line, message):
    write(path, 1)
    damaged = path.read_bytes() + line
    path.write_bytes(damaged)
    with pytest.raises(JournalError, match=message):
        Journal(path, HEADER)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize(
    "content", [b'{"qid": "q"}\n', b'{"journal": 2, "header": {}}\n', b'{"a": 1}\ntwo', b"one", b"{{"]
)
def test_other_files_are_left_alone(path, content):
    path.write_bytes(content)
    with pytest.raises(JournalError, match="line 1: no journal"):
        Journal(path, HEADER)
    assert path.read_bytes() == content


def test_nothing_comes_twice_or_after_the_end(path):
    with Journal(path, HEADER) as journal:
        journal.append("a", 1)
        with pytest.raises(JournalError, match="'a' is there already"):
            journal.append("a", 2)
        with pytest.raises(ValueError, match="Out of range"):
            journal.append("b", float("nan"))
        with pytest.raises(TypeError):
            journal.append("b", {1, 2})
        assert dict(journal.done) == {"a": 1}
    with pytest.raises(JournalError, match="closed"):
        journal.append("b", 1)


def test_one_process_at_a_time(path):
    with Journal(path, HEADER), pytest.raises(JournalError, match="in use"):
        Journal(path, HEADER)
    Journal(path, HEADER).close()


def test_replaying_changes_nothing(path):
    with pytest.raises(FileNotFoundError):
        Journal(path, HEADER, replay_only=True)
    write(path)
    half = path.read_bytes()[:-5]
    path.write_bytes(half)
    with Journal(path, HEADER, replay_only=True) as journal:
        assert list(journal.done) == ["q0", "q1"] and journal.dropped > 0
        with pytest.raises(JournalError, match="reading only"):
            journal.append("q2", 1)
    assert path.read_bytes() == half
    path.write_bytes(b"")
    with pytest.raises(JournalError, match="line 1: no journal"):
        Journal(path, HEADER, replay_only=True)


def test_a_full_disk_leaves_no_half_line(path, monkeypatch):
    """The disk takes ten bytes, then nothing; later there is room again."""
    with Journal(path, HEADER) as journal:
        real, calls = os.write, []

        def write(file, data):
            calls.append(len(data))
            if len(calls) > 1:
                raise OSError(28, "No space left on device")
            return real(file, data[:10])

        monkeypatch.setattr(os, "write", write)
        with pytest.raises(OSError, match="No space"):
            journal.append("a", "long enough")
        monkeypatch.undo()
        assert path.read_bytes() == FIRST and "a" not in journal.done
        journal.append("a", 1)
    assert path.read_bytes() == FIRST + b'{"key": "a", "value": 1}\n'


def test_many_threads(path):
    with Journal(path, HEADER) as journal:
        add = lambda part: [journal.append(f"{part}-{n}", n) for n in range(20)]  # noqa: E731
        threads = [threading.Thread(target=add, args=(part,)) for part in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    rows = [json.loads(line) for line in path.read_bytes().splitlines()[1:]]
    assert {row["key"]: row["value"] for row in rows} == {f"{p}-{n}": n for p in range(8) for n in range(20)}
