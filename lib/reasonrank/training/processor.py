"""LoRA on a processor: the adapter in the weights, and attention without copies of keys.

PEFT adds (x A) B to each product x W: small products for every token, in both directions. Here a layer keeps a copy of
its weight, W + s B A (Hu et al. 2021, equation 3), written anew when A or B has changed, so that a layer is one product
on the way forward and one on the way back; W itself gets no gradient, and those of A and B are small products. PEFT's
layers stay what they are: what is saved, merged, resumed or switched off goes its own way.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

logger = logging.getLogger(__name__)

GROUPED = "grouped"
"""The name of `grouped_attention` for `from_pretrained(attn_implementation=...)`."""
QUERIES = 256
"""Queries of a block of `grouped_attention`."""
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""Relative difference of outputs and gradients that `write_lora` allows, by compute type."""


class WrittenLora:
    """A LoRA layer of PEFT whose adapter is written into a copy of its weight; takes the place of its `forward`."""

    def __init__(self, layer: Any) -> None:
        self.layer, self.plain, self.versions = layer, layer.forward, None
        self.down, self.up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        self.weight = layer.get_base_layer().weight.detach().clone()

    def __call__(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.layer.disable_adapters or self.layer.merged:
            return self.plain(x, *args, **kwargs)
        self.write()
        return _WrittenProduct.apply(x, self.down, self.up, self)

    @torch.no_grad()
    def write(self) -> torch.Tensor:
        """The weight with the adapter of the moment, (out, in)."""
        if self.versions != (now := (self.down._version, self.up._version)):
            base, scale = self.layer.get_base_layer().weight, self.layer.scaling["default"]
            torch.addmm(base, self.up.to(base.dtype), self.down.to(base.dtype), alpha=scale, out=self.weight)
            self.versions = now
        return self.weight


class _WrittenProduct(torch.autograd.Function):
    """x W, whose way back knows W as a base weight that is not learnt, plus s B A."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")
    def forward(ctx, x, down, up, written):
        ctx.save_for_backward(x, down, up, written.weight)
        ctx.written = written
        return functional.linear(x, written.weight, written.layer.get_base_layer().bias)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx, gradient):
        x, down, up, weight = ctx.saved_tensors
        of_x = gradient @ weight if ctx.needs_input_grad[0] else None
        ctx.written.versions = None  # a step may follow, and a fused optimiser counts up no version
        x, gradient = x.flatten(0, -2).to(gradient.dtype), gradient.flatten(0, -2)
        down, up, scale = down.to(x.dtype), up.to(x.dtype), ctx.written.layer.scaling["default"]
        of_down = (gradient @ up).mul_(scale).T @ x
        of_up = gradient.T @ (x @ down.T).mul_(scale)
        return of_x, of_down, of_up, None


def write_lora(model: Any, device: torch.device) -> int:
    """Give every LoRA layer of a PEFT model its `WrittenLora`; returns how many.

    0, and nothing is changed, on a GPU, without LoRA, and, with a warning, where one layer's outputs or gradients are
    not those of PEFT's own way, as with dropout or DoRA. It takes one copy of the adapted weights as memory.
    """
    from peft.tuners.lora import Linear

    layers = [module for module in model.modules() if isinstance(module, Linear)]
    if not layers or device.type != "cpu":
        return 0
    if (difference := _difference(layers[0])) > TOLERANCE.get(layers[0].weight.dtype, 0.0):
        logger.warning("LoRA is trained in PEFT's own way: written weights differ by %.2g of it", difference)
        return 0
    for layer in layers:
        layer.forward = WrittenLora(layer)
    return len(layers)


def written_weights(model: Any) -> dict[str, torch.Tensor] | None:
    """Weights of a PEFT model by their names without an adapter, which is written into them; None where `write_lora`
    has left the model as it was."""
    layers = {name: module.forward for name, module in model.named_modules()}
    layers = {name: forward for name, forward in layers.items() if isinstance(forward, WrittenLora)}
    if not layers:
        return None
    found = {name: value for name, value in model.state_dict().items() if ".lora_" not in name}
    found |= {f"{name}.base_layer.weight": forward.write() for name, forward in layers.items()}
    return {n.removeprefix("base_model.model.").replace(".base_layer.", "."): v for n, v in found.items()}


def _difference(layer: Any) -> float:
    """The largest relative difference of output and gradients of A and B between both ways, for an input and an
    adapter at random."""
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    kept, kind, found = up.detach().clone(), layer.weight.dtype, []
    with torch.random.fork_rng(devices=[]), torch.autocast("cpu", kind, kind != torch.float32):
        torch.manual_seed(0)
        up.data.normal_(std=0.02)
        x = torch.randn(64, down.size(1), dtype=kind)
        for way in (layer.forward, WrittenLora(layer)):
            output = way(x)
            output.float().square().sum().backward()
            found.append([output.detach().float(), down.grad, up.grad])
            down.grad = up.grad = None
    up.data.copy_(kept)
    return max(float((a - b).norm() / a.norm()) for a, b in zip(*found, strict=True))


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
    """Causal attention by plain products, the query heads of a group side by side so that keys are not copied for each.

    Queries are taken in blocks, and a block is compared with no key behind it, as the mask would take that out again.
    `query` (batch, heads, length, width), `key` and `value` (batch, groups, keys, width), `attention_mask` (batch, 1,
    length, keys), added where it is of floats, and true where a key is seen where it is of booleans. `answers`: for
    each row of the batch, where answers to its one prompt begin and end; an answer is then compared with the prompt and
    itself alone, without the mask. Returns (batch, length, heads, width) and None. Equal to sdpa, but for padding.
    """
    if answers is not None:
        rows = [
            _row_of_answers(query[row, None], key[row, None], value[row, None], found, scaling)
            for row, found in enumerate(answers)
        ]
        return torch.cat(rows), None
    if attention_mask is None:
        return _attend(query, key, value, None, scaling), None
    parts, later = [], key.size(2) - query.size(2)
    for own in _blocks(0, query.size(2)):
        seen = slice(later + own.stop)
        mask = attention_mask[:, :, own, seen]
        if mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, torch.finfo(query.dtype).min)
        parts.append(_attend(query[:, :, own], key[:, :, seen], value[:, :, seen], mask, scaling))
    return torch.cat(parts, 1), None


def _row_of_answers(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    answers: Sequence[tuple[int, int]],
    scaling: float | None,
) -> torch.Tensor:
    """Attention of one packed row: the prompt, then each of its answers, then padding, which gets zeros."""
    prompt, parts = answers[0][0], []
    for begin, end in ((0, prompt), *answers):
        for own in _blocks(begin, end):
            seen = [
                torch.cat((x[:, :, : min(prompt, own.stop)], x[:, :, max(begin, prompt) : own.stop]), 2)
                for x in (key, value)
            ]
            size = own.stop - own.start, seen[0].size(2)
            mask = query.new_full(size, torch.finfo(query.dtype).min).triu(size[1] - size[0] + 1)
            parts.append(_attend(query[:, :, own], *seen, mask[None, None], scaling))
    attended = torch.cat(parts, 1)
    return functional.pad(attended, (0, 0, 0, 0, 0, query.size(2) - attended.size(1)))


def _blocks(begin: int, end: int) -> list[slice]:
    """Places from `begin` to `end` in blocks."""
    return [slice(first, min(first + QUERIES, end)) for first in range(begin, end, QUERIES)]


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
) -> torch.Tensor:
    """Attention under a mask that is added; shapes as in `grouped_attention`."""
    batch, heads, length, width = query.shape
    groups, keys = key.shape[1:3]
    scaled = (query * (scaling or width**-0.5)).reshape(batch, groups, heads // groups * length, width)
    scores = (scaled @ key.transpose(-1, -2)).view(batch, groups, heads // groups, length, keys)
    scores = scores if mask is None else scores + mask[:, :, None]
    seen = functional.softmax(scores, dim=-1).view(batch, groups, -1, keys)
    return (seen @ value).view(batch, heads, length, width).transpose(1, 2)


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
