"""Generation behind one asynchronous interface: vLLM or transformers in this process, or a server."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from .base import GREEDY, PRESETS, QWEN3, Completion, Engine, EngineError, Sampling

KINDS = {"vllm": "VllmEngine", "transformers": "TransformersEngine", "openai": "OpenAIEngine"}


def open_engine(kind: str, model: str, **options: Any) -> Engine:
    """Start an engine; it is a context manager, and `close()` frees its memory.

    `kind`: "vllm", "transformers", "openai", or "auto", which is vllm where it is installed and
    transformers elsewhere. `model`: as `models.resolve` takes it; for "openai" the name that the server
    knows. All engines take as options `adapter` (folder of a LoRA adapter), `dtype`, `max_model_len` (None: the
    model's), `max_num_seqs` (requests computed together) and `seed`; for others see the engine's class. Raises
    ValueError for an unknown kind.
    """
    kind = choose(kind)
    engine = getattr(importlib.import_module(f"{__name__}.{kind}"), KINDS[kind])
    return engine(model, **options)


def choose(kind: str) -> str:
    """The kind of engine that is meant, "auto" resolved. Raises ValueError for an unknown one."""
    if kind == "auto":
        return "vllm" if importlib.util.find_spec("vllm") else "transformers"
    if kind not in KINDS:
        raise ValueError(f"unknown engine {kind!r}: expected one of {', '.join(['auto', *KINDS])}")
    return kind
