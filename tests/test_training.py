"""Both training stages on a tiny random model: what bears loss, and that parameters change."""

import json

import pytest
import torch
from safetensors.torch import load_file

from fakes.tiny import alternating_reward, rows, save_tiny_llama
from reasonrank import profiles, synthesis, training

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def profile(tiny):
    changes = {
        "model.name": str(tiny),
        "model.dtype": "float32",
        "model.max_length": 512,
        "sft.max_steps": 2,
        "sft.learning_rate": 1e-2,
        "sft.warmup_ratio": 0.0,
        "rl.steps": 1,
        "rl.learning_rate": 1e-2,
        "rl.max_completion_tokens": 8,
        "rl.max_prompt_tokens": 256,
        "evaluation.engine": "transformers",
    }
    return profiles.load("smoke", changes)


@pytest.mark.parametrize("reasoning", [True, False])
def test_prompts_and_labels_with_reasoning_and_without(tiny, reasoning):
    settings = profiles.load("smoke", {"prompting.reasoning": reasoning})
    names = {"dataset": "d", "scenario": "s", "qid": "q", "reasoning": "b answers it"}
    example = synthesis.Example(
        **names, initial_list=["a", "b"], final_list=["b", "a"], relevant_docids=["b"]
    )
    prompt = training.window_prompt(settings, str(tiny), 500)
    (row,) = training.windows_of(
        [example], prompt, {"d": {"q": "a query"}}, {"d": {"a": "text", "b": "more"}}
    )
    assert ("<think>" in row["prompt"]) == reasoning and prompt.max_length == 500
    chain = "<think> b answers it </think> " if reasoning else ""
    assert row["completion"] == f"{chain}<answer> [2] > [1] </answer>"
    assert (row["gold_ranking"], row["relevant"], row["num_passages"]) == ([2, 1], [2], 2)
    assert training.window_prompt(settings, str(tiny)).max_length == 1536 - 32


def test_casts_that_autocast_undoes_are_left_out_and_the_numbers_stay(tiny):
    from peft import get_peft_model

    from reasonrank.training import common

    settings = profiles.load("smoke", {"model.dtype": "bfloat16"})
    model = common.load_model(str(tiny), settings.model, settings.sft.lora)
    model = get_peft_model(model, common.peft_config(settings.sft.lora))
    adapters = {name: p for name, p in model.named_parameters() if "lora_" in name}
    assert {p.dtype for p in adapters.values()} == {torch.float32}
    for number, value in enumerate(adapters.values()):
        torch.nn.init.normal_(value, std=0.1, generator=torch.Generator().manual_seed(number))

    def computed():
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=torch.arange(40).view(2, 20)).logits
        logits.float().square().mean().backward()
        return [logits.detach(), *(p.grad.clone() for p in adapters.values())]

    before = computed()
    common.skip_input_casts(model)
    assert all(torch.equal(a, b) for a, b in zip(before, computed(), strict=True))
    assert not model.base_model.model.model.layers[0].mlp.up_proj.cast_input_dtype_enabled


def test_loss_is_on_the_label_alone_and_on_all_of_it(profile, tmp_path):
    trainer = training.sft_trainer(rows(2), profile, tmp_path)
    tokenizer = trainer.processing_class
    for batch in trainer.get_train_dataloader():
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
            learnt = tokenizer.decode(ids[labels != -100])
            assert learnt.startswith("<think> reason") and learnt.endswith("</answer><|im_end|>")
            given = tokenizer.decode(ids[(labels == -100) & (ids != tokenizer.pad_token_id)])
            assert given.startswith("<|im_start|>user") and given.endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize("lora", [True, False])
def test_sft_changes_the_weights_and_saves_a_whole_model(profile, tiny, tmp_path, lora):
    if not lora:
        profile = profile.model_copy(update={"sft": profile.sft.model_copy(update={"lora": None})})
    trained = training.train_sft(rows(), profile, tmp_path)
    assert trained.steps == 2 and len([row for row in trained.log if "loss" in row]) == 2
    before, after = load_file(tiny / "model.safetensors"), load_file(tmp_path / "model" / "model.safetensors")
    key = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(before[key], after[key])
    assert (tmp_path / "adapter").is_dir() == lora
    assert not (tmp_path / "scratch").exists()


def test_grpo_changes_the_weights_and_logs_every_part(profile, tiny, tmp_path):
    trained = training.train_grpo(rows(), profile, tiny, tmp_path)
    assert (
        len(trained.parts) == 1 and trained.parts[0]["n"] == profile.rl.prompts_per_step * profile.rl.rollouts
    )
    # an untrained model writes no tags: the format reward is -1 for all, and no ranking scores
    assert trained.parts[0]["format"] == trained.parts[0]["total"] == -1.0
    assert trained.parts[0]["ndcg"] == 0.0
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["num_hidden_layers"] == 2
    assert (tmp_path / "model" / "tokenizer.json").is_file()


def test_a_reward_that_differs_moves_the_policy(profile, tiny, tmp_path, monkeypatch):
    from reasonrank.training import grpo

    monkeypatch.setattr(grpo.Reward, "for_trl", alternating_reward)
    training.train_grpo(rows(), profile, tiny, tmp_path)
    before, after = load_file(tiny / "model.safetensors"), load_file(tmp_path / "model" / "model.safetensors")
    key = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(before[key], after[key])


def test_training_without_examples_or_with_long_prompts_is_refused(profile, tiny, tmp_path):
    with pytest.raises(ValueError, match="no training example is left"):
        training.train_sft([], profile, tmp_path)
    long = [row | {"prompt": "word " * 2000} for row in rows(1)]
    with pytest.raises(ValueError, match=r"example 0 has \d+ tokens, more than rl.max_prompt_tokens"):
        training.train_grpo(long, profile, tiny, tmp_path)
