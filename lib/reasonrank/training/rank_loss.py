"""FIRST's ranking loss beside SFT's loss on tokens (Reddy et al. 2024, arXiv 2406.15657).

The loss on tokens treats all wrong identifiers alike. Where a label names its first identifier, this one compares the
logits of all of them, pair by pair, and a pair counts for more the nearer it is to the top.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import softplus
from trl import SFTTrainer

from ..answers import ANSWER
from ..rerank.logits import branches, identifiers
from .common import ResumableSampling


def rank_loss(logits: torch.Tensor) -> torch.Tensor:
    """Weighted RankNet of `logits` (n,), those of the best passage first: the mean over pairs of ranks i < j of
    log(1 + exp(s_j - s_i)) / (i + j)."""
    better, worse = torch.triu_indices(len(logits), len(logits), offset=1, device=logits.device)
    return (softplus(logits[worse] - logits[better]) / (better + worse + 2)).mean()


def choices(row: Mapping[str, Any], tokenizer: Any) -> list[tuple[int, list[int]]]:
    """Where the label of a row (see `rows.windows_of`) chooses its first identifier: a place among its tokens, and
    the tokens that can stand there, ordered by the best passage whose identifier begins so.

    One place, and a second where numbers are split into digits and the chosen one shares its first with others. Raises
    ValueError where the tokens of a label are not those of its parts.
    """
    opening = row["completion"].rpartition(ANSWER)[0] + f"{ANSWER} ["
    names = identifiers(tokenizer, opening, row["gold_ranking"])
    if row["completion_ids"][: len(names[0])] != list(names[0]):
        raise ValueError(
            f"sft.rank_loss: expected an identifier of its own tokens in {row['completion']!r:.200}"
        )
    return [(len(path), after) for path, after in branches(names).items() if names[0][: len(path)] == path]


class ResumableSFTTrainer(ResumableSampling, SFTTrainer):
    """TRL's SFTTrainer, which can be resumed within an epoch."""


class RankLossTrainer(ResumableSFTTrainer):
    """An SFTTrainer that adds `weight` times the mean of `rank_loss` over the rows of a batch (FIRST: 10), and
    logs it as `rank_loss`. Rows that were cut at `sft.cutoff` take no part in it."""

    def __init__(self, *args: Any, rows: Sequence[Mapping[str, Any]], weight: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.weight, self.choices = weight, {}
        for row in rows:
            places = [(len(row["prompt_ids"]) + k, after) for k, after in choices(row, self.processing_class)]
            self.choices[hash((*row["prompt_ids"], *row["completion_ids"]))] = places
        model = self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model
        self.head, self.hidden = model.get_output_embeddings(), None
        model.base_model.register_forward_hook(self._keep)

    def _keep(self, module: Any, inputs: Any, output: Any) -> None:
        self.hidden = output.last_hidden_state

    def compute_loss(self, model: Any, inputs: Any, return_outputs=False, num_items_in_batch=None) -> Any:
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        ids, lengths = inputs["input_ids"].tolist(), inputs["attention_mask"].sum(1).tolist()
        found = [self.choices.get(hash(tuple(row[:n])), ()) for row, n in zip(ids, lengths, strict=True)]
        chosen = [(row, place, after) for row, places in enumerate(found) for place, after in places]
        hidden, self.hidden = self.hidden, None
        if not chosen:
            return loss
        before = torch.stack([hidden[row, place - 1] for row, place, _ in chosen])
        logits = self.head(before.to(self.head.weight.dtype)).float()
        each = [rank_loss(scores[after]) for scores, (_, _, after) in zip(logits, chosen, strict=True)]
        mean = torch.stack(each).sum() / len(ids)
        self._metrics["train"]["rank_loss"].append(mean.item())
        steps = self.current_gradient_accumulation_steps if num_items_in_batch is not None else 1
        return loss + self.weight * mean / steps
