"""The preflight: parameters and memory against PyTorch's own, batch arithmetic, refusals with their reasons."""

import json

import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from reasonrank import preflight as memory
from reasonrank import profiles, stages
from reasonrank.cli.main import main
from reasonrank.preflight import Preflight
from reasonrank.settings import Lora
from reasonrank.training.common import peft_config

QWEN_7B, QWEN_32B = 7_615_616_512, 32_763_876_352
TINY = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
TINY |= {"intermediate_size": 160, "vocab_size": 96}


def with_hardware(profile, **changed):
    return profiles.load(profile, {f"hardware.{key}": value for key, value in changed.items()})


def test_parameters_of_the_backbones_are_counted_exactly():
    counts = {"Qwen/Qwen2.5-7B-Instruct": QWEN_7B, "Qwen/Qwen2.5-32B-Instruct": 32_763_876_352}
    for name, count in (counts | {"smollm2-135m-instruct": 134_515_008}).items():
        assert memory.parameters(memory.config_of(name), None) == (count, count)
    # bytes, keys and values, layers, heads, width: 56 KiB
    assert memory.cache_bytes(memory.config_of("Qwen/Qwen2.5-7B-Instruct")) == 2 * 2 * 28 * 4 * 128


def saved_bytes(config, tokens, checkpointing):
    """Bytes that a forward pass of the body keeps for the backward pass, parameters apart."""
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa").train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.model(torch.zeros(2, tokens, dtype=torch.long), use_cache=False)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize(
    "kind, wide, layers, checkpointing",
    [(LlamaConfig, 1, 6, False), (Qwen2Config, 3, 6, False), (Qwen2Config, 1, 40, True)],
)
def test_activations_are_within_a_fifth_of_what_pytorch_saves(kind, wide, layers, checkpointing):
    config = kind(**TINY | {"hidden_size": 64 * wide, "num_hidden_layers": layers})
    estimate = memory.activations(config, 2 * 128, checkpointing)
    if checkpointing:  # the layer that is computed anew, later, in the backward pass, is not saved
        estimate -= memory.activations(config, 2 * 128, False) / layers
    assert saved_bytes(config, 128, checkpointing) == pytest.approx(estimate, rel=0.2)


def test_weights_gradients_and_adam_are_what_a_real_step_holds():
    config, lora = Qwen2Config(**TINY), Lora(rank=4, alpha=8, target_modules="all-linear")
    model = get_peft_model(AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16), peft_config(lora))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained)
    model(torch.zeros(1, 8, dtype=torch.long)).logits.float().sum().backward()
    optimiser.step()
    kept = [value for state in optimiser.state.values() for value in state.values()]
    moments = [value for value in kept if torch.is_tensor(value)]
    held = [*model.parameters(), *(p.grad for p in trained), *moments]
    need = memory.state(*memory.parameters(config, lora), True, profiles.load("default").hardware)
    assert sum(t.numel() * t.element_size() for t in held) == pytest.approx(sum(need.values()), rel=0.2)


@pytest.mark.parametrize("stage, per_parameter", [(0, 16), (1, 4 + 12 / 8), (2, 2 + 14 / 8), (3, 16 / 8)])
def test_zero_divides_sixteen_bytes_a_parameter(stage, per_parameter):
    profile = with_hardware("paper-7b", zero_stage=stage)
    need = memory.state(QWEN_7B, QWEN_7B, False, profile.hardware)
    assert sum(need.values()) == pytest.approx(per_parameter * QWEN_7B)


@pytest.mark.parametrize("name", profiles.names())
def test_the_plan_of_every_profile_stands_without_a_gpu_and_a_network(name, capsys):
    assert main(["preflight", "--profile", name, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "refused" not in shown and "hours" in shown
    assert all(check in shown for check in ("batches", "disk", "versions", "devices"))
    assert ("evaluation" in shown) == ("05_gpu_evaluation" in profiles.load(name).stages)


def test_a_plan_for_gpus_is_refused_on_a_machine_without(monkeypatch, capsys):
    monkeypatch.setattr("reasonrank.stages.hardware", lambda: {"gpus": [], "cores": 2, "memory_gib": 16})
    assert main(["preflight", "--profile", "paper-7b"]) == 1
    assert "devices: 0 GPU(s) here, the profile is for 8" in capsys.readouterr().err


@pytest.mark.parametrize(
    "profile, changed, reason",
    [
        ("paper-7b", {"gpus": 3}, "batches: rl.mini_batch_prompts x rollouts = 64 answers do not divide"),
        ("paper-7b", {"gpus": 1}, "memory, SFT: "),
        ("paper-7b", {"gpu_memory": 24.0}, "memory, RL: "),
        ("paper-32b", {"gpu_memory": 80.0}, "weights gathered for vLLM 53.4"),
        ("paper-32b", {"vllm_tensor_parallel": 1}, "cache, RL: 0 sequences of 23552 tokens"),
        ("paper-32b", {"vllm_tensor_parallel": 3}, "batches: vllm_tensor_parallel 3 does not divide 8"),
        ("full", {"gpu_memory": 2.0}, "memory, SFT: "),
    ],
)
def test_what_does_not_fit_is_refused_with_its_reason(profile, changed, reason):
    found = Preflight(with_hardware(profile, **changed), dry_run=True)
    assert any(reason in refusal for refusal in found.refusals), found.refusals


def test_the_disk_is_that_of_the_run(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("shutil.disk_usage", lambda path: asked.append(path) or type("Free", (), {"free": 1}))
    found = Preflight(profiles.load("smoke"), folder=tmp_path / "not" / "yet")
    assert tmp_path in asked
    assert any(refusal.startswith("disk: 0.") for refusal in found.refusals)


def test_hours_are_those_of_six_operations_a_parameter_and_token_and_grow_with_the_steps():
    found = Preflight(profiles.load("smoke"), dry_run=True)
    sft, rate = found.work[0], found.rate["tflops"] * 1e12
    tokens = 2 * 2 * (sft["prompt"] + sft["answer"])  # two steps of two examples
    assert sft["hours"] * 3600 == pytest.approx(6 * 134_515_008 * tokens / rate)
    twice = Preflight(profiles.load("smoke", {"rl.steps": 2 * found.profile.rl.steps}), dry_run=True).work
    assert [work["stage"] for work in twice] == ["SFT", "RL", "evaluation"]
    assert twice[1]["hours"] == pytest.approx(2 * found.work[1]["hours"])
    assert (twice[0], twice[2]) == (found.work[0], found.work[2])


def test_a_model_of_unknown_shape_is_named(capsys):
    with pytest.raises(ValueError, match=r"architectures\.yaml: no entry 'someone/else'"):
        memory.config_of("someone/else")
    assert main(["preflight", "--profile", "none-such"]) == 1
    assert "no profile 'none-such'" in capsys.readouterr().err


def test_json_holds_the_plan_and_the_checks(capsys):
    assert main(["preflight", "--profile", "paper-32b", "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == QWEN_32B and found["device_hours"] > 0
    wanted = {"batches", "memory, SFT", "memory, RL", "cache, RL", "disk", "versions", "devices"}
    assert wanted <= set(found["checks"])


def test_the_machine_and_the_packages_that_differ_from_the_lock(tmp_path, monkeypatch):
    lock = tmp_path / "requirements" / "cpu.txt"
    lock.parent.mkdir()
    torch_pin = f"torch=={torch.__version__.partition('+')[0]}"  # a local label is no difference
    lock.write_text(
        f"# a comment\n{torch_pin}  # via x\nno-such==1.0\npandas==0.0.1\nnumpy==0.0.1 ; os_name == 'x'\n"
    )
    monkeypatch.setattr(stages, "ROOT", tmp_path)
    found = memory.machine()
    assert list(found.columns) == ["here", "expected", "status"]
    assert list(found.index[:5]) == ["Python", "cores", "memory", "free disk", "GPU"]
    assert found.loc["no-such"].tolist() == ["missing", "1.0", "differs"]
    assert found.loc["pandas", "expected"] == "0.0.1"
    assert found.loc["packages"].tolist() == ["2 differ", "requirements/cpu.txt", "differs"]
    assert "/home" not in found.to_string()
