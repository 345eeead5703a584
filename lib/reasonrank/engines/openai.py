"""Any server with OpenAI's completions interface: one vLLM, vLLM data parallel, Ray Serve, others."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from email.utils import mktime_tz, parsedate_tz
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

from reasonrank.models import load_tokenizer
from reasonrank.prompts import control_tokens, spaced
from reasonrank.runs import well_formed

from .base import Completion, Engine, EngineError, Sampling, cut_at_stop, own_loop

KEY = "OPENAI_API_KEY"
CONTEXT = 32768  # tokens, of a server that does not say
BACKOFF = 0.5  # seconds before the second try, at most; twice as long before each further one, up to a minute
PASSING = {408, 409, 425, 429}  # and all from 500 on: the next request may not meet them


class Passing(EngineError):
    """A failure that the next try may not meet; `wait`: seconds that the server asks for."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


def endpoint(base_url: str, key: str | None = None, variable: str = KEY) -> tuple[str, str]:
    """Address and key of a server, without blanks and line ends around them.

    `key`: None for that of the environment under the name `variable`, or "none" where that is not set, for servers
    that ask for none. Raises ValueError for an address that is none of a server, and for a key that no request can
    carry.
    """
    url, key = base_url.strip(), (os.environ.get(variable, "none") if key is None else key).strip()
    if not re.fullmatch(r"https?://(\[[\da-fA-F:]+\]|[^/\s:\[]+)(:\d+)?(/\S*)?", url):
        raise ValueError(f"base URL {url!r}: expected http://HOST:PORT/v1 or https://HOST/v1")
    if not re.fullmatch(r"[!-~]+", key):
        state = "holds blanks or characters that no header can carry" if key else "is empty"
        raise ValueError(
            f"{variable} {state}; set it to the key for {url}, or unset it for a server without keys"
        )
    return url, key


class OpenAIEngine(Engine):
    """Requests to `base_url` (with its "/v1"), at most `max_num_seqs` at a time.

    `tokenizer`: name or folder of the model's, by default `model`. `max_model_len`: None for what the server says
    (32,768 tokens where it says nothing). `api_key`: see `endpoint`; it is kept out of messages. `token_ids`: the
    server takes token ids and vLLM's further settings; False for other servers: they are sent text, in which
    control tokens that stand in queries and passages are broken up and counted (see `stats`).
    `timeout`: seconds for one request. One that failed in passing (no connection, no answer in time, 429, 500 and
    the like, an answer that is none) is sent again, at most `max_retries` times. `adapter` must be None: name it in
    `model`, as the server serves it. `dtype` is the server's affair. A server's `stop` knows nothing of reasoning, so
    with `Sampling.chain` it is left out and the output is cut here: that costs the tokens a model writes after its
    answer, none for a model that ends there. Raises ValueError for settings that cannot work, EngineError where the
    server is not reached or does not have the model.
    """

    kind = "openai"
    prefixes = True

    def __init__(
        self,
        model: str,
        *,
        base_url: str,
        api_key: str | None = None,
        tokenizer: str | None = None,
        adapter: str | Path | None = None,
        dtype: str = "auto",
        max_model_len: int | None = None,
        max_num_seqs: int = 64,
        seed: int = 0,
        token_ids: bool = True,
        timeout: float = 3600.0,
        max_retries: int = 6,
    ) -> None:
        import tenacity
        from openai import AsyncOpenAI

        if adapter is not None:
            raise ValueError("openai engine: a server loads adapters itself; give its name for it as `model`")
        super().__init__()
        self.name, self._seed, self._token_ids, self.constraints = model, seed, token_ids, token_ids
        self.base_url, self._key = endpoint(base_url, api_key)
        connection = {"base_url": self.base_url, "api_key": self._key}
        self._client = AsyncOpenAI(**connection, timeout=timeout, max_retries=0)
        jitter = tenacity.wait_random_exponential(BACKOFF, max=60)
        self._again = tenacity.retry(
            retry=tenacity.retry_if_exception_type(Passing),
            stop=tenacity.stop_after_attempt(1 + max_retries),
            wait=lambda state: state.outcome.exception().wait + jitter(state),
            reraise=True,
        )
        self._limit, self._stack = asyncio.Semaphore(max_num_seqs), ExitStack()
        self._loop = self._stack.enter_context(own_loop())
        self._stack.callback(lambda: self._send(self._client.close).result())
        try:
            served = self._send(self._context).result()
            self.max_model_len = max_model_len or served or CONTEXT
            self.tokenizer = load_tokenizer(tokenizer or model)
            self._controls = control_tokens(self.tokenizer)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._stack.close()

    async def _generate(self, prompt: list[int], sampling: Sampling) -> Completion:
        if self._loop.is_closed():
            raise EngineError(f"openai engine of {self.name}: closed")
        return await asyncio.wrap_future(self._send(self._ask, prompt, sampling))

    def _send(self, request: Callable[..., Any], *args: Any) -> Future[Any]:
        """The result of `request`, tried again where it failed in passing.

        Through the engine's own loop: open connections belong to one loop, callers come from many.
        """
        return asyncio.run_coroutine_threadsafe(self._again(request)(*args), self._loop)

    async def _context(self) -> int | None:
        """Tokens of the context that the server states for the model (vLLM does); None where it states none."""
        listed = await self._call("get", "/models", or_none=True)
        if listed is None:  # a server that does not list its models
            return None
        try:
            served = {entry["id"]: entry.get("max_model_len") for entry in listed["data"]}
        except (KeyError, TypeError, AttributeError):
            raise self._odd("a list of its models", listed) from None
        if self.name not in served:
            names = ", ".join(served) or "no model"
            raise EngineError(f"{self.base_url} does not serve {self.name!r}; it serves {names}")
        return served[self.name]

    async def _ask(self, prompt: list[int], sampling: Sampling) -> Completion:
        async with self._limit:
            body = await self._call("post", "/completions", body=self._body(prompt, sampling))
        return self._completion(body, prompt, sampling)

    async def _call(self, method: str, path: str, or_none: bool = False, **arguments: Any) -> Any:
        """The JSON that the server answers with; with `or_none`, None where it does not have the path."""
        from openai import APIConnectionError, APIError

        try:
            return await getattr(self._client, method)(path, cast_to=object, **arguments)
        except APIConnectionError as error:
            reason = self._shown(error.__cause__ or error)
            raise Passing(f"no server answers at {self.base_url}: {reason}") from error
        except ValueError as error:  # JSON that breaks off
            raise Passing(f"{self.base_url} sent what is no JSON: {error}") from error
        except APIError as error:
            status = getattr(error, "status_code", 0)
            if status == 404 and or_none:
                return None
            said = error.message if " - " in error.message else f"{error.message} - {error.body}"
            astray = status == 404 and not self.base_url.rstrip("/").endswith("/v1")
            hint = "; such addresses mostly end in /v1" if astray else ""
            refused = f"{self.base_url} refused a request: {self._shown(said)}{hint}"
            if status not in PASSING and status < 500:
                raise EngineError(refused) from error
            raise Passing(refused, retry_after(error.response.headers.get("retry-after"))) from error

    def _body(self, prompt: list[int], sampling: Sampling) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.name,
            "prompt": prompt if self._token_ids else self._as_text(prompt),
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": self._seed if sampling.seed is None else sampling.seed,
        }
        if sampling.logprobs:
            body["logprobs"] = sampling.logprobs
        if self._token_ids:
            # unsent, the last two are the model's own default
            body |= {"top_k": sampling.top_k, "min_p": 0.0, "repetition_penalty": 1.0}
            body |= {"return_token_ids": True, "ignore_eos": sampling.exact}
            if sampling.stop and sampling.chain is None:
                body |= {"stop": list(sampling.stop), "include_stop_str_in_output": True}
            if sampling.constraint is not None:
                body["structured_outputs"] = {"regex": sampling.constraint}
        elif sampling.exact:
            raise ValueError(
                "openai engine: a length can be held by vLLM's server alone; expected token_ids=True"
            )
        return body

    def _as_text(self, prompt: list[int]) -> str:
        """A prompt as text. What reads like a control token, but is none in `prompt`, gets a blank inside."""
        text, meant = self.tokenizer.decode(prompt), sum(id in self._controls for id in prompt)
        if sum(map(text.count, self._controls.values())) == meant:
            return text
        parts, broken = [], 0
        for is_control, run in groupby(prompt, key=lambda id: id in self._controls):
            part = self.tokenizer.decode(list(run))
            parts.append(part if is_control else spaced(part, self._controls.values()))
            broken += len(parts[-1]) - len(part)
        self._count(control_tokens=broken)
        return "".join(parts)

    def _completion(self, body: Any, prompt: list[int], sampling: Sampling) -> Completion:
        try:
            choice, usage = body["choices"][0], body.get("usage") or {}
            text, reason = well_formed(joined(choice["text"])), choice["finish_reason"]
            found = (choice.get("logprobs") or {}) if sampling.logprobs else {}
            tops, tokens = [dict(top) for top in found.get("top_logprobs") or ()], found.get("tokens") or ()
            ids, cut = choice.get("token_ids"), cut_at_stop(text, sampling)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            raise self._odd("a completion", body) from None
        if cut not in (None, text):  # the server has gone on: keep the positions up to the cut
            ids, text, ends = None, cut, list(accumulate(map(len, tokens)))
            tops = tops and (tops[: sum(end < len(cut) for end in ends) + 1] if ends else [{}])
        ids = ids or self.tokenizer.encode(text, add_special_tokens=False)
        return Completion(
            text=text,
            token_ids=tuple(ids),
            prompt_tokens=usage.get("prompt_tokens") or len(prompt),
            output_tokens=usage.get("completion_tokens") or len(ids),
            finish_reason=reason if cut is None else "stop",
            logprobs=tops or None,
            cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
        )

    def _odd(self, expected: str, body: Any) -> Passing:
        sent = self._shown(json.dumps(body, ensure_ascii=False, default=str))
        return Passing(f"{self.base_url}: expected {expected}, and the server sent {sent}")

    def _shown(self, said: Any) -> str:
        """What a server said, for a message: one line, no key in it."""
        text = " ".join(str(said).split())
        return (text if self._key == "none" else text.replace(self._key, "(key)"))[:300]


def retry_after(value: str | None) -> float:
    """Seconds of a Retry-After header, which is a number or a date; 0 where there is none."""
    try:
        return max(0.0, float(value or 0))
    except ValueError:
        at = parsedate_tz(value)
        return max(0.0, mktime_tz(at) - time.time()) if at else 0.0


def joined(text: Any) -> str:
    """A text that a server sent whole or as a list of parts. TypeError or AttributeError for anything else."""
    if isinstance(text, list):
        return "".join(part if isinstance(part, str) else part.get("text") or "" for part in text)
    return text + ""
