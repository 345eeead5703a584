"""A disk that fills up at every point of a command, and a folder that cannot be written."""

import contextlib
import shutil
import subprocess

import pytest

from fakes.commands import FILTER, MAKE, RERANK, TRACE
from reasonrank.cli.main import main

pytestmark = pytest.mark.usefixtures("engines")
ALL = 4 << 20  # bytes of the disk
COMMANDS = {  # with what is there once it is done
    "rerank": (RERANK.replace("{at}/new", "{disk}/new") + " --traces", "new.trec.json"),
    "synthesise": (MAKE.replace("{at}/own", "{disk}/own"), "own/01_synthesis/manifest.json"),
    "filter": (FILTER.replace("{at}/run", "{disk}/run"), "run/02_filtering/manifest.json"),
    "trace": (TRACE.replace("{at}/page", "{disk}/page"), "page.html"),
}


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ALL}", "reasonrank", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs to mount a tmpfs: {getattr(error, 'stderr', error)}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def prepare(good, disk, room=None):
    """The disk with a finished stage to go on from, and `room` bytes left."""
    for path in disk.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(good / "run", disk / "run")
    if room is not None:
        with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as file:
            file.write(bytes(shutil.disk_usage(disk).free - room))


def contents(disk):
    return {path: path.read_bytes() for end in ("*.trec", "*.jsonl") for path in disk.rglob(end)}


def said(capsys):
    lines = capsys.readouterr().err.splitlines()
    return [line for line in lines if line.startswith("error: ")], lines


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk(good, disk, name, size, capsys, report):
    command, done = COMMANDS[name]
    words = command.format(at=good, disk=disk).split()
    prepare(good, disk)
    before = shutil.disk_usage(disk).used
    assert main(words) == 0
    need = shutil.disk_usage(disk).used - before
    undisturbed = contents(disk)
    failed, rooms = 0, range(0, need + 4096, max(4096, need // size(100, 4) // 4096 * 4096))
    for room in rooms:
        prepare(good, disk, room)
        capsys.readouterr()
        code = main(words)
        errors, lines = said(capsys)
        if code:
            failed += 1
            full = "No space left on device" in errors[0] or "disk is full" in errors[0]
            assert len(errors) == 1 and full and str(disk) in errors[0], (room, lines)
            assert not (disk / done).exists() and not list(disk.rglob(".*[0-9]")), room
            (disk / "filler").unlink()
            assert main(words) == 0, room
        assert (disk / done).exists() and contents(disk) == undisturbed, room
    assert failed >= len(rooms) // 2
    report(f"disk full, {name}", **{"points": failed, "half-written": 0, "lost": 0})


def test_a_folder_that_cannot_be_written(good, disk, capsys, report):
    prepare(good, disk)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    files = {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()}
    for name, (command, _) in COMMANDS.items():
        assert main(command.format(at=good, disk=disk).split()) in (1, 2), name
        errors, lines = said(capsys)
        assert len(errors) == 1 == len(lines), lines
        assert str(disk) in errors[0] and "read-only" in errors[0].lower(), name
    assert {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()} == files
    report("a folder that cannot be written", **{"commands": len(COMMANDS), "changed files": 0})
