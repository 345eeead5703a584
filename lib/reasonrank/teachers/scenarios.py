"""The questions put to a remote teacher: one validated file per scenario, under data/teacher, and their rendering."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..answers import clean_identifiers
from ..sources import SCENARIOS, Passage, Query
from ..stages import ROOT

FOLDER = ROOT / "data" / "teacher"
SELECT = (
    "End with the identifiers inside <answer> </answer>, as in <answer> [2], [5] </answer>, or with "
    "<answer> None </answer> where there is none."
)
RANK = (
    "Think first, and say which passages you rely on. End with all {n} identifiers, best first, inside "
    "<answer> </answer>, as in <answer> [2] > [1] </answer>."
)


class Scenario(BaseModel):
    """How one scenario is put to a teacher (table of section 4.1): what relevance means there, and three tasks.

    `query`, `gold`: what query and gold answer are called; `positives_from`: "labels" takes the data set's own
    where it has them; `hard_negatives`: None where they are not asked for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scenario: Literal[SCENARIOS]
    query: str = Field(min_length=1)
    gold: str = Field(min_length=1)
    positives_from: Literal["teacher", "labels"]
    relevance: str = Field(min_length=40)
    positives: str = Field(min_length=40)
    hard_negatives: str | None = Field(min_length=40)
    ranking: str = Field(min_length=40)

    def selection(self, task: str, query: Query, passages: Sequence[Passage]) -> list[dict[str, str]]:
        """Messages of a task that sees the gold answer (4.1.2); `task` is `positives` or `hard_negatives`."""
        gold = "\n".join(query.solution)
        shown = f"{self._asked(query.text)}\n\n{self.gold.capitalize()}:\n{clean_identifiers(gold)}"
        return _messages(shown, passages, f"{self.relevance}\n\n{task}\n{SELECT}")

    def listwise(self, query: str, passages: Sequence[Passage]) -> list[dict[str, str]]:
        """Messages of the ranking (4.1.4). Takes the query's text alone, so the gold answer cannot get in."""
        closing = f"{self.relevance}\n\n{self.ranking}\n{RANK.format(n=len(passages))}"
        return _messages(self._asked(query), passages, closing)

    def _asked(self, query: str) -> str:
        return f"{self.query.capitalize()}:\n{clean_identifiers(query)}"


def _messages(shown: str, passages: Sequence[Passage], closing: str) -> list[dict[str, str]]:
    """One user message: R1 and its kin are to be used without a system prompt."""
    lines = [
        f"[{number}] {' '.join(clean_identifiers(passage.full).split())}"
        for number, passage in enumerate(passages, start=1)
    ]
    body = "\n".join(lines)
    return [{"role": "user", "content": f"{shown}\n\nPassages:\n{body}\n\n{closing}"}]


def load(path: Path | str) -> Scenario:
    """Read a scenario's file; a ValueError names file and key where it does not fit."""
    path = Path(path)
    try:
        return Scenario(**yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, TypeError) as error:
        raise ValueError(f"{path.name}: expected a YAML mapping: {error}") from None
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ValueError(f"{path.name}: {'; '.join(faults)}") from None


@cache
def scenario(name: str) -> Scenario:
    """The scenario `name`, one of SCENARIOS, from data/teacher; KeyError names those that are there."""
    found = {(read := load(path)).scenario: read for path in sorted(FOLDER.glob("*.yaml"))}
    if name not in found:
        raise KeyError(f"no prompts for scenario {name!r}; data/teacher has {', '.join(found)}")
    return found[name]
