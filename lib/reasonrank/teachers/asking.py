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


class BudgetSpent(Exception):
    """The next request could pass the budget."""


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
        self.settings, self.failures, self.reasons, self.requests = settings, Counter(), {}, 0
        self.controls = 0
        self._client = None if replay else ChatClient(settings)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self.store, self.spent, self.stopped = Store(path, header(settings), replay), Counter(), False
        self._tried: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for key, record in self.store.done.items():
            self._tried[key.partition("/")[0]].append(record)
            prompt, output = record["usage"]  # null in some stores of earlier versions
            self.spent += Counter(prompt_tokens=prompt or 0, output_tokens=output or 0)
        self._slots = asyncio.Semaphore(settings.max_in_flight)
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._settled, self._set_aside, self._under_way = asyncio.Condition(), Counter(), 0

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
        name = question_hash(self.settings, messages)
        async with self._locks[name]:
            tried = self._tried[name]
            if self._client and not _answers(tried) and _unusable(tried) < self.settings.answers:
                async with self._slots:
                    await self._until_answered(name, messages, read)
        if answers := _answers(tried):
            return answers[0]["result"]
        kind, came = (tried[-1]["kind"], tried[-1]["answer"]) if tried else (NOT_ASKED, "")
        self.reasons.setdefault(kind, " ".join(came.split())[:300])
        raise TeacherFailure(kind)

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
        except BudgetSpent:
            pass
        except Trouble as trouble:
            if trouble.kind == "no connection":
                raise TeacherError(trouble.reason) from None
            if not trouble.usage.total():
                self._keep(name, trouble.kind, trouble.usage, trouble.reason)

    async def _once(self, name: str, messages: Messages, read: Callable[[Reply], Any]) -> None:
        """One request within the budget; whatever was paid for is in the store when this ends."""
        worst, used = self._client.worst_case(messages), Counter()
        await self._set_worst_aside(worst)
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
            trouble.again = trouble.again and _unusable(self._tried[name]) < self.settings.answers
            raise
        finally:
            async with self._settled:
                self._set_aside, self._under_way = self._set_aside - worst, self._under_way - 1
                self.spent += used
                self._settled.notify_all()

    async def _set_worst_aside(self, worst: Usage) -> None:
        """Hold the worst case against the budget. Where it does not fit, wait while requests under way may still
        turn out cheaper than theirs; raises BudgetSpent where none is, and grants nothing more after that."""

        def fits() -> bool:
            usage, settings = self.spent + self._set_aside + worst, self.settings
            within_tokens = settings.token_budget is None or usage.total() <= settings.token_budget
            return within_tokens and (
                settings.money_budget is None or self.money(usage) <= settings.money_budget
            )

        async with self._settled:
            await self._settled.wait_for(lambda: self.stopped or not self._under_way or fits())
            if self.stopped or not fits():
                self.stopped = True
                self._settled.notify_all()
                raise BudgetSpent
            self._set_aside, self._under_way = self._set_aside + worst, self._under_way + 1

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


def question_hash(settings: RemoteTeacherSettings, messages: Messages) -> str:
    """SHA-256 of model, sampling and messages."""
    content = {**header(settings), "messages": [dict(message) for message in messages]}
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _answers(tried: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record for record in tried if record["kind"] == "ok"]


def _unusable(tried: list[dict[str, Any]]) -> int:
    """Answers that were paid for and did not do."""
    return sum(any(record["usage"]) for record in tried)
