"""From one's own data (synthesise, filter), or the authors' published sets, to trained weights."""

import pytest
import yaml

from fakes.teacher_server import serving, settings
from fakes.tiny import save_tiny_llama
from reasonrank import examples, profiles, stages
from reasonrank.cli.main import main
from test_examples import published
from test_folder import write

FAST = ("timeout", "backoff", "attempts", "answers", "base_url", "model", "key_variable")


def own_data(folder, labels=None):
    folder.mkdir()
    words = ["apple", "bread", "cloud", "dust", "earth", "fire", "grass", "hill", "iron", "jade"]
    passages = [{"id": w, "text": f"All about {w}, and how {w} is made."} for w in words]
    queries = [{"id": f"q-{w}", "text": f"How is {w} made?", "answer": f"{w} is made so."} for w in words[:4]]
    return write(folder, queries, passages, labels)


def asking(data, server=None, **changes):
    """The command `synthesise` with the faulty server for a teacher."""
    remote = settings(server).model_dump() | changes
    pairs = [f"synthesis.remote.{key}={remote[key]}" for key in (*FAST, *changes)]
    ask = ["synthesise", "--data", str(data), "--teacher", "remote", "--first-stage", "bm25"]
    return [*ask, "--profile", "smoke", *(word for pair in pairs for word in ("-p", pair))]


def loaded(run, stage="01_synthesis", name="examples.jsonl"):
    return examples.load(stages.stage_file(run, stage, name))


def test_from_own_data_to_a_filtered_set(tmp_path, capsys):
    data, out = own_data(tmp_path / "mine"), tmp_path / "run"
    with serving(rate=0.2, seed=4) as server:
        ask = [*asking(data, server), "--out", str(out)]
        assert main(ask) == 0
    printed = capsys.readouterr().out
    assert "mine: queries 4, answered 4, with positives 4, lists 4" in printed
    assert "requests, failed: " in printed
    stage = out / "01_synthesis"
    made = {p: p.read_bytes() for p in (*(stage / "dataset").rglob("*.*"), stage / "examples.jsonl")}
    assert main([*ask, "--replay"]) == 0
    assert {path: path.read_bytes() for path in made} == made
    assert main(["filter", "--alpha", "0", "--profile", "smoke", "--out", str(out)]) == 0
    kept = loaded(out, "02_filtering", "kept.jsonl")
    assert sorted(e.qid for e in kept) == ["q-apple", "q-bread", "q-cloud", "q-dust"]
    assert {e.dataset for e in kept} == {"mine"}
    assert main(["filter", "-p", "filtering.datasets=[yours]", "--profile", "smoke", "--out", str(out)]) == 0
    result = stages.read_json(out / "02_filtering" / "record.json")["result"]
    assert (result["kept"], result["dropped"], len(result["scores"])) == (0, 4, 4)


def test_a_budget_that_ends_is_said_and_what_is_done_stays(tmp_path, capsys):
    data, out = own_data(tmp_path / "mine"), tmp_path / "run"
    with serving() as server:
        ask = [*asking(data, server), "--out", str(out)]
        limit = ["-p", "synthesis.remote.token_budget=100"]
        assert main([*ask, *limit]) == 1
        assert "no example was made; mine: queries 4, answered 0" in capsys.readouterr().err
        assert not server.seen
        assert main([*ask, "--queries", "3"]) == 0
        asked = len(server.seen)
        assert main([*ask, *limit]) == 1, "three are in the store, the fourth is over the limit"
        assert "1 queries are not done: the budget would be passed; raise" in capsys.readouterr().err
        assert len(server.seen) == asked and len(loaded(out)) == 3
        assert main([*ask, "--replay"]) == 1
        assert "1 queries are not done: the store has no answer for them" in capsys.readouterr().err
        assert main(ask) == 0 and len(loaded(out)) == 4


@pytest.mark.parametrize(
    ("status", "sent", "message"),
    [
        (400, None, "answered 400: no such thing: (key)"),
        (422, None, "answered 422: "),
        (200, {"choices": None, "note": "another"}, '/v1 sent {"choices": null, "note": "another"}'),
        (200, {"error": {"code": 503, "message": "asleep"}}, "answered 503: asleep"),
    ],
)
def test_what_the_server_says_to_every_request_is_said_once(tmp_path, capsys, status, sent, message):
    with serving(status=status, script=[sent] * 99) as server:
        ask = asking(own_data(tmp_path / "mine"), server, attempts=2, max_in_flight=1)
        assert main([*ask, "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert error.count(message) == 1 and len(error.splitlines()) == 1 and "4 queries" in error
    assert not (tmp_path / "run" / "01_synthesis").exists()


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["-p", "synthesis.windw=3"], 2, "synthesis.windw"),
        (["-p", "synthesis.max_positives=10"], 2, "a list needs room for 10 positives"),
        (["-p", "synthesis"], 2, "-p synthesis: expected KEY=VALUE"),
        (["-p", "synthesis.remote.model=a: b: c"], 2, "-p synthesis.remote.model=a: b: c: expected a value"),
        (["--teacher", "remote", "--replay"], 1, "teacher.sqlite"),
        (["--scenario", "chess"], 2, "chess"),
        (["--candidates", "0"], 2, "--candidates"),
        (["filter"], 2, "no manifest in the run folder; run notebooks/01_synthesis.ipynb first"),
        (["filter", "--alpha", "1.5"], 2, "filtering.alpha: Input should be less than or equal to 1"),
    ],
)
def test_wrong_calls(tmp_path, capsys, more, code, message):
    ask = ["synthesise", "--data", str(own_data(tmp_path / "mine")), "--first-stage", "bm25"]
    ask = [] if more[0] == "filter" else ask
    assert main([*ask, *more, "--profile", "smoke", "--out", str(tmp_path / "run")]) == code
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "run" / "01_synthesis").exists()


def test_the_published_sets_are_taken_over_and_filtered(tmp_path):
    changes, out = {"data.folder": str(published(tmp_path))}, tmp_path / "run"
    for subset, qids in (("13k", ["q1", "q2"]), ("sft", ["q2"]), ("rl", ["q1"])):
        own = profiles.load("smoke", changes | {"synthesis.published": subset})
        file = examples.source(out, own, "01_synthesis")
        assert [e.qid for e in examples.load(file)] == qids
        written = file.stat().st_mtime_ns
        assert examples.source(out, own, "01_synthesis").stat().st_mtime_ns == written  # it is there
    unfiltered = profiles.load("smoke", changes | {"synthesis.published": "sft", "stages": ["03_sft"]})
    assert [e.qid for e in examples.load(examples.source(out, unfiltered, "02_filtering"))] == ["q2"]
    # q1: NDCG@10 1; q2: its positive is second, 1 / log2(3) = 0.63
    words = ["-p", f"data.folder={tmp_path}", "-p", "synthesis.published=13k", "--profile", "smoke"]
    assert main(["filter", "--alpha", "0.7", *words, "--out", str(out)]) == 0
    assert [e.qid for e in loaded(out, "02_filtering", "kept.jsonl")] == ["q1"]
    assert main(["filter", "-p", f"data.folder={tmp_path / 'none'}", *words[2:], "--out", str(out)]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("origin", ["own data", "published"])
def test_three_commands_lead_to_trained_weights(origin, tmp_path):
    tiny = save_tiny_llama(tmp_path / "tiny", max_position_embeddings=2048)
    changes = {"model.name": str(tiny), "model.dtype": "float32", "evaluation.engine": "transformers"}
    changes |= {"synthesis.window": 5, "synthesis.max_positives": 2}
    if origin == "published":
        changes |= {"data.folder": str(published(tmp_path)), "synthesis.published": "13k"}
        changes |= {"stages": ["02_filtering", "03_sft"]}
    made = profiles.load("smoke", changes)
    profile = tmp_path / "small.yaml"
    profile.write_text(yaml.safe_dump(made.model_dump(mode="json", exclude={"overrides"}), sort_keys=False))
    common = ["--profile", str(profile), "--out", str(tmp_path / "run")]
    if origin == "published":
        words = ["--profile", str(profile), "--run-dir", str(tmp_path / "run")]
        assert main(["run", "02_filtering", *words, "-p", "alpha=0"]) == 0
    else:
        labels = [{"query": f"q-{word}", "passage": word} for word in ("apple", "bread", "cloud", "dust")]
        ask = ["synthesise", "--data", str(own_data(tmp_path / "mine", labels)), "--teacher", "offline"]
        assert main([*ask, "--first-stage", "bm25", *common]) == 0
        assert main(["filter", "--alpha", "0", *common]) == 0
    assert main(["run", "03_sft", "--profile", str(profile), "--run-dir", str(tmp_path / "run")]) == 0
    assert stages.stage_file(tmp_path / "run", "03_sft", "model/model.safetensors").stat().st_size > 0


@pytest.mark.slow
def test_notebook_01_asks_the_teacher_of_its_profile(tmp_path, monkeypatch):
    monkeypatch.setenv("REASONRANK_TEACHER_KEY", "a-key-that-nobody-may-see")
    with serving() as server:
        remote = settings(server, key_variable="REASONRANK_TEACHER_KEY").model_dump()
        changes = {"synthesis.teacher": "remote", "synthesis.remote": remote, "synthesis.train_queries": 3}
        made = profiles.load("smoke", changes).model_dump(mode="json", exclude={"overrides"})
        profile = tmp_path / "small.yaml"
        profile.write_text(yaml.safe_dump(made, sort_keys=False))
        run = tmp_path / "run"
        assert main(["run", "01_synthesis", "--profile", str(profile), "--run-dir", str(run)]) == 0
        assert server.keys == {"Bearer a-key-that-nobody-may-see"} and len(server.seen) > 20
    text = (run / "notebooks" / "01_synthesis.ipynb").read_text(encoding="utf-8")
    assert "it starts with" in text and "a-key-that-nobody-may-see" not in text
    assert b"a-key-that-nobody-may-see" not in (run / "teacher.sqlite").read_bytes()
    assert (run / "01_synthesis" / "dataset" / "README.md").is_file()
