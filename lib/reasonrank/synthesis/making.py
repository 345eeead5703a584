"""How training data are made: candidates, lists, and what a teacher says of them (sections 4.1.1 to 4.1.4)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from ..candidates import repeats, without_copies
from ..profiles import Synthesis as Settings
from ..runs import Run
from ..sources import Collection, Query
from ..sources.base import EXTRA
from ..teachers import Teacher, TeacherFailure
from .examples import Example

QUERY_STEPS = ("queries", "answered", "with positives", "lists")
PASSAGE_STEPS = ("candidates", "without the query's text", "without copies", "positives", "hard negatives")
STEPS = (*QUERY_STEPS, *PASSAGE_STEPS)


@dataclass(frozen=True)
class Lists:
    """How lists are made: passages of a list, most positives and hard negatives in it, lists per query, the
    similarity from which a passage is dropped as a copy of another one, the passages of the smallest list (None:
    all have `window`; else sizes are drawn evenly between the two), and the share of lists in random order, not that
    of the first stage. ValueError for a window without room, and for a share outside 0..1."""

    window: int
    max_positives: int
    max_hard_negatives: int
    lists_per_query: int = 1
    near_duplicate: float = 0.8
    seed: int = 0
    smallest: int | None = None
    shuffled: float = 0.0

    def __post_init__(self) -> None:
        least = self.window if self.smallest is None else self.smallest
        if not 2 <= least <= self.window or self.max_positives >= least:
            raise ValueError(
                f"window {least} needs room for at most {self.max_positives} positives and a negative, "
                f"and is at most {self.window}"
            )
        if not 0 <= self.shuffled <= 1:
            raise ValueError(f"shuffled {self.shuffled} is a share of lists, 0 to 1")

    def size(self, rng: Random) -> int:
        """Passages of the next list."""
        return self.window if self.smallest is None else rng.randint(self.smallest, self.window)


@dataclass(frozen=True)
class Synthesised:
    """Examples of one collection, its funnel (what each step left over: queries, then passages of all queries)
    and how many queries were dropped since the teacher failed, by the kind of failure."""

    examples: list[Example]
    funnel: dict[str, int]
    failures: dict[str, int] = field(default_factory=dict)


async def synthesise(
    collection: Collection,
    teacher: Teacher,
    candidates: Run,
    *,
    window: int,
    max_positives: int,
    max_hard_negatives: int,
    lists_per_query: int = 1,
    near_duplicate: float = 0.8,
    seed: int = 0,
    smallest_window: int | None = None,
    shuffled: float = 0.0,
    progress: Callable[[], None] | None = None,
) -> Synthesised:
    """Steps 4.1.1 to 4.1.4 for every query of `candidates` (query id -> passage ids of a first stage).

    An extra query (see `sources.Collection`) gets one list, however many the others get. A query for which the
    teacher finds no positive is dropped and counted, and so is one to which it gives no
    usable answer. Raises ValueError where `window` is below 2 or has no room for a negative.
    """
    plan = Lists(
        window,
        max_positives,
        max_hard_negatives,
        lists_per_query,
        near_duplicate,
        seed,
        smallest_window,
        shuffled,
    )
    counts: Counter[str] = Counter({"queries": len(candidates)})
    failures: Counter[str] = Counter()

    async def one(qid: str) -> list[Example]:
        try:
            return await _query_examples(collection, teacher, qid, candidates[qid], plan, counts)
        except TeacherFailure as failure:
            failures[failure.kind] += 1
            return []
        finally:
            if progress:
                progress()

    try:
        async with asyncio.TaskGroup() as group:  # one that fails stops the others, which would go on asking
            tasks = [group.create_task(one(qid)) for qid in candidates]
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    counts["answered"] = counts["queries"] - failures.total()
    examples = [example for task in tasks for example in task.result()]
    return Synthesised(examples, {step: counts[step] for step in STEPS}, dict(sorted(failures.items())))


def list_settings(wanted: Settings) -> dict[str, Any]:
    """What a profile's `synthesis` says about lists, as arguments of `synthesise`."""
    names = ("window", "max_positives", "max_hard_negatives", "lists_per_query", "near_duplicate")
    return {name: getattr(wanted, name) for name in (*names, "smallest_window", "shuffled")}


async def _query_examples(
    collection: Collection,
    teacher: Teacher,
    qid: str,
    retrieved: Sequence[str],
    plan: Lists,
    counts: Counter[str],
) -> list[Example]:
    query = collection.queries[qid]
    pool = _pool(collection, query, retrieved, plan.near_duplicate, counts)
    passages = [collection.passages[docid] for docid in pool]
    positives = [pool[i - 1] for i in await teacher.select_positives(query, passages)] if pool else []
    if not positives:
        return []
    named = await teacher.select_hard_negatives(query, passages)
    hard = [pool[i - 1] for i in named if pool[i - 1] not in positives]
    left = set(pool)
    retrieved = [docid for docid in retrieved if docid in left]
    examples = [
        await _labelled(collection, teacher, query, (retrieved, positives, hard), plan, number)
        for number in range(1 if collection.splits.get(query.id) == EXTRA else plan.lists_per_query)
    ]
    counts["with positives"] += 1
    counts["lists"] += len(examples)
    counts["positives"] += len(positives)
    counts["hard negatives"] += len(hard)
    return examples


def _pool(
    collection: Collection,
    query: Query,
    retrieved: Sequence[str],
    near_duplicate: float,
    counts: Counter[str],
) -> list[str]:
    """Candidates without those that repeat the query and without copies; of two copies a linked one stays."""
    linked = linked_passages(collection, query.id)
    pool = list(dict.fromkeys([*retrieved, *linked]))
    first = [collection.passages[docid] for docid in dict.fromkeys([*linked, *pool])]
    counts["candidates"] += len(first)
    first = [passage for passage in first if not repeats(passage, query.text)]
    counts["without the query's text"] += len(first)
    kept = {passage.id for passage in without_copies(first, near_duplicate)}
    counts["without copies"] += len(kept)
    return [docid for docid in pool if docid in kept]


async def _labelled(
    collection: Collection,
    teacher: Teacher,
    query: Query,
    found: tuple[Sequence[str], Sequence[str], Sequence[str]],
    plan: Lists,
    number: int,
) -> Example:
    """List `number` of a query, ranked. `found`: retrieved passages, positives and hard negatives."""
    rng = Random(f"{plan.seed}/{collection.name}/{query.id}/{number}")
    initial, chosen, kept_hard = assemble(
        *found, plan.size(rng), plan.max_positives, plan.max_hard_negatives, rng
    )
    if plan.shuffled and rng.random() < plan.shuffled:
        rng.shuffle(initial)
    ranked = await teacher.rank(query, [collection.passages[docid] for docid in initial])
    return Example(
        dataset=collection.name,
        scenario=collection.scenario,
        qid=query.id,
        initial_list=initial,
        final_list=[initial[i - 1] for i in ranked.ranking],
        reasoning=ranked.reasoning,
        relevant_docids=chosen,
        hard_negatives=kept_hard,
    )


def linked_passages(collection: Collection, qid: str) -> list[str]:
    """Passages that come with the query itself, as the links of an accepted answer do in the paper.

    Without them a query whose evidence the first stage misses would have no positive at all.
    """
    return [*collection.qrels.get(qid, {}), *collection.hard_negatives.get(qid, [])]


def assemble(
    retrieved: Sequence[str],
    positives: Sequence[str],
    hard_negatives: Sequence[str],
    window: int,
    max_positives: int,
    max_hard_negatives: int,
    rng: Random,
) -> tuple[list[str], list[str], list[str]]:
    """List assembly (4.1.3): positives, hard negatives and other negatives, at most `window` passages.

    Passages of the first stage stay in its order, as a reranker meets them; those from elsewhere go to random
    places, so that the place tells nothing. Returns (list, positives in it, hard negatives in it).
    """
    chosen = rng.sample(list(positives), min(len(positives), rng.randint(1, max_positives)))
    hard = rng.sample(
        list(hard_negatives), min(len(hard_negatives), max_hard_negatives, window - len(chosen))
    )
    negatives = [docid for docid in retrieved if docid not in {*positives, *hard_negatives}]
    others = set(rng.sample(negatives, min(len(negatives), window - len(chosen) - len(hard))))
    members = {*chosen, *hard, *others}
    order = [docid for docid in retrieved if docid in members]
    for docid in [*chosen, *hard]:
        if docid not in order:
            order.insert(rng.randint(0, len(order)), docid)
    return order, [d for d in order if d in chosen], [d for d in order if d in hard]


def funnel_rows(made: Mapping[str, Synthesised], kept: Mapping[str, int] | None = None) -> list[dict]:
    """The funnels as rows for `figures.funnel`: dataset, unit ("queries" or "passages"), step and count.

    `kept`: dataset -> lists that the self-consistency filter leaves, as a last step where it is known.
    """
    rows = []
    for dataset, result in made.items():
        for unit, steps in (("queries", QUERY_STEPS), ("passages", PASSAGE_STEPS)):
            rows += [
                {"dataset": dataset, "unit": unit, "step": step, "count": result.funnel[step]}
                for step in steps
            ]
        if kept is not None:
            rows.append(
                {"dataset": dataset, "unit": "queries", "step": "kept lists", "count": kept.get(dataset, 0)}
            )
    return rows
