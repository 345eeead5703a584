"""A teacher behind an OpenAI-compatible address: DeepSeek-R1 in the paper, its distilled kin, or any other.

Its questions are in one validated file per scenario, under data/teacher.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from .. import answers
from ..answers import clean_identifiers
from ..settings import Strict, checked, read_yaml
from ..sources import SCENARIOS, Collection, Passage, Query
from ..stages import ROOT
from .asking import Asker, Unusable
from .base import Ranked
from .client import Reply
from .offline import AnnotatedTeacher

FOLDER = ROOT / "data" / "teacher"
SELECT = (
    "End with the identifiers inside <answer> </answer>, as in <answer> [2], [5] </answer>, or with "
    "<answer> None </answer> where there is none."
)
RANK = (
    "Think first, and say which passages you rely on. End with all {n} identifiers, best first, inside "
    "<answer> </answer>, as in <answer> [2] > [1] </answer>."
)
_TAGS = re.compile("|".join(map(re.escape, answers.TAGS)))
_NONE = re.compile(r"\W*none\W*", re.IGNORECASE)


class Scenario(Strict):
    """How one scenario is put to a teacher (table of section 4.1): what relevance means there, and three tasks.

    `query`, `gold`: what query and gold answer are called; `positives_from`: "labels" takes the data set's own
    where it has them; `hard_negatives`: None where they are not asked for.
    """

    scenario: Literal[SCENARIOS]
    query: str = Field(min_length=1)
    gold: str = Field(min_length=1)
    positives_from: Literal["teacher", "labels"]
    relevance: str = Field(min_length=40)
    positives: str = Field(min_length=40)
    hard_negatives: str | None = Field(min_length=40)
    ranking: str = Field(min_length=40)

    def messages(
        self, task: str, query: str, passages: Sequence[Passage], gold: str | None = None
    ) -> list[dict[str, str]]:
        """One user message, since R1 and its kin are to be used without a system prompt: a selection, which sees the
        `gold` answer (4.1.2), or, without one, the ranking (4.1.4)."""
        shown = [f"{self.query.capitalize()}:\n{clean_identifiers(query)}"]
        if gold is not None:
            shown.append(f"{self.gold.capitalize()}:\n{clean_identifiers(gold)}")
        lines = [" ".join(clean_identifiers(passage.full).split()) for passage in passages]
        numbered = "\n".join(f"[{number}] {line}" for number, line in enumerate(lines, start=1))
        ending = RANK.format(n=len(passages)) if gold is None else SELECT
        parts = [*shown, f"Passages:\n{numbered}", self.relevance, f"{task}\n{ending}"]
        return [{"role": "user", "content": "\n\n".join(parts)}]


@cache
def scenarios(folder: Path = FOLDER) -> dict[str, Scenario]:
    """The scenarios of data/teacher, by name; a ValueError names file and key where one does not fit."""
    found = [checked(read_yaml(path), Scenario, path.name) for path in sorted(folder.glob("*.yaml"))]
    return {scenario.scenario: scenario for scenario in found}


class RemoteTeacher(AnnotatedTeacher):
    """`asker`: whom to ask, shared by the teachers of all collections; the collection's scenario says what relevance
    means, and where its judgements are taken as positives."""

    def __init__(self, asker: Asker, collection: Collection):
        super().__init__(collection)
        self.asker, self.scenario = asker, scenarios()[collection.scenario]

    async def select_positives(self, query: Query, passages: Sequence[Passage]) -> list[str]:
        """The passages that the model names, seeing the gold answer; the data set's labels in web search."""
        if self.scenario.positives_from == "labels" and self.collection.qrels.get(query.id):
            return await super().select_positives(query, passages)
        return await self._select(self.scenario.positives, query, passages)

    async def select_hard_negatives(self, query: Query, passages: Sequence[Passage]) -> list[str]:
        """The passages that the model names, in scenarios that have such a task; no request in the others."""
        if self.scenario.hard_negatives is None:
            return []
        return await self._select(self.scenario.hard_negatives, query, passages)

    async def rank(self, query: Query, passages: Sequence[Passage]) -> Ranked:
        """The model's ranking and reasoning; it is shown the query's text and the passages, nothing else."""
        messages = self.scenario.messages(self.scenario.ranking, query.text, passages)
        found = await self.asker.ask(messages, lambda reply: read_ranking(reply, len(passages)))
        return Ranked([passages[i - 1].id for i in found["ranking"]], found["reasoning"])

    async def _select(self, task: str, query: Query, passages: Sequence[Passage]) -> list[str]:
        messages = self.scenario.messages(task, query.text, passages, "\n".join(query.solution))
        found = await self.asker.ask(messages, lambda reply: read_selection(reply.text, len(passages)))
        return [passages[i - 1].id for i in found]


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
    named = {number.lstrip("0") for number in re.findall("[0-9]+", inside)}
    if not named:
        raise Unusable("no answer")
    if not named <= known.keys():
        raise Unusable("foreign identifiers")
    return sorted(known[number] for number in named)


def read_ranking(reply: Reply, num_passages: int) -> dict[str, Any]:
    """Ranking and reasoning of a reply; raises Unusable for one that is no permutation, or has no reasoning."""
    reasoning = _TAGS.sub("", reply.reasoning).strip()
    if not reasoning:
        raise Unusable("no reasoning")
    answer = answers.parse(f"{answers.THINK} {reasoning} {answers.THINK_END} {reply.text}", num_passages)
    if answer.status != "ok":
        raise Unusable("no permutation" if answer.status == "repaired" else "no answer")
    return {"ranking": answer.ranking, "reasoning": reasoning}
