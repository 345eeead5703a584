"""`make reproduce PROFILE=smoke`: killed over and over, without a network, and with keys that nobody may see."""

import itertools
import os
import random
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

from fakes.commands import KEYS, without_key
from reasonrank import stages
from reasonrank.stages import ROOT
from test_cli import MANIFEST, STAGE, write_notebook
from test_slurm import BODY

TIMES = ("second", "created", "minutes", "speed", "memory", "per_token", "commit", "environment")
RATIO = r"a ratio of [0-9.]+ \([^)]*\)"  # of seconds, in what is said of a claim
CUT_OFF = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def start(command, log, cwd=ROOT):
    with open(log, "ab") as out:
        both = {"stdout": out, "stderr": subprocess.STDOUT, "start_new_session": True}
        return subprocess.Popen(command, cwd=cwd, env=os.environ | KEYS, **both)


def make(run):
    return ["make", "reproduce", "PROFILE=smoke", f"RUN={run}"]


def finished(run):
    """When each finished stage was, one whose manifest and executed notebook are there."""
    found = {path.parent.name: path.stat().st_mtime_ns for path in run.glob("[0-9]*/manifest.json")}
    return {name: when for name, when in found.items() if (run / "notebooks" / f"{name}.ipynb").is_file()}


def timeless(value):
    """A record without what differs between two runs of the same: times, and what the machine has free."""
    if isinstance(value, dict):
        return {key: timeless(v) for key, v in value.items() if not any(word in key for word in TIMES)}
    if isinstance(value, list):
        return [timeless(item) for item in value]
    return re.sub(RATIO, "a ratio", value) if isinstance(value, str) else value


def records(run):
    found = {path.parent.name: stages.read_json(path)["result"] for path in run.glob("[0-9]*/record.json")}
    return {
        name: timeless(result) for name, result in found.items() if name != "06_latency_study"
    }  # all times


def run_through_kills(command, run, took, kills, cwd=ROOT):
    """Kill `command` so often, at moments spread over the stages of a run that take `took` seconds, and start it again
    each time: the whole process group, and by turns one process alone, the top one or one that it started."""
    draw, done, log, names = random.Random(0), {}, run.with_suffix(".log"), sorted(took)
    alone = itertools.cycle(["top", "snakemake", "reasonrank run"])
    for number in range(kills):
        stage = names[number * len(names) // kills]
        process, wait = start(command, log, cwd), draw.uniform(0, took[stage])
        while process.poll() is None and len(finished(run)) < names.index(stage):
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 10) if stage in finished(run) else wait)
        done |= finished(run)
        if number % 2 and process.poll() is None:
            top = psutil.Process(process.pid)
            tree, kind = [top, *top.children(recursive=True)], next(alone)
            ([each for each in tree if kind in " ".join(each.cmdline())] or tree)[0].kill()
        elif process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    process = start(command, log, cwd)
    assert process.wait() == 0, log.read_text()[-3000:]
    after = finished(run)
    assert {name: after[name] for name in done} == done, "a finished stage was done again"
    assert sorted(after) == names and not re.search("LockException|IncompleteFiles", log.read_text())
    return done


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run without a network, loopback aside, and its log."""
    if os.environ.get("REASONRANK_FAULTS") != "full":
        pytest.skip("minutes long: `make faults`")
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    if subprocess.run([*CUT_OFF, "true"], capture_output=True).returncode:
        pytest.skip("needs unshare and ip, for a network of its own")
    process = start([*CUT_OFF, *make(run)], log := run.parent / "log")
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
    files = without_key(undisturbed.parent)
    report("a run, its book and its traces without a network", **{"files": files, "files with a key": 0})


@pytest.mark.slow
def test_kills(undisturbed, tmp_path, report):
    run, kills = tmp_path / "run", int(os.environ.get("REASONRANK_KILLS", 20))
    took = {
        name: stages.read_json(undisturbed / name / "manifest.json")["seconds"]
        for name in finished(undisturbed)
    }
    run_through_kills(make(run), run, took, kills)
    assert records(run) == records(undisturbed)
    report("a smoke run killed", kills=kills, **{"finished stages done again": 0, "records that differ": 0})


@pytest.mark.slow
def test_kills_of_small_notebooks(tmp_path):
    for name in ("01_synthesis", "02_filtering"):
        slowly = f"import time\nearlier = '01_synthesis'\nfor _ in range(50):\n    time.sleep(0.1)\n{BODY.format(name)}"
        write_notebook(tmp_path / "notebooks", slowly, name=name)
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "--nolock", "--cores", "1"]
    command += [
        "--quiet",
        "rules",
        "--rerun-incomplete",
        "--config",
        "profile=smoke",
        f"run={tmp_path / 'run'}",
    ]
    took = dict.fromkeys(("01_synthesis", "02_filtering"), 15)
    assert run_through_kills(command, tmp_path / "run", took, 6, tmp_path)


def test_a_kernel_that_lives_on_does_not_meet_the_next_one(tmp_path):
    """Its runner is killed while it stands still, so that it has not noticed when the next one comes."""
    busy = "import time\nfirst = not (stage / 'begun').exists()\n(stage / 'begun').touch()\ntime.sleep(600 * first)"
    notebook, log = write_notebook(tmp_path, STAGE, busy, MANIFEST), tmp_path / "log"
    run = f"{sys.executable} -m reasonrank run {notebook} --profile smoke --run-dir {tmp_path}".split()
    first = start(run, log)
    while not (tmp_path / "03_tiny" / "begun").exists():
        time.sleep(0.01)
    kernels = psutil.Process(first.pid).children(recursive=True)
    for kernel in kernels:
        kernel.suspend()
    first.kill()
    first.wait()
    second = start(run, log)
    while "another process is at work here; waiting for its end" not in log.read_text():
        assert second.poll() is None, log.read_text()
        time.sleep(0.05)
    for kernel in kernels:
        kernel.resume()
    assert second.wait() == 0 and not any(kernel.is_running() for kernel in kernels), log.read_text()
