"""Generation with transformers alone: runs wherever torch does, batching what waits."""

from __future__ import annotations

import gc
import itertools
from pathlib import Path
from typing import Any

import torch

from reasonrank.models import load_model, load_tokenizer

from .base import Completion, Sampling, cut_at_stop
from .inprocess import InProcessEngine, Request

_TAIL = 16  # tokens at the end of an output that are searched for a stop string after each step


class TransformersEngine(InProcessEngine):
    """Batches of waiting requests, `max_num_seqs` at most, prompts of like length together.

    A batch ends with its longest output, so vLLM is the faster engine wherever it runs; the outputs of greedy
    decoding in float32 are the same. `adapter`: folder of a LoRA adapter, merged into the weights. `dtype`: "auto"
    (the model's) or the name of a torch type. `device`: None for a GPU where there is one.
    """

    kind = "transformers"

    def __init__(
        self,
        model: str,
        *,
        adapter: str | Path | None = None,
        dtype: str = "auto",
        max_model_len: int | None = None,
        max_num_seqs: int = 64,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        self._dtype, self.seeds = dtype, itertools.count(seed)
        self._asked_len, self._max_num_seqs = max_model_len, max_num_seqs
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        super().__init__(model, adapter)

    def _load(self) -> None:
        from transformers import GenerationConfig

        self.tokenizer = load_tokenizer(self.name)
        self._model = load_model(self.name, self._dtype, self.adapter).to(self._device).eval()
        own = getattr(self._model.config, "max_position_embeddings", None) or 32768
        self.max_model_len = min(self._asked_len or own, own)
        end = self._model.generation_config.eos_token_id
        self.end_ids = {*(end if isinstance(end, list) else [end]), self.tokenizer.eos_token_id} - {None}
        # A model's own defaults (Qwen's repetition penalty, say) have no part in a request's sampling.
        self._model.generation_config = GenerationConfig(
            do_sample=False, eos_token_id=sorted(self.end_ids), pad_token_id=self.tokenizer.pad_token_id
        )

    def _unload(self) -> None:
        self._model = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _step(self) -> None:
        """One `generate` call. It decodes greedily: each row draws its own token and leaves only that one possible."""
        # The oldest request leads, and those nearest to its length go with it: nobody waits for ever.
        waiting = list(self._active.values())
        length = len(waiting[0].prompt)
        waiting.sort(key=lambda request: abs(len(request.prompt) - length))
        rows = [_Row(request, self) for request in waiting[: self._max_num_seqs]]
        prompts = self.tokenizer.pad({"input_ids": [row.request.prompt for row in rows]}, return_tensors="pt")

        def choose(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            for row, own in zip(rows, scores, strict=True):
                row.choose(own)
            return scores

        def stopped(ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
            for row, token in zip(rows, ids[:, -1].tolist(), strict=True):
                row.append(token)
            return torch.tensor([row.done for row in rows], device=ids.device)

        self._model.generate(
            **prompts.to(self._device),
            max_new_tokens=max(row.sampling.max_tokens for row in rows),
            logits_processor=[choose],
            stopping_criteria=[stopped],
        )


class _Row:
    """A request in a batch, with its own limit, stop strings, sampling and seed; handed over as soon as it is done."""

    def __init__(self, request: Request, engine: TransformersEngine) -> None:
        self.request, self.sampling, self.engine = request, request.sampling, engine
        self.ids: list[int] = []
        self.tops: list[dict[str, float]] = []
        self.done, self.generator, seed = False, torch.Generator(), request.sampling.seed
        if self.sampling.temperature:
            self.generator.manual_seed(next(engine.seeds) if seed is None else seed)

    def choose(self, scores: torch.Tensor) -> None:
        """Note the likely tokens and draw one. `scores`: logits (vocabulary,), changed in place."""
        if self.done:
            return
        if self.sampling.exact:
            scores[sorted(self.engine.end_ids)] = float("-inf")
        if self.sampling.logprobs:
            self.tops.append({})
            best = scores.float().log_softmax(dim=-1).topk(self.sampling.logprobs)
            for value, token in zip(*map(torch.Tensor.tolist, best), strict=True):
                self.tops[-1].setdefault(self.engine.tokenizer.decode([token]), value)
        if self.sampling.temperature:
            token = draw(scores.float().cpu(), self.sampling, self.generator)
            scores[:] = float("-inf")
            scores[token] = 0.0

    def append(self, token: int) -> None:
        """Take a token in, and hand the output over where it is at its end."""
        self.done = self.done or self.request.future.cancelled()
        if self.done:
            return
        self.ids.append(token)
        decode, stops = self.engine.tokenizer.decode, self.sampling.stop
        ended, full = token in self.engine.end_ids, len(self.ids) >= self.sampling.max_tokens
        tail = decode(self.ids[-_TAIL:], skip_special_tokens=True) if stops else ""
        if not (ended or full or any(stop in tail for stop in stops)):
            return
        text = decode(self.ids, skip_special_tokens=True)
        cut = cut_at_stop(text, self.sampling)
        self.done = ended or full or cut is not None
        if self.done:
            reason, text = "stop" if ended or cut is not None else "length", text if cut is None else cut
            counts = len(self.request.prompt), len(self.ids)
            done = Completion(text, tuple(self.ids), *counts, reason, self.tops or None)
            self.engine.finish(self.request, done)


def draw(scores: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """One token id from logits (vocabulary,): temperature, the top k, then the smallest set of mass top_p.

    The draw is by exponential noise that belongs to token ids, so rounding that swaps two near-equal tokens
    in the order leaves it alone.
    """
    values, tokens = (scores / sampling.temperature).sort(descending=True)
    if sampling.top_k:
        values, tokens = values[: sampling.top_k], tokens[: sampling.top_k]
    probabilities = values.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    kept = before < sampling.top_p
    noise = torch.empty_like(scores).exponential_(generator=generator)[tokens]
    return int(tokens[(probabilities * kept / noise).argmax()])
