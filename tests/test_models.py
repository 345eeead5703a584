"""Models and adapters that cannot be loaded say which file, which key and why; those that can are what they were."""

import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from fakes.tiny import save_tiny_llama
from reasonrank import models

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0f\nsize 269060552\n"
CONFIG, WEIGHTS, ADAPTER = "config.json", "model.safetensors", "adapter_model.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny model and an adapter on it that changes it."""
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_llama(folder / "model")
    model = models.load_model(str(folder / "model"), "float32")
    settings = LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    get_peft_model(model, settings).save_pretrained(folder / "adapter")
    return folder


@pytest.fixture
def broken(made, tmp_path):
    """Copies of both, to be damaged."""
    for name in ("model", "adapter"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path


def rewritten(change):
    """Damage that changes the tensors of a file."""
    return lambda file: save_file(change(load_file(file)), file, metadata={"format": "pt"})


def test_an_adapter_is_merged_and_the_sum_rounded_once(made):
    plain = models.load_model(str(made / "model"), "float32").state_dict()
    merged = models.load_model(str(made / "model"), "float32", made / "adapter").state_dict()
    key, lora = "model.layers.1.mlp.up_proj.weight", load_file(made / "adapter" / ADAPTER)
    prefix = f"base_model.model.{key.removesuffix('.weight')}"
    scale = models.adapter_settings(made / "adapter")["lora_alpha"] / 2
    update = scale * lora[f"{prefix}.lora_B.weight"] @ lora[f"{prefix}.lora_A.weight"]
    assert torch.allclose(merged[key], plain[key] + update, atol=1e-6) and update.abs().max() > 1e-3
    assert models.load_model(str(made / "model"), "bfloat16", made / "adapter").dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        (WEIGHTS, lambda f: f.write_bytes(POINTER), r"model\.safetensors: a Git LFS pointer"),
        ("tokenizer.json", lambda f: f.write_bytes(POINTER), r"tokenizer\.json: a Git LFS pointer"),
        (
            WEIGHTS,
            lambda f: f.write_bytes(f.read_bytes()[:5000]),
            r"model\.safetensors: no whole safetensors",
        ),
        (WEIGHTS, lambda f: f.write_bytes(b""), r"model\.safetensors: no whole safetensors"),
        (WEIGHTS, lambda f: f.unlink(), r"model: Error no file named model\.safetensors"),
        (CONFIG, lambda f: f.write_text('{"a": 1,\n'), r"config\.json.* is not a valid JSON file"),
        (CONFIG, lambda f: f.write_text('{"model_type": "nonesuch"}'), "model type `nonesuch`"),
        (
            f"{WEIGHTS}.index.json",
            lambda f: (
                f.with_name(WEIGHTS).unlink(),
                f.write_text('{"metadata": {}, "weight_map": {"a": "model-1-of-2.safetensors"}}'),
            ),
            r"model-1-of-2\.safetensors",
        ),
        (
            WEIGHTS,
            rewritten(lambda tensors: {f"_orig_mod.{key}": value for key, value in tensors.items()}),
            r"model: \d+ weights are missing.* have no place in the model, such as _orig_mod\.",
        ),
        (
            WEIGHTS,
            rewritten(lambda tensors: {k: v for k, v in tensors.items() if "layers.1.mlp" not in k}),
            r"3 weights are missing, such as model\.layers\.1\.mlp\.down_proj",
        ),
    ],
)
def test_a_model_that_cannot_be_loaded_names_file_and_reason_in_a_line(broken, file, damage, said):
    damage(broken / "model" / file)
    with pytest.raises((ValueError, FileNotFoundError), match=said) as caught:
        models.load_model(str(broken / "model"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        (
            ADAPTER,
            rewritten(
                lambda w: {k.replace(".model.model.", ".model._orig_mod.model."): v for k, v in w.items()}
            ),
            r"8 weights are missing.* have no place in the model, such as base_model\.model\._orig_mod\.",
        ),
        (
            ADAPTER,
            rewritten(lambda w: dict(list(w.items())[1:])),
            "1 weights are missing, such as base_model",
        ),
        (
            ADAPTER,
            rewritten(lambda w: w | {"base_model.model.more.lora_A.weight": torch.ones(2, 2)}),
            r"1 weights have no place in the model, such as base_model\.model\.more",
        ),
        (
            ADAPTER,
            rewritten(lambda w: {k: v[:1] for k, v in w.items()}),
            r"missing, such as .*weight \(\d+, \d+\) and 8 weights have no place.*\(1, \d+\)",
        ),
        (ADAPTER, lambda f: f.write_bytes(POINTER), r"adapter_model\.safetensors: a Git LFS pointer"),
        ("adapter_config.json", lambda f: f.unlink(), "needs an adapter_config.json"),
        ("adapter_config.json", lambda f: f.write_text("{"), r"adapter_config\.json, line 1: not valid JSON"),
    ],
)
def test_an_adapter_that_would_change_nothing_is_an_error(broken, file, damage, said):
    damage(broken / "adapter" / file)
    for call in (models.load_model, models.check_adapter):
        arguments = ("float32",) if call is models.load_model else ()
        with pytest.raises((ValueError, FileNotFoundError), match=said) as caught:
            call(str(broken / "model"), *arguments, broken / "adapter")
        assert "\n" not in str(caught.value)


def test_a_tokenizer_that_cannot_be_loaded(broken):
    (broken / "model" / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="model, tokenizer: ") as caught:
        models.load_tokenizer(str(broken / "model"))
    assert "\n" not in str(caught.value)


def test_names(tmp_path):
    assert models.resolve("org/model") == "org/model"
    assert Path(models.resolve("minilm")).is_dir()
    for name in ("./nowhere", "/no/where", "~/nowhere", "a/b/c"):
        with pytest.raises(FileNotFoundError, match="no such model folder"):
            models.resolve(name)
    with pytest.raises(FileNotFoundError, match=r"needs a config\.json"):
        models.resolve(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="package 'nonesuch' is not installed"):
        models.package_folder("nonesuch")
