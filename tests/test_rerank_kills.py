"""`rerank` killed in the middle of its queries."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fakes import rerank_script
from fakes.rerank_script import stored, write_inputs
from reasonrank.runs import read_trec

# A kill

SCRIPT = Path(rerank_script.__file__)


QUERIES, KILLS = 40, 5  # queries of two windows each


def start(log, seconds, arguments):
    command = [sys.executable, str(SCRIPT), str(log), str(seconds), *arguments, "--max-in-flight", "2"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def requests(log):
    return log.read_text().splitlines() if log.exists() else []


def kill_after(process, log, count, pause):
    """SIGKILL once `count` requests are in the log, and a moment later."""
    while len(requests(log)) < count and process.poll() is None:
        time.sleep(0.002)
    time.sleep(pause)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_kills_change_nothing(tmp_path):
    folders = [tmp_path / "undisturbed", tmp_path / "killed"]
    for folder in folders:
        folder.mkdir()
    calm, killed = (write_inputs(folder, queries=QUERIES) for folder in folders)
    first = start(tmp_path / "calm.log", 0.0, calm)
    journal, log = folders[1] / "out.trec.journal", tmp_path / "log"
    draw = random.Random(0)
    for _ in range(KILLS):
        done, seen = stored(journal), len(requests(log))
        process = start(log, 0.05, killed)
        kill_after(process, log, seen + draw.randint(1, 14), draw.uniform(0, 0.05))
        assert process.returncode == -signal.SIGKILL and not (folders[1] / "out.trec").exists()
        asked = {query.removeprefix("question ") for query in requests(log)[seen:]}
        assert asked and not asked & {qid.removeprefix("q") for qid in done}
        assert done.items() <= stored(journal).items()
    assert 0 < len(stored(journal)) < QUERIES
    last = start(log, 0.0, killed)
    assert last.wait() == 0, last.stderr.read()
    assert first.wait() == 0, first.stderr.read()
    assert (folders[1] / "out.trec").read_bytes() == (folders[0] / "out.trec").read_bytes()
    assert stored(journal) == stored(folders[0] / "out.trec.journal")
    assert len(read_trec(folders[1] / "out.trec")) == QUERIES == len(stored(journal))
