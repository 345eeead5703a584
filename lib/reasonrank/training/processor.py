"""LoRA on a processor: the adapter in the weights, and attention without copies of keys.

PEFT adds (x A) B to each product x W: small products for every token, in both directions. Here a pass writes the weight
W + s B A once, so that a layer is one product; the gradients of A and B follow from the weight's (Hu et al. 2021,
equation 3). PEFT's layers stay what they are: what is saved, merged, resumed or switched off goes its own way.
"""

from __future__ import annotations

import contextlib
import ctypes
import types
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

GROUPED = "grouped"
"""The name of `grouped_attention` for `from_pretrained(attn_implementation=...)`."""


def write_lora(model: Any, device: torch.device) -> int:
    """Have every LoRA layer of a PEFT model, without dropout or DoRA, compute one product; returns how many do.

    None on a GPU. A pass that is learnt from takes one copy of the adapted weights as memory.
    """
    from peft.tuners.lora import Linear

    layers = [module for module in model.modules() if isinstance(module, Linear) and device.type == "cpu"]
    for layer in layers:
        layer.forward = types.MethodType(_one_product, layer)
    return len(layers)


def _one_product(layer: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """The `forward` of a LoRA layer; without its adapter it is PEFT's."""
    if layer.disable_adapters or layer.merged:
        return type(layer).forward(layer, x, *args, **kwargs)
    base = layer.get_base_layer()
    down, up = (part["default"].weight.to(base.weight.dtype) for part in (layer.lora_A, layer.lora_B))
    weight = torch.addmm(base.weight, up, down, alpha=layer.scaling["default"])
    return functional.linear(x, weight, base.bias)


def grouped_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    answers: Sequence[Sequence[tuple[int, int]]] | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention by plain products, the query heads of a group side by side so that keys are not copied for each.

    `query` (batch, heads, length, width), `key` and `value` (batch, groups, keys, width), `attention_mask` (batch, 1,
    length, keys), added where it is of floats, and true where a key is seen where it is of booleans. `answers`: for
    each row of the batch, where answers to its one prompt begin and end; an answer is then compared with the prompt
    and itself alone, and not with what the mask would take out again. Returns (batch, length, heads, width) and None.
    Equal to sdpa, but for padding.
    """
    if answers is not None:
        rows = [
            _row_of_answers(module, query[row, None], key[row, None], value[row, None], found, scaling)
            for row, found in enumerate(answers)
        ]
        return torch.cat(rows), None
    batch, heads, length, width = query.shape
    groups, keys = key.shape[1:3]
    scaled = (query * (scaling or width**-0.5)).reshape(batch, groups, heads // groups * length, width)
    scores = (scaled @ key.transpose(-1, -2)).view(batch, groups, heads // groups, length, keys)
    if attention_mask is not None:
        mask = attention_mask[:, :, None, :, :keys]
        low = torch.finfo(scores.dtype).min
        scores = scores.masked_fill(~mask, low) if mask.dtype == torch.bool else scores + mask
    seen = functional.softmax(scores, dim=-1).view(batch, groups, -1, keys)
    return (seen @ value).view(batch, heads, length, width).transpose(1, 2).contiguous(), None


def _row_of_answers(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    answers: Sequence[tuple[int, int]],
    scaling: float | None,
) -> torch.Tensor:
    """Attention of one packed row: the prompt, then each of its answers, then padding, which gets zeros."""
    prompt, parts = answers[0][0], []
    for begin, end in ((0, prompt), *answers):
        seen = lambda keys: torch.cat((keys[:, :, :prompt], keys[:, :, max(begin, prompt) : end]), 2)  # noqa: B023, E731
        mask = torch.ones(end - begin, prompt * (begin > 0) + end - begin, dtype=torch.bool)
        causal = mask.tril(mask.size(1) - mask.size(0))[None, None]
        own = query[:, :, begin:end]
        parts.append(grouped_attention(module, own, seen(key), seen(value), causal, scaling)[0])
    attended = torch.cat(parts, 1)
    return functional.pad(attended, (0, 0, 0, 0, 0, query.size(2) - attended.size(1)))


def keep_memory() -> None:
    """Have C's allocator keep what is freed for the next step; nothing on systems without glibc's `mallopt`.

    By itself it gives larger arrays back at once, and each page of the next one is a fault: up to two fifths of a
    step's time.
    """
    trim, mmap_threshold, arenas = -1, -3, -8  # malloc.h
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((mmap_threshold, 2**25), (trim, 2**31 - 1), (arenas, 1)):
            mallopt(option, value)


AttentionInterface.register(GROUPED, grouped_attention)
AttentionMaskInterface.register(GROUPED, eager_mask)
