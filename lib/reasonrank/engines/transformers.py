"""Generation with transformers alone: runs wherever torch does, batching what waits."""

from __future__ import annotations

import gc
import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from reasonrank.models import load_model, load_tokenizer

from .base import Completion, EngineError, FinishReason, Sampling, cut_at_stop
from .inprocess import InProcessEngine, Request
from .paged import Paged

_TAIL = 16  # tokens at the end of an output that are searched for a stop string after each step
_POLL = 0.02  # seconds that continuous batching waits for an output before new requests are let in


class TransformersEngine(InProcessEngine):
    """Batches of waiting requests, `max_num_seqs` at most, prompts of like length together.

    A batch ends with its longest output, so vLLM is the faster engine wherever it runs; the outputs of greedy
    decoding in float32 are the same. `continuous`: greedy requests join and leave while others are computed
    (transformers' continuous batching), with a cache of `cache_tokens` (None: what the memory allows); where
    that cannot start, batches serve, with a warning. None: on a GPU. `adapter`: folder of a LoRA adapter,
    merged into the weights. `dtype`: "auto" (the model's) or the name of a torch type. `device`: None for a
    GPU where there is one.
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
        continuous: bool | None = None,
        cache_tokens: int | None = None,
    ) -> None:
        self.name = model
        self._adapter = Path(adapter) if adapter is not None else None
        self._dtype, self._seed = dtype, seed
        self._asked_len, self._max_num_seqs = max_model_len, max_num_seqs
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._continuous = self._device.startswith("cuda") if continuous is None else continuous
        self._cache_tokens = cache_tokens
        self._paged: Paged | None = None
        self._draws = itertools.count()
        self._model: Any = None
        super().__init__()

    def _load(self) -> None:
        from transformers import GenerationConfig

        self.tokenizer = load_tokenizer(self.name)
        model = load_model(self.name, self._dtype, self._adapter)
        self._model = model.to(self._device).eval()
        own = getattr(model.config, "max_position_embeddings", None) or 32768
        self.max_model_len = min(self._asked_len or own, own)
        end = model.generation_config.eos_token_id
        self._end_ids = set(end if isinstance(end, list) else [end]) | {self.tokenizer.eos_token_id}
        self._end_ids.discard(None)
        # A model's own defaults (Qwen's repetition penalty, say) have no part in a request's sampling.
        model.generation_config = GenerationConfig(
            do_sample=False, eos_token_id=sorted(self._end_ids), pad_token_id=self.tokenizer.pad_token_id
        )
        if self._continuous:
            self._paged = Paged(model, self._end_ids, self._max_num_seqs, self._cache_tokens)

    def _unload(self) -> None:
        if self._paged is not None:
            self._paged.close()
        self._model = self._paged = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def reset_prefix_cache(self) -> None:
        self.call(lambda: self._paged and self._paged.close())

    def _add(self, request: Request) -> None:
        """Nothing to prepare: the next step takes it."""

    def _step(self) -> None:
        for request in [r for r in self._active.values() if r.future.cancelled()]:
            del self._active[request.id]
        if self._paged is not None and self._step_paged(self._paged):
            return
        # The oldest request leads, and those nearest to its length go with it: nobody waits for ever.
        waiting = list(self._active.values())
        if waiting:
            length = len(waiting[0].prompt)
            waiting.sort(key=lambda request: abs(len(request.prompt) - length))
            self._run(waiting[: self._max_num_seqs])

    def _step_paged(self, paged: Paged) -> bool:
        """Take new requests in and hand finished ones over; False: there is nothing for it to do.

        Where requests wait that it cannot take, it takes no more, ends what it has, and makes way.
        """
        for id in paged.sent - set(self._active):
            paged.drop(id)
        fitting = [request for request in self._active.values() if paged.takes(request.sampling)]
        if len(fitting) < len(self._active):
            fitting = [request for request in fitting if request.id in paged.sent]
        if not fitting or not self._started(paged):
            paged.pause()
            return False
        for request in fitting:
            if request.id not in paged.sent:
                paged.add(request, self.limit(request))
        for output in paged.outputs(_POLL):
            self._take_paged(paged, self._active[output.request_id], output)
        if not self._active:
            paged.pause()
        return True

    def _started(self, paged: Paged) -> bool:
        try:
            paged.start()
        except Exception as error:
            warnings.warn(f"continuous batching cannot start, batches serve: {error!r}", stacklevel=2)
            self._paged = None
            return False
        return True

    def _take_paged(self, paged: Paged, request: Request, output: Any) -> None:
        ids = tuple(output.generated_tokens)
        if output.error is not None:
            del self._active[request.id]
            request.fail(EngineError(f"transformers engine of {self.name}: {output.error}"))
        elif (end := self.ending(request, ids)) is None:
            return
        else:
            self.finish(request, Completion(end[0], ids, len(request.prompt), len(ids), end[1]))
        if output.is_finished():
            paged.sent.discard(request.id)
        else:
            paged.drop(request.id)

    def limit(self, request: Request) -> int:
        """Output tokens that the request may have: its own limit, and what the context leaves."""
        return min(request.sampling.max_tokens, self.max_model_len - len(request.prompt))

    def ending(self, request: Request, ids: Sequence[int]) -> tuple[str, FinishReason] | None:
        """Text and reason where the output `ids` is at its end, looked at after each token; else None."""
        stop, ended = request.sampling.stop, ids[-1] in self._end_ids
        tail = self.tokenizer.decode(ids[-_TAIL:], skip_special_tokens=True) if stop else ""
        full = len(ids) >= self.limit(request)
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

    def seed_for(self, sampling: Sampling) -> int:
        """The request's own seed, or the next of the engine's."""
        return sampling.seed if sampling.seed is not None else self._seed + next(self._draws)


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
            torch.Generator().manual_seed(engine.seed_for(r.sampling)) if r.sampling.temperature else None
            for r in requests
        ]

    def choose(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Logits processor. `scores`: (batch, vocabulary)."""
        for row, request in enumerate(self.requests):
            if self.done[row]:
                continue
            if request.sampling.logprobs:
                self.logprobs[row].append(self._top(scores[row], request.sampling.logprobs))
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
            end = self.engine.ending(request, ids) or (("", "length") if request.future.cancelled() else None)
            if end is not None:
                self.done[row] = True
                tops = self.logprobs[row] if request.sampling.logprobs else None
                size = len(request.prompt)
                self.engine.finish(request, Completion(end[0], ids, size, len(ids), end[1], tops))
        return torch.tensor(self.done, device=input_ids.device)

    def _top(self, scores: torch.Tensor, k: int) -> dict[str, float]:
        values, tokens = torch.log_softmax(scores.float(), dim=-1).topk(k)
        best: dict[str, float] = {}
        for token, value in zip(tokens.tolist(), values.tolist(), strict=True):
            best.setdefault(self.engine.tokenizer.decode([token]), value)
        return best


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
