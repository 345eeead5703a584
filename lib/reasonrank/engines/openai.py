"""Any server with OpenAI's completions interface: one vLLM, vLLM data parallel, Ray Serve, others."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

from reasonrank.models import load_tokenizer

from .base import Completion, Engine, EngineError, Sampling, cut_at_stop


class OpenAIEngine(Engine):
    """Requests to `base_url` (with its "/v1"), at most `max_num_seqs` at a time.

    `model`: the name that the server knows. `tokenizer`: name or folder of its tokenizer, by default `model`.
    `max_model_len`: the server's context, 32,768 tokens by default. `api_key`: sent, and kept out of
    messages. `token_ids`: the server takes token ids and vLLM's further settings (top_k, the stop string
    kept, constraints); False for other servers, which are sent text, and whose output is cut here.
    `timeout`: seconds for one request. `adapter` must be None: name the adapter in `model`, as the server
    serves it. `dtype` is the server's affair.
    """

    kind = "openai"

    def __init__(
        self,
        model: str,
        *,
        base_url: str,
        api_key: str = "none",
        tokenizer: str | None = None,
        adapter: str | Path | None = None,
        dtype: str = "auto",
        max_model_len: int | None = None,
        max_num_seqs: int = 64,
        seed: int = 0,
        token_ids: bool = True,
        timeout: float = 3600.0,
        max_retries: int = 3,
    ) -> None:
        from openai import AsyncOpenAI

        if adapter is not None:
            raise ValueError("openai engine: a server loads adapters itself; give its name for it as `model`")
        super().__init__()
        self.name, self.base_url = model, base_url
        self.tokenizer = load_tokenizer(tokenizer or model)
        self.max_model_len = max_model_len or 32768
        self._seed, self._token_ids = seed, token_ids
        self.constraints = token_ids
        self._client = AsyncOpenAI(
            base_url=base_url, api_key=api_key, timeout=timeout, max_retries=max_retries
        )
        self._limit = asyncio.Semaphore(max_num_seqs)
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"engine {model}", daemon=True)
        self._thread.start()

    async def _generate(self, prompt: list[int], sampling: Sampling) -> Completion:
        """Through the engine's own loop: open connections belong to one loop, callers come from many."""
        if self._closed:
            raise EngineError(f"openai engine of {self.name}: closed")
        sent = asyncio.run_coroutine_threadsafe(self._request(prompt, sampling), self._loop)
        return await asyncio.wrap_future(sent)

    async def _request(self, prompt: list[int], sampling: Sampling) -> Completion:
        from openai import APIConnectionError, APIError

        async with self._limit:
            try:
                answer = await self._client.completions.create(**self._arguments(prompt, sampling))
            except APIConnectionError as error:
                raise EngineError(f"openai engine: no server answers at {self.base_url}: {error}") from error
            except APIError as error:
                raise EngineError(f"openai engine: {self.base_url} refused a request: {error}") from error
        return self._completion(answer, prompt, sampling)

    def _arguments(self, prompt: list[int], sampling: Sampling) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "model": self.name,
            "prompt": prompt if self._token_ids else self.tokenizer.decode(prompt),
            "max_tokens": min(sampling.max_tokens, self.max_model_len - len(prompt)),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": self._seed if sampling.seed is None else sampling.seed,
        }
        if sampling.logprobs:
            arguments["logprobs"] = sampling.logprobs
        if self._token_ids:
            arguments["stop"] = list(sampling.stop) or None
            arguments["extra_body"] = {
                "top_k": sampling.top_k,
                "include_stop_str_in_output": True,
                "return_token_ids": True,
                "repetition_penalty": 1.0,  # unsent, a server takes the model's own default
                "min_p": 0.0,
            }
            if sampling.constraint is not None:
                arguments["extra_body"]["structured_outputs"] = {"regex": sampling.constraint}
        return arguments

    def _completion(self, answer: Any, prompt: list[int], sampling: Sampling) -> Completion:
        choice = answer.choices[0]
        if choice.finish_reason not in ("stop", "length"):
            raise EngineError(f"openai engine: a request ended with {choice.finish_reason!r}")
        cut = None if self._token_ids else cut_at_stop(choice.text, sampling.stop)
        text = choice.text if cut is None else cut
        ids = getattr(choice, "token_ids", None) or self.tokenizer.encode(text, add_special_tokens=False)
        usage = answer.usage
        return Completion(
            text=text,
            token_ids=tuple(ids),
            prompt_tokens=usage.prompt_tokens if usage else len(prompt),
            output_tokens=usage.completion_tokens if usage else len(ids),
            finish_reason=choice.finish_reason if cut is None else "stop",
            logprobs=choice.logprobs.top_logprobs if choice.logprobs else None,
        )

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _shut(self) -> None:
        """Requests under way fail, then connections close."""
        waiting = asyncio.all_tasks() - {asyncio.current_task()}
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await self._client.close()
