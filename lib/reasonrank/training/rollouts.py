"""Rollouts of GRPO through an engine of ours: on a processor many times faster than `generate`.

TRL's own ways are vLLM beside the model on a GPU, and `generate` elsewhere, which pays for a prompt once per
answer and for the adapter at each token. Here the policy of the moment is merged, saved and loaded as any
other model; its prompts are computed once for all their answers. The engine is opened once, and takes the weights of
each batch in place of those before.
"""

from __future__ import annotations

import asyncio
import copy
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..engines import Completion, Sampling
from ..evaluation import OneEngine
from ..rerank import run_sync
from ..settings import Profile
from .processor import written_weights


def draw(
    opened: OneEngine, weights: str | Path, prompts: Sequence[Sequence[int]], batch: int = 0
) -> list[Completion]:
    """An answer to each prompt (token ids) by a model (its name or folder), sampled as the profile's RL asks.

    Each number of a `batch` has seeds of its own, so equal prompts get different answers, and a rerun the same.
    """
    engine, own = opened.use(weights).engine, opened.settings.rl
    first = opened.settings.seed + batch * len(prompts)
    sampling = Sampling(own.max_completion_tokens, temperature=own.temperature, top_p=own.top_p)
    seeded = [replace(sampling, seed=first + number) for number in range(len(prompts))]

    async def together() -> list[Completion]:
        return await asyncio.gather(*map(engine.generate, prompts, seeded))

    return run_sync(together())


def sample_group(
    profile: Profile, weights: str | Path, prompt: Sequence[int], count: int
) -> list[Completion]:
    """`count` answers of a model (its name or folder) to one prompt (token ids), sampled as in RL; each has `text` and
    `token_ids`."""
    with OneEngine(profile, profile.evaluation.window_strategy) as opened:
        return draw(opened, weights, [prompt] * count)


def merged(model: Any) -> Any:
    """A copy of a trainer's model with its adapter merged; a model without an adapter is returned as it is."""
    if not hasattr(model, "merge_and_unload"):
        return model
    copied = copy.deepcopy(model).merge_and_unload()
    vars(copied).pop("forward", None)  # a head for training, which goes on calling the original
    return copied


@contextmanager
def saved_policy(model: Any, tokenizer: Any) -> Iterator[str]:
    """A folder with a trainer's model as an engine loads it, its adapter merged; the model itself stays as it is."""
    written = written_weights(model)
    plain = merged(model) if written is None else model.get_base_model()
    with tempfile.TemporaryDirectory() as folder:
        plain.save_pretrained(folder, state_dict=written)
        tokenizer.save_pretrained(folder)
        yield folder
