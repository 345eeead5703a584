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
from torch.nn.functional import linear
from trl.trainer.utils import FusedCausalLMOutput


def use_label_head(
    model: Any, device: torch.device, temperature: float = 1.0, entropy_gradient: bool = False
) -> None:
    """Make `model(..., labels=..., fused_lm_head=True)` project labelled positions only, below PEFT.

    Takes the place of `trl.trainer.utils.add_fused_lm_head` for plain causal models (without scaled or capped
    logits; ValueError names the setting otherwise) and gives the same fields: `log_probs`, `entropy` and
    `is_top1` of shape (batch, length - 1), or (batch, length) with `shift_labels`, zero where the label is
    -100; `label_mask`; `loss`, the mean over labels. `entropy_gradient`: whether entropy bears a gradient. On a
    GPU it does nothing, since Triton does the same there.
    """
    if device.type in ("cuda", "xpu"):
        return
    model = model.get_base_model() if hasattr(model, "peft_config") else model
    config, plain = model.config.get_text_config(), model.forward
    for name in ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier"):
        if getattr(config, name, None) not in (None, 1.0):
            raise ValueError(f"the label head does not know models with {name} in their config")

    @functools.wraps(type(model).forward)
    def forward(self, *args, fused_lm_head=False, labels=None, shift_labels=None, **kwargs):
        if not fused_lm_head:
            if labels is not None:
                kwargs["labels"] = labels
            return plain(*args, **kwargs)
        kwargs.pop("num_items_in_batch", None)
        hidden = self.base_model(*args, **(kwargs | {"use_cache": False})).last_hidden_state
        if shift_labels is None:
            hidden, shift_labels = hidden[:, :-1], labels[:, 1:]
        return score_labels(hidden, shift_labels, self.get_output_embeddings(), temperature, entropy_gradient)

    model.forward = types.MethodType(forward, model)


def score_labels(
    hidden: torch.Tensor, labels: torch.Tensor, head: Any, temperature: float, entropy_gradient: bool
) -> FusedCausalLMOutput:
    """Log-probability, entropy and rank of `labels` (batch, length) given `hidden` (batch, length, width).

    Logits are in float32 after the projection, as TRL has them.
    """
    mask = labels != -100
    log_probs, entropy, top1 = _Scored.apply(
        hidden[mask], head.weight, head.bias, labels[mask], temperature, entropy_gradient
    )
    spread = lambda values: values.new_zeros(mask.shape).masked_scatter(mask, values)  # noqa: E731
    return FusedCausalLMOutput(
        loss=-log_probs.sum() / mask.sum().clamp(min=1),
        log_probs=spread(log_probs),
        entropy=spread(entropy),
        is_top1=spread(top1),
        label_mask=mask,
    )


class _Scored(torch.autograd.Function):
    """Log-probability of each target, entropy, and whether the target is likeliest, all (labels,), by `CHUNK` labels
    at a time; the way back computes their logits once more, so that the whole table of labels and vocabulary, larger
    than the model, is never there."""

    CHUNK = 128

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")
    def forward(ctx, hidden, weight, bias, targets, temperature, entropy_gradient):
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.temperature = temperature
        ctx.set_materialize_grads(False)
        parts = [[hidden.new_empty(0, dtype=torch.float32)] * 2 + [hidden.new_empty(0, dtype=torch.bool)]]
        for rows in torch.arange(len(targets)).split(_Scored.CHUNK):
            every = _log_probs(hidden[rows], weight, bias, temperature)
            entropy = -(every.exp() * every).sum(dim=-1)
            own = targets[rows]
            parts.append([every.gather(1, own[:, None])[:, 0], entropy, every.argmax(dim=-1) == own])
        log_probs, entropy, top1 = (torch.cat(column) for column in zip(*parts, strict=True))
        ctx.mark_non_differentiable(*((top1,) if entropy_gradient else (entropy, top1)))
        return log_probs, entropy, top1

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx, of_log_probs, of_entropy, _):
        hidden, weight, bias, targets = ctx.saved_tensors
        of_hidden, of_weight, of_bias = (
            torch.zeros_like(value) if needed else None
            for value, needed in zip((hidden, weight, bias), ctx.needs_input_grad, strict=False)
        )
        for rows in torch.arange(len(targets)).split(_Scored.CHUNK):
            every = _log_probs(hidden[rows], weight, bias, ctx.temperature)
            p, gradient = every.exp(), torch.zeros_like(every)
            if of_entropy is not None:
                entropy = -(p * every).sum(dim=-1, keepdim=True)
                gradient -= of_entropy[rows, None] * p * (every + entropy)
            if of_log_probs is not None:
                gradient -= of_log_probs[rows, None] * p
                gradient.scatter_add_(1, targets[rows, None], of_log_probs[rows, None])
            gradient = (gradient / ctx.temperature).to(weight.dtype)
            if of_hidden is not None:
                of_hidden[rows] = (gradient @ weight).to(hidden.dtype)
            if of_weight is not None:
                of_weight += gradient.T @ hidden[rows].to(weight.dtype)
            if of_bias is not None:
                of_bias += gradient.sum(dim=0)
        return of_hidden, of_weight, of_bias, None, None, None


def _log_probs(hidden: torch.Tensor, weight: Any, bias: Any, temperature: float) -> torch.Tensor:
    """(labels, vocabulary), in float32."""
    return (linear(hidden, weight, bias).float() / temperature).log_softmax(dim=-1)
