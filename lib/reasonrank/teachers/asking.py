"""Questions to a remote teacher: each is answered once, stored before it counts, and never paid for twice."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..settings import RemoteTeacherSettings
from ..store import Store
from .base import TeacherError, TeacherFailure
from .client import ChatClient, Messages, Reply, Trouble, Usage

NOT_ASKED = "not asked"
CONTROL = re.compile(r"<([|｜][^<>\s]{1,40}[|｜]>)")  # <|im_end|> and its kin, as chat templates write them
LONGEST_WAIT = 60.0  # seconds of backoff; what a server asks for is waited for in full


class Unusable(Exception):
    """An answer that does not hold what was asked for; the message says what is wrong."""


class Asker:
    """Asks a model, at most `settings.max_in_flight` questions at a time, and keeps every answer in a store.

    `path`: the store, made where missing; `replay`: answers come from it alone, and no network is used. A question
    is a list of chat messages, known by the hash of model, sampling and messages. `failures` counts requests of
    this process that gave nothing usable, by kind; `reasons` has what came for the first question that got no usable
    answer, by kind. `controls`: control tokens in questions that were broken up, since the server tokenises;
    `spent`: tokens of this run and of earlier ones; `stopped`: the budget allows no further request.
    A context manager, to be used in one event loop.

    A request that was under way when its process was killed is not in the store: the server may have billed it,
    and it is asked again.
    """

    def __init__(self, settings: RemoteTeacherSettings, path: Path | str, *, replay: bool = False):
        self.settings, self.requests, self.controls, self.stopped = settings, 0, 0, False
        self.failures, self.reasons, self.spent = Counter(), {}, Counter()
        self._client = None if replay else ChatClient(settings)
        self.store = Store(path, header(settings), replay)
        self._tried: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for key, record in self.store.done.items():
            self._tried[key.partition("/")[0]].append(record)
            prompt, output = record["usage"]  # null in some stores of earlier versions
            self.spent += Counter(prompt_tokens=prompt or 0, output_tokens=output or 0)
        self._slots = asyncio.Semaphore(settings.max_in_flight)
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._settled, self._set_aside = asyncio.Condition(), Counter()

    async def __aenter__(self) -> Asker:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.store.close()
        if self._client:
            await self._client.close()

    async def ask(self, messages: Messages, read: Callable[[Reply], Any]) -> Any:
        """What `read` takes from the answer, as JSON holds it.

        `read` raises Unusable for an answer that does not do, and the question is asked again, at most
        `settings.answers` times over all runs. Raises TeacherFailure where no answer does, TeacherError where no
        request could succeed.
        """
        broken = [CONTROL.subn(r"< \1", message["content"]) for message in messages]
        messages = [{**message, "content": text} for message, (text, _) in zip(messages, broken, strict=True)]
        self.controls += sum(count for _, count in broken)
        content = json.dumps(
            {**header(self.settings), "messages": messages}, sort_keys=True, ensure_ascii=False
        )
        name = hashlib.sha256(content.encode()).hexdigest()
        async with self._locks[name]:
            if self._client and self._is_open(name):
                async with self._slots:
                    await self._until_answered(name, messages, read)
        last = (self._tried[name] or [{"kind": NOT_ASKED, "answer": ""}])[-1]
        if last["kind"] == "ok":
            return last["result"]
        self.reasons.setdefault(last["kind"], " ".join(last["answer"].split())[:300])
        raise TeacherFailure(last["kind"])

    def money(self, usage: Usage) -> float:
        """What `usage` costs."""
        prompt, output = self.settings.input_price, self.settings.output_price
        return (usage["prompt_tokens"] * prompt + usage["output_tokens"] * output) / 1e6

    def progress(self) -> str:
        """What has been spent, for a progress line."""
        money = f", {self.money(self.spent):.2f} spent" if self.settings.output_price else ""
        failed = f", {self.failures.total()} failed" if self.failures else ""
        return f"{self.requests} requests{failed}, {self.spent.total() / 1e3:.0f}k tokens{money}"

    def summary(self) -> dict[str, Any]:
        """Requests and failures of this process, and tokens and money of all runs with this store."""
        return {
            "model": self.settings.model,
            "requests": self.requests,
            "failures": dict(sorted(self.failures.items())),
            "reasons": self.reasons,
            "control_tokens_broken_up": self.controls,
            "prompt_tokens": self.spent["prompt_tokens"],
            "output_tokens": self.spent["output_tokens"],
            "money": round(self.money(self.spent), 6),
            "stopped_by_budget": self.stopped,
        }

    def _is_open(self, name: str) -> bool:
        """Whether a question has no answer, and fewer unusable ones were paid for than it may have."""
        tried = self._tried[name]
        unanswered = not tried or tried[-1]["kind"] != "ok"
        return unanswered and sum(any(record["usage"]) for record in tried) < self.settings.answers

    async def _until_answered(self, name: str, messages: Messages, read: Callable[[Reply], Any]) -> None:
        """Ask until there is an answer, or until no more may be asked."""
        from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

        jitter = wait_random_exponential(self.settings.backoff, max=LONGEST_WAIT)
        attempts = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, Trouble) and error.again),
            stop=stop_after_attempt(self.settings.attempts),
            wait=lambda state: state.outcome.exception().wait + jitter(state),
            reraise=True,
        )
        try:
            await attempts(self._once, name, messages, read)
        except Trouble as trouble:
            if trouble.kind == "no connection":
                raise TeacherError(trouble.reason) from None
            if not trouble.usage.total():
                self._keep(name, trouble.kind, trouble.usage, trouble.reason)

    async def _once(self, name: str, messages: Messages, read: Callable[[Reply], Any]) -> None:
        """One request, if the budget has room; whatever was paid for is in the store when this ends."""
        worst, used = self._client.worst_case(messages), Counter()
        if not await self._has_room(worst):
            return
        self.requests += 1
        try:
            reply = await self._client.send(messages)
            used = reply.usage
            try:
                result = read(reply)
            except Unusable as error:
                raise Trouble(str(error), reply.text, used) from None
            self._keep(name, "ok", used, reply.text, reply.reasoning, result)
        except Trouble as trouble:
            used = trouble.usage
            self.failures[trouble.kind] += 1
            if used.total():
                self._keep(name, trouble.kind, used, trouble.reason)
            trouble.again = trouble.again and self._is_open(name)
            raise
        finally:
            async with self._settled:
                self._set_aside, self.spent = self._set_aside - worst, self.spent + used
                self._settled.notify_all()

    async def _has_room(self, worst: Usage) -> bool:
        """Hold the worst case of a request against the budget. Where it does not fit, wait while requests under way may
        still turn out cheaper than theirs; where none is, nothing more is granted."""
        tokens, money = (
            float("inf") if limit is None else limit
            for limit in (self.settings.token_budget, self.settings.money_budget)
        )

        def fits() -> bool:
            usage = self.spent + self._set_aside + worst
            return usage.total() <= tokens and self.money(usage) <= money

        async with self._settled:
            await self._settled.wait_for(lambda: self.stopped or not self._set_aside or fits())
            if self.stopped or not fits():
                self.stopped = True
                self._settled.notify_all()
            else:
                self._set_aside += worst
            return not self.stopped

    def _keep(
        self, name: str, kind: str, usage: Usage, answer: str, reasoning: str = "", result: Any = None
    ) -> None:
        counts = [usage["prompt_tokens"], usage["output_tokens"]]
        record = {"kind": kind, "usage": counts, "answer": answer, "reasoning": reasoning, "result": result}
        self.store.append(f"{name}/{len(self._tried[name]) + 1}", record)
        self._tried[name].append(record)


def header(settings: RemoteTeacherSettings) -> dict[str, Any]:
    """What the answers of a store depend on, beside their questions."""
    return {"answers of": settings.model, "temperature": settings.temperature, "top_p": settings.top_p}
