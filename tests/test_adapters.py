"""Released adapters: two in a row as one, cards from records, and weights that are what the record says."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from reasonrank import adapters, stages
from reasonrank.models import resolve
from reasonrank.settings import Model

KEY = "base_model.model.model.layers.0.mlp.up_proj.lora_{}.weight"


def adapter(folder, rank, alpha, seed, key=KEY):
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    weights = {key.format("A"): torch.randn(rank, 6), key.format("B"): torch.randn(5, rank)}
    save_file(weights, folder / adapters.WEIGHTS)
    (folder / adapters.CONFIG).write_text(json.dumps({"r": rank, "lora_alpha": alpha, "peft_type": "LORA"}))
    return folder


def update(weights, scale):
    return scale * weights[KEY.format("B")].float() @ weights[KEY.format("A")].float()


def test_two_adapters_in_a_row_are_one_of_the_ranks_sum(tmp_path):
    first, second = adapter(tmp_path / "a", 3, 6, 1), adapter(tmp_path / "b", 2, 8, 2)
    joined, config = adapters.stack([first, second])
    assert config["r"] == config["lora_alpha"] == 5
    expected = update(load_file(first / adapters.WEIGHTS), 2.0) + update(
        load_file(second / adapters.WEIGHTS), 4.0
    )
    assert torch.allclose(update(joined, 1.0), expected, rtol=0.03, atol=0.1)  # bfloat16
    other = adapter(tmp_path / "c", 2, 2, 3, KEY.replace("up", "down"))
    with pytest.raises(ValueError, match=r"different matrices, such as .*proj.lora_A"):
        adapters.stack([first, other])


def stage(run, name, result, weights=None, strategy="sliding"):
    config = {"name": "full", "prompting": {"passage_tokens": 24}, "evaluation": {"strategy": strategy}}
    made = stages.Stage(run, name, config, 7)
    if name != "05_gpu_evaluation":
        adapter(made.folder / "adapter", 2, 4, 1)
    if weights:
        shutil.copyfile(weights, made.folder / "adapter" / adapters.WEIGHTS)
    made.record(result)
    made.finish()


@pytest.fixture
def run(tmp_path):
    scores = []
    for system, ndcg in (("retriever", 0.30), ("SFT (this run)", 0.32), ("SFT + RL (this run)", 0.36)):
        own = {"low": ndcg - 0.05, "high": ndcg + 0.05, "system": system, "ndcg": ndcg, "n": 12}
        tested = {"difference": ndcg - 0.30, "p_value": 0.04} if system != "retriever" else {}
        scores += [own | tested | {"collection": name} for name in ("coding", "average")]
    training = {
        "steps": 9,
        "seconds": 120.0,
        "dev": [{"step": 5, "ndcg": 0.4, "n": 8}, {"step": 9, "ndcg": 0.3, "n": 8}],
    }
    stage(tmp_path / "run", "03_sft", training)
    stage(tmp_path / "run", "04_rl", training)
    stage(tmp_path / "run", "05_gpu_evaluation", {"scores": scores, "model": "some-base"})
    return tmp_path / "run"


def test_a_run_is_released_with_cards_and_checked_weights(run, tmp_path):
    out = tmp_path / "adapters" / "tiny"
    assert [folder.name for folder in adapters.from_run(run, out)] == ["sft", "sft-rl"]
    text = (out / "sft-rl" / "README.md").read_text()
    assert "| coding (n = 12) | 30.0 [25.0, 35.0] | 36.0 [31.0, 41.0] |" in text
    assert "On average +6.0 points, paired randomisation test p = 0.040." in text
    assert "SFT: 9 steps, 2 minutes; best on dev at step 5 (NDCG@10 40.0, first window, n = 8)" in text
    assert json.loads((out / "sft-rl" / adapters.CONFIG).read_text())["r"] == 4
    found = adapters.released("some-base", "tiny", out.parent)
    assert found == {"SFT": out / "sft", "SFT + RL": out / "sft-rl"}
    assert adapters.released("another-base", "tiny", out.parent) == {}
    curves = adapters.curves("some-base", "tiny", out.parent)
    assert list(curves) == ["03_sft", "04_rl"] and curves["04_rl"]["dev"][0] == {
        "step": 5,
        "ndcg": 0.4,
        "n": 8,
    }
    shutil.copyfile(out / "sft-rl" / adapters.WEIGHTS, out / "sft" / adapters.WEIGHTS)
    with pytest.raises(ValueError, match=r"its SHA-256 is not the one in record\.json"):
        adapters.released("some-base", "tiny", out.parent)
    with pytest.raises(ValueError, match="no adapters of 'none' in adapters/; there are those of tiny"):
        adapters.released("some-base", "none", out.parent)


def test_what_was_not_evaluated_is_not_released(run, tmp_path):
    result = stages.read_json(run / "05_gpu_evaluation" / "record.json")["result"]
    for systems, found in ({"retriever", "SFT (this run)"}, ["sft"]), ({"retriever"}, None):
        scores = [row for row in result["scores"] if row["system"] in systems]
        stage(run, "05_gpu_evaluation", result | {"scores": scores})
        if found:
            assert [folder.name for folder in adapters.from_run(run, tmp_path / "out")] == found
            assert "a listwise passage reranker" in (tmp_path / "out" / "sft" / "README.md").read_text()
            stage(run, "05_gpu_evaluation", result | {"scores": scores}, strategy="pointwise")
            (folder,) = adapters.from_run(run, tmp_path / "out")
            assert "a pointwise passage reranker" in (folder / "README.md").read_text()
    with pytest.raises(ValueError, match="notebook 05 has evaluated retriever; expected SFT"):
        adapters.from_run(run, tmp_path / "out")


def test_weights_that_are_too_large_are_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr(adapters, "LIMIT", 10)
    with pytest.raises(ValueError, match="more than 0; lower the rank"):
        adapters.from_run(run, tmp_path / "adapters")
    assert not (tmp_path / "adapters" / "sft").exists()


def test_an_adapter_is_taken_over_in_place_of_a_training(tmp_path):
    model = Model(name="smollm2-135m-instruct", dtype="float32", max_length=64)
    trained = adapters.adopt("full/sft", model, tmp_path)
    record = stages.read_json(adapters.ADAPTERS / "full/sft" / "record.json")["result"]
    assert stages.sha256(tmp_path / "adapter" / adapters.WEIGHTS) == record["sha256"]
    assert trained.steps == 549 and trained.log == record["curves"]["03_sft"]["loss"]
    assert trained.dev == record["curves"]["03_sft"]["dev"] and trained.seconds == 0
    name = "model.layers.3.mlp.up_proj"
    base = load_file(Path(resolve(model.name)) / "model.safetensors")[f"{name}.weight"].float()
    merged = load_file(tmp_path / "model" / "model.safetensors")[f"{name}.weight"]
    down, up = (
        load_file(adapters.ADAPTERS / "full/sft" / adapters.WEIGHTS)[
            f"base_model.model.{name}.lora_{x}.weight"
        ].float()
        for x in "AB"
    )
    assert (merged - base).abs().max() > 1e-3
    assert torch.allclose(merged, base + up @ down, atol=1e-5)
    assert adapters.settings_of("full/sft").lora.rank == 12


def test_only_the_released_adapter_of_sft_is_taken_over(tmp_path):
    model = Model(name="another-base", dtype="float32", max_length=64)
    with pytest.raises(ValueError, match="adapter 'full/sft-rl': expected as 'full/sft'"):
        adapters.adopt("full/sft-rl", model, tmp_path)
    with pytest.raises(ValueError, match="released for another-base in adapters/"):
        adapters.adopt("full/sft", model, tmp_path)


def test_a_run_from_a_released_adapter_leaves_it_as_it_is(run, tmp_path):
    out = tmp_path / "adapters"
    adapters.from_run(run, out)
    before = (out / "sft" / "record.json").read_bytes()
    own = out / "sft" / adapters.WEIGHTS
    stage(
        run, "03_sft", {"adopted": "sft", "steps": 9, "seconds": 0.0, "loss": [{"step": 9, "loss": 0.1}]}, own
    )
    assert [folder.name for folder in adapters.from_run(run, out)] == ["sft-rl"]
    assert (out / "sft" / "record.json").read_bytes() == before
    said = stages.read_json(out / "sft-rl" / "record.json")["result"]["training"]
    commit = stages.read_json(out / "sft" / "record.json")["commit"]
    assert said["SFT"].startswith("9 steps, 2 minutes; best on dev at step 5")
    assert said["SFT"].endswith(f"taken over from commit {commit}")
    assert said["RL"].startswith("9 steps, 2 minutes")
    stage(run, "03_sft", {"adopted": "sft", "steps": 9, "seconds": 0.0})
    with pytest.raises(ValueError, match="not the weights that this run started from"):
        adapters.from_run(run, out)


@pytest.mark.parametrize("record", sorted(adapters.ADAPTERS.glob("*/*/record.json")))
def test_the_committed_cards_are_what_their_records_say(record):
    folder, record = record.parent, stages.read_json(record)
    rank = json.loads((folder / adapters.CONFIG).read_text())["r"]
    assert (folder / "README.md").read_text(encoding="utf-8") == adapters.card(folder.name, rank, record)
