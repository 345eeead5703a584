"""Training on a processor: LoRA in the weights and grouped attention give what PEFT and sdpa give."""

import copy
import logging
import os
import subprocess
import sys

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from reasonrank import models
from reasonrank.training import processor
from reasonrank.training.processor import GROUPED, WrittenLora, write_lora
from reasonrank.training.rollouts import saved_policy
from reasonrank.training.shared_prefix import block_mask

HERE = torch.device("cpu")


def model(attention="sdpa"):
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 90}
    config = LlamaConfig(num_attention_heads=6, num_key_value_heads=2, **sizes)
    config._attn_implementation = attention
    return LlamaForCausalLM(config)


def adapted(written, **settings):
    config = peft.LoraConfig(**({"r": 4, "lora_alpha": 8, "target_modules": "all-linear"} | settings))
    made = peft.get_peft_model(model(), config)
    for name, value in made.named_parameters():
        if "lora_B" in name:
            torch.manual_seed(len(name))
            torch.nn.init.normal_(value, std=0.05)
    if written:
        assert write_lora(made, HERE) == 14
    return made


def step(made, optimiser):
    torch.manual_seed(1)
    for _ in range(2):  # gradients of two passes add up
        ids = torch.randint(0, 90, (2, 12))
        made(input_ids=ids, labels=ids).loss.backward()
    gradients = {n: v.grad.clone() for n, v in made.named_parameters() if v.grad is not None}
    optimiser.step()
    optimiser.zero_grad()
    return gradients


@pytest.mark.parametrize("fused", [False, True])
def test_gradients_and_weights_of_three_steps_are_those_of_peft(fused):
    made = [adapted(False), adapted(True)]
    trained = [[value for value in m.parameters() if value.requires_grad] for m in made]
    optimisers = [torch.optim.AdamW(values, lr=1e-2, fused=fused) for values in trained]
    for _ in range(3):
        plain, written = map(step, made, optimisers)
        assert plain.keys() == written.keys() and all("lora_" in name for name in written)
        for name, gradient in plain.items():
            torch.testing.assert_close(written[name], gradient, rtol=1e-3, atol=1e-6)
    before, after = (dict(m.named_parameters()) for m in (adapted(False), made[1]))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    for name, value in made[0].named_parameters():
        torch.testing.assert_close(after[name], value, rtol=1e-3, atol=1e-5)


def test_a_merged_copy_and_a_switched_off_adapter_are_pefts():
    plain, written = adapted(False), adapted(True)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        merged = copy.deepcopy(written).merge_and_unload()
        torch.testing.assert_close(merged(ids).logits, written(ids).logits, rtol=1e-4, atol=1e-5)
        with plain.disable_adapter(), written.disable_adapter():
            torch.testing.assert_close(written(ids).logits, plain(ids).logits)


@pytest.mark.parametrize("written", [True, False])
def test_the_policy_that_is_saved_is_the_one_that_is_trained(tiny, written):
    trained, ids = adapted(written), torch.arange(20)[None]
    with saved_policy(trained, models.load_tokenizer(str(tiny))) as folder:
        saved, found = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(found.values())
    with torch.no_grad():
        torch.testing.assert_close(saved(ids).logits, trained(ids).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"lora_dropout": 0.5}, HERE),
        ({}, torch.device("cuda")),
    ],
)
def test_where_it_would_not_be_the_same_pefts_own_way_serves(settings, place, caplog):
    made = adapted(False, **settings)
    with caplog.at_level(logging.WARNING):
        assert write_lora(made, place) == 0
    assert not any(isinstance(module.__dict__.get("forward"), WrittenLora) for module in made.modules())
    assert ("PEFT's own way" in caplog.text) == bool(settings)


@pytest.fixture(params=[5, 256])
def queries(request, monkeypatch):
    """Blocks of a few queries, and one block."""
    monkeypatch.setattr(processor, "QUERIES", request.param)


@pytest.mark.usefixtures("queries")
@pytest.mark.parametrize("kind", ["padding", "blocks"])
def test_grouped_attention_is_sdpa(kind):
    ids = torch.arange(24).view(2, 12)
    mask = torch.ones(2, 12, dtype=torch.long)
    mask[0, :4] = 0  # padded on the left
    if kind == "blocks":
        mask = torch.ones(2, 1, 12, 12, dtype=torch.bool).tril()
        mask[:, :, 8:, 4:8] = False
    with torch.no_grad():
        ours, theirs = (model(way)(ids, attention_mask=mask).logits for way in (GROUPED, "sdpa"))
    kept = mask.bool() if kind == "padding" else slice(None)
    torch.testing.assert_close(ours[kept], theirs[kept], rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("queries")
def test_answers_meet_their_prompt_and_themselves_as_under_the_mask():
    answers = [[(5, 9), (9, 12)], [(3, 4), (4, 8), (8, 10)]]  # the second row has two tokens of padding
    owner = torch.tensor([[0] * 5 + [1] * 4 + [2] * 3, [0] * 3 + [1] + [2] * 4 + [3] * 2 + [-1] * 2])
    asked = {"input_ids": torch.arange(24).view(2, 12), "attention_mask": block_mask(owner)}
    ours, theirs = model(GROUPED), model("sdpa")
    found = []
    for made, more in ((ours, {"answers": answers}), (theirs, {})):
        logits = made(**asked, **more).logits[owner >= 0]
        logits.square().sum().backward()
        found.append((logits, {name: value.grad for name, value in made.named_parameters()}))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


FAULTS = """
import resource, sys, torch
from reasonrank.training.processor import keep_memory
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
if sys.argv[1] == "kept":
    keep_memory()
for turn in range(11):
    arrays = [torch.ones(5_000_000) for _ in range(8)]
    del arrays
    before = faults() if turn == 0 else before
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc's allocator")
def test_freed_memory_serves_again_without_page_faults():
    # glibc raises its threshold by what it has seen, unless one is set
    system = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"}
    kept, given_back = (
        int(
            subprocess.run(
                [sys.executable, "-c", FAULTS, how], capture_output=True, check=True, env=system
            ).stdout
        )
        for how in ("kept", "as it comes")
    )
    assert kept < 0.1 * given_back, (kept, given_back)
