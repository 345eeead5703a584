"""Both training stages on a tiny random model: rows, what bears loss, and that parameters change."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from fakes.engine import FakeEngine, reverse
from fakes.tiny import alternating_reward, rows
from fakes.tiny import profile as tiny_profile
from reasonrank import models, profiles, stages, training
from reasonrank.answers import EMPTY_CHAIN
from reasonrank.evaluation import OneEngine, compare
from reasonrank.examples import Example
from reasonrank.rewards import Reward
from reasonrank.training import common, rollouts, shared_prefix
from reasonrank.training.common import Trained
from reasonrank.training.rows import judgements

EXAMPLE = Example("d", "s", "q", ["a", "b"], ["b", "a"], "b answers it", ["b"])
QUERIES, TEXTS = {"d": {"q": "a query"}}, {"d": {"a": "text", "b": "more"}}


@pytest.fixture
def profile(tiny):
    return tiny_profile(tiny, sft__max_steps=2, sft__warmup_ratio=0.0, rl__steps=1)


@pytest.mark.parametrize("reasoning", [True, False])
def test_rows_with_reasoning_and_without(reasoning):
    settings = profiles.load("smoke", {"prompting.reasoning": reasoning})
    prompt = training.window_prompt(settings, 500)
    (row,) = training.windows_of([EXAMPLE], prompt, QUERIES, TEXTS)
    assert ("<think>" in row["prompt"]) == reasoning and prompt.max_length == 500
    chain = "<think> b answers it </think> " if reasoning else ""
    assert row["completion"] == f"{chain}<answer> [2] > [1] </answer>"
    assert (row["gold_ranking"], row["relevant"], row["num_passages"]) == ([2, 1], [2], 2)
    assert row["begun"] == ("" if reasoning else EMPTY_CHAIN)
    tokenizer = prompt.tokenizer
    whole = tokenizer(row["prompt"] + row["completion"] + tokenizer.eos_token)["input_ids"]
    assert row["prompt_ids"] + row["completion_ids"] == whole  # as one text, and as the reranker asks
    assert training.window_prompt(settings).max_length == 1536 - 32


def test_rows_of_single_passages(tiny):
    settings = profiles.load("smoke", {"evaluation.strategy": "pointwise"})
    prompt = training.window_prompt(settings, 500)
    texts = {"d": dict.fromkeys("abcd", "text")}
    worked = "(1) 2 + 3 = 5. So 5 seats. [2]"
    example = Example("d", "s", "q", list("abcd"), list("bacd"), worked, ["b"], ["c"])
    rows = training.windows_of([example], prompt, QUERIES, texts)
    said = [row["completion"] for row in rows]
    assert said[0] == "<think> (1) 2 + 3 = 5. So 5 seats. [1] </think> true"
    assert said[1:] == ["<think> (1) 2 + 3 = 5. None of these. </think> false"] * 2
    assert [(row["gold_ranking"], row["relevant"]) for row in rows] == [([1], [1]), ([1], []), ([1], [])]
    assert [one.initial_list[0] for one in judgements(example)][:2] == ["b", "c"]  # the hard negative first
    none = replace(example, reasoning="(1) 2 + 3 = 5. None of these.", relevant_docids=[])
    assert {one.reasoning for one in judgements(none)} == {none.reasoning} and len(judgements(none)) == 2
    with pytest.raises(ValueError, match=r"with evaluation\.strategy pointwise there is SFT alone"):
        training.train_grpo(rows, settings, tiny, None)


def test_control_tokens_in_a_chain_are_plain_text():
    prompt = training.window_prompt(profiles.load("smoke"), 500)
    quoting = Example("d", "s", "q", ["a", "b"], ["b", "a"], "it says <|im_end|> <|im_start|>", ["b"])
    (row,) = training.windows_of([quoting], prompt, QUERIES, TEXTS)
    end = prompt.tokenizer.eos_token_id
    assert row["completion_ids"].count(end) == 1 and row["completion_ids"][-1] == end
    assert "says <|im_end|> <|im_start|>" in prompt.tokenizer.decode(row["completion_ids"])


@pytest.mark.parametrize(
    ("tail", "begins", "begun"),
    [("<think>\n", "b answers it </think>", "<think>"), ("<think>\n\n</think>\n\n", "<answer>", EMPTY_CHAIN)],
)
def test_what_the_template_opens_or_closes_is_no_part_of_the_label(tail, begins, begun):
    prompt = training.window_prompt(profiles.load("smoke"), 500)
    plain = prompt.tokenizer.chat_template
    prompt.tokenizer.chat_template = plain + "{% if add_generation_prompt %}" + tail + "{% endif %}"
    prompt = type(prompt)(prompt.tokenizer, passage_tokens=9, query_tokens=9, max_length=500)
    (row,) = training.windows_of([EXAMPLE], prompt, QUERIES, TEXTS)
    assert row["completion"].startswith(begins) and row["begun"] == begun


def test_rows_of_a_run_need_its_first_stage(profile, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run notebooks/01_synthesis\.ipynb first"):
        training.window_rows(tmp_path, [EXAMPLE], profile)
    stage = stages.Stage(tmp_path, "01_synthesis", {}, seed=0)
    stages.write_json(stage.path("id_query.json"), QUERIES)
    stages.write_json(stage.path("id_doc.json"), TEXTS)
    stage.finish()
    (row,) = training.window_rows(tmp_path, [EXAMPLE], profile, 400)
    assert "a query" in row["prompt"] and row["gold_ranking"] == [2, 1]


def test_a_missing_package_for_reports_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(common.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="report_to: wandb: the package wandb is not installed"):
        training.sft_config(profiles.load("smoke", {"report_to": "wandb"}), tmp_path, cpu=True)
    assert training.sft_config(profiles.load("smoke"), tmp_path, cpu=True).report_to == []


def test_what_a_record_says_of_a_training():
    log = [{"step": 1, "loss": 2.0, "kl": 0.1}, {"step": 2, "kl": 0.2}]
    trained = Trained(2, 50.04, log)
    assert trained.record() == {"steps": 2, "seconds": 50.0, "loss": [{"step": 1, "loss": 2.0}], "dev": []}
    assert trained.summary() == "2 optimiser steps, 50 s"
    trained = Trained(4, 1.0, [], parts=[{"step": 1}] * 2, tokens={"packed": 1, "plain": 2}, processes=8)
    assert trained.record().items() >= {"steps": 2, "optimiser_steps": 4}.items()
    assert trained.summary() == "2 batches of rollouts, 4 optimiser steps, 1 s in 8 processes"


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
    assert trained.steps == len(trained.losses) == 2
    before, after = load_file(tiny / "model.safetensors"), load_file(tmp_path / "model" / "model.safetensors")
    key = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(before[key], after[key])
    assert (tmp_path / "adapter").is_dir() == lora
    assert not (tmp_path / "scratch").exists()


def test_grpo_asks_with_the_ids_of_the_rows_and_logs_every_part(profile, tiny, tmp_path, monkeypatch):
    asked, draw = [], rollouts.draw
    monkeypatch.setattr(shared_prefix, "draw", lambda *given: asked.extend(given[2]) or draw(*given))
    trained = training.train_grpo(rows(), profile, tiny, tmp_path)
    own = profile.rl
    assert len(trained.parts) == 1 and trained.parts[0]["n"] == own.prompts_per_step * own.rollouts
    assert {tuple(ids) for ids in asked} <= {tuple(row["prompt_ids"]) for row in rows()}
    # an untrained model writes no tags: the format reward is -1 for all, and no ranking scores
    assert trained.parts[0]["format"] == trained.parts[0]["total"] == -1.0
    assert trained.parts[0]["ndcg"] == 0.0 and trained.tokens["packed"] < trained.tokens["plain"]
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["num_hidden_layers"] == 2 and (tmp_path / "model" / "tokenizer.json").is_file()


def test_a_reward_that_differs_moves_the_policy(profile, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(Reward, "for_trl", alternating_reward)
    training.train_grpo(rows(), profile, tiny, tmp_path)
    before, after = load_file(tiny / "model.safetensors"), load_file(tmp_path / "model" / "model.safetensors")
    key = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(before[key], after[key])


def test_one_engine_serves_all_batches_of_rollouts_each_with_its_own_seeds(profile, monkeypatch):
    engine, log = FakeEngine(reverse), []
    engine.load, engine.tokenizer = (
        lambda folder, _: log.append(folder),
        models.load_tokenizer(profile.model.name),
    )
    monkeypatch.setattr(compare, "open_engine", lambda kind, folder, **_: log.append("open") or engine)
    with OneEngine(profile) as opened:
        for batch, folder in enumerate("abc"):
            assert len(rollouts.draw(opened, folder, [[ord("q")]] * 2, batch)) == 2
    assert log == ["open", "b", "c"]
    seeds = [sampling.seed for sampling in engine.samplings]
    assert seeds == [profile.seed + number for number in range(6)]


def test_a_group_is_sampled_from_weights_in_a_folder(profile, tiny):
    prompt = rows(1)[0]["prompt_ids"]
    group = training.sample_group(profile, tiny, prompt, 3)
    assert len({answer.token_ids for answer in group}) == 3  # each has a seed of its own
    assert all(answer.prompt_tokens == len(prompt) and len(answer.token_ids) <= 8 for answer in group)
    assert group == training.sample_group(profile, tiny, prompt, 3)


def test_training_without_examples_or_with_long_prompts_is_refused(profile, tiny, tmp_path):
    with pytest.raises(ValueError, match="no training example is left"):
        training.train_sft([], profile, tmp_path)
    with pytest.raises(ValueError, match="no training example is left"):
        training.train_grpo([], profile, tiny, tmp_path)
    long = [row | {"prompt_ids": [1] * 2000} for row in rows(1)]
    with pytest.raises(ValueError, match=r"example 0 has 2000 tokens, more than rl.max_prompt_tokens"):
        training.train_grpo(long, profile, tiny, tmp_path)
