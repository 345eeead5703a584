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
    names = {"weights": 3, "gradients": 2, "optimiser": 1}  # the stage of ZeRO that divides them
    share = {name: hardware.gpus or 1 if hardware.zero_stage >= at else 1 for name, at in names.items()}
    return {name: size / share[name] for name, size in zip(names, each, strict=True)}


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
        self._plan()
        self._memory()
        self._caches()
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

    def _prompt(self, passages: int) -> int:
        """Tokens of a prompt with `passages` passages, at most."""
        own = self.profile.prompting
        texts = passages * (own.passage_tokens + self.rates["frame_tokens"])
        return min(texts + own.query_tokens + self.rates["instruction_tokens"], self.profile.model.max_length)

    def _plan(self) -> None:
        """How batches divide; where they do, steps, tokens and hours of the stages, without what the shared prefix
        saves.

        A token takes 6 operations a parameter in training, 2 where it is read or scored. Decoding reads all weights
        for each token of 64 answers.
        """
        from .rerank.strategies import STRATEGIES
        from .training.grpo import batch_sizes

        profile, operations = self.profile, 2.0 * self.count
        sft, rl, own, wanted = profile.sft, profile.rl, profile.evaluation, profile.synthesis
        devices, split = self.hardware.gpus or 1, self.hardware.vllm_tensor_parallel
        examples = sft.batch_size * sft.gradient_accumulation * devices
        try:
            batch, mini_batch, per_pass = batch_sizes(rl, devices)
            if devices % split:
                raise ValueError(f"vllm_tensor_parallel {split} does not divide {devices} devices")
        except ValueError as error:
            return self._check("batches", False, str(error))
        text = f"RL {rl.prompts_per_step} prompts x {rl.rollouts} answers, mini-batches of {mini_batch}"
        text = f"SFT {examples} examples a step; {text} in passes of {per_pass} over {devices} device(s)"
        self._check("batches", True, text)
        named = sources.expand(profile.collections)
        loaded = [sources.load(name) for name in named if name in sources.COLLECTIONS]
        parts = {"train": wanted.lists_per_query, "extra": int(wanted.extra_queries)}
        lists = sum(n * len(c.ids(part, wanted.train_queries)) for c in loaded for part, n in parts.items())
        queries = sum(len(c.ids("test", own.queries)) for c in loaded)
        queries += min(own.queries or 115, 115) * (len(named) - len(loaded))
        calls = STRATEGIES[own.strategy].calls(own.top, own.window, own.step)[1]
        prompts = len(own.systems) * queries * calls
        steps = ceil(lists * sft.epochs / examples)
        steps = min(steps, sft.max_steps) if sft.max_steps > 0 else steps
        answers = rl.steps * batch
        used = answers * rl.epochs_per_batch
        training = (min(self._prompt(wanted.window), rl.max_prompt_tokens), rl.max_completion_tokens)
        ranking = (self._prompt(min(own.window, own.top)), own.max_tokens)
        compute = self.rate["tflops"] * 1e12 * self.rate["tflops_share"]
        bandwidth = self.rate["bandwidth_tb"] * 1e12 * self.rate["bandwidth_share"]
        # stage, items, steps, tokens of a prompt and of an answer, passes forward (a step: three), answers decoded
        for stage, items, count, (prompt, answer), passes, decoded in (
            ("SFT", f"{lists} examples", steps, training, 3 * steps * examples, 0),
            ("RL", f"{answers} answers", used // mini_batch, training, 3 * used + 3 * answers, answers),
            ("evaluation", f"{prompts} prompts", 0, ranking, prompts, prompts),
        ):
            if STAGES[stage] not in profile.stages:
                continue
            seconds = passes * (prompt + answer) * operations / compute
            seconds += decoded * answer / 64 * operations / bandwidth  # as many bytes, in bfloat16
            row = {"stage": stage, "items": items, "steps": count, "prompt": prompt, "answer": answer}
            self.work.append(row | {"hours": seconds / 3600})

    def _memory(self) -> None:
        """What SFT and RL need on one device, for a batch of the longest examples, held against the hardware.

        RL has a reference, a model of its own in full fine-tuning; vLLM's share; and, with LoRA spread by ZeRO 3,
        all weights, which TRL gathers on every GPU to merge the adapter for vLLM (not while activations are kept).
        """
        sft, rl, hardware = self.profile.sft, self.profile.rl, self.hardware
        spread = hardware.gpus or 1 if hardware.zero_stage == 3 else 1
        prompt, limit = self._prompt(self.profile.synthesis.window), rl.max_completion_tokens
        for stage, own, longest in (("SFT", sft, sft.cutoff), ("RL", rl, rl.max_prompt_tokens + limit)):
            if STAGES[stage] not in self.profile.stages:
                continue
            tokens, answer = own.batch_size * min(prompt + limit, longest), own.batch_size * limit
            trained, count = parameters(self.config, own.lora)
            need = state(trained, count, own.lora is not None, hardware)
            passing = {
                "activations": activations(self.config, tokens, own.gradient_checkpointing),
                "logits": self.config.vocab_size * (4 * answer + 12 * min(answer, HEAD_TILE)),
            }
            if stage == "RL" and rl.kl_coefficient and rl.lora is None:
                need["reference"] = 2 * count / spread
            if stage == "RL" and hardware.gpus and rl.use_vllm:
                need["vLLM"] = hardware.vllm_memory * hardware.gpu_memory * GIB
                gathered = 2 * count * (1 - 1 / spread) if rl.lora else 0
                if gathered > sum(passing.values()):
                    passing = {"weights gathered for vLLM": gathered}
            need = {name: size / GIB for name, size in (need | passing).items()}
            shown = ", ".join(f"{name} {size:.1f}" for name, size in need.items() if size >= 0.05)
            room, total = hardware.gpu_memory * (1 - RESERVED), sum(need.values())
            text = f"{total:.1f} GiB ({shown}), {room:.1f} of {hardware.gpu_memory:g} usable"
            self._check(f"memory, {stage}", total <= room, text)

    def _caches(self) -> None:
        """Where vLLM generates on GPUs: whether its cache has room for an answer beside the weights."""
        rl, own, hardware = self.profile.rl, self.profile.evaluation, self.hardware
        split, ranking = hardware.vllm_tensor_parallel, self._prompt(min(own.window, own.top))
        for stage, used, share, length in (
            ("RL", rl.use_vllm, hardware.vllm_memory, rl.max_prompt_tokens + rl.max_completion_tokens),
            ("evaluation", own.engine == "vllm", 0.9, ranking + own.max_tokens),
        ):
            if used and hardware.gpus:
                free = share * hardware.gpu_memory * GIB - 2 * self.count / split
                rows = max(0, int(free / (cache_bytes(self.config) / split * length)))
                fits = f"{rows} sequences of {length} tokens fit in {share:.0%} of a GPU"
                self._check(f"cache, {stage}", rows > 0, f"{fits}, weights over {split}")

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
