"""What a teacher does (section 4.1). It is shown a query and passages, and answers with passage ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..sources import Passage, Query


@dataclass(frozen=True)
class Ranked:
    """A listwise label: the ids of all passages, best first, and the reasoning that led to it."""

    docids: list[str]
    reasoning: str


class TeacherFailure(Exception):
    """A question to which the teacher gave no usable answer, by kind. Its query is dropped and counted."""


class TeacherError(RuntimeError):
    """A teacher that cannot be asked at all: no key, no such model, a refused login, no server."""


class Teacher(Protocol):
    """Asynchronous, since a real teacher answers over a network. Each method may raise TeacherFailure."""

    async def select_positives(self, query: Query, passages: Sequence[Passage]) -> list[str]:
        """The relevant passages, possibly none of them. Sees the gold answer (4.1.2)."""

    async def select_hard_negatives(self, query: Query, passages: Sequence[Passage]) -> list[str]:
        """Passages that share words with the query and do not help. Sees the gold answer (4.1.2)."""

    async def rank(self, query: Query, passages: Sequence[Passage]) -> Ranked:
        """A full ranking with its reasoning, without the gold answer (4.1.4)."""
