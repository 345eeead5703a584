"""Rollouts of GRPO through an engine of ours: on a processor many times faster than `generate`.

TRL's own ways are vLLM beside the model on a GPU, and `generate` elsewhere, which pays for a prompt once per
answer and for the adapter at each token. Here the policy of the moment is merged, saved and opened as any
other model; its prompts are computed once for all their answers. Opening takes a few seconds per batch.
"""

from __future__ import annotations

import asyncio
import copy
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..engines import Completion, Engine, Sampling, open_engine
from ..profiles import Profile
from ..rerank import run_sync


@dataclass
class EngineRollouts:
    """Answers of the current policy. `kind`: of the engine; `sampling`: its seed is the first answer's.

    Each call is a new batch with seeds of its own, so equal prompts get different answers, and a rerun the same.
    """

    kind: str
    sampling: Sampling
    dtype: str
    max_model_len: int
    max_num_seqs: int = 64
    drawn: int = 0

    def __call__(self, model: Any, tokenizer: Any, prompts: Sequence[list[int]]) -> list[list[int]]:
        """Token ids of one answer per prompt (the end token included where there is one), in order."""
        with tempfile.TemporaryDirectory() as folder:
            save_policy(model, tokenizer, folder)
            with self.open(folder) as engine:
                completions = run_sync(self.draw(engine, prompts))
        self.drawn += len(prompts)
        return [list(completion.token_ids) for completion in completions]

    def open(self, weights: str) -> Engine:
        """The engine that writes answers with these weights (a folder or a model's name)."""
        options = {"dtype": self.dtype, "max_model_len": self.max_model_len, "seed": self.sampling.seed or 0}
        return open_engine(self.kind, weights, max_num_seqs=self.max_num_seqs, **options)

    async def draw(self, engine: Engine, prompts: Sequence[list[int]]) -> list[Completion]:
        """An answer to each prompt, with the next seeds."""
        first = (self.sampling.seed or 0) + self.drawn
        own = (replace(self.sampling, seed=first + number) for number in range(len(prompts)))
        return await asyncio.gather(*map(engine.generate, prompts, own))


def save_policy(model: Any, tokenizer: Any, folder: str) -> None:
    """Save a trainer's model as an engine loads it, its adapter merged; the model itself stays as it is."""
    if hasattr(model, "merge_and_unload"):
        model = copy.deepcopy(model).merge_and_unload()
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("lm_head.weight")}
    tied = model.config.get_text_config().tie_word_embeddings
    model.save_pretrained(folder, state_dict=state if tied else None)
    tokenizer.save_pretrained(folder)


def engine_rollouts(profile: Profile) -> EngineRollouts:
    """Rollouts with the profile's engine and the sampling of its RL."""
    rl = profile.rl
    sampling = Sampling(
        max_tokens=rl.max_completion_tokens, temperature=rl.temperature, top_p=rl.top_p, seed=profile.seed
    )
    length = min(profile.model.max_length, rl.max_prompt_tokens + rl.max_completion_tokens)
    return EngineRollouts(profile.evaluation.engine, sampling, profile.model.dtype, length)


def sample_group(
    profile: Profile, weights: str | Path, prompt: Sequence[int], count: int
) -> list[Completion]:
    """`count` answers of a model (its name or folder) to one prompt (token ids), sampled as in RL; each has `text` and
    `token_ids`."""
    rollouts = engine_rollouts(profile)
    with rollouts.open(str(weights)) as engine:
        return run_sync(rollouts.draw(engine, [list(prompt)] * count))
