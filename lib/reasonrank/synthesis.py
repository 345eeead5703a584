"""Training data (section 4.1): per query a list of passages, a pointwise label, and a listwise label with reasons."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from .candidates import repeats, without_copies
from .profiles import Synthesis as Settings
from .records import write_json
from .runs import Run, read_jsonl, write_jsonl
from .sources import Collection, Passage, Query
from .sources.base import EXTRA
from .teacher import Teacher, TeacherFailure

FIELDS = ("dataset", "scenario", "qid", "initial_list", "final_list", "reasoning", "relevant_docids")
QUERY_STEPS = ("queries", "answered", "with positives", "lists")
PASSAGE_STEPS = ("candidates", "without the query's text", "without copies", "positives", "hard negatives")
STEPS = (*QUERY_STEPS, *PASSAGE_STEPS)


@dataclass(frozen=True)
class Example:
    """A training example, in the fields of the published reasonrank_data_13k.

    `initial_list`: passage ids as the model sees them; `final_list`: the listwise label, a permutation of it;
    `relevant_docids`: the pointwise label; `reasoning`: the teacher's chain.
    """

    dataset: str
    scenario: str
    qid: str
    initial_list: list[str]
    final_list: list[str]
    reasoning: str
    relevant_docids: list[str]
    hard_negatives: list[str] = field(default_factory=list)

    @property
    def gold_ranking(self) -> list[int]:
        """The listwise label as 1-based positions in `initial_list`."""
        place = {docid: i for i, docid in enumerate(self.initial_list, start=1)}
        return [place[docid] for docid in self.final_list]

    @property
    def relevant(self) -> list[int]:
        """The pointwise label as 1-based positions in `initial_list`."""
        chosen = set(self.relevant_docids)
        return [i for i, docid in enumerate(self.initial_list, start=1) if docid in chosen]


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


def statistics_table(
    examples: Sequence[Example],
    queries: Mapping[str, int],
    tokens: Callable[[str], int] | None = None,
) -> list[dict]:
    """Table 5 in our form: per collection, queries tried, examples, mean positives and length of the reasoning.

    `queries`: dataset -> queries tried. `tokens` counts those of a text; without it words are counted, and the
    column is `reasoning_words_mean`.
    """
    length, unit = (tokens, "tokens") if tokens else (lambda text: len(text.split()), "words")
    rows = []
    for dataset in dict.fromkeys(example.dataset for example in examples):
        chosen = [example for example in examples if example.dataset == dataset]
        rows.append(
            {
                "scenario": chosen[0].scenario,
                "dataset": dataset,
                "queries": queries[dataset],
                "examples": len(chosen),
                "positives_mean": round(fmean(len(e.relevant_docids) for e in chosen), 2),
                "hard_negatives_mean": round(fmean(len(e.hard_negatives) for e in chosen), 2),
                f"reasoning_{unit}_mean": round(fmean(length(e.reasoning) for e in chosen), 1),
            }
        )
    return rows


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


def save(path: Path, examples: Sequence[Example]) -> None:
    """Write examples as JSON lines."""
    write_jsonl(path, [asdict(example) for example in examples])


def load(path: Path) -> list[Example]:
    """Read examples; a ValueError names the file, the line and the field that is missing or does not fit."""
    examples = []
    for number, row in enumerate(read_jsonl(path), start=1):
        missing = [name for name in FIELDS if name not in row]
        if missing:
            raise ValueError(f"{path}, line {number}: no field {', '.join(missing)}")
        if sorted(row["initial_list"]) != sorted(row["final_list"]):
            raise ValueError(f"{path}, line {number}: final_list is no permutation of initial_list")
        examples.append(example_of(row))
    return examples


def example_of(row: Mapping[str, Any]) -> Example:
    """An example from a row that has all FIELDS; hard negatives may be missing."""
    return Example(**{name: row[name] for name in FIELDS}, hard_negatives=row.get("hard_negatives") or [])


def save_texts(folder: Path, collections: Mapping[str, Collection]) -> None:
    """Write id_query.json and id_doc.json: dataset -> id -> text, as published beside the 13k examples."""
    write_json(
        folder / "id_query.json",
        {n: {q.id: q.text for q in c.queries.values()} for n, c in collections.items()},
    )
    write_json(folder / "id_doc.json", {name: c.texts() for name, c in collections.items()})


def describe(example: Example, query: str, texts: Mapping[str, str], width: int = 110) -> str:
    """An example as a person reads it: query, passages with their labels, reasoning, ranking."""
    lines = [f"query ({example.dataset}, {example.qid}): {query}", ""]
    for i, docid in enumerate(example.initial_list, start=1):
        mark = "+" if docid in example.relevant_docids else "-" if docid in example.hard_negatives else " "
        lines.append(f" {mark} [{i}] {' '.join(texts[docid].split())[:width]}")
    ranking = " > ".join(f"[{i}]" for i in example.gold_ranking)
    return "\n".join([*lines, "", f"<think> {example.reasoning} </think>", f"<answer> {ranking} </answer>"])


def passages_of(example: Example, texts: Mapping[str, Any]) -> list[str]:
    """The texts of an example's list, in its order; KeyError names the example and the passage."""
    try:
        return [texts[docid] for docid in example.initial_list]
    except KeyError as error:
        raise KeyError(
            f"{example.dataset}, query {example.qid}: no text for passage {error.args[0]!r}"
        ) from None


__all__ = [
    "Example",
    "Passage",
    "Synthesised",
    "assemble",
    "describe",
    "funnel_rows",
    "load",
    "save",
    "save_texts",
    "synthesise",
]
