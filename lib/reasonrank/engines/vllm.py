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

    `adapter`: folder of a LoRA adapter; a CPU gets it merged into the weights (three times as fast there), a
    GPU beside them. `kv_cache_gib`: memory of the key-value cache on a CPU, in GiB; a GPU takes
    `gpu_memory_utilization` of its memory for all. `enforce_eager`: no compilation; None: eager on a CPU, where
    it starts sooner. Other options go to vLLM's EngineArgs. One such engine can be open at a time in a process.
    Raises EngineError where one is open already, and what vLLM raises where it cannot start.
    """

    kind = "vllm"
    constraints = prefixes = True
    _open: VllmEngine | None = None

    def __init__(
        self,
        model: str,
        *,
        adapter: str | Path | None = None,
        kv_cache_gib: float = 2.0,
        gpu_memory_utilization: float = 0.9,
        enforce_eager: bool | None = None,
        **options: Any,
    ) -> None:
        if VllmEngine._open is not None:
            raise EngineError(f"the vllm engine of {VllmEngine._open.name} is still open; close it first")
        self.name, self._adapter = model, Path(adapter) if adapter is not None else None
        self._lora, self._engine = None, None
        self._cpu = {
            "kv_cache_memory_bytes": int(kv_cache_gib * GIB),
            "enforce_eager": enforce_eager is not False,
        }
        self._gpu = {"gpu_memory_utilization": gpu_memory_utilization, "enforce_eager": bool(enforce_eager)}
        self._options = {
            "model": models.resolve(model),
            "max_num_seqs": 64,
            "enable_prefix_caching": True,
            "use_tqdm_on_load": False,
            "disable_log_stats": True,
            "log_level": "ERROR",
            **options,
        }
        super().__init__()

    def reset_prefix_cache(self) -> None:
        self.call(lambda: self._engine.reset_prefix_cache())

    def load(self, model: str, adapter: str | Path | None = None) -> None:
        self.name, self._lora = model, None  # an adapter is merged, on GPUs too
        with _quiet_start(), tempfile.TemporaryDirectory() as folder:
            if adapter is not None:
                models.save_merged(model, Path(adapter), self._options.get("dtype", "auto"), folder)
            self.call(lambda: self._reload(models.resolve(model) if adapter is None else folder))

    def _reload(self, weights: str) -> None:
        self._engine.collective_rpc("reload_weights", kwargs={"weights_path": weights})
        self._engine.collective_rpc(_repack_head)
        self._engine.reset_prefix_cache()

    def _load(self) -> None:
        VllmEngine._open = self
        self.tokenizer = models.load_tokenizer(self.name)
        with _quiet_start(), tempfile.TemporaryDirectory() as folder:
            from vllm import EngineArgs
            from vllm.platforms import current_platform
            from vllm.v1.engine.llm_engine import LLMEngine

            choose = self._for_cpu if current_platform.is_cpu() else self._for_gpu
            self._engine = LLMEngine.from_engine_args(EngineArgs(**{**self._options, **choose(folder)}))
        self.max_model_len = self._engine.model_config.max_model_len

    def _for_cpu(self, folder: str) -> dict[str, Any]:
        """Settings of a CPU; a merged model goes to `folder`, which is needed only while it is loaded."""
        if not self._options.get("enable_chunked_prefill"):
            # After a part of a prompt vLLM turns a seeded generator back, which a CPU's cannot.
            self._cpu["enable_chunked_prefill"] = False
        if self._adapter is not None:
            models.save_merged(self.name, self._adapter, self._options.get("dtype", "auto"), folder)
            self._cpu["model"] = folder
        return self._cpu

    def _for_gpu(self, folder: str) -> dict[str, Any]:
        """Settings of a GPU. vLLM wants an adapter's rank beforehand, and knows a few ranks only."""
        if self._adapter is not None:
            from vllm.lora.request import LoRARequest

            models.check_adapter(self.name, self._adapter)  # vLLM passes over keys that it does not know
            rank = models.adapter_settings(self._adapter)["r"]
            known = (1, 8, 16, 32, 64, 128, 256, 320, 512)
            self._gpu |= {"enable_lora": True, "max_lora_rank": min(r for r in known if r >= rank)}
            self._lora = LoRARequest(self._adapter.name, 1, str(self._adapter.absolute()))
        return self._gpu

    def _unload(self) -> None:
        if self._engine is not None:
            self._engine.engine_core.shutdown()
        self._engine = None
        gc.collect()
        VllmEngine._open = None

    def _add(self, request: Request) -> None:
        self._engine.add_request(
            request.id,
            {"prompt_token_ids": request.prompt},
            self.parameters(request.sampling),
            lora_request=self._lora,
        )

    def parameters(self, sampling: Sampling) -> Any:
        """`sampling` as vLLM takes it."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        held = sampling.constraint
        watched = _watched(sampling)  # vLLM's own stop knows nothing of reasoning
        return SamplingParams(
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            seed=sampling.seed,
            stop=[] if watched else list(sampling.stop),
            include_stop_str_in_output=True,
            logprobs=sampling.logprobs or None,
            ignore_eos=sampling.exact,
            output_kind=RequestOutputKind.CUMULATIVE if watched else RequestOutputKind.FINAL_ONLY,
            structured_outputs=None if held is None else StructuredOutputsParams(regex=held),
        )

    def _step(self) -> None:
        dropped = [request.id for request in self._active.values() if request.future.cancelled()]
        if dropped:
            self._engine.abort_request(dropped)
            for id in dropped:
                del self._active[id]
        for output in self._engine.step():
            request = self._active.get(output.request_id)
            if request is None:
                continue
            sampling = request.sampling
            cut = cut_at_stop(output.outputs[0].text, sampling) if _watched(sampling) else None
            if cut is not None and not output.finished:
                self._engine.abort_request([request.id])
            if cut is not None or output.finished:
                self.finish(request, _completion(output, cut))


def _repack_head(worker: Any) -> None:
    """vLLM 0.31 leaves a head that shares the weights of the embeddings as it was packed for a CPU before."""
    head = getattr(worker.get_model(), "lm_head", None)
    if hasattr(head, "cpu_linear"):
        head.quant_method.process_weights_after_loading(head)


def _watched(sampling: Sampling) -> bool:
    """Whether the stop strings are looked for here, step by step."""
    return bool(sampling.stop) and sampling.chain is not None


def _completion(output: Any, cut: str | None) -> Completion:
    """A finished vLLM request, or one that was cut. Raises EngineError for one that ended in any other way."""
    result = output.outputs[0]
    reason = result.finish_reason if cut is None else "stop"
    if reason not in ("stop", "length"):
        raise EngineError(f"vllm ended {output.request_id} with {reason!r}")
    return Completion(
        text=result.text if cut is None else cut,
        token_ids=tuple(result.token_ids),
        prompt_tokens=len(output.prompt_token_ids),
        output_tokens=len(result.token_ids),
        finish_reason=reason,
        logprobs=None if result.logprobs is None else [_by_string(top) for top in result.logprobs],
        cached_tokens=output.num_cached_tokens or 0,
    )


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

    found, set_num_threads = dict(os.environ), torch.set_num_threads
    hidden = sys.modules.pop(_HIDDEN, None)
    os.environ.update(_START)
    logging.getLogger("vllm").setLevel(logging.ERROR)
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
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
            for key in set(os.environ) - set(found):
                del os.environ[key]
            os.environ.update(found)
            torch.set_num_threads = set_num_threads  # the CPU worker puts a warning in its place
            if hidden is not None:
                sys.modules[_HIDDEN] = hidden
