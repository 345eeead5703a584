"""Questions to a remote teacher: each is answered once, journalled before it counts, and never paid for twice."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..journal import Journal
from ..profiles import RemoteTeacherSettings
from .base import TeacherFailure
from .budget import NOTHING, Budget, BudgetSpent, Usage
from .client import ChatClient, Messages, Reply, Trouble

NOT_ASKED = "not asked"
LONGEST_WAIT = 60.0  # seconds of backoff; what a server asks for is waited for in full


class Unusable(Exception):
    """An answer that does not hold what was asked for; the message says what is wrong."""


class Asker:
    """Asks a model, at most `settings.max_in_flight` questions at a time, and keeps every answer in a journal.

    `path`: the journal, made where missing; `replay`: answers come from it alone, and no network is used. A
    question is a list of chat messages, known by the hash of model, sampling and messages. `failures` counts
    requests of this process that gave nothing usable, by kind; `budget.spent` counts those of earlier runs too.
    A context manager, to be used in one event loop.

    A request that was under way when its process was killed is not in the journal: the server may have billed
    it, and it is asked again.
    """

    def __init__(self, settings: RemoteTeacherSettings, path: Path | str, *, replay: bool = False):
        self.settings, self.failures, self.requests = settings, Counter(), 0
        self._client = None if replay else ChatClient(settings)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self.journal = Journal(path, header(settings), replay_only=replay)
        self._tried: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for key, record in self.journal.done.items():
            self._tried[key.partition("/")[0]].append(record)
        self.budget = Budget(
            tokens=settings.token_budget,
            money=settings.money_budget,
            input_price=settings.input_price,
            output_price=settings.output_price,
            spent=sum((Usage(*record["usage"]) for record in self.journal.done.values()), NOTHING),
        )
        self._slots = asyncio.Semaphore(settings.max_in_flight)
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._backoff = random.Random()

    async def __aenter__(self) -> Asker:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.journal.close()
        if self._client:
            await self._client.close()

    async def ask(self, messages: Messages, read: Callable[[Reply], Any]) -> Any:
        """What `read` takes from the answer, as JSON holds it.

        `read` raises Unusable for an answer that does not do, and the question is asked again, at most
        `settings.answers` times over all runs. Raises TeacherFailure where no answer does.
        """
        name = question_hash(self.settings, messages)
        async with self._locks[name]:
            record = self._answered(name)
            if record is None and self._client and self._unusable(name) < self.settings.answers:
                async with self._slots:
                    record = await self._until_answered(name, messages, read)
        if record is None:
            raise TeacherFailure(self._tried[name][-1]["kind"] if self._tried[name] else NOT_ASKED)
        return record["result"]

    def cost(self) -> str:
        """What has been spent, for a progress line."""
        spent = self.budget.spent
        money = f", {self.budget.cost(spent):.2f} spent" if self.settings.output_price else ""
        failed = f", {self.failures.total()} failed" if self.failures else ""
        return f"{self.requests} requests{failed}, {spent.tokens / 1e3:.0f}k tokens{money}"

    def summary(self) -> dict[str, Any]:
        """Requests and failures by kind of this process, and tokens and money of all runs with this journal."""
        spent = self.budget.spent
        return {
            "model": self.settings.model,
            "requests": self.requests,
            "failures": dict(sorted(self.failures.items())),
            "prompt_tokens": spent.prompt_tokens,
            "output_tokens": spent.output_tokens,
            "money": round(self.budget.cost(spent), 6),
            "stopped_by_budget": self.budget.stopped,
        }

    def _answered(self, name: str) -> dict[str, Any] | None:
        return next((record for record in self._tried[name] if record["kind"] == "ok"), None)

    def _unusable(self, name: str) -> int:
        """Answers that were paid for and did not do."""
        return sum(record["usage"] != [0, 0] for record in self._tried[name])

    async def _until_answered(
        self, name: str, messages: Messages, read: Callable[[Reply], Any]
    ) -> dict[str, Any] | None:
        for attempt in range(self.settings.attempts):
            try:
                return await self._once(name, messages, read)
            except BudgetSpent:
                return None
            except Trouble as trouble:
                self.failures[trouble.kind] += 1
                enough = self._unusable(name) >= self.settings.answers
                if enough or not trouble.again or attempt + 1 == self.settings.attempts:
                    if trouble.usage == NOTHING:
                        self._keep(name, trouble.kind, trouble.usage, answer=trouble.raw)
                    return None
                await asyncio.sleep(self._pause(attempt, trouble.wait))
        return None

    async def _once(self, name: str, messages: Messages, read: Callable[[Reply], Any]) -> dict[str, Any]:
        """One request within the budget; whatever was paid for is in the journal when this ends."""
        worst, used = self._client.worst_case(messages), NOTHING
        await self.budget.reserve(worst)
        self.requests += 1
        try:
            reply = await self._client.send(messages)
            used = reply.usage
            try:
                result = read(reply)
            except Unusable as error:
                raise Trouble(str(error), reply.usage, raw=reply.text) from None
            return self._keep(name, "ok", used, reply.text, reply.reasoning, result)
        except Trouble as trouble:
            used = trouble.usage
            if used != NOTHING:
                self._keep(name, trouble.kind, used, answer=trouble.raw)
            raise
        finally:
            await self.budget.settle(worst, used)

    def _keep(
        self, name: str, kind: str, usage: Usage, answer: str = "", reasoning: str = "", result: Any = None
    ) -> dict[str, Any]:
        record = {
            "kind": kind,
            "usage": [usage.prompt_tokens, usage.output_tokens],
            "answer": answer,
            "reasoning": reasoning,
            "result": result,
        }
        self.journal.append(f"{name}/{len(self._tried[name]) + 1}", record)
        self._tried[name].append(record)
        return record

    def _pause(self, attempt: int, asked: float) -> float:
        """Exponential backoff with full jitter, and never less than the server asks for."""
        longest = min(LONGEST_WAIT, self.settings.backoff * 2**attempt)
        return asked + self._backoff.uniform(0, longest)


def header(settings: RemoteTeacherSettings) -> dict[str, Any]:
    """What the answers of a journal depend on, beside their questions."""
    return {
        "answers of": settings.model,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
    }


def question_hash(settings: RemoteTeacherSettings, messages: Messages) -> str:
    """SHA-256 of model, sampling and messages."""
    content: Mapping[str, Any] = {**header(settings), "messages": [dict(message) for message in messages]}
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
