"""The teacher of the generated collections: it works a query out, and is wrong at a declared rate."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from ..answers import NONE
from ..sources import Passage, Query
from ..sources.worked import Worked, Working
from .base import AnnotatedTeacher, Ranked


class WorkedTeacher(AnnotatedTeacher):
    """Ranks by a worked chain. On a share `slips` of lists its working has a slip, which it carries through to
    the ranking; which lists these are depends on `seed`, query and list alone. It selects positives (the passage that
    states the answer) and hard negatives (what a slip gives, what shares words alone) without slips, as the paper's
    teacher does."""

    name = "worked"

    def __init__(self, collection: Worked, slips: float = 0.2, seed: int = 0):
        super().__init__(collection)
        self.slips, self.seed = slips, seed

    async def rank(self, query: Query, passages: Sequence[Passage]) -> Ranked:
        """The passage that its working leads to comes first, the rest keep their order; without it, all do."""
        docids = [passage.id for passage in passages]
        slip = Random(" ".join([str(self.seed), query.id, *docids])).random() < self.slips
        working = (self.collection.slips if slip else self.collection.workings)[query.id]
        first = [docid for docid in docids if docid == working.docid]
        return Ranked(list(dict.fromkeys([*first, *docids])), chain(working, passages))


def chain(working: Working, passages: Sequence[Passage]) -> str:
    """Numbered single steps, then the passage that they lead to: to the letter from the answer on, with its identifier
    behind it, as it stands in the prompt: "(1) 7 x 13 = 91. (2) 91 + 5 = 96. So 96 seats. [6]"."""
    steps = " ".join(f"({number}) {step}." for number, step in enumerate(working.steps, start=1))
    for number, passage in enumerate(passages, start=1):
        if passage.id == working.docid:
            start = min(passage.full.index(part) for part in working.answer)
            return f"{steps} So {passage.full[start:]} [{number}]"
    return f"{steps} {NONE}"
