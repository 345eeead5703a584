"""Generation with transformers alone: runs wherever torch does, batching what waits."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from reasonrank.models import load_model, load_tokenizer

from .base import Completion, FinishReason, Sampling, cut_at_stop
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
        self.name, self._dtype, self.seeds = model, dtype, itertools.count(seed)
        self._adapter = Path(adapter) if adapter is not None else None
        self._asked_len, self._max_num_seqs = max_model_len, max_num_seqs
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        super().__init__()

    def _load(self) -> None:
        from transformers import GenerationConfig

        self.tokenizer = load_tokenizer(self.name)
        model = load_model(self.name, self._dtype, self._adapter)
        self._model = model.to(self._device).eval()
        own = getattr(model.config, "max_position_embeddings", None) or 32768
        self.max_model_len = min(self._asked_len or own, own)
        end = model.generation_config.eos_token_id
        self.end_ids = set(end if isinstance(end, list) else [end]) | {self.tokenizer.eos_token_id}
        self.end_ids.discard(None)
        # A model's own defaults (Qwen's repetition penalty, say) have no part in a request's sampling.
        model.generation_config = GenerationConfig(
            do_sample=False, eos_token_id=sorted(self.end_ids), pad_token_id=self.tokenizer.pad_token_id
        )

    def load(self, model: str, adapter: str | Path | None = None) -> None:
        self.name, self._adapter = model, Path(adapter) if adapter is not None else None
        self.call(self._load)

    def _unload(self) -> None:
        self._model = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _add(self, request: Request) -> None:
        """Nothing to prepare: the next step takes it."""

    def _step(self) -> None:
        for request in [r for r in self._active.values() if r.future.cancelled()]:
            del self._active[request.id]
        # The oldest request leads, and those nearest to its length go with it: nobody waits for ever.
        waiting = list(self._active.values())
        if waiting:
            length = len(waiting[0].prompt)
            waiting.sort(key=lambda request: abs(len(request.prompt) - length))
            self._run(waiting[: self._max_num_seqs])

    def limit(self, request: Request) -> int:
        """Output tokens that the request may have: its own limit, and what the context leaves."""
        return min(request.sampling.max_tokens, self.max_model_len - len(request.prompt))

    def ending(self, request: Request, ids: Sequence[int]) -> tuple[str, FinishReason] | None:
        """Text and reason where the output `ids` is at its end, looked at after each token; else None."""
        if request.future.cancelled():
            return "", "length"
        stop, ended, full = request.sampling.stop, ids[-1] in self.end_ids, len(ids) >= self.limit(request)
        tail = self.tokenizer.decode(ids[-_TAIL:], skip_special_tokens=True) if stop else ""
        if not (ended or full or any(string in tail for string in stop)):
            return None
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        if (cut := cut_at_stop(text, request.sampling)) is not None:
            return cut, "stop"
        return (text, "stop" if ended else "length") if ended or full else None

    @torch.inference_mode()
    def _run(self, requests: list[Request]) -> None:
        from transformers import LogitsProcessorList, StoppingCriteriaList

        batch = _Batch(requests, self)
        width = max(len(request.prompt) for request in requests)
        rows = [[self.tokenizer.pad_token_id] * (width - len(r.prompt)) + r.prompt for r in requests]
        mask = [[0] * (width - len(r.prompt)) + [1] * len(r.prompt) for r in requests]
        self._model.generate(
            input_ids=torch.tensor(rows, device=self._device),
            attention_mask=torch.tensor(mask, device=self._device),
            max_new_tokens=max(batch.limits),
            logits_processor=LogitsProcessorList([batch.choose]),
            stopping_criteria=StoppingCriteriaList([batch.stopped]),
        )


class _Batch:
    """The requests of one `generate` call, each with its own limit, stop strings, sampling and seed.

    `generate` itself decodes greedily: `choose` draws a row's token and leaves only that one possible. A
    request is handed over as soon as its own row is done.
    """

    def __init__(self, requests: list[Request], engine: TransformersEngine) -> None:
        self.requests, self.engine = requests, engine
        self.limits = [engine.limit(request) for request in requests]
        self.logprobs: list[list[dict[str, float]]] = [[] for _ in requests]
        self.outputs: list[list[int]] = [[] for _ in requests]
        self.done = [False] * len(requests)
        self.generators = [
            torch.Generator().manual_seed(next(engine.seeds) if r.sampling.seed is None else r.sampling.seed)
            if r.sampling.temperature
            else None
            for r in requests
        ]

    def choose(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Logits processor. `scores`: (batch, vocabulary)."""
        for row, request in enumerate(self.requests):
            if self.done[row]:
                continue
            if request.sampling.exact:
                scores[row, sorted(self.engine.end_ids)] = float("-inf")
            if request.sampling.logprobs:
                values, tokens = scores[row].float().log_softmax(dim=-1).topk(request.sampling.logprobs)
                self.logprobs[row].append({})
                for token, value in zip(tokens.tolist(), values.tolist(), strict=True):
                    self.logprobs[row][-1].setdefault(self.engine.tokenizer.decode([token]), value)
            if (generator := self.generators[row]) is not None:
                token = draw(scores[row].float().cpu(), request.sampling, generator)
                scores[row] = float("-inf")
                scores[row, token] = 0.0
        return scores

    def stopped(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Stopping criterion: (batch,) booleans."""
        for row, token in enumerate(input_ids[:, -1].tolist()):
            if self.done[row]:
                continue
            self.outputs[row].append(token)
            request, ids = self.requests[row], tuple(self.outputs[row])
            if end := self.engine.ending(request, ids):
                self.done[row] = True
                tops = self.logprobs[row] if request.sampling.logprobs else None
                self.engine.finish(
                    request, Completion(end[0], ids, len(request.prompt), len(ids), end[1], tops)
                )
        return torch.tensor(self.done, device=input_ids.device)


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
