"""`make reproduce PROFILE=smoke`: killed over and over, without a network, and with keys that nobody may see."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest

from reasonrank import stages
from reasonrank.stages import ROOT
from test_cli import MANIFEST, STAGE, write_notebook

KEY = "sk-a-key-that-nobody-may-see"
KEYS = dict.fromkeys(("REASONRANK_TEACHER_KEY", "OPENAI_API_KEY", "HF_TOKEN"), KEY)
TIMES = ("second", "created", "minutes", "speed", "memory", "per_token", "commit")
CUT_OFF = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def start(run, log, before=()):
    words = [*before, "make", "reproduce", "PROFILE=smoke", f"RUN={run}"]
    with open(log, "ab") as out:
        both = {"stdout": out, "stderr": subprocess.STDOUT}
        return subprocess.Popen(words, cwd=ROOT, env=os.environ | KEYS, start_new_session=True, **both)


def finished(run):
    """When each finished stage was."""
    return {path.parent.name: path.stat().st_mtime_ns for path in run.glob("[0-9]*/manifest.json")}


def timeless(value):
    """A record without what differs between two runs of the same."""
    if isinstance(value, dict):
        return {key: timeless(v) for key, v in value.items() if not any(word in key for word in TIMES)}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def records(run):
    found = {path.parent.name: stages.read_json(path)["result"] for path in run.glob("[0-9]*/record.json")}
    return {
        name: timeless(result) for name, result in found.items() if name != "06_latency_study"
    }  # all times


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run without a network, loopback aside, and its log."""
    if os.environ.get("REASONRANK_FAULTS") != "full":
        pytest.skip("minutes long: `make faults`")
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    if subprocess.run([*CUT_OFF, "true"], capture_output=True).returncode:
        pytest.skip("needs unshare and ip, for a network of its own")
    process = start(run, log := run.parent / "log", CUT_OFF)
    assert process.wait() == 0, log.read_text()[-3000:]
    return run


@pytest.mark.slow
def test_without_a_network_and_no_key_anywhere(undisturbed, report):
    made = undisturbed.parent / "trace.html"
    trace = ["-m", "reasonrank", "trace", str(undisturbed), "--out", str(made)]
    book = ["-m", "tools.book", str(undisturbed / "notebooks"), str(undisturbed / "book")]
    for words in (trace, book):
        subprocess.run([*CUT_OFF, sys.executable, *words], cwd=ROOT, env=os.environ | KEYS, check=True)
    assert len(finished(undisturbed)) == 8
    files = [path for path in undisturbed.parent.rglob("*") if path.is_file()]
    assert len(files) > 100 and not [path for path in files if KEY.encode() in path.read_bytes()]
    report("a run, its book and its traces without a network", **{"files": len(files), "files with a key": 0})


@pytest.mark.slow
def test_kills(undisturbed, tmp_path, report):
    run, log, kills = tmp_path / "run", tmp_path / "log", int(os.environ.get("REASONRANK_KILLS", 20))
    names = sorted(finished(undisturbed))
    took = {name: stages.read_json(undisturbed / name / "manifest.json")["seconds"] for name in names}
    draw, done, killed = random.Random(0), {}, itertools.cycle(["make", "snakemake", "python"])
    for number in range(kills):
        stage = names[number * len(names) // kills]  # spread over the whole run
        process, wait = start(run, log), draw.uniform(0, took[stage])
        while process.poll() is None and len(finished(run)) < names.index(stage):
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 10) if stage in finished(run) else wait)
        done |= finished(run)
        if number % 2:  # one process alone: the top one, or one of those that it started
            kind = next(killed)
            tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            alone = [child for child in tree if kind in child.name()] or tree
            alone[0].send_signal(signal.SIGKILL)
        else:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    process = start(run, log)
    assert process.wait() == 0, log.read_text()[-3000:]
    after = finished(run)
    assert {name: after[name] for name in done} == done, "a finished stage was done again"
    assert records(run) == records(undisturbed)
    assert "LockException" not in log.read_text()
    report("a smoke run killed", kills=kills, **{"finished stages done again": 0, "records that differ": 0})


def test_a_kernel_that_lives_on_does_not_meet_the_next_one(tmp_path):
    """Its runner is killed while it computes without a pause, so that it notices only seconds later."""
    busy = """import ctypes
first = not (stage / "begun").exists()
(stage / "begun").touch()
ctypes.PyDLL(None).sleep(8 * first)"""
    notebook = write_notebook(tmp_path, STAGE, busy, MANIFEST)
    run = [
        sys.executable,
        "-m",
        "reasonrank",
        "run",
        str(notebook),
        "--profile",
        "smoke",
        "--run-dir",
        str(tmp_path),
    ]
    first = subprocess.Popen(run, stderr=subprocess.DEVNULL)
    while not (tmp_path / "03_tiny" / "begun").exists():
        time.sleep(0.01)
    kernels = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    first.wait()
    assert any(kernel.is_running() for kernel in kernels)
    second = subprocess.run(run, capture_output=True, text=True)
    assert second.returncode == 0 and not any(kernel.is_running() for kernel in kernels), second.stderr
    assert "another process is at work here; waiting for its end" in second.stderr
