"""The model that `rerank` asks: which one exactly, where it runs, and how it is opened."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
from pathlib import Path
from typing import Any

from .. import engines, models
from .errors import CommandError, UsageError

KEY = "OPENAI_API_KEY"
WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.gguf")
HASHED_WHOLE = 2 << 30  # bytes; larger weights are told apart by names, sizes and times


def engine_kind(options: argparse.Namespace) -> str:
    """The engine that --engine means here. UsageError for options that do not go together."""
    kind = options.engine
    if kind == "auto":
        vllm = importlib.util.find_spec("vllm") is not None
        kind = "openai" if options.base_url else "vllm" if vllm else "transformers"
    if (kind == "openai") != bool(options.base_url):
        raise UsageError("--engine openai and --base-url URL go together")
    if kind == "openai" and options.adapter:
        raise UsageError("--adapter: a server loads adapters itself; give its name for it as --model")
    if kind != "openai" and (options.tokenizer or options.text_prompts):
        raise UsageError("--tokenizer and --text-prompts are for --engine openai")
    return kind


def identity(options: argparse.Namespace, kind: str) -> dict[str, Any]:
    """What the answers depend on: engine, model, adapter, number format.

    Local weights are hashed (over 2 GiB: their names, sizes and times). A server is known by the name of its
    model alone, so that it may move to another address. UsageError for a folder that is no model.
    """
    try:
        local = options.model if kind != "openai" else options.tokenizer or options.model
        found = {"engine": kind, "model": options.model, "dtype": options.dtype}
        found["tokenizer" if kind == "openai" else "weights"] = _folder_digest(models.resolve(local))
    except (FileNotFoundError, ModuleNotFoundError, ValueError) as error:
        raise UsageError(f"--model: {error}") from None
    if options.adapter:
        if not (options.adapter / "adapter_config.json").is_file():
            raise UsageError(f"--adapter: {options.adapter}: expected a folder with an adapter_config.json")
        found["adapter"] = _folder_digest(str(options.adapter))
    return found


def _folder_digest(name: str) -> str:
    """A digest of configuration and weights; for a repository of the hub its name."""
    folder = Path(name)
    if not folder.is_dir():
        return name
    small = [*folder.glob("*.json"), *folder.glob("*.model"), *folder.glob("*.jinja")]
    weights = [file for pattern in WEIGHTS for file in folder.glob(pattern)]
    whole = sum(file.stat().st_size for file in weights) <= HASHED_WHOLE
    total = hashlib.sha256()
    for file in sorted([*small, *weights]):
        total.update(file.name.encode())
        if whole or file in small:
            with open(file, "rb") as opened:
                total.update(hashlib.file_digest(opened, "sha256").digest())
        else:
            total.update(f"{file.stat().st_size} {file.stat().st_mtime_ns}".encode())
    return total.hexdigest()[:16]


def open_engine(options: argparse.Namespace, kind: str) -> engines.Engine:
    """Open the engine; CommandError where a server is not reached or does not have the model."""
    settings: dict[str, Any] = {
        "dtype": options.dtype,
        "max_model_len": options.max_model_len,
        "max_num_seqs": options.max_in_flight,
        "seed": options.seed,
    }
    if kind == "openai":
        key = os.environ.get(KEY, "none")
        context = _served_context(options.base_url, options.model, key)
        settings |= {"base_url": options.base_url, "api_key": key, "tokenizer": options.tokenizer}
        settings |= {"max_model_len": options.max_model_len or context, "token_ids": not options.text_prompts}
    else:
        settings["adapter"] = options.adapter
    try:
        return engines.open_engine(kind, options.model, **settings)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise CommandError(f"the {kind} engine did not start: {reason}") from error


def _served_context(url: str, model: str, key: str) -> int | None:
    """Tokens of the context that the server states for the model (vLLM does); None where it states none."""
    from openai import APIConnectionError, APIError, OpenAI

    try:
        with OpenAI(base_url=url, api_key=key, timeout=30, max_retries=1) as client:
            served = {entry.id: entry for entry in client.models.list()}
    except APIConnectionError as error:
        raise CommandError(f"no server answers at {url}: {error}") from None
    except APIError as error:
        if getattr(error, "status_code", None) == 404:  # a server that does not list its models
            return None
        raise CommandError(f"{url} refused the list of its models: {error}") from None
    if model not in served:
        raise CommandError(f"{url} does not serve {model!r}; it serves {', '.join(served) or 'no model'}")
    return getattr(served[model], "max_model_len", None)
