"""The offline teacher: made from a collection's human annotations, it needs no network and no large model.

It stands in for DeepSeek-R1. R1 knows the gold answer when it selects positives; here the annotation does that.
R1 works the solution out when it ranks; here the ranker reads the human solution: sentence embeddings of its steps
tell which passages state what a step needs, and the annotation counts as much as `annotated` says. So the two labels
come from partly different evidence and can disagree, which gives the self-consistency filter something to do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from ..answers import NONE
from ..retrieval import embed
from ..settings import Synthesis
from ..sources import Collection, Passage, Query
from .base import AnnotatedTeacher, Ranked

CALLED = 0.3  # what a call in the solution adds to the similarity of the documentation it goes to
MOST_CITED = 3  # passages that are moved up


class OfflineTeacher(AnnotatedTeacher):
    """`collection`: whose annotations are used. `wanted`: `threshold`, the standard scores above the list's mean at
    which the evidence for a passage is strong enough to move it up; `annotated`, what it adds to a passage's
    similarity that people judged relevant (0 for a ranker that does not see the annotation, more for one that works
    solutions out as well as a large model does); and `chain`, the form of the reasoning."""

    name = "offline"

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

        With the chain "verdicts" those with a yes keep their order too, since nothing in it tells them apart. Where
        the annotation counts, and nobody judged one of these relevant, all keep their order.
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
        if self.wanted.chain == "verdicts":
            cited.sort()
        order = cited + [i for i in range(len(passages)) if i not in cited]
        evidence = [(i + 1, passages[i], steps[int(by_step[i].argmax())]) for i in cited]
        chain = _chain(self.wanted.chain, evidence, len(passages))
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


def _chain(form: str, evidence: Sequence[tuple[int, Passage, str]], num_passages: int) -> str:
    """The reasoning. `evidence`: of each passage that is moved up its identifier, itself, and the step of the solution
    that needs it.

    "verdicts": one word on each passage, so that every passage of a list bears a part of the loss. "needs": what helps,
    then the passage that states it: the thought comes before the identifier. "evidence": passage, what it states, and
    the step that needs it.
    """
    if form == "verdicts":
        helps = {number for number, _, _ in evidence}
        return " ".join(f"[{i}] {'yes' if i in helps else 'no'}" for i in range(1, num_passages + 1))
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
