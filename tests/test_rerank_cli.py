"""`rerank` with a model that sorts by number: its files, its store, and what it refuses."""

import contextlib
import hashlib
import json
import os
import re
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.rerank_script import NumberEngine, stored, weights, write_inputs
from reasonrank.cli import rerank
from reasonrank.cli.main import main
from reasonrank.engines import EngineError
from reasonrank.runs import read_trec


@pytest.fixture
def arguments(tmp_path):
    return write_inputs(tmp_path)


def go(arguments, *more):
    return main(["rerank", *arguments, *more])


def test_the_run_its_record_and_what_is_shown(tmp_path, arguments, engines, capsys):
    assert go(arguments, "--seed", "5") == 0
    run = read_trec(tmp_path / "out.trec")
    # Numbers of q0's candidates 0..5 are 0 1 2 3 4 5. The window [2, 6) gives 5 4 3 2, then [0, 4) of
    # 0 1 5 4 gives 5 4 1 0, so the list ends as 5 4 1 0 3 2.
    assert run["q0"] == [f"doc 0/{d}" for d in (5, 4, 1, 0, 3, 2)]
    assert list(run) == ["q0", "q1", "q2", "q3"] and engines[0].closed
    assert stored(tmp_path / "out.trec.journal")["q0"]["docids"] == run["q0"]
    shown = capsys.readouterr().out
    assert shown.startswith("4 queries (4 now), 8 calls, ")
    assert ", 56 output tokens, 8 ok, " in shown and " output tokens per second" in shown
    record = json.loads((tmp_path / "out.trec.json").read_text())
    result = record["result"]
    assert (result["queries"], result["calls"], result["output_tokens"]) == (4, 8, 56)
    assert result["statuses"] == {"ok": 8} and result["seconds"] > 0
    assert (result["shortened"], result["retries"], result["excluded_rows"]) == (0, 0, 0)
    assert record["seed"] == 5 and record["config"]["settings"]["window"] == 4
    assert [file["file"] for file in record["files"]] == ["first.trec", "queries.tsv", "corpus.jsonl"]
    assert str(tmp_path) not in json.dumps(record["files"])


def test_an_adapter_is_asked_in_the_form_that_it_was_trained_in(
    arguments, engines, root, tmp_path, monkeypatch
):
    seen, build = [], rerank.build
    monkeypatch.setattr(rerank, "build", lambda *a, **b: seen.append(b.get("repeat")) or build(*a, **b))
    for name in ("full", "worked"):
        adapter = str(root / "data" / "adapters" / name / "sft")
        assert go(arguments, "--out", str(tmp_path / f"{name}.trec"), "--adapter", adapter) == 0
    assert go(arguments) == 0 and seen == [None, True, None]


def test_queries_outside_the_run_and_candidates_past_the_top(tmp_path, arguments, engines, capsys):
    with open(tmp_path / "queries.tsv", "a") as file:
        file.write("q9\tnobody asks\n")
    assert go(arguments, "--top", "3") == 0
    assert read_trec(tmp_path / "out.trec")["q0"] == [f"doc 0/{d}" for d in (2, 1, 0, 3, 4, 5)]
    assert "1 ignored queries" in capsys.readouterr().out


def test_a_finished_run_has_nothing_to_do(tmp_path, arguments, engines, capsys):
    assert go(arguments) == 0
    files = [tmp_path / f"out.trec{suffix}" for suffix in ("", ".json", ".journal")]
    before = [file.read_bytes() for file in files]
    files[0].unlink()
    capsys.readouterr()
    assert go(arguments) == 0
    assert [file.read_bytes() for file in files] == before and len(engines) == 1
    assert "4 of 4 queries are in " in capsys.readouterr().err


def test_an_error_keeps_what_is_done_and_the_next_run_asks_for_the_rest(tmp_path, arguments, engines, capsys):
    def fail(query):
        if query == "question 2":
            raise EngineError("out of memory")

    engines.make = lambda: NumberEngine(fail=fail)
    assert go(arguments, "--max-in-flight", "1") == 1
    assert "error: out of memory\n" in (message := capsys.readouterr().err)
    done = list(stored(tmp_path / "out.trec.journal"))
    assert f"{len(done)} of 4 queries are in the journal" in message and 0 < len(done) < 4
    assert not (tmp_path / "out.trec").exists()
    engines.make = NumberEngine
    assert go(arguments, "--max-in-flight", "9") == 0  # concurrency is no setting of the journal
    assert sorted(set(engines[1].asked)) == [f"question {q}" for q in range(4) if f"q{q}" not in done]
    result = json.loads((tmp_path / "out.trec.json").read_text())["result"]
    assert (result["queries"], result["queries_now"], result["calls"]) == (4, 4 - len(done), 8)


def test_a_store_of_other_settings_or_inputs_is_refused(tmp_path, arguments, engines, capsys):
    assert go(arguments) == 0
    for change, message in {
        ("--seed", "1"): "settings.seed was 0 and is 1",
        ("--sampling", "qwen3"): "sampling was 'greedy' and is 'qwen3'",
        ("--retry",): "settings.retry was False and is True",
    }.items():
        assert go(arguments, *change) == 2
        shown = capsys.readouterr().err
        assert message in shown and "out.trec.journal: made with other settings" in shown
    with open(tmp_path / "corpus.jsonl", "a") as file:
        file.write('{"_id": "unused", "text": "not in the run"}\n')
    (tmp_path / "renamed.tsv").write_text((tmp_path / "queries.tsv").read_text())
    assert go(arguments, "--queries", str(tmp_path / "renamed.tsv")) == 0  # same texts, as far as used
    (tmp_path / "model" / "model.safetensors").write_bytes(weights("trained on"))
    (tmp_path / "queries.tsv").write_text("q0\tanother\nq1\tb\nq2\tc\nq3\td\n")
    capsys.readouterr()
    assert go(arguments) == 2
    shown = capsys.readouterr().err
    assert "inputs.queries was" in shown and "model.weights was" in shown and "inputs.run" not in shown


def test_a_journal_that_was_tampered_with(tmp_path, arguments, engines, capsys):
    assert go(arguments) == 0
    journal = tmp_path / "out.trec.journal"
    with contextlib.closing(sqlite3.connect(journal)) as store, store:
        store.execute("UPDATE records SET value = replace(value, 'doc 1/3', 'doc 1/x')")
    assert go(arguments) == 1
    assert "query 'q1' has other documents than the run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--queries", "{at}/none.tsv"], "none.tsv: no such file"),
        (["--out", "{at}/none/out.trec"], "none/out.trec: its folder does not exist"),
        (["--out", "{at}/first.trec"], "first.trec: expected the name of a file that is not read"),
        (["--out", "{at}/queries.tsv"], "queries.tsv: expected the name of a file that is not read"),
        (["--model", "{at}/none"], "none: no such model folder"),
        (["--step", "9"], "step is 9; expected 1 to 4"),
        (["--tag", "a b"], "--tag 'a b': expected a word"),
        (["--strategy", "topdown", "--window", "1"], "window is 1; top-down partitioning needs 2"),
        (["--strategy", "single", "--window", "0"], "for '--window'"),
        (["--max-tokens", "50", "--max-model-len", "40"], "the context has 40 tokens"),
        (["--constrained", "--engine", "transformers"], "--constrained: only vLLM can"),
        (["--strategy", "zigzag"], "zigzag"),
        (["--base-url", "http://x/v1", "--engine", "vllm"], "go together"),
        (["--engine", "openai"], "--base-url URL go together"),
        (["--adapter", "none"], "--adapter: none: a LoRA adapter needs an adapter_config.json"),
        (["--max-tokens", "4000"], "--max-tokens 4000: the context has 4000 tokens"),
    ],
)
def test_wrong_options(tmp_path, arguments, engines, capsys, more, message):
    assert go(arguments, *(word.format(at=tmp_path) for word in more)) == 2
    assert message in capsys.readouterr().err
    assert "--max-tokens 4000" in message or not engines  # known only when the engine is open


@pytest.mark.parametrize("strategy", ["single", "full", "topdown", "pointwise"])
def test_no_step_is_needed_where_none_is_used(tmp_path, arguments, engines, strategy):
    if strategy == "pointwise":
        engines.make = lambda: ScoringEngine()
    assert go(arguments, "--window", "3", "--step", "10", "--strategy", strategy) == 0
    assert len(read_trec(tmp_path / "out.trec")) == 4


class ScoringEngine(NumberEngine):
    """Its verdicts are one as likely as the other."""

    async def _generate(self, prompt, sampling):
        return replace(await super()._generate(prompt, sampling), logprobs=[{"true": -1.0, "false": -1.0}])


class NamingEngine(NumberEngine):
    """The best passage's identifier is the likeliest to begin the answer."""

    async def _generate(self, prompt, sampling):
        whole = await super()._generate(prompt, sampling)
        order = re.findall(r"\[(\d)\]", whole.text)
        tops = {number: -1.0 - place for place, number in enumerate(order)}
        return replace(whole, text=order[0], token_ids=(1,), output_tokens=1, logprobs=[tops])


def test_logits_rank_windows_by_a_token_each(tmp_path, arguments, engines, capsys):
    assert go(arguments, "--out", str(tmp_path / "written.trec")) == 0
    engines.make = NamingEngine
    assert go(arguments, "--strategy", "logits") == 0
    assert read_trec(tmp_path / "out.trec") == read_trec(tmp_path / "written.trec")
    result = json.loads((tmp_path / "out.trec.json").read_text())["result"]
    assert (result["calls"], result["output_tokens"], result["statuses"]) == (8, 8, {"ok": 8})
    engines.make = NumberEngine
    assert go(arguments, "--strategy", "logits", "--out", str(tmp_path / "none.trec")) == 1
    assert (
        "error: numbers: the fake engine gives no log-probabilities to rank by\n" in capsys.readouterr().err
    )


@pytest.mark.parametrize("option", ["--run", "--queries", "--corpus"])
def test_a_pipe_is_read_once_and_named(tmp_path, arguments, engines, capsys, option):
    """As `--run <(cat first.trec)` gives it; the record holds the hash of what was in it."""
    content = Path(arguments[arguments.index(option) + 1]).read_bytes()
    os.mkfifo(pipe := tmp_path / "pipe")
    for written, code in ((content, 0), (b"{\n", 2)):
        threading.Thread(target=pipe.write_bytes, args=[written], daemon=True).start()
        assert go(arguments, option, str(pipe)) == code
    assert f"error: {pipe}, line 1: " in capsys.readouterr().err
    files = json.loads((tmp_path / "out.trec.json").read_text())["files"]
    assert hashlib.sha256(content).hexdigest() in {entry["sha256"] for entry in files}


def test_prompts_that_do_not_fit_are_shortened_and_counted_or_refused(tmp_path, arguments, engines, capsys):
    (tmp_path / "corpus.jsonl").write_text(
        (tmp_path / "corpus.jsonl").read_text().replace("is its number", "is it " + "x" * 1500)
    )
    long = [*arguments, "--passage-tokens", "2000"]
    assert go(long, "--overlong", "error") == 1
    assert "error: query 'q" in (shown := capsys.readouterr().err) and "exceeds" in shown
    os.remove(tmp_path / "out.trec.journal")
    assert go(long) == 0
    assert ", 8 shortened" in capsys.readouterr().out
