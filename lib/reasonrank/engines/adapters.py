"""LoRA adapters: read their settings, merge them into a model's weights."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reasonrank.models import resolve


def settings(adapter: Path) -> dict[str, Any]:
    """The adapter's own settings. Raises FileNotFoundError for a folder that holds no adapter."""
    file = adapter / "adapter_config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{adapter}: a LoRA adapter needs an adapter_config.json, and there is none")
    return json.loads(file.read_text(encoding="utf-8"))


def load_merged(model: str, adapter: Path | None, dtype: str) -> Any:
    """A causal language model, with `adapter` (a folder, or None) merged into its weights, on the CPU.

    `dtype`: "auto" (the model's own) or the name of a torch type. The sum is made in float32 and rounded
    once; in bfloat16 that still loses changes under half of a weight's last place (about 0.2 % of it).
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    source = resolve(model)
    with _no_progress_bar():
        if adapter is None:
            return AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
        settings(adapter)
        loaded = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    from peft import PeftModel

    merged = PeftModel.from_pretrained(loaded, adapter).merge_and_unload()
    own = AutoConfig.from_pretrained(source).dtype or torch.float32
    return merged.to(own if dtype == "auto" else getattr(torch, dtype))


def save_merged(model: str, adapter: Path, dtype: str, tokenizer: Any, folder: str) -> None:
    """Write the merged model and its tokenizer to `folder`."""
    with _no_progress_bar():
        load_merged(model, adapter, dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def _no_progress_bar() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
