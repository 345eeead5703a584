"""A training that is killed goes on from its last checkpoint and ends as an undisturbed one does."""

from dataclasses import dataclass, field

import pytest
import torch
from safetensors.torch import load_file

from fakes.tiny import alternating_reward, rows
from fakes.tiny import profile as tiny_profile
from reasonrank import training
from reasonrank.rewards import Reward
from reasonrank.training import checkpoints, common
from reasonrank.training.checkpoints import MARK, Checkpoints, SaveRegularly
from reasonrank.training.dev import DevCurve


@pytest.fixture
def profile(tiny):
    own = {"rl__steps": 4, "rl__mini_batch_prompts": 1, "rl__batch_size": 2}
    own |= {"sft__batch_size": 1, "sft__gradient_accumulation": 1}  # an epoch of SFT is four steps
    return tiny_profile(tiny, sft__max_steps=8, **own)


class Killed(Exception):
    pass


def kill_after(monkeypatch, step):
    """Checkpoints at every step that may have one, and death at the start of the step after `step`."""
    monkeypatch.setattr(checkpoints, "MINUTES", 0.0)
    if step is None:
        return

    class Kill(SaveRegularly):
        def on_step_begin(self, args, state, control, **more):
            if state.global_step == step:
                raise Killed

    monkeypatch.setattr(common, "SaveRegularly", Kill)


def train(stage, profile, tiny, folder):
    kept = folder / "checkpoints"
    if stage == "sft":
        return training.train_sft(rows(), profile, folder / "out", kept)
    return training.train_grpo(rows(), profile, tiny, folder / "out", kept)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "dies_after", "goes_on_from"), [("sft", 4, 4), ("sft", 6, 6), ("rl", 5, 4)]
)
def test_a_killed_training_ends_as_an_undisturbed_one(
    stage, dies_after, goes_on_from, profile, tiny, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(Reward, "for_trl", alternating_reward)
    with monkeypatch.context() as patch:
        kill_after(patch, None)
        whole = train(stage, profile, tiny, tmp_path / "whole")
    with monkeypatch.context() as patch:
        kill_after(patch, dies_after)
        with pytest.raises(Killed):
            train(stage, profile, tiny, tmp_path / "cut")
    resumed = train(stage, profile, tiny, tmp_path / "cut")
    assert f"going on from checkpoint-{goes_on_from}" in caplog.text
    assert whole.steps == resumed.steps == 8
    assert resumed.parts == whole.parts and len(resumed.log) == len(whole.log)
    first, second = (
        load_file(tmp_path / name / "out" / "model" / "model.safetensors") for name in ("whole", "cut")
    )
    for key, value in first.items():
        assert torch.allclose(value, second[key], atol=1e-6), key
    assert not (tmp_path / "cut" / "checkpoints").exists()


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_a_launched_training_waits_for_its_notebook(stage, profile, tiny, tmp_path, caplog):
    def call(output, settings=profile):
        if stage == "sft":
            return training.train_sft(rows(), settings, output, tmp_path / "kept")
        return training.train_grpo(rows(), settings, tiny, output, tmp_path / "kept")

    launched = call(None)
    waiting = tmp_path / "kept" / "trained"
    assert launched == call(None)  # the same launch again trains nothing
    taken = call(tmp_path / "out")
    assert taken == launched and "nothing trained here" in caplog.text
    name = "adapter/adapter_model.safetensors"
    assert (tmp_path / "out" / name).read_bytes() == (waiting / name).read_bytes()
    assert call(tmp_path / "again") == launched  # a notebook that is run again takes them again
    first, second = (load_file(tmp_path / n / "model" / "model.safetensors") for n in ("out", "again"))
    assert first and all(torch.equal(first[key], second[key]) for key in first)
    other = profile.model_copy(update={"seed": 1})
    with pytest.raises(ValueError, match=r"kept/trained: trained on other examples, weights or settings"):
        call(tmp_path / "other", other)
    assert waiting.is_dir()


def test_half_written_checkpoints_and_those_of_other_work_are_removed(tmp_path):
    kept = Checkpoints(tmp_path / "c", "this work")
    for step in (3, 12, 20):
        (kept.folder / f"checkpoint-{step}").mkdir()
    for step in (3, 12):
        (kept.folder / f"checkpoint-{step}" / MARK).touch()
    again = Checkpoints(tmp_path / "c", "this work")
    assert again.last.endswith("/checkpoint-12") and not (kept.folder / "checkpoint-20").exists()
    other = Checkpoints(tmp_path / "c", "other work")
    assert other.last is None and not list(other.folder.glob("checkpoint-*"))


@dataclass
class State:
    global_step: int
    max_steps: int = 10
    log_history: list = field(default_factory=list)


@dataclass
class Control:
    should_save: bool = False
    should_training_stop: bool = False


def test_saving_waits_for_the_minutes_and_for_the_end_of_a_batch_of_rollouts(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(checkpoints, "MINUTES", 1)
    saver = SaveRegularly(every=2)
    saves = []
    for step in range(1, 11):
        now[0] += 25.0
        control = Control()
        saver.on_step_end(None, State(step), control)
        saves.append(control.should_save)
    assert [step for step, saved in enumerate(saves, 1) if saved] == [4, 6, 8]  # none at the last step


def test_the_best_weights_come_back_and_patience_ends_the_training(tmp_path):
    model = torch.nn.Linear(2, 1, bias=False)
    scores = iter([0.3, 0.5, 0.4, 0.45])
    curve = DevCurve(lambda _: {"ndcg": next(scores), "ok": 1.0, "n": 4}, 2, tmp_path, patience=2)
    control, state = Control(), State(0)
    for state.global_step in range(1, 9):
        with torch.no_grad():
            model.weight.fill_(state.global_step)
        curve.on_step_end(None, state, control, model=model)
        assert control.should_training_stop == (state.global_step == 8)
    assert [row["step"] for row in state.log_history] == [2, 4, 6, 8]
    assert state.log_history[1]["dev"] == {"ndcg": 0.5, "ok": 1.0, "n": 4}
    curve.on_train_end(None, state, control, model=model)
    assert model.weight.tolist() == [[4.0, 4.0]]
