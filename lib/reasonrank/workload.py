"""What a profile would run: examples, steps, tokens and device-hours of each stage, from its settings alone.

Tokens are upper bounds (every query and passage at its cap, every answer at its limit), and so are the hours.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from . import paper, sources
from .memory import HALF, Architecture
from .profiles import Profile, Strict
from .rerank import windows
from .training.grpo import batch_sizes


class Rate(Strict):
    """Speed of a device: peak TFLOP/s and TB/s, and the share of each that is assumed to be reached."""

    name: str
    tflops: float
    tflops_share: float
    bandwidth_tb: float
    bandwidth_share: float


class Rates(Strict):
    gpu: Rate
    cpu: Rate
    frame_tokens: int
    instruction_tokens: int


@dataclass(frozen=True)
class Work:
    """A stage: what it works on, optimiser steps, tokens of a prompt and of an answer, device-hours, all at most."""

    stage: str
    items: str
    steps: int
    prompt: int
    answer: int
    hours: float


def rates() -> Rates:
    """The assumptions, from data/paper/rates.yaml."""
    return paper.load(paper.DATA / "rates.yaml", Rates)


def plan(profile: Profile, shape: Architecture) -> list[Work]:
    """SFT, RL and evaluation of a profile on the collections of this project, before anything was synthesised."""
    known = rates()
    rate = known.gpu if profile.hardware.gpus else known.cpu
    devices = max(profile.hardware.gpus, 1)
    work = [sft(profile, shape, rate, devices), rl(profile, shape, rate), evaluation(profile, shape, rate)]
    return work


def prompt_tokens(profile: Profile, passages: int) -> int:
    """Tokens of a prompt with `passages` passages, at most."""
    known = rates()
    texts = passages * (profile.prompting.passage_tokens + known.frame_tokens)
    return min(texts + profile.prompting.query_tokens + known.instruction_tokens, profile.model.max_length)


def examples(profile: Profile) -> int:
    """Training examples, at most: the filter keeps fewer."""
    wanted, total = profile.synthesis, 0
    for collection in sources.load_all(profile.collections).values():
        total += len(collection.ids("train", wanted.train_queries)) * wanted.lists_per_query
        total += len(collection.ids("extra", wanted.train_queries)) if wanted.extra_queries else 0
    return total


def sft(profile: Profile, shape: Architecture, rate: Rate, devices: int) -> Work:
    """Cold-start SFT, all epochs."""
    settings, count = profile.sft, examples(profile)
    batch = settings.batch_size * settings.gradient_accumulation * devices
    steps = ceil(count * settings.epochs / batch)
    if settings.max_steps > 0:
        steps = min(steps, settings.max_steps)
    answer = profile.rl.max_completion_tokens
    prompt = min(prompt_tokens(profile, profile.synthesis.window), settings.cutoff - answer)
    tokens = steps * batch * (prompt + answer)
    flops = tokens * training_flops(
        shape, prompt + answer, settings.lora is not None, settings.gradient_checkpointing
    )
    return Work("SFT", f"{count} examples", steps, prompt, answer, _hours(flops, rate))


def rl(profile: Profile, shape: Architecture, rate: Rate) -> Work:
    """GRPO: answers sampled, scored by the old policy and the reference, then trained on; plain, without sharing."""
    settings = profile.rl
    batch, mini_batch, _ = batch_sizes(settings, max(profile.hardware.gpus, 1))
    prompt = min(prompt_tokens(profile, profile.synthesis.window), settings.max_prompt_tokens)
    answer = settings.max_completion_tokens
    length = prompt + answer
    forward = forward_flops(shape, length)
    passes = (1 if batch > mini_batch or settings.epochs_per_batch > 1 else 0) + bool(settings.kl_coefficient)
    train = training_flops(shape, length, settings.lora is not None, settings.gradient_checkpointing)
    scored = batch * length * (passes * forward + settings.epochs_per_batch * train)
    seconds = settings.steps * (
        scored / (rate.tflops * 1e12 * rate.tflops_share)
        + decoding_seconds(shape, rate, batch, settings.prompts_per_step, prompt, answer)
    )
    steps = settings.steps * (batch // mini_batch) * settings.epochs_per_batch
    return Work("RL", f"{settings.steps} batches of {batch} answers", steps, prompt, answer, seconds / 3600)


def evaluation(profile: Profile, shape: Architecture, rate: Rate) -> Work:
    """Reranking of all test queries by the three systems: base, SFT, SFT + RL."""
    settings, systems = profile.evaluation, 3
    counts = [len(c.ids("test", settings.queries)) for c in sources.load_all(profile.collections).values()]
    steps = 1
    if settings.strategy == "sliding":
        steps = len(windows(settings.top, settings.window, settings.step))
    prompts = systems * sum(counts) * steps
    prompt = prompt_tokens(profile, min(settings.window, settings.top))
    seconds = decoding_seconds(shape, rate, prompts, prompts, prompt, settings.max_tokens)
    items = f"{sum(counts)} queries x {steps} windows x {systems} systems"
    return Work("evaluation", items, 0, prompt, settings.max_tokens, seconds / 3600)


def forward_flops(shape: Architecture, length: int) -> float:
    """Operations for one token of a sequence: two a parameter that it meets, and attention to half the length."""
    met = shape.parameters - (0 if shape.tied else shape.vocabulary * shape.hidden)
    return 2.0 * met + 2.0 * shape.layers * shape.heads * shape.head_dim * length


def training_flops(shape: Architecture, length: int, lora: bool, checkpointing: bool) -> float:
    """Operations for one token, forward and backward: three forward passes, two where the weights are frozen (no
    gradients of their own), one more with checkpointing."""
    return forward_flops(shape, length) * ((2 if lora else 3) + (1 if checkpointing else 0))


def decoding_seconds(
    shape: Architecture, rate: Rate, answers: int, prompts: int, prompt: int, answer: int, at_once: int = 64
) -> float:
    """Device-seconds to read `prompts` prompts and decode `answers` answers, `at_once` together.

    A decoding step reads all weights once and the cache of every answer in flight.
    """
    reading = prompts * prompt * forward_flops(shape, prompt) / (rate.tflops * 1e12 * rate.tflops_share)
    flight = min(at_once, answers)
    step = HALF * shape.parameters + flight * shape.kv_bytes * (prompt + answer / 2)
    return reading + answers / flight * answer * step / (rate.bandwidth_tb * 1e12 * rate.bandwidth_share)


def _hours(flops: float, rate: Rate) -> float:
    return flops / (rate.tflops * 1e12 * rate.tflops_share) / 3600
