"""`python -m reasonrank rerank` as a person calls it, with a real model: in this process, then on a server."""

import json
import subprocess
import sys

import pytest

from fakes.serving import MODEL, needs_vllm, vllm_server
from reasonrank.runs import read_trec

pytestmark = [pytest.mark.slow, needs_vllm]


@pytest.fixture
def arguments(tmp_path):
    """Two queries over five passages, one of whose ids holds a blank."""
    docids = ["a/tea leaves.txt", "b", "c", "d", "e"]
    run = "".join(f"q{q} Q0 {docid} {n} {9 - n} t\n" for q in (1, 2) for n, docid in enumerate(docids))
    rows = [{"_id": docid, "title": "", "text": f"Passage number {n}."} for n, docid in enumerate(docids)]
    (tmp_path / "first.trec").write_text(run)
    (tmp_path / "queries.jsonl").write_text(
        '{"_id": "q1", "text": "Why is tea bitter?"}\n{"_id": "q2", "text": "Why is the sky blue?"}\n'
    )
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sizes = {"--window": 4, "--step": 2, "--max-tokens": 48, "--passage-tokens": 32, "--max-model-len": 1024}
    limits = [str(part) for pair in sizes.items() for part in pair]
    return ["--run", "first.trec", "--data", ".", "--model", MODEL, "--dtype", "bfloat16", *limits]


def go(folder, arguments, *more):
    command = [sys.executable, "-m", "reasonrank", "rerank", *arguments, *more]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr
    return done


def test_in_process_and_on_a_server(tmp_path, arguments):
    done = go(tmp_path, arguments, "--engine", "vllm", "--out", "inside.trec")
    assert done.stdout.startswith("2 queries (2 now), 4 calls, ")
    again = go(tmp_path, arguments, "--engine", "vllm", "--out", "inside.trec")
    assert "nothing to do" in again.stderr
    with vllm_server(tmp_path / "log") as url:
        go(tmp_path, arguments, "--base-url", url, "--out", "served.trec")
    first = read_trec(tmp_path / "first.trec")
    for name in ("inside.trec", "served.trec"):
        run = read_trec(tmp_path / name)
        assert list(run) == ["q1", "q2"]
        assert all(sorted(run[qid]) == sorted(first[qid]) for qid in run)
        result = json.loads((tmp_path / f"{name}.json").read_text())["result"]
        assert sum(result["statuses"].values()) == result["calls"] == 4 and result["output_tokens"] > 0
