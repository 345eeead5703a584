"""vLLM inside this process: continuous batching, no second process, on a CPU or on GPUs."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from reasonrank import models

from .base import Completion, EngineError, Sampling, cut_at_stop
from .inprocess import InProcessEngine, Request

GIB = 1 << 30
# vLLM has no argument for the first; the others keep it from reporting its use and from talking.
_START = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "GLOO_LOG_LEVEL": "ERROR",
}
# vLLM 0.31 looks at `vars` of what every loaded module holds; this one, which comes with numba and so with bm25s,
# has no such thing, and the start fails.
_HIDDEN = "llvmlite.binding.ffi"


class VllmEngine(InProcessEngine):
    """vLLM's engine, stepped by a thread of its own as long as requests are under way.

    `adapter`: folder of a LoRA adapter, merged into the weights. `kv_cache_gib`: memory of the key-value cache on a
    CPU, in GiB; a GPU takes `gpu_memory_utilization` of its memory for all. Other options go to vLLM's EngineArgs;
    on a CPU `enforce_eager` is true unless given: nothing is compiled, and the start is quicker. One such engine can be
    open at a time in a process.
    Raises EngineError where one is open already, and what vLLM raises where it cannot start.
    """

    kind = "vllm"
    constraints = prefixes = True
    _open: VllmEngine | None = None

    def __init__(
        self, model: str, *, adapter: str | Path | None = None, kv_cache_gib: float = 2.0, **options: Any
    ) -> None:
        if VllmEngine._open is not None:
            raise EngineError(f"the vllm engine of {VllmEngine._open.name} is still open; close it first")
        self._options, self._cache, self._engine = options, int(kv_cache_gib * GIB), None
        super().__init__(model, adapter)

    def reset_prefix_cache(self) -> None:
        self.call(lambda: self._engine.reset_prefix_cache())

    def _reload(self) -> None:
        with _quiet_start(), tempfile.TemporaryDirectory() as folder:
            place = {"weights_path": self._weights(folder)}
            self._engine.collective_rpc("reload_weights", kwargs=place)
        self._engine.collective_rpc(_repack_head)
        self._engine.reset_prefix_cache()

    def _weights(self, folder: str) -> str:
        """Where the model is; with an adapter, merged, in `folder`, which is needed only while it is loaded."""
        if self.adapter is None:
            return models.resolve(self.name)
        models.save_merged(self.name, Path(self.adapter), self._options.get("dtype", "auto"), folder)
        return folder

    def _load(self) -> None:
        VllmEngine._open = self
        self.tokenizer = models.load_tokenizer(self.name)
        options: dict[str, Any] = {"max_num_seqs": 64, "gpu_memory_utilization": 0.9}
        options |= {"enable_prefix_caching": True, "use_tqdm_on_load": False}
        options |= {"disable_log_stats": True, "log_level": "ERROR"}
        with _quiet_start(), tempfile.TemporaryDirectory() as folder:
            from vllm import EngineArgs
            from vllm.platforms import current_platform
            from vllm.v1.engine.llm_engine import LLMEngine

            options["model"] = self._weights(folder)
            if on_cpu := current_platform.is_cpu():
                # After a part of a prompt vLLM turns a seeded generator back, which a CPU's cannot.
                options |= {"enforce_eager": True, "enable_chunked_prefill": False}
                options["kv_cache_memory_bytes"] = self._cache
                options["ir_op_priority"] = _compiled_norms()
                options["block_size"] = 32  # a shared prefix is kept in whole blocks; the default is 128
            self._engine = LLMEngine.from_engine_args(EngineArgs(**options | self._options))
            if on_cpu:
                self._engine.collective_rpc(_draw_once)
        self.max_model_len = self._engine.model_config.max_model_len

    def _unload(self) -> None:
        if self._engine is not None:
            self._engine.engine_core.shutdown()
        self._engine = None
        gc.collect()
        VllmEngine._open = None

    def _add(self, request: Request) -> None:
        prompt = {"prompt_token_ids": request.prompt}
        self._engine.add_request(request.id, prompt, self.parameters(request.sampling))

    def _drop(self, request: Request) -> None:
        self._engine.abort_request([request.id])

    def parameters(self, sampling: Sampling) -> Any:
        """`sampling` as vLLM takes it, but for the stop strings: vLLM's own stop knows nothing of reasoning."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        held = sampling.constraint
        return SamplingParams(
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            seed=sampling.seed,
            logprobs=sampling.logprobs or None,
            ignore_eos=sampling.exact,
            output_kind=RequestOutputKind.CUMULATIVE if sampling.stop else RequestOutputKind.FINAL_ONLY,
            structured_outputs=None if held is None else StructuredOutputsParams(regex=held),
        )

    def _step(self) -> None:
        for output in self._engine.step():
            request, result = self._active.get(output.request_id), output.outputs[0]
            if request is None:
                continue
            cut, tops = cut_at_stop(result.text, request.sampling), result.logprobs
            if cut is not None and not output.finished:
                self._drop(request)
            if cut is not None or output.finished:
                done = Completion(
                    text=result.text if cut is None else cut,
                    token_ids=tuple(result.token_ids),
                    prompt_tokens=len(output.prompt_token_ids),
                    output_tokens=len(result.token_ids),
                    finish_reason=result.finish_reason if cut is None else "stop",
                    logprobs=None if tops is None else [_by_string(top) for top in tops],
                    cached_tokens=output.num_cached_tokens or 0,
                )
                self.finish(request, done)


def _compiled_norms() -> dict[str, list[str]]:
    """vLLM 0.31 has compiled norms for CPUs, and uses them on GPUs alone; on a CPU it takes six slower steps."""
    from vllm import ir
    from vllm.kernels import vllm_c  # noqa: F401  (registers them)

    norms = (ir.ops.rms_norm, ir.ops.fused_add_rms_norm)
    for norm in norms:
        norm.impls["vllm_c"].supported = True
    return {norm.name: ["vllm_c"] for norm in norms}


def _repack_head(worker: Any) -> None:
    """vLLM 0.31 leaves a head that shares the weights of the embeddings as it was packed for a CPU before."""
    head = getattr(worker.get_model(), "lm_head", None)
    if hasattr(head, "cpu_linear"):
        head.quant_method.process_weights_after_loading(head)


def _draw_once(worker: Any) -> None:
    """vLLM 0.31 draws two random numbers for each word of the vocabulary where requests have seeds, which takes a CPU
    longer than the model; here one number finds its place in the cumulated probabilities."""
    import torch
    from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p

    sampler = worker.model_runner.sampler.topk_topp_sampler
    plain = sampler.forward

    def draw(logits: Any, generators: dict[int, Any], k: Any, p: Any) -> tuple[Any, None]:
        if len(generators) < len(logits) or sampler.logprobs_mode.startswith("processed"):
            return plain(logits, generators, k, p)
        summed = apply_top_k_top_p(logits, k, p).softmax(-1, dtype=torch.float32).cumsum(-1)
        numbers = [torch.rand(1, generator=generators[row]) for row in range(len(logits))]
        places = torch.cat(numbers).unsqueeze(1) * summed[:, -1:]
        return torch.searchsorted(summed, places, right=True).clamp_(max=logits.size(1) - 1).view(-1), None

    sampler.forward = draw


def _by_string(top: dict[int, Any]) -> dict[str, float]:
    """Log-probabilities by token string; of tokens that read the same, the likeliest."""
    best: dict[str, float] = {}
    for entry in top.values():
        best[entry.decoded_token] = max(entry.logprob, best.get(entry.decoded_token, entry.logprob))
    return best


@contextlib.contextmanager
def _quiet_start() -> Iterator[None]:
    """Settings that vLLM takes from nowhere else, for its start alone; then all is as found again.

    What C++ code writes to standard error is shown only where the start fails.
    """
    import torch

    hidden = sys.modules.pop(_HIDDEN, None)
    logging.getLogger("vllm").setLevel(logging.ERROR)
    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.dict(os.environ, _START))
        # the CPU worker puts a warning in its place
        stack.enter_context(patch.object(torch, "set_num_threads", torch.set_num_threads))
        stack.enter_context(warnings.catch_warnings(action="ignore"))
        held = stack.enter_context(tempfile.TemporaryFile())
        try:  # vLLM silences output by its number; under nbval it has none
            sys.stdout.fileno()
        except (AttributeError, OSError, ValueError):
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        sys.stderr.flush()
        saved = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(saved, held.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            if hidden is not None:
                sys.modules[_HIDDEN] = hidden
