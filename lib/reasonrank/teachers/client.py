"""One request to an OpenAI-compatible chat endpoint: an answer with its reasoning, or the trouble by its kind."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..answers import ANSWER, THINK, THINK_END
from ..engines.openai import endpoint, joined, retry_after
from ..runs import well_formed
from ..settings import RemoteTeacherSettings
from .base import TeacherError

Messages = Sequence[Mapping[str, str]]
Usage = Counter  # prompt_tokens and output_tokens, as the server counts them (reasoning is output)
REFUSED = {400, 413, 422}  # this request; other questions may pass
HOPELESS = {401, 402, 403, 404}  # every request: key, account or model are wrong
CODES = {"rate_limit_exceeded": 429, "insufficient_quota": 402}
CODES |= {"invalid_api_key": 401, "model_not_found": 404}
NOT_SENT = {"ConnectError", "ConnectTimeout", "PoolTimeout"}  # costs nothing, and another try may pass


@dataclass(frozen=True)
class Reply:
    """An answer: its text without the reasoning, the reasoning, and the tokens it took."""

    text: str
    reasoning: str
    usage: Usage


@dataclass(eq=False)
class Trouble(Exception):
    """A request without a usable answer. `reason`: what came, in words; `usage`: the tokens it is counted with
    (none where the server did no work); `again`: worth another try; `wait`: seconds that the server asks for."""

    kind: str
    reason: str
    usage: Usage = field(default_factory=Usage)
    again: bool = True
    wait: float = 0.0


class ChatClient:
    """Requests to `settings.base_url`, with the key that is in the environment under `settings.key_variable`.

    Raises TeacherError for an address or a key that cannot be used. The key is in no message of this class.
    """

    def __init__(self, settings: RemoteTeacherSettings):
        from openai import AsyncOpenAI, Timeout

        self.settings, variable = settings, settings.key_variable
        key = os.environ.get(variable, "").strip() if variable else "none"
        if not key:
            raise TeacherError(
                f"the environment has no {variable}; set it to the key for {settings.base_url}, "
                "or leave synthesis.remote.key_variable empty for a server without keys"
            )
        try:
            self.url, self._key = endpoint(settings.base_url, key, variable)
        except ValueError as error:
            raise TeacherError(f"synthesis.remote: {error}") from None
        timeout = Timeout(settings.timeout, connect=min(settings.timeout / 2, 30))
        # its own retries are off, since the budget would not see them
        self._client = AsyncOpenAI(base_url=self.url, api_key=self._key, timeout=timeout, max_retries=0)

    async def close(self) -> None:
        """Close open connections."""
        await self._client.close()

    def worst_case(self, messages: Messages) -> Usage:
        """Most tokens that a request can take: a token is a byte at least, and 256 cover the chat template."""
        size = sum(len(message["content"].encode()) for message in messages)
        return Counter(prompt_tokens=size + 256, output_tokens=self.settings.max_tokens)

    async def send(self, messages: Messages) -> Reply:
        """One request, one answer. Raises Trouble, or TeacherError where no request could succeed."""
        import openai

        worst, names = self.worst_case(messages), ("model", "max_tokens", "temperature", "top_p")
        chosen = {name: getattr(self.settings, name) for name in names}
        try:
            async with asyncio.timeout(self.settings.timeout):
                create = self._client.chat.completions.with_raw_response.create
                raw = await create(messages=list(messages), **chosen)
                body = raw.http_response.text
        except TimeoutError:
            raise Trouble("time-out", f"{self.url}: no answer in time", worst) from None
        except openai.APIStatusError as error:
            said = error.message.removeprefix(f"Error code: {error.status_code} - ")
            wait = retry_after(error.response.headers.get("retry-after"))
            raise self._refusal(error.status_code, said, wait) from None
        except openai.APIConnectionError as error:
            cause = type(error.__cause__).__name__
            reason = f"{self.url}: {cause}: {error.__cause__}"
            if cause in NOT_SENT:
                raise Trouble("no connection", reason) from None
            raise Trouble("time-out" if "Timeout" in cause else "cut", reason, worst) from None
        return self._reply(body if self._key == "none" else body.replace(self._key, "(key)"), worst)

    def _refusal(self, status: int, text: str, wait: float = 0.0) -> Exception:
        """What an error means, by its status."""
        reason = f"{self.url} answered {status}: {text.replace(self._key, '(key)'):.300}"
        if status in HOPELESS:
            hint = "; addresses of this kind end in /v1" if status == 404 and "/v1" not in self.url else ""
            return TeacherError(reason + hint)
        if status in REFUSED:
            return Trouble("refused", reason, again=False)
        return Trouble("rate limit" if status == 429 else "server error", reason, wait=wait)

    def _reply(self, body: str, worst: Usage) -> Reply:
        """Read a response. Its counts hold; the worst case does where it has none."""
        sent = f"{self.url} sent {body.strip():.200}"
        try:
            data = well_formed(json.loads(body))
        except ValueError:
            raise Trouble("cut", sent, worst) from None
        data = data if isinstance(data, dict) else {}
        if fault := data.get("error"):  # an error that came with status 200
            fault = fault if isinstance(fault, dict) else {"message": fault}
            code = str(fault.get("code") or fault.get("type"))
            status = int(code) if code.isdecimal() else CODES.get(code, 500)
            raise self._refusal(status, str(fault.get("message") or fault))
        counts, usage = data.get("usage"), Counter()
        for ours, theirs in (("prompt_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens")):
            count = counts.get(theirs) if isinstance(counts, dict) else None
            usage[ours] = count if type(count) is int and count >= 0 else worst[ours]
        try:
            choice = data["choices"][0]
            message, ending = choice["message"], choice.get("finish_reason")
            content = joined(message.get("content") or "")
            reasoning = joined(message.get("reasoning_content") or message.get("reasoning") or "")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise Trouble("unreadable", sent, usage) from None
        if ending == "length":
            raise Trouble("cut", content, usage)
        if ending == "content_filter":
            raise Trouble("refused", sent, usage, again=False)
        text, reasoning = split_reasoning(content, reasoning)
        if not text:
            raise Trouble("empty", content, usage)
        return Reply(text, reasoning, usage)


def split_reasoning(content: str, reasoning: str = "") -> tuple[str, str]:
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
