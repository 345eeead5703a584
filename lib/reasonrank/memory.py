"""How much memory a stage takes, from the model's shape alone: weights, optimiser, activations, KV cache.

Bytes are those of bfloat16 compute with float32 optimiser state. What no formula holds (the CUDA context,
fragmentation, buffers of collectives) is `RESERVED`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from . import paper
from .models import EMBEDDED, resolve
from .profiles import Hardware, Lora, Strict

GIB = 2**30
HALF, ADAM = 2, 12  # bytes of a bfloat16 value; of Adam's float32 master weight and two moments
RESERVED = 0.08  # share of a GPU that stays free
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
HEAD_TILE = 1024  # label tokens that are projected at once


class Architecture(Strict):
    """Shape of a decoder of Llama's form: gated feed-forward, grouped-query attention, RMS norms."""

    hidden: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    intermediate: int = Field(gt=0)
    vocabulary: int = Field(gt=0)
    tied: bool  # whether input and output embedding are one matrix
    qkv_bias: bool

    @property
    def linears(self) -> list[tuple[int, int]]:
        """(in, out) of the maps LINEARS of a layer."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        wide = [(self.hidden, self.intermediate)] * 2 + [(self.intermediate, self.hidden)]
        return [(self.hidden, q), (self.hidden, kv), (self.hidden, kv), (q, self.hidden), *wide]

    @property
    def parameters(self) -> int:
        """All parameters: embeddings, layers, norms."""
        bias = (self.heads + 2 * self.kv_heads) * self.head_dim if self.qkv_bias else 0
        layer = sum(i * o for i, o in self.linears) + bias + 2 * self.hidden
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return embeddings + self.layers * layer + self.hidden

    def adapter(self, lora: Lora) -> int:
        """Parameters of LoRA on the linear maps of every layer; all seven of them for "all-linear"."""
        wanted = lora.target_modules
        sizes = [
            sum(shape)
            for name, shape in zip(LINEARS, self.linears, strict=True)
            if wanted == "all-linear" or name in wanted
        ]
        return self.layers * lora.rank * sum(sizes)

    @property
    def kv_bytes(self) -> int:
        """Bytes of a token in the KV cache, in bfloat16."""
        return HALF * 2 * self.layers * self.kv_heads * self.head_dim

    @property
    def layer_activations(self) -> int:
        """Bytes a token leaves in one layer for the backward pass, attention fused, parameters in bfloat16.

        Two norms keep their input in float32 and in bfloat16 and their output, the attention keeps q, k, v and
        its output, the feed-forward part four values as wide as itself. A test compares this with what PyTorch
        saves.
        """
        attention = 4 * self.heads * self.head_dim + 4 * self.kv_heads * self.head_dim
        return 16 * self.hidden + attention + 8 * self.intermediate + 8 + 4 * self.heads


@dataclass(frozen=True)
class Need:
    """Bytes a GPU needs for a stage, by what they are for."""

    parts: dict[str, float]

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    def __str__(self) -> str:
        shown = [f"{name} {value / GIB:.1f}" for name, value in self.parts.items() if value >= 0.05 * GIB]
        return f"{self.total / GIB:.1f} GiB" + (f" ({', '.join(shown)})" if shown else "")


def architecture(name: str) -> tuple[Architecture, str]:
    """Shape of a model and where it was read: its own config, or data/paper/architectures.yaml for the hub's.

    ValueError for a model of the hub that the file does not list, and for a config of another form.
    """
    known = paper.load(paper.DATA / "architectures.yaml", dict[str, Architecture])
    if name in known:
        return known[name], "data/paper/architectures.yaml"
    folder = Path(resolve(name))
    if not folder.is_dir():
        raise ValueError(f"architectures.yaml: no entry {name!r}; it lists {', '.join(known)}")
    source = f"the config of {name}" if name in EMBEDDED else str(Path(name) / "config.json")
    return of_config(json.loads((folder / "config.json").read_text(encoding="utf-8")), source), source


def of_config(config: dict, source: str) -> Architecture:
    """The shape in a config.json of transformers; ValueError names the key that is missing."""
    try:
        heads, hidden = config["num_attention_heads"], config["hidden_size"]
        return Architecture(
            hidden=hidden,
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or hidden // heads,
            intermediate=config["intermediate_size"],
            vocabulary=config["vocab_size"],
            tied=config.get("tie_word_embeddings", False),
            qkv_bias=config.get("attention_bias", config.get("model_type") == "qwen2"),
        )
    except KeyError as error:
        raise ValueError(f"{source}: expected the key {error.args[0]!r} of a decoder") from None


def state(shape: Architecture, lora: Lora | None, hardware: Hardware) -> dict[str, float]:
    """Weights, gradients and optimiser state on one GPU.

    Mixed precision with Adam takes 2 + 2 + 12 = 16 bytes a trained parameter. ZeRO divides them over the GPUs:
    stage 1 the optimiser's, stage 2 gradients too, stage 3 weights too, those that are not trained included.
    """
    count, trained = shape.parameters, shape.adapter(lora) if lora else shape.parameters
    weights = HALF * count + (4 * trained if lora else 0)  # an adapter is kept in float32
    gradients, moments = (4 * trained, 8 * trained) if lora else (HALF * trained, ADAM * trained)
    gpus = max(hardware.gpus, 1)
    shared = [gpus if hardware.zero_stage >= stage else 1 for stage in (3, 2, 1)]
    return {
        "weights": weights / shared[0],
        "gradients": gradients / shared[1],
        "optimiser": moments / shared[2],
    }


def activations(shape: Architecture, tokens: int, labels: int, checkpointing: bool) -> dict[str, float]:
    """What a forward pass over `tokens` (of all sequences on the GPU) keeps, and the logits of `labels` of them.

    With checkpointing a layer keeps its input alone, and one layer at a time is whole.
    """
    if checkpointing:
        kept = tokens * (HALF * shape.hidden * shape.layers + shape.layer_activations)
    else:
        kept = tokens * shape.layer_activations * shape.layers
    logits = shape.vocabulary * (4 * labels + 12 * min(labels, HEAD_TILE))
    return {"activations": float(kept), "logits": float(logits)}


def rows_in_cache(shape: Architecture, hardware: Hardware, share: float, length: int) -> int:
    """Sequences of `length` tokens that fit in vLLM's share of a GPU, beside its bfloat16 weights."""
    split = hardware.vllm_tensor_parallel
    free = share * hardware.gpu_memory * GIB - HALF * shape.parameters / split
    return max(0, int(free / (shape.kv_bytes / split * length)))
