"""Shared-prefix GRPO and the label head give what TRL gives: log-probabilities, loss, gradients."""

import random

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from reasonrank.training import label_head, shared_prefix
from reasonrank.training.processor import GROUPED
from reasonrank.training.shared_prefix import SharedPrefixGRPOTrainer, pack

CLOSE = {"rtol": 1e-4, "atol": 1e-6}


def trainer(kind, tiny, folder, lora=False, entropy=0.0, group=4, attention="sdpa"):
    config = GRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=2 * group,
        gradient_accumulation_steps=1,
        num_generations=group,
        max_completion_length=8,
        beta=0.02,
        entropy_coef=entropy,
        temperature=0.7,
        use_cpu=True,
        bf16=False,
        report_to="none",
        seed=1,
    )
    made = kind(
        model=AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32, attn_implementation=attention),
        args=config,
        train_dataset=Dataset.from_list([{"prompt": f"prompt {i} " * (i + 1)} for i in range(4)]),
        processing_class=AutoTokenizer.from_pretrained(tiny),
        reward_funcs=lambda completions, **_: [float(len(text) % 5) for text in completions],
        peft_config=LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False) if lora else None,
    )
    made.current_gradient_accumulation_steps = 1  # set by `train` otherwise
    return made


def batch(groups, group, prompt, answer, seed=0):
    """What a trainer holds for a micro-batch: left-padded prompts, ragged right-padded answers."""
    rng = random.Random(seed)
    ids, prompt_mask, answers, answer_mask = [], [], [], []
    for _ in range(groups):
        length = rng.randint(2, prompt)
        tokens = [rng.randrange(100) for _ in range(length)]
        for _ in range(group):
            kept = rng.randint(1, answer)
            ids.append([0] * (prompt - length) + tokens)
            prompt_mask.append([0] * (prompt - length) + [1] * length)
            answers.append([rng.randrange(100) for _ in range(kept)] + [0] * (answer - kept))
            answer_mask.append([1] * kept + [0] * (answer - kept))
    made = {
        "prompt_ids": ids,
        "prompt_mask": prompt_mask,
        "completion_ids": answers,
        "completion_mask": answer_mask,
    }
    made = {name: torch.tensor(value) for name, value in made.items()}
    generator = torch.Generator().manual_seed(seed)
    size = made["completion_ids"].shape
    made["advantages"] = torch.randn(len(ids), generator=generator)
    for name in ("old_per_token_logps", "ref_per_token_logps"):
        made[name] = -torch.rand(size, generator=generator) - 4.2
    made["num_items_in_batch"] = made["completion_mask"].sum()
    return made


def whole(inputs):
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    return ids, torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize(
    ("groups", "group", "prompt", "answer"), [(1, 2, 9, 5), (2, 4, 16, 7), (3, 8, 5, 3), (1, 1, 6, 4)]
)
def test_loss_and_gradients_equal_those_of_trl(tiny, tmp_path, lora, groups, group, prompt, answer):
    inputs = batch(groups, group, prompt, answer)
    found = {}
    for kind in (GRPOTrainer, SharedPrefixGRPOTrainer):
        attention = GROUPED if lora and kind is SharedPrefixGRPOTrainer else "sdpa"
        made = trainer(kind, tiny, tmp_path, lora, attention=attention)
        torch.manual_seed(0)  # the adapter's weights
        with torch.no_grad():
            for name, value in made.model.named_parameters():
                if "lora_" in name:
                    value.copy_(0.05 * torch.randn(value.shape))
        made.model.train()
        ids, mask = whole(inputs)
        log_probs, entropy, _ = made._get_per_token_logps_and_entropies(
            made.model, ids, mask, answer, compute_entropy=True
        )
        loss = made.compute_loss(made.model, inputs)
        loss.backward()
        gradients = {n: p.grad for n, p in made.model.named_parameters() if p.grad is not None}
        found[kind] = log_probs, entropy, loss, gradients
    plain, shared = found[GRPOTrainer], found[SharedPrefixGRPOTrainer]
    scored = inputs["completion_mask"].bool()
    assert (made.shared_prefix and made.packed_tokens < made.plain_tokens) or group == 1
    for ours, theirs in zip(shared[:2], plain[:2], strict=True):
        torch.testing.assert_close(ours[scored], theirs[scored], **CLOSE)
    torch.testing.assert_close(shared[2], plain[2], **CLOSE)
    assert shared[3].keys() == plain[3].keys() and shared[3]
    for name, gradient in plain[3].items():
        torch.testing.assert_close(
            shared[3][name], gradient, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_rows_of_a_prompt_need_not_be_neighbours_and_prompts_are_computed_once():
    inputs = batch(2, 3, 10, 4)
    ids, mask = whole(inputs)
    mixed = torch.tensor([0, 3, 1, 4, 2, 5])
    packed = pack(ids[mixed], mask[mixed], 4)
    assert len(packed.input_ids) == 2
    expected = [
        int(inputs["prompt_mask"][r].sum()) - 1 + int(inputs["completion_mask"][r : r + 3].sum()) + 3
        for r in (0, 3)
    ]
    assert packed.input_ids.size(1) == max(expected)
    assert int((packed.labels != -100).sum()) == int(inputs["completion_mask"].sum())
    assert sorted(zip(packed.rows.tolist(), packed.places.tolist(), strict=True)) == [
        (row, place)
        for row, kept in enumerate(inputs["completion_mask"][mixed].sum(1))
        for place in range(int(kept))
    ]


def test_an_answer_sees_the_prompt_and_itself_only():
    owner = torch.tensor([[0, 0, 1, 1, 2, -1]])
    seen = shared_prefix.block_mask(owner)[0, 0].int().tolist()
    assert seen == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]


def test_the_self_check_turns_a_wrong_packing_off_and_says_so(tiny, tmp_path, monkeypatch, caplog):
    made = trainer(SharedPrefixGRPOTrainer, tiny, tmp_path)
    leak = lambda owner: torch.ones(len(owner), 1, owner.size(1), owner.size(1), dtype=torch.bool).tril()  # noqa: E731
    monkeypatch.setattr(shared_prefix, "block_mask", leak)
    inputs = batch(2, 4, 16, 7)
    ids, mask = whole(inputs)
    got = made._get_per_token_logps_and_entropies(made.model, ids, mask, 7)[0]
    assert not made.shared_prefix and made.checked > shared_prefix.TOLERANCE[torch.float32]
    assert "shared prefix is off: log-probabilities differ from TRL's" in caplog.text
    assert made.packed_tokens == made.plain_tokens > 0
    expected = trainer(GRPOTrainer, tiny, tmp_path)._get_per_token_logps_and_entropies(
        made.model, ids, mask, 7
    )[0]
    torch.testing.assert_close(got, expected)


def test_entropy_bears_a_gradient_where_it_is_in_the_loss(tiny, tmp_path):
    inputs = batch(2, 4, 12, 6)
    losses = {}
    for kind in (GRPOTrainer, SharedPrefixGRPOTrainer):
        made = trainer(kind, tiny, tmp_path, entropy=0.5)
        made.model.train()
        loss = made.compute_loss(made.model, inputs)
        loss.backward()
        losses[kind] = loss, made.model.model.layers[0].mlp.up_proj.weight.grad
    for ours, theirs in zip(losses[SharedPrefixGRPOTrainer], losses[GRPOTrainer], strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)


def test_a_step_of_training_packs_and_moves_the_weights(tiny, tmp_path):
    made = trainer(SharedPrefixGRPOTrainer, tiny, tmp_path)
    made.args.max_steps = 1
    before = made.model.model.layers[0].mlp.up_proj.weight.detach().clone()
    made.train()
    assert made.checked < 1e-5 and made.shared_prefix
    row = made.state.log_history[-1]
    assert 0 < row["packed_tokens"] < row["plain_tokens"]
    assert not torch.equal(before, made.model.model.layers[0].mlp.up_proj.weight)


def test_the_old_policy_is_scored_where_a_step_comes_before_alone(tiny, tmp_path):
    made = trainer(SharedPrefixGRPOTrainer, tiny, tmp_path, lora=True)
    made.args.steps_per_generation = 2  # two optimiser steps a batch, of two prompts each
    made.model.train()
    rows = [{"prompt": f"prompt {i} " * (i + 1)} for i in range(4) for _ in range(4)]
    first, second = (made._prepare_inputs(rows) for made._step in range(2))
    assert "old_per_token_logps" not in first and first["ref_per_token_logps"].any()
    scored = second["completion_mask"].bool()
    widths = [part["completion_ids"].size(1) for part in (first, second)]
    score = made._get_per_token_logps_and_entropies
    with torch.no_grad():
        old, expected = (
            score(made.model, *whole(part), n)[0] for part, n in zip((first, second), widths, strict=True)
        )
    torch.testing.assert_close(second["old_per_token_logps"][scored], expected[scored], **CLOSE)
    losses = [made.compute_loss(made.model, each) for each in (first, first | {"old_per_token_logps": old})]
    torch.testing.assert_close(*losses, **CLOSE)


def test_answers_are_drawn_from_a_merged_copy_of_the_policy(tiny, tmp_path, monkeypatch):
    made, seen = trainer(SharedPrefixGRPOTrainer, tiny, tmp_path, lora=True), []
    draw = GRPOTrainer._generate_single_turn
    monkeypatch.setattr(
        GRPOTrainer, "_generate_single_turn", lambda own, *a: seen.append(own.model_wrapped) or draw(own, *a)
    )
    wrapped, ids = made.model_wrapped, torch.tensor([[5, 6, 7, 8]])
    answers, _ = made._generate_single_turn([[5, 6, 7]] * 4, None, {}, 4)
    assert len(answers) == 4 and made.model_wrapped is wrapped
    assert not any("lora" in name for name, _ in seen[0].named_parameters())
    assert torch.allclose(seen[0](ids).logits, made.model(ids).logits, atol=1e-5)
    with made.accelerator.unwrap_model(made.model).disable_adapter():
        assert not torch.allclose(seen[0](ids).logits, made.model(ids).logits, atol=1e-3)


def test_a_model_with_scaled_logits_is_refused(tiny):
    model = AutoModelForCausalLM.from_pretrained(tiny)
    model.config.final_logit_softcapping = 30.0
    with pytest.raises(ValueError, match="final_logit_softcapping"):
        label_head.use_label_head(model, torch.device("cpu"))
