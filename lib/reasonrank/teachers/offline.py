"""Teachers made from what is known of a collection: they need no network and no large model.

`WorkedTeacher` is that of the generated collections: it works a query out, and is wrong at a declared rate.

`OfflineTeacher` stands in for DeepSeek-R1. R1 knows the gold answer when it selects positives; here the annotation does
that. R1 works the solution out when it ranks; here the ranker reads the human solution: sentence embeddings of its
steps tell which passages state what a step needs, and the annotation counts as much as `annotated` says. So the two
labels come from partly different evidence and can disagree, which gives the self-consistency filter something to do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

import numpy as np

from ..answers import NONE
from ..retrieval import embed
from ..settings import Synthesis
from ..sources import Collection, Passage, Query
from ..sources.worked import Worked, Working
from .base import Ranked

CALLED = 0.3  # what a call in the solution adds to the similarity of the documentation it goes to
MOST_CITED = 3  # passages that are moved up


class AnnotatedTeacher:
    """Selects what people annotated in `collection`; how it ranks is left to its kinds."""

    def __init__(self, collection: Collection):
        self.collection = collection

    async def select_positives(self, query: Query, passages: Sequence[Passage]) -> list[str]:
        """The passages that people judged relevant."""
        judged = self.collection.qrels.get(query.id, {})
        return [passage.id for passage in passages if judged.get(passage.id, 0) > 0]

    async def select_hard_negatives(self, query: Query, passages: Sequence[Passage]) -> list[str]:
        """The passages that people marked as sharing words only; most collections mark none."""
        marked = self.collection.hard_negatives.get(query.id, ())
        return [passage.id for passage in passages if passage.id in marked]


class OfflineTeacher(AnnotatedTeacher):
    """`collection`: whose annotations are used. `wanted`: `threshold`, the standard scores above the list's mean at
    which the evidence for a passage is strong enough to move it up; `annotated`, what it adds to a passage's
    similarity that people judged relevant (0 for a ranker that does not see the annotation, more for one that works
    solutions out as well as a large model does); and `chain`, the form of the reasoning."""

    def __init__(self, collection: Collection, wanted: Synthesis):
        super().__init__(collection)
        self.wanted = wanted
        self._vectors: dict[str, np.ndarray] = {}

    def warm_up(self, queries: Sequence[Query]) -> None:
        """Embed all passages, and the solutions of `queries`, at once rather than one by one."""
        self._embed(list(self.collection.texts().values()))
        self._embed([text for query in queries for text in [*_steps(query), _with_solution(query)]])

    async def rank(self, query: Query, passages: Sequence[Passage]) -> Ranked:
        """Passages whose text states what the solution uses come first, best first; the rest keep their order.

        Where the annotation counts, and nobody judged one of these relevant, all keep their order.
        """
        vectors, steps = self._embed([passage.full for passage in passages]), _steps(query)
        by_step = vectors @ self._embed(steps).T
        score = (vectors @ self._embed([_with_solution(query)]).T)[:, 0] + 0.5 * by_step.max(axis=1)
        score += CALLED * _called(passages, query.solution)
        if self.wanted.annotated:
            relevant = await self.select_positives(query, passages)
            if not relevant:
                return Ranked([passage.id for passage in passages], f"{_thought(query)}{NONE}")
            score += self.wanted.annotated * np.array([passage.id in relevant for passage in passages])
        enough = score.mean() + self.wanted.threshold * (score.std() or 1.0)
        strong = [int(i) for i in np.argsort(-score, kind="stable") if score[i] >= enough]
        cited = strong[:MOST_CITED] or [int(score.argmax())]
        order = cited + [i for i in range(len(passages)) if i not in cited]
        evidence = [(i + 1, passages[i], steps[int(by_step[i].argmax())]) for i in cited]
        chain = _chain(self.wanted.chain, evidence)
        return Ranked([passages[i].id for i in order], f"{_thought(query)}{chain}")

    def _embed(self, texts: Sequence[str]) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if new:
            self._vectors.update(zip(new, embed(new), strict=True))
        return np.stack([self._vectors[text] for text in texts])


def _called(passages: Sequence[Passage], solution: Sequence[str]) -> np.ndarray:
    """1.0 for the documentation of a function ("str.split: ...") that the solution calls, else 0.0."""
    calls = set(re.findall(r"(\w+)\s*\(", " ".join(solution)))
    names = (passage.text.partition(": ")[0] for passage in passages)
    return np.array([float(" " not in name and name.rpartition(".")[2] in calls) for name in names])


def _steps(query: Query) -> list[str]:
    """The steps of the solution that say something; the query itself where there are none."""
    return [step for step in query.solution if len(step.split()) > 2] or [query.text]


def _with_solution(query: Query) -> str:
    return f"{query.text} {' '.join(query.solution)}"


def _thought(query: Query) -> str:
    """What the query needs: the first sentence of the chain that came with it, where there is one."""
    first = re.match(r"[^.!?]+[.!?]", query.chain.replace("[", "(").replace("]", ")"))
    return f"{first[0]} " if first else ""


def _chain(form: str, evidence: Sequence[tuple[int, Passage, str]]) -> str:
    """The reasoning. `evidence`: of each passage that is moved up its identifier, itself, and the step of the solution
    that needs it.

    "needs": what helps, then the passage that states it: the thought comes before the identifier. "evidence": passage,
    what it states, and the step that needs it.
    """
    cited = [
        (number, _gist(passage.title or passage.text, 8, 45), step) for number, passage, step in evidence
    ]
    if form == "needs":
        useful = "; ".join(f'"{gist}" [{number}]' for number, gist, _ in cited)
        return f"Useful here: {useful}."
    parts = [
        f"[{number}] {gist}: the working needs it for {_gist(step, 6, 30)}." for number, gist, step in cited
    ]
    return " ".join([*parts, "The others add nothing needed."])


def _gist(text: str, words: int, characters: int) -> str:
    """The first words of a text, without identifiers in brackets and without a final stop."""
    gist = ""
    for word in text.replace("[", "(").replace("]", ")").split()[:words]:
        if len(gist) + len(word) > characters:
            break
        gist += f" {word}"
    return (gist.strip() or text[:characters]).rstrip(".,;:(")


class WorkedTeacher(AnnotatedTeacher):
    """Ranks by a worked chain. On a share `slips` of lists its working has a slip, which it carries through to
    the ranking; which lists these are depends on `seed`, query and list alone. It selects positives (the passage that
    states the answer) and hard negatives (what a slip gives, what shares words alone) without slips, as the paper's
    teacher does."""

    def __init__(self, collection: Worked, slips: float = 0.2, seed: int = 0):
        super().__init__(collection)
        self.slips, self.seed = slips, seed

    async def rank(self, query: Query, passages: Sequence[Passage]) -> Ranked:
        """The passage that its working leads to comes first, the rest keep their order; without it, all do."""
        docids = [passage.id for passage in passages]
        slip = Random(" ".join([str(self.seed), query.id, *docids])).random() < self.slips
        working = (self.collection.slips if slip else self.collection.workings)[query.id]
        first = [docid for docid in docids if docid == working.docid]
        return Ranked(list(dict.fromkeys([*first, *docids])), worked_chain(working, passages))


def worked_chain(working: Working, passages: Sequence[Passage]) -> str:
    """Numbered single steps, then the passage that they lead to: to the letter from the answer on, with its identifier
    behind it, as it stands in the prompt: "(1) 7 x 13 = 91. (2) 91 + 5 = 96. So 96 seats. [6]"."""
    steps = " ".join(f"({number}) {step}." for number, step in enumerate(working.steps, start=1))
    for number, passage in enumerate(passages, start=1):
        if passage.id == working.docid:
            start = min(passage.full.index(part) for part in working.answer)
            return f"{steps} So {passage.full[start:]} [{number}]"
    return f"{steps} {NONE}"
