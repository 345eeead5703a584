"""Profiles: strict, complete, overridable by single keys; and resolved against the installed TRL."""

import pytest
import yaml

from reasonrank import profiles
from reasonrank.training import grpo_config, sft_config


def test_every_profile_loads_and_unknown_ones_and_settings_are_named(tmp_path):
    assert [profiles.load(name).name for name in profiles.names()] == profiles.names()
    with pytest.raises(FileNotFoundError, match="no profile 'defualt'; known are ablations, default"):
        profiles.load("defualt")
    with pytest.raises(ValueError, match=r"smoke\.yaml: filtering\.alfa: Extra inputs are not permitted"):
        profiles.load("smoke", {"filtering.alfa": 1})
    with pytest.raises(ValueError, match=r"filtering\.alpha: Input should be less than or equal to 1"):
        profiles.load("smoke", {"filtering.alpha": 1.5})
    raw = profiles.load("smoke").model_dump(mode="json")
    lacking = {"rl": {key: value for key, value in raw["rl"].items() if key != "temperature"}}
    for change, message in (
        ({"extra": 1}, "extra: Extra inputs"),
        ({"seed": None}, "seed: Input should be a valid int"),
        (lacking, r"rl\.temperature: Field required"),
    ):
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(raw | change))
        with pytest.raises(ValueError, match=message):
            profiles.load(str(tmp_path / "mine.yaml"))


def test_overrides_change_one_setting_and_are_kept_for_the_record(monkeypatch, tmp_path):
    changed = profiles.load("smoke", {"filtering.alpha": 0.2, "sft.epochs": None})
    assert changed.filtering.alpha == 0.2
    assert changed.sft == profiles.load("smoke").sft
    assert changed.overrides == {"filtering.alpha": 0.2}
    monkeypatch.setenv("REASONRANK_PROFILE", "smoke")
    monkeypatch.setenv("REASONRANK_RUN_DIR", str(tmp_path / "run"))
    settings, run = profiles.start(filtering__alpha=0.6)
    assert (settings.name, settings.filtering.alpha, run) == ("smoke", 0.6, tmp_path / "run")
    assert yaml.safe_load((run / "profile.yaml").read_text())["name"] == "smoke"


def test_a_profile_extends_another_with_what_differs(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: smoke\nname: mine\nsft: {epochs: 3}\n")
    (tmp_path / "next.yaml").write_text("extends: mine.yaml\nrl: {lora: null}\n")
    smoke, found = profiles.load("smoke"), profiles.load(str(tmp_path / "next.yaml"))
    assert (found.name, found.sft.epochs, found.rl.lora) == ("mine", 3, None)
    assert found.sft.model_copy(update={"epochs": smoke.sft.epochs}) == smoke.sft
    (tmp_path / "mine.yaml").write_text("extends: next.yaml\n")
    with pytest.raises(ValueError, match=r"mine.yaml: extends: 'next.yaml' extends this profile"):
        profiles.load(str(tmp_path / "next.yaml"))
    (tmp_path / "mine.yaml").write_text("extends: no-such-profile\n")
    with pytest.raises(FileNotFoundError, match="no profile 'no-such-profile'"):
        profiles.load(str(tmp_path / "mine.yaml"))


def test_seed_model_and_collections_reach_the_settings_and_the_listing_is_whole(tmp_path):
    settings, run = profiles.start("smoke", str(tmp_path), 3, "org/small", ["coding", "math_theorem"])
    assert (settings.seed, settings.model.name) == (3, "org/small")
    assert settings.collections == ["coding", "math_theorem"]
    assert settings.latency.collections == ["math_theorem"]
    assert profiles.start("smoke", str(tmp_path), collections=["coding"])[0].latency.collections == ["coding"]
    assert set(yaml.safe_load((run / "profile.yaml").read_text())) >= {"sft", "rl", "hardware"}
    with pytest.raises(ValueError, match="seed: Input should be greater than or equal to 0"):
        profiles.start("smoke", str(tmp_path), seed=-1)


@pytest.mark.parametrize("name", ["paper-7b", "paper-32b"])
def test_paper_settings_as_trl_resolves_them(name, tmp_path):
    """The table in section B.2 of the paper, for 8 devices; bfloat16 flags need a GPU and are left out."""
    profile = profiles.load(name)
    profile = profile.model_copy(update={"model": profile.model.model_copy(update={"dtype": "float32"})})
    rl = grpo_config(profile, tmp_path, cpu=True, devices=8)
    assert rl.num_generations == 8 and rl.max_completion_length == 3072
    # 16 prompts x 8 answers a step, in two mini-batches of 8 prompts, on 8 devices of one answer a pass
    assert rl.steps_per_generation * 8 == 16 * 8 and rl.gradient_accumulation_steps * 8 == 8 * 8
    assert rl.max_steps == 200 * 2
    assert (rl.beta, rl.epsilon, rl.epsilon_high, rl.delta) == (0.001, 0.2, 0.2, 3.0)
    assert (rl.temperature, rl.top_p, rl.entropy_coef, rl.num_iterations) == (1.0, 1.0, 0.0, 1)
    assert (rl.weight_decay, rl.max_grad_norm, rl.scale_rewards, rl.loss_type) == (0.01, 1.0, "group", "dapo")
    assert rl.learning_rate == {"paper-7b": 1e-6, "paper-32b": 1e-5}[name]
    sft = sft_config(profile, tmp_path, cpu=True)
    assert sft.per_device_train_batch_size == 1 and sft.gradient_accumulation_steps == 8
    assert sft.max_length == 23552 and sft.warmup_steps == 0.1 and sft.lr_scheduler_type == "cosine"
    assert (sft.learning_rate, sft.num_train_epochs) == {"paper-7b": (5e-6, 5), "paper-32b": (1e-4, 4)}[name]
    assert (profile.sft.lora is None) == (name == "paper-7b")


def test_batches_that_do_not_divide_are_refused():
    profile = profiles.load("default", {"rl.batch_size": 3})
    with pytest.raises(ValueError, match=r"rl\.mini_batch_prompts x rollouts = 8 answers do not divide"):
        grpo_config(profile, "x", cpu=True)
