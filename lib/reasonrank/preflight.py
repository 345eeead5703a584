"""Before a long run: does it fit, and how long would it take? From the profile, the model's shape and this machine.

Nothing is loaded and nothing is fetched. Tokens are upper bounds: queries and passages at their caps, answers at their
limits. Bytes are those of bfloat16 compute with float32 optimiser state; what no formula holds (the CUDA context,
fragmentation, buffers of collectives) is `RESERVED`.
"""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from . import paper, sources, stages
from .models import resolve
from .settings import Hardware, Lora, Profile

GIB = 2**30
RESERVED = 0.08  # share of a GPU that stays free
HEAD_TILE = 1024  # label tokens whose logits are computed at once
STAGES = {"SFT": "03_sft", "RL": "04_rl", "evaluation": "05_gpu_evaluation"}


def machine() -> pd.DataFrame:
    """What this machine is, and the packages that differ from the lock: `part` by `here`, `expected`, `status`."""
    hardware, python = stages.hardware(), platform.python_version()
    memory, disk = hardware["memory_gib"], shutil.disk_usage(Path.cwd()).free // GIB
    rows = [
        ("Python", python, "3.11 or 3.12", python.rpartition(".")[0] in ("3.11", "3.12")),
        ("cores", str(hardware["cores"]), "2 or more", hardware["cores"] >= 2),
        ("memory", f"{memory} GiB", "8 GiB or more", memory >= 8),
        ("free disk", f"{disk} GiB", "5 GiB or more", disk >= 5),
        ("GPU", ", ".join(hardware["gpus"]) or "none", "none needed", True),
    ]
    found = {canonicalize_name(each.name): each.version for each in importlib.metadata.distributions()}
    lock = Path("requirements", "gpu.txt" if "vllm" in found else "cpu.txt")
    lines = (stages.ROOT / lock).read_text(encoding="utf-8").splitlines()
    pins = [Requirement(pin) for line in lines if (pin := line.partition("#")[0].strip())]
    wanted = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
    wrong = [pin for pin in wanted if Version(found.get(pin.name, "0")).public not in pin.specifier]
    rows += [(pin.name, found.get(pin.name, "missing"), str(pin.specifier)[2:], False) for pin in wrong]
    rows.append(("packages", f"{len(wrong)} differ", str(lock), not wrong))
    frame = pd.DataFrame(rows, columns=["part", "here", "expected", "status"]).set_index("part")
    return frame.assign(status=frame["status"].map({True: "ok", False: "differs"}))


def config_of(name: str) -> Any:
    """The config of a decoder of Llama's form: its own, or for the hub's that of data/paper/architectures.yaml.

    ValueError for a model of the hub that the file does not list.
    """
    from transformers import AutoConfig

    known = yaml.safe_load((paper.DATA / "architectures.yaml").read_text(encoding="utf-8"))
    if name in known:
        return AutoConfig.for_model(**known[name])
    folder = Path(resolve(name))
    if not folder.is_dir():
        raise ValueError(f"architectures.yaml: no entry {name!r}; it lists {', '.join(known)}")
    return AutoConfig.from_pretrained(folder)


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
    each = (2 * count + 4 * trained, 4 * trained, 8 * trained) if lora else (2 * count, 2 * count, 12 * count)
    shares = [max(hardware.gpus, 1) if hardware.zero_stage >= stage else 1 for stage in (3, 2, 1)]
    sizes = (size / share for size, share in zip(each, shares, strict=True))
    return dict(zip(("weights", "gradients", "optimiser"), sizes, strict=True))


def activations(config: Any, tokens: int, checkpointing: bool) -> float:
    """Bytes that a forward pass over `tokens` keeps for the backward pass, the head's logits apart.

    A layer keeps its norms' inputs (float32 and bfloat16) and outputs, queries, keys, values and what attention
    gives, and four values as wide as the feed-forward part. With checkpointing it keeps its input alone, and one
    layer at a time is whole.
    """
    hidden, layers, heads = config.hidden_size, config.num_hidden_layers, config.num_attention_heads
    attention = 4 * hidden + cache_bytes(config) / layers
    layer = 16 * hidden + attention + 8 * config.intermediate_size + 8 + 4 * heads
    return tokens * (2 * hidden * layers + layer if checkpointing else layer * layers)


def cache_bytes(config: Any) -> int:
    """Bytes of a token in the KV cache, in bfloat16."""
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * 2 * config.num_hidden_layers * config.num_key_value_heads * width


@dataclass
class Preflight:
    """A profile held against its hardware and, unless `dry_run`, against this machine too.

    `folder`: where the run will be, for the space on its disk. `work`: a row a stage, its plan; `checks`: name -> "ok",
    "refused" or "note", and the figures. Raises ValueError for a model of unknown shape.
    """

    profile: Profile
    dry_run: bool = False
    folder: Path = stages.ROOT

    def __post_init__(self) -> None:
        self.hardware, self.config = self.profile.hardware, config_of(self.profile.model.name)
        self.count = parameters(self.config, None)[1]
        self.rates = yaml.safe_load((paper.DATA / "rates.yaml").read_text(encoding="utf-8"))
        self.rate = self.rates["gpu" if self.hardware.gpus else "cpu"]
        self.checks: dict[str, tuple[str, str]] = {}
        self.work: list[dict[str, Any]] = []
        self._batches()
        self._memory()
        self._machine()

    @property
    def refusals(self) -> list[str]:
        return [f"{name}: {text}" for name, (status, text) in self.checks.items() if status == "refused"]

    def as_json(self) -> dict[str, Any]:
        """The plan and the checks as plain values; hours are those of one device."""
        hours = sum(work["hours"] for work in self.work)
        about = {"profile": self.profile.name, "model": self.profile.model.name, "parameters": self.count}
        return about | {"work": self.work, "device_hours": hours, "checks": self.checks}

    def __str__(self) -> str:
        """The plan as a table, then a line for each check."""
        device = f"{self.hardware.gpus} x {self.hardware.gpu_memory:g} GiB" if self.hardware.gpus else "CPU"
        title = f"profile {self.profile.name}: {self.profile.model.name}, {self.count:,} parameters; {device}"
        about = f"tokens at most, and device-hours; assumed speed: that of {self.rate['name']}"
        table = pd.DataFrame(self.work).to_string(index=False, float_format="%.2f") if self.work else ""
        lines = [f"{status:8} {name}: {text}" for name, (status, text) in self.checks.items()]
        return "\n".join([title, about, "", table, "", *lines])

    def _check(self, name: str, fits: bool, text: str, of_the_machine: bool = False) -> None:
        failed = "note" if of_the_machine and self.dry_run else "refused"
        self.checks[name] = ("ok" if fits else failed, text)

    def _batches(self) -> None:
        """How batches divide; where they do, the plan of the stages."""
        from .training.grpo import batch_sizes

        sft, rl, split = self.profile.sft, self.profile.rl, self.hardware.vllm_tensor_parallel
        devices = max(self.hardware.gpus, 1)
        examples = sft.batch_size * sft.gradient_accumulation * devices
        try:
            batch, mini_batch, per_pass = batch_sizes(rl, devices)
            if devices % split:
                raise ValueError(f"vllm_tensor_parallel {split} does not divide {devices} devices")
        except ValueError as error:
            self._check("batches", False, str(error))
            return
        text = f"RL {rl.prompts_per_step} prompts x {rl.rollouts} answers, mini-batches of {mini_batch}"
        text = f"SFT {examples} examples a step; {text} in passes of {per_pass} over {devices} device(s)"
        self._check("batches", True, text)
        self._plan(examples, batch, mini_batch)

    def _prompt(self, passages: int) -> int:
        """Tokens of a prompt with `passages` passages, at most."""
        own = self.profile.prompting
        texts = passages * (own.passage_tokens + self.rates["frame_tokens"])
        return min(texts + own.query_tokens + self.rates["instruction_tokens"], self.profile.model.max_length)

    def _plan(self, examples: int, batch: int, mini_batch: int) -> None:
        """Steps, tokens and hours of the stages, in RL without what the shared prefix saves.

        A token takes 6 operations a parameter in training, 2 where it is read or scored. Decoding reads all weights
        for each token of 64 answers.
        """
        from .rerank.strategies import STRATEGIES

        profile, rate, operations = self.profile, self.rate, 2.0 * self.count
        sft, rl, own, wanted = profile.sft, profile.rl, profile.evaluation, profile.synthesis
        named = sources.expand(profile.collections)
        collections = [sources.load(name) for name in named if name in sources.COLLECTIONS]
        parts = {"train": wanted.lists_per_query, "extra": int(wanted.extra_queries)}
        asked = wanted.train_queries
        lists = sum(n * len(c.ids(part, asked)) for c in collections for part, n in parts.items())
        queries = sum(len(c.ids("test", own.queries)) for c in collections)
        queries += min(own.queries or 115, 115) * (len(named) - len(collections))
        calls = STRATEGIES[own.strategy].calls(own.top, own.window, own.step)[1]
        prompts = len(own.systems) * queries * calls
        steps = ceil(lists * sft.epochs / examples)
        steps = min(steps, sft.max_steps) if sft.max_steps > 0 else steps
        answers = rl.steps * batch
        updates, used = answers // mini_batch * rl.epochs_per_batch, answers * rl.epochs_per_batch
        training = (min(self._prompt(wanted.window), rl.max_prompt_tokens), rl.max_completion_tokens)
        ranking = (self._prompt(min(own.window, own.top)), own.max_tokens)
        # items, steps, tokens of a prompt and of an answer, sequences trained on, scored, and decoded
        plan = {
            "SFT": (f"{lists} examples", steps, *training, steps * examples, 0, 0),
            "RL": (f"{answers} answers", updates, *training, used, 3 * answers, answers),
            "evaluation": (f"{prompts} prompts", 0, *ranking, 0, prompts, prompts),
        }
        for stage in (stage for stage in plan if STAGES[stage] in profile.stages):
            items, steps, prompt, answer, trained, scored, decoded = plan[stage]
            tokens = (3 * trained + scored) * (prompt + answer)
            seconds = tokens * operations / (rate["tflops"] * 1e12 * rate["tflops_share"])
            read = decoded * answer / 64 * operations  # as many bytes, in bfloat16
            seconds += read / (rate["bandwidth_tb"] * 1e12 * rate["bandwidth_share"])
            row = {"stage": stage, "items": items, "steps": steps, "prompt": prompt, "answer": answer}
            self.work.append(row | {"hours": seconds / 3600})

    def needs(self, stage: str) -> dict[str, float]:
        """Bytes of "SFT" or "RL" on one device, for a batch of the longest examples, by what they are for.

        RL has a reference, a model of its own in full fine-tuning; vLLM's share; and, with LoRA spread by ZeRO 3,
        all weights, which TRL gathers on every GPU to merge the adapter for vLLM (not while activations are kept).
        """
        rl, hardware, spread = self.profile.rl, self.hardware, self.hardware.zero_stage == 3
        own = rl if stage == "RL" else self.profile.sft
        limit = rl.max_prompt_tokens if stage == "RL" else own.cutoff
        answer = own.batch_size * rl.max_completion_tokens
        prompt = own.batch_size * min(self._prompt(self.profile.synthesis.window), limit)
        tokens = min(prompt + answer, own.batch_size * limit) if stage == "SFT" else prompt + answer
        trained, count = parameters(self.config, own.lora)
        parts = state(trained, count, own.lora is not None, hardware)
        passing = {
            "activations": activations(self.config, tokens, own.gradient_checkpointing),
            "logits": self.config.vocab_size * (4 * answer + 12 * min(answer, HEAD_TILE)),
        }
        if stage == "RL" and rl.kl_coefficient and rl.lora is None:
            parts["reference"] = 2 * count / (hardware.gpus if spread else 1)
        if stage == "RL" and hardware.gpus and rl.use_vllm:
            parts["vLLM"] = hardware.vllm_memory * hardware.gpu_memory * GIB
            gathered = 2 * count * (1 - 1 / hardware.gpus) if rl.lora and spread else 0
            if gathered > sum(passing.values()):
                passing = {"weights gathered for vLLM": gathered}
        return parts | passing

    def _memory(self) -> None:
        """SFT, RL and, where vLLM generates, its cache beside its weights, held against the hardware."""
        rl, own, hardware = self.profile.rl, self.profile.evaluation, self.hardware
        room = hardware.gpu_memory * (1 - RESERVED)
        for stage in (stage for stage in ("SFT", "RL") if STAGES[stage] in self.profile.stages):
            need = {name: size / GIB for name, size in self.needs(stage).items()}
            shown = ", ".join(f"{name} {size:.1f}" for name, size in need.items() if size >= 0.05)
            text = f"{sum(need.values()):.1f} GiB ({shown}), {room:.1f} of {hardware.gpu_memory:g} usable"
            self._check(f"memory, {stage}", sum(need.values()) <= room, text)
        caches = {"RL": (rl.use_vllm, hardware.vllm_memory, rl.max_prompt_tokens + rl.max_completion_tokens)}
        length = self._prompt(min(own.window, own.top)) + own.max_tokens
        caches["evaluation"] = (own.engine == "vllm", 0.9, length)
        split = hardware.vllm_tensor_parallel
        for stage, (used, share, length) in caches.items():
            if used and hardware.gpus:
                free = share * hardware.gpu_memory * GIB - 2 * self.count / split
                rows = max(0, int(free / (cache_bytes(self.config) / split * length)))
                text = (
                    f"{rows} sequences of {length} tokens fit in {share:.0%} of a GPU, weights over {split}"
                )
                self._check(f"cache, {stage}", rows > 0, text)

    def _machine(self) -> None:
        """Disk (the base, two trained models, a checkpoint), packages and devices of this machine."""
        trained, count = parameters(self.config, self.profile.sft.lora)
        place = next(path for path in (self.folder, *self.folder.absolute().parents) if path.exists())
        need, free = 3 * 2 * count + 14 * trained, shutil.disk_usage(place).free
        text = f"{need / GIB:.1f} GiB for weights and a checkpoint, {free / GIB:.0f} free"
        self._check("disk", need <= free, text, of_the_machine=True)
        table = machine().drop(["cores", "memory", "free disk", "packages"]).query("status != 'ok'")
        wrong = [f"{part} {row.here}, expected {row.expected}" for part, row in table.iterrows()]
        self._check("versions", not wrong, "; ".join(wrong) or "as pinned", of_the_machine=True)
        here, wanted = len(stages.hardware()["gpus"]), self.hardware.gpus
        text = f"{here} GPU(s) here, the profile is for {wanted or 'none'}"
        self._check("devices", here >= wanted, text, of_the_machine=True)
