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
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..engines import Completion, Engine, Sampling, open_engine
from ..rerank import run_sync
from ..settings import Profile


class EngineRollouts:
    """Answers of the current policy, by the profile's engine and the sampling of its RL.

    Each call is a new batch with seeds of its own, so equal prompts get different answers, and a rerun the same.
    `drawn`: answers so far. `close()` frees the engine; the next batch opens it anew.
    """

    def __init__(self, profile: Profile):
        self.profile, self.drawn = profile, 0
        self._engine: Engine | None = None

    def __call__(self, model: Any, tokenizer: Any, prompts: Sequence[list[int]]) -> list[list[int]]:
        """Token ids of one answer per prompt (the end token included where there is one), in order."""
        with tempfile.TemporaryDirectory() as folder:
            save_policy(model, tokenizer, folder)
            completions = self.draw(folder, prompts)
        return [list(completion.token_ids) for completion in completions]

    def draw(self, weights: str, prompts: Sequence[list[int]]) -> list[Completion]:
        """An answer to each prompt (token ids) by the model in a folder or of a name, with the next seeds."""
        own, model = self.profile.rl, self.profile.model
        length = min(model.max_length, own.max_prompt_tokens + own.max_completion_tokens)
        options = {"dtype": model.dtype, "max_model_len": length, "seed": self.profile.seed}
        sampling = Sampling(own.max_completion_tokens, temperature=own.temperature, top_p=own.top_p)
        first = self.profile.seed + self.drawn
        seeded = [replace(sampling, seed=first + number) for number in range(len(prompts))]

        async def together(engine: Engine) -> list[Completion]:
            return await asyncio.gather(*map(engine.generate, prompts, seeded))

        if self._engine is None:
            self._engine = open_engine(self.profile.evaluation.engine, weights, **options)
        else:
            self._engine.load(weights)
        completions = run_sync(together(self._engine))
        self.drawn += len(prompts)
        return completions

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
        self._engine = None


def sample_group(
    profile: Profile, weights: str | Path, prompt: Sequence[int], count: int
) -> list[Completion]:
    """`count` answers of a model (its name or folder) to one prompt (token ids), sampled as in RL; each has `text` and
    `token_ids`."""
    with closing(EngineRollouts(profile)) as rollouts:
        return rollouts.draw(str(weights), [list(prompt)] * count)


def merged(model: Any) -> Any:
    """A copy of a trainer's model with its adapter merged; a model without an adapter is returned as it is."""
    if not hasattr(model, "merge_and_unload"):
        return model
    copied = copy.deepcopy(model).merge_and_unload()
    vars(copied).pop("forward", None)  # a head for training, which goes on calling the original
    return copied


def save_policy(model: Any, tokenizer: Any, folder: str) -> None:
    """Save a trainer's model as an engine loads it, its adapter merged; the model itself stays as it is."""
    model = merged(model)
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("lm_head.weight")}
    tied = model.config.get_text_config().tie_word_embeddings
    model.save_pretrained(folder, state_dict=state if tied else None)
    tokenizer.save_pretrained(folder)
