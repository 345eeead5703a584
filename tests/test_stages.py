"""Stages appear whole or not at all; a manifest proves completion."""

import json
import platform

import pytest

from reasonrank import stages
from reasonrank.stages import Stage


def test_nothing_is_seen_of_a_stage_before_it_is_finished_and_no_path_or_host_ever(tmp_path):
    stage = Stage(tmp_path, "01_x", {"a": 1}, seed=3)
    stage.path("deep/file.txt").write_text("hello")
    stage.record({"score": 0.5}, "deep/record.json")
    assert not (tmp_path / "01_x").exists()
    with pytest.raises(FileNotFoundError, match=r"run notebooks/01_x\.ipynb first"):
        stages.stage_file(tmp_path, "01_x", "deep/file.txt")
    assert stage.finish() == tmp_path / "01_x"
    manifest = stages.read_json(tmp_path / "01_x" / "manifest.json")
    names = ("deep/file.txt", "deep/record.json")
    assert manifest["files"] == {name: stages.sha256(tmp_path / "01_x" / name) for name in names}
    assert manifest["config"] == {"a": 1} and manifest["seed"] == 3
    assert {"versions", "commit", "hardware", "created", "inputs"} <= manifest.keys()
    text = (tmp_path / "01_x" / "deep" / "record.json").read_text()
    assert json.loads(text)["result"] == {"score": 0.5}
    assert str(tmp_path) not in text and f'"{platform.node()}"' not in text


def test_an_earlier_stage_stays_until_the_new_one_is_complete(tmp_path):
    first = Stage(tmp_path, "s", {}, seed=0)
    first.path("f").write_text("old")
    first.finish()
    second = Stage(tmp_path, "s", {}, seed=0)
    second.path("f").write_text("new")
    assert stages.stage_file(tmp_path, "s", "f").read_text() == "old"
    second.finish()
    assert stages.stage_file(tmp_path, "s", "f").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_inputs_are_hashed_by_their_place_in_the_run_and_a_missing_one_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="stage s needs this file"):
        Stage(tmp_path, "s", {}, seed=0, inputs=[tmp_path / "absent.jsonl"])
    (tmp_path / "in.txt").write_text("x")
    folder = Stage(tmp_path, "s", {}, seed=0, inputs=[tmp_path / "in.txt"]).finish()
    hashes = {"in.txt": stages.sha256(tmp_path / "in.txt")}
    assert stages.read_json(folder / "manifest.json")["inputs"] == hashes


def test_json_that_is_not_json_is_named_and_not_written(tmp_path):
    with pytest.raises(ValueError):
        stages.write_json(tmp_path / "x.json", {"score": float("nan")})
    assert not list(tmp_path.iterdir())
    path = tmp_path / "bad.json"
    path.write_text('{"a": 1,\n"b": }')
    with pytest.raises(ValueError, match=r"bad\.json, line 2: not valid JSON"):
        stages.read_json(path)
