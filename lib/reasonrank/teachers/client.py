"""One request to an OpenAI-compatible chat endpoint: an answer with its reasoning, or the trouble by its kind."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from ..answers import ANSWER, THINK, THINK_END
from ..profiles import RemoteTeacherSettings
from .base import TeacherError
from .budget import NOTHING, Usage

Messages = Sequence[Mapping[str, str]]
REFUSED = {400, 413, 422}  # this request; other questions may pass
HOPELESS = {401, 402, 403, 404}  # every request: key, account or model are wrong
NEVER_SENT = {"ConnectError", "ConnectTimeout", "PoolTimeout"}


@dataclass(frozen=True)
class Reply:
    """An answer: its text without the reasoning, the reasoning, and the tokens it took."""

    text: str
    reasoning: str
    usage: Usage


class Trouble(Exception):
    """A request without a usable answer. `again`: worth another try; `wait`: seconds that the server asks for;
    `usage`: what it has to be counted with (nothing where the server did no work); `raw`: what came."""

    def __init__(
        self, kind: str, usage: Usage = NOTHING, *, again: bool = True, wait: float = 0.0, raw: str = ""
    ):
        super().__init__(kind)
        self.kind, self.usage, self.again, self.wait, self.raw = kind, usage, again, wait, raw


class ChatClient:
    """Requests to `settings.base_url`, with the key that is in the environment under `settings.key_variable`.

    Raises TeacherError where that variable is not set. The key is in no message of this class.
    """

    def __init__(self, settings: RemoteTeacherSettings):
        from openai import AsyncOpenAI

        self.settings, self._key = settings, _key(settings)
        self._client = AsyncOpenAI(
            base_url=settings.base_url, api_key=self._key, timeout=settings.timeout, max_retries=0
        )

    async def close(self) -> None:
        """Close open connections."""
        await self._client.close()

    def worst_case(self, messages: Messages) -> Usage:
        """Most tokens that a request can take: a token is a byte at least, and 256 cover the chat template."""
        size = sum(len(message["content"].encode()) for message in messages)
        return Usage(size + 256, self.settings.max_tokens)

    async def send(self, messages: Messages) -> Reply:
        """One request, one answer. Raises Trouble, or TeacherError where no request could succeed."""
        import openai

        worst = self.worst_case(messages)
        try:
            async with asyncio.timeout(self.settings.timeout):
                raw = await self._client.chat.completions.with_raw_response.create(**self._body(messages))
                body = raw.http_response.text
        except (TimeoutError, openai.APITimeoutError):
            raise Trouble("time-out", worst) from None
        except openai.APIStatusError as error:
            raise self._refusal(error) from None
        except openai.APIConnectionError as error:
            unsent = type(error.__cause__).__name__ in NEVER_SENT
            raise Trouble("no connection" if unsent else "cut", NOTHING if unsent else worst) from None
        return _reply(body, worst)

    def _body(self, messages: Messages) -> dict[str, Any]:
        chosen = self.settings
        return {
            "model": chosen.model,
            "messages": list(messages),
            "max_tokens": chosen.max_tokens,
            "temperature": chosen.temperature,
            "top_p": chosen.top_p,
        }

    def _refusal(self, error: Any) -> Exception:
        status = error.status_code
        if status in HOPELESS:
            message = str(error.message).replace(self._key, "(key)")
            return TeacherError(
                f"{self.settings.base_url} answered {status} to every request: {message:.300}"
            )
        if status in REFUSED:
            return Trouble("refused", again=False, raw=str(error.message).replace(self._key, "(key)")[:300])
        wait = _retry_after(error.response.headers.get("retry-after"))
        return Trouble("rate limit" if status == 429 else "server error", wait=wait)


def split_reasoning(content: str, reasoning: str | None = None) -> tuple[str, str]:
    """Answer and reasoning of a message: `reasoning_content` where the server has it, else what `<think>`
    holds, else the text before `<answer>`."""
    before, closed, after = content.rpartition(THINK_END)
    if closed:
        inside = before.partition(THINK)[2] or before
        return after.strip(), (reasoning or inside).strip()
    if reasoning:
        return content.strip(), reasoning.strip()
    start = content.rfind(ANSWER) if ANSWER in content or THINK not in content else len(content)
    return content[max(start, 0) :].strip(), content[: max(start, 0)].replace(THINK, "").strip()


def _reply(body: str, worst: Usage) -> Reply:
    """Read a response's JSON; its usage counts, or the worst case where it has none."""
    try:
        data = json.loads(body)
        choice, message = data["choices"][0], data["choices"][0]["message"]
    except (ValueError, KeyError, IndexError, TypeError):
        raise Trouble("cut", worst, raw=body[:300]) from None
    counts = data.get("usage") or {}
    usage = Usage(
        counts.get("prompt_tokens", worst.prompt_tokens), counts.get("completion_tokens", worst.output_tokens)
    )
    content = message.get("content") or ""
    if choice.get("finish_reason") == "length":
        raise Trouble("cut", usage, raw=content)
    if choice.get("finish_reason") == "content_filter":
        raise Trouble("refused", usage, again=False, raw=content)
    text, reasoning = split_reasoning(content, message.get("reasoning_content") or message.get("reasoning"))
    if not text:
        raise Trouble("empty", usage, raw=content)
    return Reply(text, reasoning, usage)


def _key(settings: RemoteTeacherSettings) -> str:
    if not settings.key_variable:
        return "none"
    key = os.environ.get(settings.key_variable, "")
    if not key:
        raise TeacherError(
            f"the environment has no {settings.key_variable}; set it to the key for {settings.base_url}, "
            "or leave synthesis.remote.key_variable empty for a server without keys"
        )
    return key


def _retry_after(value: str | None) -> float:
    """Seconds of a Retry-After header, which is a number or a date; 0 where there is none."""
    try:
        return max(0.0, float(value or 0))
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())
