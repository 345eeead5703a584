"""A teacher behind an OpenAI-compatible address: DeepSeek-R1 in the paper, its distilled kin, or any other."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import answers
from ..sources import Passage, Query
from .asking import Asker, Unusable
from .base import Ranked
from .client import Reply
from .scenarios import scenario

_TAGS = re.compile("|".join(map(re.escape, answers.TAGS)))
_NUMBER = re.compile(r"[0-9]+")
_NONE = re.compile(r"\W*none\W*", re.IGNORECASE)


class RemoteTeacher:
    """`asker`: whom to ask, shared by the teachers of all collections; `name`: the scenario, which decides what
    relevance means; `labels`: judgements of the data set, taken as positives where the scenario says so."""

    def __init__(self, asker: Asker, name: str, labels: Mapping[str, Mapping[str, int]] | None = None):
        self.name, self.asker, self.labels = asker.settings.model, asker, labels or {}
        self.scenario = scenario(name)

    async def select_positives(self, query: Query, passages: Sequence[Passage]) -> list[int]:
        """The passages that the model names, seeing the gold answer; the data set's labels in web search."""
        judged = self.labels.get(query.id)
        if self.scenario.positives_from == "labels" and judged:
            return [i for i, passage in enumerate(passages, start=1) if judged.get(passage.id, 0) > 0]
        return await self._select(self.scenario.positives, query, passages)

    async def select_hard_negatives(self, query: Query, passages: Sequence[Passage]) -> list[int]:
        """The passages that the model names, in scenarios that have such a task; no request in the others."""
        if self.scenario.hard_negatives is None:
            return []
        return await self._select(self.scenario.hard_negatives, query, passages)

    async def rank(self, query: Query, passages: Sequence[Passage]) -> Ranked:
        """The model's ranking and reasoning; it is shown the query's text and the passages, nothing else."""
        messages = self.scenario.listwise(query.text, passages)
        found = await self.asker.ask(messages, ranking_reader(len(passages)))
        return Ranked(found["ranking"], found["reasoning"])

    async def _select(self, task: str, query: Query, passages: Sequence[Passage]) -> list[int]:
        messages = self.scenario.selection(task, query, passages)
        return await self.asker.ask(messages, lambda reply: read_selection(reply.text, len(passages)))


def read_selection(text: str, num_passages: int) -> list[int]:
    """Identifiers in the last `<answer>`, in ascending order; none for "None".

    Raises Unusable where there is no closed answer, where it holds neither, and for identifiers that are not in
    1..num_passages. One that is named twice counts once.
    """
    before, closed, _ = text.rpartition(answers.ANSWER_END)
    _, opened, inside = before.rpartition(answers.ANSWER)
    if not (closed and opened):
        raise Unusable("no answer")
    if _NONE.fullmatch(inside):
        return []
    known = {str(i): i for i in range(1, num_passages + 1)}  # looked up: a number may be huge
    named = {number.lstrip("0") for number in _NUMBER.findall(inside)}
    if not named:
        raise Unusable("no answer")
    if not named <= known.keys():
        raise Unusable("foreign identifiers")
    return sorted(known[number] for number in named)


def ranking_reader(num_passages: int) -> Callable[[Reply], dict[str, Any]]:
    """Reads ranking and reasoning out of a reply; Unusable for one that is no permutation, or has no reasoning."""

    def read(reply: Reply) -> dict[str, Any]:
        reasoning = _TAGS.sub("", reply.reasoning).strip()
        if not reasoning:
            raise Unusable("no reasoning")
        answer = answers.parse(f"{answers.THINK} {reasoning} {answers.THINK_END} {reply.text}", num_passages)
        if answer.status == "repaired":
            raise Unusable("no permutation")
        if answer.status != "ok":
            raise Unusable("no answer")
        return {"ranking": answer.ranking, "reasoning": reasoning}

    return read
