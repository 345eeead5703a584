"""Before a long run: does it fit? Batch arithmetic, memory, disk, versions, and the hours it would take.

Nothing is loaded and nothing is fetched: all comes from the profile, the model's shape and this machine.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from . import environment, memory, stages
from .memory import ADAM, GIB, HALF, Architecture, Need
from .profiles import Hardware, Profile
from .training.grpo import batch_sizes
from .workload import Work, plan, prompt_tokens, rates


@dataclass(frozen=True)
class Check:
    """A check: "ok", "refused" or "note" (a matter of the machine, where only the plan is asked for)."""

    name: str
    status: str
    text: str


@dataclass
class Preflight:
    """What would run, and what stands against it."""

    profile: str
    hardware: Hardware
    model: str
    parameters: int
    shape_from: str
    rate: str
    work: list[Work]
    checks: list[Check] = field(default_factory=list)

    @property
    def refusals(self) -> list[str]:
        return [f"{check.name}: {check.text}" for check in self.checks if check.status == "refused"]

    @property
    def hours(self) -> float:
        """Device-hours of all stages."""
        return sum(work.hours for work in self.work)

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self) | {"hardware": self.hardware.model_dump(), "device_hours": self.hours}


def preflight(profile: Profile, dry_run: bool = False, folder: Path | None = None) -> Preflight:
    """Hold a profile against its hardware and, unless `dry_run`, against this machine too.

    `folder`: where the run will be, for the space on its disk. Raises ValueError for a model whose shape is
    not known and, where batches do not divide, says so as a refusal without a plan of the hours.
    """
    shape, source = memory.architecture(profile.model.name)
    known = rates()
    rate = known.gpu if profile.hardware.gpus else known.cpu
    assumed = f"{rate.tflops * rate.tflops_share:.4g} TFLOP/s and {rate.bandwidth_tb * rate.bandwidth_share:.4g} TB/s"
    checks = [_batches(profile)]
    work = plan(profile, shape) if checks[0].status == "ok" else []
    checks += [
        *memory_checks(profile, shape),
        _disk(profile, shape, folder or stages.ROOT, dry_run),
        _versions(dry_run),
        _devices(profile.hardware, dry_run),
    ]
    found = Preflight(
        profile.name,
        profile.hardware,
        profile.model.name,
        shape.parameters,
        source,
        f"{rate.name}: {assumed}",
        work,
        checks,
    )
    return found


def memory_checks(profile: Profile, shape: Architecture) -> list[Check]:
    """SFT, RL and, where vLLM evaluates, its engine: need beside what the hardware has."""
    checks = [_fits("memory, SFT", sft_need(profile, shape), profile.hardware)]
    checks.append(_fits("memory, RL", rl_need(profile, shape), profile.hardware))
    if profile.hardware.gpus and profile.rl.use_vllm:
        length = profile.rl.max_prompt_tokens + profile.rl.max_completion_tokens
        checks.append(_cache("cache, RL", profile.hardware, shape, profile.hardware.vllm_memory, length))
    if profile.hardware.gpus and profile.evaluation.engine == "vllm":
        window = min(profile.evaluation.window, profile.evaluation.top)
        length = prompt_tokens(profile, window) + profile.evaluation.max_tokens
        checks.append(_cache("cache, evaluation", profile.hardware, shape, 0.9, length))
    return checks


def sft_need(profile: Profile, shape: Architecture) -> Need:
    """Bytes of SFT on one device, for a batch of the longest examples."""
    settings = profile.sft
    answer = profile.rl.max_completion_tokens
    length = min(settings.cutoff, prompt_tokens(profile, profile.synthesis.window) + answer)
    rows = settings.batch_size
    kept = memory.activations(shape, rows * length, rows * answer, settings.gradient_checkpointing)
    return Need(memory.state(shape, settings.lora, profile.hardware) | kept)


def rl_need(profile: Profile, shape: Architecture) -> Need:
    """Bytes of RL on one device: training, the reference's weights, vLLM's share, and the weights on their way.

    The reference is a model of its own in full fine-tuning, the base below the adapter with LoRA. TRL gathers
    all weights on every GPU to merge an adapter for vLLM where ZeRO 3 has spread them.
    """
    settings, hardware = profile.rl, profile.hardware
    length = min(settings.max_prompt_tokens, prompt_tokens(profile, profile.synthesis.window))
    length += settings.max_completion_tokens
    labels = settings.batch_size * settings.max_completion_tokens
    tokens = settings.batch_size * length
    parts = memory.state(shape, settings.lora, hardware)
    spread = hardware.zero_stage == 3
    if settings.kl_coefficient and settings.lora is None:
        parts["reference"] = HALF * shape.parameters / (hardware.gpus if spread else 1)
    passing = memory.activations(shape, tokens, labels, settings.gradient_checkpointing)
    if hardware.gpus and settings.use_vllm:
        parts["vLLM"] = hardware.vllm_memory * hardware.gpu_memory * GIB
        if settings.lora is not None and spread:  # at another time than the activations
            gathered = HALF * shape.parameters * (1 - 1 / hardware.gpus)
            if gathered > sum(passing.values()):
                return Need(parts | {"weights gathered for vLLM": gathered})
    return Need(parts | passing)


def _fits(name: str, need: Need, hardware: Hardware) -> Check:
    device = "GPU" if hardware.gpus else "machine"
    room = hardware.gpu_memory * (1 - memory.RESERVED)
    text = f"{need} on a {device} of {hardware.gpu_memory:g} GiB"
    if need.total > room * GIB:
        return Check(name, "refused", f"{text}, of which {room:.1f} can be used")
    return Check(name, "ok", text)


def _cache(name: str, hardware: Hardware, shape: Architecture, share: float, length: int) -> Check:
    rows = memory.rows_in_cache(shape, hardware, share, length)
    where = (
        f"{share:.0%} of a GPU of {hardware.gpu_memory:g} GiB, weights over {hardware.vllm_tensor_parallel}"
    )
    if rows < 1:
        return Check(name, "refused", f"not one sequence of {length} tokens fits in {where}")
    return Check(name, "ok", f"{rows} sequences of {length} tokens fit in {where}")


def _batches(profile: Profile) -> Check:
    devices = max(profile.hardware.gpus, 1)
    try:
        batch, mini_batch, per_pass = batch_sizes(profile.rl, devices)
    except ValueError as error:
        return Check("batches", "refused", str(error))
    split = profile.hardware.vllm_tensor_parallel
    if devices % split:
        return Check("batches", "refused", f"vllm_tensor_parallel {split} does not divide {devices} devices")
    sft = profile.sft.batch_size * profile.sft.gradient_accumulation * devices
    prompts = profile.rl.prompts_per_step
    text = f"SFT {sft} examples a step; RL {prompts} prompts x {profile.rl.rollouts} = {batch} answers"
    passes = f"mini-batches of {mini_batch}, {mini_batch // per_pass} passes of {per_pass} over {devices} device(s)"
    return Check("batches", "ok", f"{text}, {passes}")


def _disk(profile: Profile, shape: Architecture, folder: Path, dry_run: bool) -> Check:
    """The base, two trained models, and the largest checkpoint (weights and optimiser, or the adapter's)."""
    trained = shape.adapter(profile.sft.lora) if profile.sft.lora else shape.parameters
    need = 3 * HALF * shape.parameters + (HALF + ADAM) * trained
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    text = f"{need / GIB:.1f} GiB for weights and a checkpoint, {free / GIB:.0f} GiB free here"
    if need <= free:
        return Check("disk", "ok", text)
    return Check("disk", "note" if dry_run else "refused", text)


def _versions(dry_run: bool) -> Check:
    table = environment.check()
    wrong = table[(table["status"] != "ok") & ~table.index.isin(["cores", "memory", "free disk"])]
    if wrong.empty:
        return Check("versions", "ok", "as pinned")
    text = "; ".join(f"{part} {row.here}, expected {row.expected}" for part, row in wrong.iterrows())
    return Check("versions", "note" if dry_run else "refused", text)


def _devices(hardware: Hardware, dry_run: bool) -> Check:
    here = stages.hardware()["gpus"]
    text = f"{len(here)} GPU(s) here, the profile is for {hardware.gpus or 'none'}"
    if len(here) >= hardware.gpus:
        return Check("devices", "ok", text)
    return Check("devices", "note" if dry_run else "refused", text)
