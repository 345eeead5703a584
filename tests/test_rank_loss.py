"""The loss on the order: one list by hand, where labels choose an identifier, and what the trainer makes of it."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from fakes.tiny import profile as tiny_profile
from fakes.tiny import rows
from reasonrank import models, training
from reasonrank.answers import format_answer, format_completion
from reasonrank.training.rank_loss import choices, rank_loss


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer("smollm2-135m-instruct")


def test_one_list_by_hand():
    """Ranks 1, 2, 3 with logits 2, 0.5, 1: pairs (1, 2), (1, 3), (2, 3), weighted by 1/3, 1/4, 1/5."""
    pairs = [
        math.log(1 + math.exp(-1.5)) / 3,
        math.log(1 + math.exp(-1)) / 4,
        math.log(1 + math.exp(0.5)) / 5,
    ]
    logits = torch.tensor([2.0, 0.5, 1.0], requires_grad=True)
    loss = rank_loss(logits)
    assert loss.item() == pytest.approx(sum(pairs) / 3) == pytest.approx(0.113423, abs=1e-6)
    loss.backward()
    assert logits.grad[0] < 0 < logits.grad[2]  # the best goes up, the last goes down


@pytest.mark.parametrize(
    ("ranking", "tokens"),
    [
        ([2, 1, 3], {"": "213"}),
        ([10, 3, 1, 2, 4, 5, 6, 7, 8, 9], {"": "132456789", "1": "0]"}),  # [10] and [1] begin alike
        ([3, 12, *range(13, 21), 1, 2, *range(4, 12)], {"": "312456789"}),
        ([2, 20, 15, 1, *range(3, 15), *range(16, 20)], {"": "213456789", "2": "]0"}),
    ],
)
@pytest.mark.parametrize("chain", [True, False])
def test_where_a_label_chooses_its_first_identifier(tokenizer, ranking, tokens, chain):
    completion = format_completion("[7] says 12", ranking) if chain else format_answer(ranking)
    row = {"completion": completion, "gold_ranking": ranking, "completion_ids": tokenizer.encode(completion)}
    found = choices(row, tokenizer)
    texts = [tokenizer.decode(row["completion_ids"][:place]) for place, _ in found]
    assert [text.rpartition("<answer> [")[2] for text in texts] == list(tokens)
    assert ["".join(map(tokenizer.decode, after)) for _, after in found] == list(tokens.values())
    assert all(row["completion_ids"][place] == after[0] for place, after in found)


def test_a_label_of_other_tokens_is_refused(tokenizer):
    with pytest.raises(
        ValueError, match=r"sft.rank_loss: expected an identifier of its own tokens in '<think>"
    ):
        choices(rows(1)[0] | {"completion_ids": [1, 2, 3]}, tokenizer)


@pytest.fixture
def profile(tiny):
    return tiny_profile(tiny, sft__rank_loss=10.0, sft__max_steps=6)


def test_the_trainer_adds_it_to_the_loss_on_tokens(profile, tokenizer, tmp_path):
    trainer = training.sft_trainer(rows(), profile, tmp_path)
    two_one_three = [tokenizer.convert_tokens_to_ids(digit) for digit in "213"]
    for batch in trainer.get_train_dataloader():
        ids = batch["input_ids"]
        with torch.no_grad():
            loss = trainer.compute_loss(trainer.model, dict(batch)).item()
            logits = trainer.model(ids, attention_mask=batch["attention_mask"]).logits[:, :-1]
        target = batch["labels"][:, 1:]
        expected = cross_entropy(logits[target != -100], target[target != -100])
        for row, scores in zip(ids.tolist(), logits, strict=True):
            place = next(k for k in range(len(row)) if tokenizer.decode(row[:k]).endswith("<answer> ["))
            expected += 10 * rank_loss(scores[place - 1, two_one_three]) / len(ids)
        assert loss == pytest.approx(expected.item(), rel=1e-5)


def test_training_brings_the_order_of_the_labels(profile, tmp_path):
    trained = training.train_sft(rows(), profile, tmp_path)
    losses = [row["rank_loss"] for row in trained.log if "rank_loss" in row]
    assert len(losses) == 6 and losses[-1] < 0.7 * losses[0]


def test_a_label_that_was_cut_or_has_nothing_to_choose_bears_the_loss_on_tokens_alone(
    profile, tiny, tmp_path
):
    short = tiny_profile(tiny, sft__rank_loss=10.0, sft__cutoff=30)
    one = [row | {"gold_ranking": [2]} for row in rows()]
    for made, settings in ((rows(), short), (one, profile)):
        trainer = training.sft_trainer(made, settings, tmp_path)
        batch = next(iter(trainer.get_train_dataloader()))
        with torch.no_grad():
            loss = trainer.compute_loss(trainer.model, dict(batch))
            assert loss == trainer.model(**batch, fused_lm_head=True).loss
