"""The vocabulary head on label tokens only.

TRL's fused head skips unlabelled positions where it has Triton; elsewhere it scores every token of the prompt
too, in tiles that a processor works through slowly. A label of a hundred tokens after a prompt of five hundred
needs a sixth of that, and a small model's head (49k rows for 135M parameters) is half of its work.
"""

from __future__ import annotations

import functools
import types
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from trl.trainer.utils import FusedCausalLMOutput

CHUNK = 128


def use_label_head(
    model: Any, device: torch.device, temperature: float = 1.0, entropy_gradient: bool = False
) -> None:
    """Make `model(..., labels=..., fused_lm_head=True)` project labelled positions only, below PEFT.

    Takes the place of `trl.trainer.utils.add_fused_lm_head` for plain causal models (without scaled or capped
    logits; ValueError names the setting otherwise) and gives the same fields: `log_probs`, `entropy` and
    `is_top1` of shape (batch, length - 1), or (batch, length) with `shift_labels`, zero where the label is
    -100; `label_mask`; `loss`, the mean over labels. `is_top1` is true where no token is likelier than the label;
    among equals TRL takes the first alone. `entropy_gradient`: whether entropy bears a gradient. On a GPU it does
    nothing, since Triton does the same there.
    """
    if device.type in ("cuda", "xpu"):
        return
    model = model.get_base_model() if hasattr(model, "peft_config") else model
    config, plain = model.config.get_text_config(), model.forward
    for name in ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier"):
        if getattr(config, name, None) not in (None, 1.0):
            raise ValueError(f"the label head does not know models with {name} in their config")

    @functools.wraps(type(model).forward)
    def forward(self, *args, fused_lm_head=False, **kwargs):
        if not fused_lm_head:
            return plain(*args, **kwargs)
        given = ("labels", "shift_labels", "num_items_in_batch")
        labels, shift_labels, _ = (kwargs.pop(name, None) for name in given)
        hidden = self.base_model(*args, **(kwargs | {"use_cache": False})).last_hidden_state
        if shift_labels is None:
            hidden, shift_labels = hidden[:, :-1], labels[:, 1:]
        return score_labels(hidden, shift_labels, self.get_output_embeddings(), temperature, entropy_gradient)

    model.forward = types.MethodType(forward, model)


def score_labels(
    hidden: torch.Tensor, labels: torch.Tensor, head: Any, temperature: float, entropy_gradient: bool
) -> FusedCausalLMOutput:
    """Log-probability and entropy of `labels` (batch, length) given `hidden` (batch, length, width), and whether no
    token is likelier.

    Logits are in float32 after the projection, as TRL has them. They are computed for `CHUNK` labels at a time, and
    once more on the way back, so that the whole table of labels and vocabulary, larger than the model, is never there.
    """

    def scored(states: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logits = head(states) if temperature == 1 else head(states).float() / temperature
        every = logits.log_softmax(dim=-1, dtype=torch.float32)  # (labels, vocabulary)
        with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
            entropy = -(every.exp() * every).sum(dim=-1)
        own = every.gather(1, targets[:, None])[:, 0]
        return own, entropy, own >= every.amax(dim=-1)  # its argmax takes as long as the rest

    mask = labels != -100
    chunks = zip(hidden[mask].split(CHUNK), labels[mask].split(CHUNK), strict=True)
    parts = [checkpoint(scored, *chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks]
    columns = [torch.cat(column) for column in zip(*parts, strict=True)]
    spread = [values.new_zeros(mask.shape).masked_scatter(mask, values) for values in columns]
    loss = -columns[0].sum() / mask.sum().clamp(min=1)
    fields = dict(zip(("log_probs", "entropy", "is_top1"), spread, strict=True))
    return FusedCausalLMOutput(loss=loss, label_mask=mask, **fields)
