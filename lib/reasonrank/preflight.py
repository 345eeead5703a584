"""Before a long run: does it fit, and how long would it take? From the profile, the model's shape and this machine.

Nothing is loaded and nothing is fetched. Tokens are upper bounds (queries and passages at their caps, answers at their
limits), and so are the hours. Bytes are those of bfloat16 compute with float32 optimiser state; what no formula holds
(the CUDA context, fragmentation, buffers of collectives) is `RESERVED`.
"""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from . import paper, sources, stages
from .models import resolve
from .profiles import Hardware, Lora, Profile

GIB = 2**30
RESERVED = 0.08  # share of a GPU that stays free
HEAD_TILE = 1024  # label tokens whose logits are computed at once
PYTHONS, MEMORY_GIB, DISK_GIB = ("3.11", "3.12"), 8, 5  # for the default profile


@dataclass(frozen=True)
class Check:
    """ "ok", "refused", or "note": a matter of the machine, where only the plan is asked for."""

    name: str
    status: str
    text: str


@dataclass(frozen=True)
class Work:
    """A stage: optimiser steps, tokens of a prompt and of an answer, device-hours."""

    stage: str
    items: str
    steps: int
    prompt: int
    answer: int
    hours: float


def machine() -> pd.DataFrame:
    """What this machine is, and the packages that differ from the lock: `part` by `here`, `expected`, `status`."""
    here, python = stages.hardware(), platform.python_version()
    disk = shutil.disk_usage(Path.cwd()).free // 2**30
    kind = "gpu" if _installed("vllm") else "cpu"
    fits = python.rpartition(".")[0] in PYTHONS
    rows = [
        ("Python", python, " or ".join(PYTHONS), fits),
        ("cores", str(here["cores"]), "2 or more", here["cores"] >= 2),
        (
            "memory",
            f"{here['memory_gib']} GiB",
            f"{MEMORY_GIB} GiB or more",
            here["memory_gib"] >= MEMORY_GIB,
        ),
        ("free disk", f"{disk} GiB", f"{DISK_GIB} GiB or more", disk >= DISK_GIB),
        ("GPU", ", ".join(here["gpus"]) or "none", "none needed", True),
    ]
    different = _different(stages.ROOT / "requirements" / f"{kind}.txt")
    rows += [(name, found or "missing", pinned, False) for name, (found, pinned) in different.items()]
    rows.append(("packages", f"{len(different)} differ", f"requirements/{kind}.txt", not different))
    frame = pd.DataFrame(rows, columns=["part", "here", "expected", "status"]).set_index("part")
    return frame.assign(status=frame["status"].map({True: "ok", False: "differs"}))


def _different(lock: Path) -> dict[str, tuple[str | None, str]]:
    """Packages that are not here as pinned: what is here (None: missing), and the pin."""
    found = {}
    for line in lock.read_text(encoding="utf-8").splitlines():
        if pin := line.partition("#")[0].strip():
            wanted = Requirement(pin)
            here, version = _installed(wanted.name), str(wanted.specifier).removeprefix("==")
            applies = wanted.marker is None or wanted.marker.evaluate()
            if applies and (here is None or Version(here).public != Version(version).public):
                found[wanted.name] = (here, version)
    return found


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def config_of(name: str) -> Any:
    """The config of a decoder of Llama's form: its own, or for the hub's that of data/paper/architectures.yaml.

    ValueError for a model of the hub that the file does not list, and for a config that is none of a decoder.
    """
    from transformers import AutoConfig

    known = yaml.safe_load((paper.DATA / "architectures.yaml").read_text(encoding="utf-8"))
    if name in known:
        return AutoConfig.for_model(**known[name])
    folder = Path(resolve(name))
    if not folder.is_dir():
        raise ValueError(f"architectures.yaml: no entry {name!r}; it lists {', '.join(known)}")
    config = AutoConfig.from_pretrained(folder)
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"):
        if not hasattr(config, key):
            raise ValueError(f"{name}: expected the key {key!r} of a decoder in its config.json")
    return config


def parameters(config: Any, lora: Lora | None) -> tuple[int, int]:
    """Parameters that are trained, and all of the backbone, as PEFT and transformers count them."""
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    from .training.common import peft_config

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        count = model.num_parameters()
        return get_peft_model(model, peft_config(lora)).num_parameters(True) if lora else count, count


def state(trained: int, count: int, lora: bool, hardware: Hardware) -> dict[str, float]:
    """Bytes of weights, gradients and optimiser on one GPU.

    Mixed precision with Adam takes 2 + 2 + 12 = 16 bytes a trained parameter; an adapter is kept in float32. ZeRO
    divides the optimiser's (stage 1), gradients too (2), and weights too (3), frozen ones included.
    """
    shares = [max(hardware.gpus, 1) if hardware.zero_stage >= stage else 1 for stage in (3, 2, 1)]
    each = (
        (2 * count + 4 * trained, 4 * trained, 8 * trained)
        if lora
        else (2 * count, 2 * trained, 12 * trained)
    )
    parts = zip(("weights", "gradients", "optimiser"), each, shares, strict=True)
    return {name: size / share for name, size, share in parts}


def activations(config: Any, tokens: int, labels: int, checkpointing: bool) -> dict[str, float]:
    """Bytes that a forward pass over `tokens` keeps for the backward pass, and the logits of `labels` of them.

    A layer keeps its norms' inputs (float32 and bfloat16) and outputs, queries, keys, values and what attention
    gives, and four values as wide as the feed-forward part. With checkpointing it keeps its input alone, and one
    layer at a time is whole.
    """
    heads, key_heads, width = _heads(config)
    attention = 4 * heads * width + 4 * key_heads * width
    layer = 16 * config.hidden_size + attention + 8 * config.intermediate_size + 8 + 4 * heads
    layers = config.num_hidden_layers
    kept = tokens * (2 * config.hidden_size * layers + layer if checkpointing else layer * layers)
    logits = config.vocab_size * (4 * labels + 12 * min(labels, HEAD_TILE))
    return {"activations": float(kept), "logits": float(logits)}


def cache_bytes(config: Any) -> int:
    """Bytes of a token in the KV cache, in bfloat16."""
    _, key_heads, width = _heads(config)
    return 2 * 2 * config.num_hidden_layers * key_heads * width


def _heads(config: Any) -> tuple[int, int, int]:
    """Query heads, key and value heads, and the width of a head."""
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return heads, getattr(config, "num_key_value_heads", None) or heads, width


class Preflight:
    """A profile held against its hardware and, unless `dry_run`, against this machine too.

    `folder`: where the run will be, for the space on its disk. `work` and `checks` hold the plan and what stands
    against it. Raises ValueError for a model whose shape is not known.
    """

    def __init__(self, profile: Profile, dry_run: bool = False, folder: Path | None = None):
        self.profile, self.hardware = profile, profile.hardware
        self.config = config_of(profile.model.name)
        self.devices = max(self.hardware.gpus, 1)
        self.count = parameters(self.config, None)[1]
        rates = yaml.safe_load((paper.DATA / "rates.yaml").read_text(encoding="utf-8"))
        self.rate, self.rates = rates["gpu" if self.hardware.gpus else "cpu"], rates
        self.checks = [self._batches()]
        self.work = [self._sft(), self._rl(), self._evaluation()] if self.checks[0].status == "ok" else []
        self.checks += [*self._memory(), *self._here(dry_run, folder or stages.ROOT)]

    @property
    def refusals(self) -> list[str]:
        return [f"{check.name}: {check.text}" for check in self.checks if check.status == "refused"]

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values; hours are those of one device."""
        return {
            "profile": self.profile.name,
            "model": self.profile.model.name,
            "parameters": self.count,
            "hardware": self.hardware.model_dump(),
            "rate": self.rate,
            "work": [asdict(work) for work in self.work],
            "device_hours": sum(work.hours for work in self.work),
            "checks": [asdict(check) for check in self.checks],
        }

    def __str__(self) -> str:
        """The plan as a table, then a line for each check."""
        own = self.hardware
        device = f"{own.gpus} x {own.gpu_memory:g} GiB, ZeRO {own.zero_stage}" if own.gpus else "CPU"
        table = pd.DataFrame([asdict(work) for work in self.work]).to_string(index=False, float_format="%.2f")
        return "\n".join([
            f"profile {self.profile.name}: {self.profile.model.name}, {self.count:,} parameters; {device}",
            f"assumed speed: that of {self.rate['name']}; tokens and device-hours are at most",
            *(["", table, ""] if self.work else []),
            *(f"{check.status:8} {check.name}: {check.text}" for check in self.checks),
        ])  # fmt: skip

    def prompt_tokens(self, passages: int) -> int:
        """Tokens of a prompt with `passages` passages, at most."""
        own = self.profile.prompting
        texts = passages * (own.passage_tokens + self.rates["frame_tokens"])
        whole = texts + own.query_tokens + self.rates["instruction_tokens"]
        return min(whole, self.profile.model.max_length)

    def _batches(self) -> Check:
        from .training.grpo import batch_sizes

        sft, rl, split = self.profile.sft, self.profile.rl, self.hardware.vllm_tensor_parallel
        try:
            batch, mini_batch, per_pass = batch_sizes(rl, self.devices)
        except ValueError as error:
            return Check("batches", "refused", str(error))
        if self.devices % split:
            text = f"vllm_tensor_parallel {split} does not divide {self.devices} devices"
            return Check("batches", "refused", text)
        self.batch, self.mini_batch = batch, mini_batch
        self.sft_batch = sft.batch_size * sft.gradient_accumulation * self.devices
        prompts = f"RL {rl.prompts_per_step} prompts x {rl.rollouts} = {batch} answers, mini-batches of {mini_batch}"
        passes = f"{mini_batch // per_pass} passes of {per_pass} over {self.devices} device(s)"
        return Check("batches", "ok", f"SFT {self.sft_batch} examples a step; {prompts}, {passes}")

    def _flops(self, length: int, settings: Any = None) -> float:
        """Operations for one token of a sequence, forward; with `settings` of a training, backward too.

        Forward: two a parameter that it meets, and attention to half the length. Training: three times that, twice
        where the weights are frozen, once more with checkpointing.
        """
        config, (heads, _, width) = self.config, _heads(self.config)
        unmet = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
        forward = 2.0 * (self.count - unmet) + 2.0 * config.num_hidden_layers * heads * width * length
        passes = (2 if settings.lora else 3) + settings.gradient_checkpointing if settings else 1
        return passes * forward

    def _hours(self, flops: float, read: float = 0.0) -> float:
        """Hours for operations and for bytes read from memory, at the assumed speed."""
        compute = flops / (self.rate["tflops"] * 1e12 * self.rate["tflops_share"])
        return (compute + read / (self.rate["bandwidth_tb"] * 1e12 * self.rate["bandwidth_share"])) / 3600

    def _decoding(self, answers: int, prompts: int, prompt: int, answer: int) -> float:
        """Hours to read prompts and decode answers, 64 at a time: a step reads all weights, and their caches."""
        flight = min(64, answers)
        step = 2 * self.count + flight * cache_bytes(self.config) * (prompt + answer / 2)
        return self._hours(prompts * prompt * self._flops(prompt), answers / flight * answer * step)

    def _sft(self) -> Work:
        settings, wanted, count = self.profile.sft, self.profile.synthesis, 0
        for name in self.profile.collections:
            collection = sources.load(name)
            count += len(collection.ids("train", wanted.train_queries)) * wanted.lists_per_query
            count += len(collection.ids("extra", wanted.train_queries)) if wanted.extra_queries else 0
        steps = ceil(count * settings.epochs / self.sft_batch)
        steps = min(steps, settings.max_steps) if settings.max_steps > 0 else steps
        answer = self.profile.rl.max_completion_tokens
        prompt = min(self.prompt_tokens(wanted.window), settings.cutoff - answer)
        flops = steps * self.sft_batch * (prompt + answer) * self._flops(prompt + answer, settings)
        return Work("SFT", f"{count} examples", steps, prompt, answer, self._hours(flops))

    def _rl(self) -> Work:
        """Answers sampled, scored by the old policy and the reference, then trained on; plain, without sharing."""
        own = self.profile.rl
        prompt = min(self.prompt_tokens(self.profile.synthesis.window), own.max_prompt_tokens)
        length = prompt + own.max_completion_tokens
        scorings = (self.batch > self.mini_batch or own.epochs_per_batch > 1) + bool(own.kl_coefficient)
        each = scorings * self._flops(length) + own.epochs_per_batch * self._flops(length, own)
        sampling = self._decoding(self.batch, own.prompts_per_step, prompt, own.max_completion_tokens)
        hours = own.steps * (self._hours(self.batch * length * each) + sampling)
        steps = own.steps * (self.batch // self.mini_batch) * own.epochs_per_batch
        items = f"{own.steps} batches of {self.batch} answers"
        return Work("RL", items, steps, prompt, own.max_completion_tokens, hours)

    def _evaluation(self) -> Work:
        from .rerank import windows

        own, systems = self.profile.evaluation, len(self.profile.evaluation.systems)
        queries = sum(len(sources.load(name).ids("test", own.queries)) for name in self.profile.collections)
        sliding = own.strategy == "sliding"
        calls = len(windows(own.top, own.window, own.step)) if sliding else 1
        prompts, prompt = systems * queries * calls, self.prompt_tokens(min(own.window, own.top))
        items = f"{queries} queries x {calls} windows x {systems} systems"
        hours = self._decoding(prompts, prompts, prompt, own.max_tokens)
        return Work("evaluation", items, 0, prompt, own.max_tokens, hours)

    def needs(self, stage: str) -> dict[str, float]:
        """Bytes of "SFT" or "RL" on one device, for a batch of the longest examples, by what they are for.

        RL has a reference, a model of its own in full fine-tuning; vLLM's share; and, with LoRA spread by ZeRO 3,
        all weights, which TRL gathers on every GPU to merge the adapter for vLLM (not while activations are kept).
        """
        rl, hardware = self.profile.rl, self.hardware
        own, limit = (
            (self.profile.sft, self.profile.sft.cutoff) if stage == "SFT" else (rl, rl.max_prompt_tokens)
        )
        answer, prompt = rl.max_completion_tokens, self.prompt_tokens(self.profile.synthesis.window)
        length = min(limit, prompt + answer) if stage == "SFT" else min(limit, prompt) + answer
        trained, count = parameters(self.config, own.lora)
        parts = state(trained, count, own.lora is not None, hardware)
        rows = own.batch_size
        passing = activations(self.config, rows * length, rows * answer, own.gradient_checkpointing)
        if stage == "RL" and rl.kl_coefficient and rl.lora is None:
            parts["reference"] = 2 * count / (hardware.gpus if hardware.zero_stage == 3 else 1)
        if stage == "RL" and hardware.gpus and rl.use_vllm:
            parts["vLLM"] = hardware.vllm_memory * hardware.gpu_memory * GIB
            gathered = 2 * count * (1 - 1 / hardware.gpus) if rl.lora and hardware.zero_stage == 3 else 0
            if gathered > sum(passing.values()):
                passing = {"weights gathered for vLLM": gathered}
        return parts | passing

    def _memory(self) -> list[Check]:
        """SFT, RL and, where vLLM generates, its cache, beside what the hardware has."""
        hardware, checks = self.hardware, []
        room = hardware.gpu_memory * (1 - RESERVED)
        for stage in ("SFT", "RL"):
            need = {name: size / GIB for name, size in self.needs(stage).items()}
            shown = ", ".join(f"{name} {size:.1f}" for name, size in need.items() if size >= 0.05)
            text = f"{sum(need.values()):.1f} GiB ({shown}) of {hardware.gpu_memory:g}, of which {room:.1f} can be used"
            checks.append(Check(f"memory, {stage}", "ok" if sum(need.values()) <= room else "refused", text))
        if not hardware.gpus:
            return checks
        rl, own = self.profile.rl, self.profile.evaluation
        if rl.use_vllm:
            length = rl.max_prompt_tokens + rl.max_completion_tokens
            checks.append(self._cache("RL", hardware.vllm_memory, length))
        if own.engine == "vllm":
            length = self.prompt_tokens(min(own.window, own.top)) + own.max_tokens
            checks.append(self._cache("evaluation", 0.9, length))
        return checks

    def _cache(self, stage: str, share: float, length: int) -> Check:
        """Sequences that fit in vLLM's share of a GPU, beside its bfloat16 weights."""
        split = self.hardware.vllm_tensor_parallel
        free = share * self.hardware.gpu_memory * GIB - 2 * self.count / split
        rows = max(0, int(free / (cache_bytes(self.config) / split * length)))
        text = f"{rows} sequences of {length} tokens fit in {share:.0%} of a GPU, weights over {split}"
        return Check(f"cache, {stage}", "ok" if rows else "refused", text)

    def _here(self, dry_run: bool, folder: Path) -> list[Check]:
        """Disk (the base, two trained models, a checkpoint), packages, and devices of this machine."""
        trained, count = parameters(self.config, self.profile.sft.lora)
        need = 3 * 2 * count + 14 * trained
        while not folder.exists():
            folder = folder.parent
        free, here = shutil.disk_usage(folder).free, stages.hardware()["gpus"]
        table = machine().drop(["cores", "memory", "free disk", "packages"])
        wrong = [
            f"{part} {row.here}, expected {row.expected}"
            for part, row in table.iterrows()
            if row.status != "ok"
        ]
        found = {
            "disk": (
                need <= free,
                f"{need / GIB:.1f} GiB for weights and a checkpoint, {free / GIB:.0f} free",
            ),
            "versions": (not wrong, "; ".join(wrong) or "as pinned"),
            "devices": (
                len(here) >= self.hardware.gpus,
                f"{len(here)} GPU(s) here, the profile is for {self.hardware.gpus or 'none'}",
            ),
        }
        failed = "note" if dry_run else "refused"
        return [Check(name, "ok" if fits else failed, text) for name, (fits, text) in found.items()]
