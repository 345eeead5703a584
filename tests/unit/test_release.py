"""Released adapters: two in a row as one, cards from records, and weights that are what the record says."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from reasonrank import records, release

KEY = "base_model.model.model.layers.0.mlp.up_proj.lora_{}.weight"


def adapter(folder, rank, alpha, seed, key=KEY):
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    weights = {key.format("A"): torch.randn(rank, 6), key.format("B"): torch.randn(5, rank)}
    save_file(weights, folder / release.WEIGHTS)
    (folder / release.CONFIG).write_text(json.dumps({"r": rank, "lora_alpha": alpha, "peft_type": "LORA"}))
    return folder


def update(weights, scale):
    return scale * weights[KEY.format("B")].float() @ weights[KEY.format("A")].float()


def test_two_adapters_in_a_row_are_one_of_the_ranks_sum(tmp_path):
    first, second = adapter(tmp_path / "a", 3, 6, 1), adapter(tmp_path / "b", 2, 8, 2)
    joined, config = release.stack([first, second])
    assert config["r"] == config["lora_alpha"] == 5
    expected = update(load_file(first / release.WEIGHTS), 2.0) + update(
        load_file(second / release.WEIGHTS), 4.0
    )
    assert torch.allclose(update(joined, 1.0), expected, rtol=0.03, atol=0.1)  # bfloat16
    other = adapter(tmp_path / "c", 2, 2, 3, KEY.replace("up", "down"))
    with pytest.raises(ValueError, match=r"different matrices, such as .*proj.lora_A"):
        release.stack([first, other])


def stage(run, name, result):
    made = records.Stage(run, name, {"name": "full", "prompting": {"passage_tokens": 24}}, 7)
    if name != "05_gpu_evaluation":
        adapter(made.folder / "adapter", 2, 4, 1)
    made.record(result)
    made.finish()


@pytest.fixture
def run(tmp_path):
    scores = []
    for system, ndcg in (("retriever", 0.30), ("SFT", 0.32), ("SFT + RL", 0.36)):
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
    out = tmp_path / "adapters"
    assert [folder.name for folder in release.from_run(run, out)] == ["sft", "sft-rl"]
    text = (out / "sft-rl" / "README.md").read_text()
    assert "| coding (n = 12) | 30.0 [25.0, 35.0] | 36.0 [31.0, 41.0] |" in text
    assert "On average +6.0 points, paired randomisation test p = 0.040." in text
    assert "SFT: 9 steps, 2 minutes; best on dev at step 5 (NDCG@10 40.0, first window, n = 8)" in text
    assert json.loads((out / "sft-rl" / release.CONFIG).read_text())["r"] == 4
    found = release.released("some-base", out)
    assert found == {"SFT": out / "sft", "SFT + RL": out / "sft-rl"}
    assert release.released("another-base", out) == {}
    curves = release.curves("some-base", out)
    assert list(curves) == ["03_sft", "04_rl"] and curves["04_rl"]["dev"][0] == {
        "step": 5,
        "ndcg": 0.4,
        "n": 8,
    }
    (out / "sft" / release.WEIGHTS).write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"its SHA-256 is not the one in record\.json"):
        release.released("some-base", out)


def test_weights_that_are_too_large_are_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr(release, "LIMIT", 10)
    with pytest.raises(ValueError, match="more than 0; lower the rank"):
        release.from_run(run, tmp_path / "adapters")
    assert not (tmp_path / "adapters" / "sft").exists()


@pytest.mark.parametrize("name", release.NAMES)
def test_the_committed_cards_are_what_their_records_say(name):
    folder = release.ADAPTERS / name
    record = records.read_json(folder / "record.json")
    rank = json.loads((folder / release.CONFIG).read_text())["r"]
    card = release.card(name, record["result"]["base"], rank, record["result"], record)
    assert (folder / "README.md").read_text(encoding="utf-8") == card
