"""How training data are made (sections 4.1.1 to 4.1.4): lists of candidates, and what a teacher says of them."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any

from . import retrieval, stages
from .examples import Example, save_dataset, save_parts, statistics
from .runs import Run
from .settings import Profile, Synthesis
from .sources import Collection, Passage
from .sources.base import EXTRA
from .sources.worked import Worked
from .teachers import Asker, OfflineTeacher, RemoteTeacher, Teacher, TeacherFailure, WorkedTeacher
from .teachers.asking import NOT_ASKED

QUERY_STEPS = ("queries", "answered", "with positives", "lists")
PASSAGE_STEPS = ("candidates", "without the query's text", "without copies", "positives", "hard negatives")
SHINGLE = 3  # words and signs
SHORT_QUERY = 8  # words; passages that answer shorter ones may well repeat them


@dataclass(frozen=True)
class Synthesised:
    """Examples of one collection, its funnel (what each step left over: queries, then passages of all queries)
    and how many queries were dropped since the teacher failed, by the kind of failure."""

    examples: list[Example]
    funnel: dict[str, int]
    failures: dict[str, int]


async def synthesise(
    collection: Collection,
    teacher: Teacher,
    candidates: Run,
    wanted: Synthesis,
    seed: int = 0,
    spent: Callable[[], str] = str,
) -> Synthesised:
    """Steps 4.1.1 to 4.1.4 for every query of `candidates` (query id -> passage ids of a first stage).

    An extra query (see `sources.Collection`) gets one list, however many the others get. A query for which the
    teacher finds no positive is dropped and counted, and so is one to which it gives no usable answer. `spent`: what a
    bar over the queries shows beside them.
    """
    from tqdm.auto import tqdm

    counts, failures = Counter(queries=len(candidates)), Counter()

    async def one(qid: str) -> list[Example]:
        try:
            return await _of_query(collection, teacher, qid, candidates[qid], wanted, seed, counts)
        except TeacherFailure as failure:
            failures[str(failure)] += 1
            return []
        finally:
            bar.set_postfix_str(spent(), refresh=False)
            bar.update()

    try:
        with tqdm(total=len(candidates), desc=collection.name, unit="query", disable=None) as bar:
            # one that fails stops the others, which would go on asking
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(qid)) for qid in candidates]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    counts["answered"] = counts["queries"] - failures.total()
    funnel = {step: counts[step] for step in (*QUERY_STEPS, *PASSAGE_STEPS)}
    examples = [example for task in tasks for example in task.result()]
    return Synthesised(examples, funnel, dict(sorted(failures.items())))


async def _of_query(
    collection: Collection,
    teacher: Teacher,
    qid: str,
    retrieved: Sequence[str],
    wanted: Synthesis,
    seed: int,
    counts: Counter[str],
) -> list[Example]:
    query = collection.queries[qid]
    # As the links of an accepted answer in the paper: without them a query whose evidence the first stage misses would
    # have no positive at all. They come first, so that of two copies a linked one stays.
    linked = [*collection.qrels.get(qid, {}), *collection.hard_negatives.get(qid, [])]
    found = [collection.passages[docid] for docid in dict.fromkeys([*linked, *retrieved])]
    fresh = [passage for passage in found if not repeats(passage, query.text)]
    kept = {passage.id: passage for passage in without_copies(fresh, wanted.near_duplicate)}
    sizes = {"candidates": len(found), "without the query's text": len(fresh), "without copies": len(kept)}
    counts.update(sizes)
    retrieved = [docid for docid in retrieved if docid in kept]
    pool = [kept[docid] for docid in dict.fromkeys([*retrieved, *linked]) if docid in kept]
    positives = await teacher.select_positives(query, pool) if len(pool) > 1 else []
    if not positives:
        return []
    named = await teacher.select_hard_negatives(query, pool)
    hard = [docid for docid in named if docid not in positives]
    examples = []
    lists = 1 if collection.splits.get(qid) == EXTRA else wanted.lists_per_query
    for number in range(1, lists + 1):
        rng = Random(f"{seed}/{collection.name}/{qid}/{number}")
        initial, chosen, chosen_hard = assemble(retrieved, positives, hard, wanted, rng)
        ranked = await teacher.rank(query, [kept[docid] for docid in initial])
        labels = (initial, ranked.docids, ranked.reasoning, chosen, chosen_hard)
        examples.append(Example(collection.name, collection.scenario, qid, *labels))
    sizes = {"positives": len(positives), "hard negatives": len(hard)}
    counts.update({"with positives": 1, "lists": lists, **sizes})
    return examples


def repeats(passage: Passage, query: str) -> bool:
    """Whether a passage contains the query word by word, as a copy of the page that asks it does; False for
    queries of less than 8 words."""
    asked, said = (re.findall(r"\w+", text.lower()) for text in (query, passage.full))
    return len(asked) >= SHORT_QUERY and f" {' '.join(asked)} " in f" {' '.join(said)} "


def without_copies(passages: Sequence[Passage], threshold: float) -> list[Passage]:
    """Passages without near-duplicates of earlier ones: a Jaccard similarity of their sets of shingles (three
    words or signs) of at least `threshold` (0..1)."""
    kept: list[Passage] = []
    for passage in passages:
        own = _shingles(passage.full)
        others = (_shingles(other.full) for other in kept)
        if all(len(own & other) / len(own | other) < threshold for other in others):
            kept.append(passage)
    return kept


@lru_cache(maxsize=100_000)
def _shingles(text: str) -> frozenset[str]:
    words = re.findall(r"\w+|[^\w\s]", text.lower())  # a formula differs by its signs
    return frozenset(" ".join(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1)))


def assemble(
    retrieved: Sequence[str],
    positives: Sequence[str],
    hard_negatives: Sequence[str],
    wanted: Synthesis,
    rng: Random,
) -> tuple[list[str], list[str], list[str]]:
    """List assembly (4.1.3): positives, hard negatives and other negatives, at most `wanted.window` passages.

    Passages of the first stage stay in its order, as a reranker meets them; those from elsewhere go to random
    places, so that the place tells nothing. `wanted` may ask for smaller windows, and for shares of lists in random
    order or without positives. Returns (list, positives in it, hard negatives in it).
    """
    bare = wanted.without_positives and rng.random() < wanted.without_positives
    window = rng.randint(wanted.smallest_window, wanted.window) if wanted.smallest_window else wanted.window
    some = [] if bare else list(positives)
    chosen = rng.sample(some, min(len(some), rng.randint(1, wanted.max_positives)))
    room = min(len(hard_negatives), wanted.max_hard_negatives, window - len(chosen))
    hard = rng.sample(list(hard_negatives), room)
    negatives = [docid for docid in retrieved if docid not in {*positives, *hard_negatives}]
    others = rng.sample(negatives, min(len(negatives), window - len(chosen) - len(hard)))
    members = {*chosen, *hard, *others}
    order = [docid for docid in retrieved if docid in members]
    for docid in [*chosen, *hard]:
        if docid not in order:
            order.insert(rng.randint(0, len(order)), docid)
    chosen, hard = ([docid for docid in order if docid in found] for found in (chosen, hard))
    if wanted.shuffled and rng.random() < wanted.shuffled:
        rng.shuffle(order)
    return order, chosen, hard


@dataclass(frozen=True)
class Made:
    """What stage 01 holds: by collection what was made, Table 5 in our form, and the teacher with its cost."""

    collections: dict[str, Synthesised]
    table5: list[dict[str, Any]]
    cost: dict[str, Any]

    @property
    def examples(self) -> list[Example]:
        """Those of all collections."""
        return [example for made in self.collections.values() for example in made.examples]

    @property
    def teacher(self) -> str:
        """ "offline", or the name of a model."""
        return self.cost["model"]

    def funnel_rows(self) -> list[dict[str, Any]]:
        """Rows with dataset, unit ("queries" or "passages"), step and count."""
        steps = [(name, *step) for name, made in self.collections.items() for step in made.funnel.items()]
        units = {step: "queries" if step in QUERY_STEPS else "passages" for _, step, _ in steps}
        return [{"dataset": name, "unit": units[step], "step": step, "count": n} for name, step, n in steps]


async def make(
    stage: stages.Stage,
    settings: Profile,
    collections: Mapping[str, Collection],
    queries: Mapping[str, Mapping[str, str]] | None = None,
    *,
    tokens: Callable[[str], int] | None = None,
    replay: bool = False,
) -> Made:
    """Make all of the stage 01_synthesis, with the teacher and the first stage that the profile names.

    `queries`: collection -> id -> text, by default the training queries that the profile asks for, extra ones after
    them if it does; `tokens`: as in `examples.statistics`;
    `replay`: a remote teacher's answers come from the run's store alone. Examples, all texts, the data set with its
    card, and the record go into `stage`, which the caller finishes. Raises TeacherError, StoreError, OSError, and
    ValueError where no example was made.
    """
    wanted = settings.synthesis
    splits = ("train", EXTRA) if wanted.extra_queries else ("train",)
    queries = queries or {
        name: {qid: c.queries[qid].text for split in splits for qid in c.ids(split, wanted.train_queries)}
        for name, c in collections.items()
    }
    store, earlier = stage.run_dir / "teacher.sqlite", stage.run_dir / "teacher.jsonl"
    path = earlier if earlier.is_file() and not store.exists() else store
    remote = Asker(wanted.remote, path, replay=replay) if wanted.teacher == "remote" else nullcontext()
    async with remote as asker:
        found = {name: await _label(c, queries[name], settings, asker) for name, c in collections.items()}
        cost = asker.summary() if asker else {"model": "offline"}
    examples = [example for made in found.values() for example in made.examples]
    if not examples:
        raise ValueError("; ".join(["no example was made", *report(found, cost)]))
    table = statistics(examples, {name: len(asked) for name, asked in queries.items()}, tokens)
    asked = {name: {query.id: query.text for query in c.queries.values()} for name, c in collections.items()}
    texts = {name: c.texts() for name, c in collections.items()}
    save_parts(stage, examples, asked, texts)
    sources = ", ".join(f"{name} ({c.source})" for name, c in collections.items())
    about = f"Queries and passages: {sources}."
    save_dataset(stage.path("dataset"), examples, asked, texts, table, about, cost["model"])
    counts = {
        key: {name: getattr(made, key) for name, made in found.items()} for key in ("funnel", "failures")
    }
    stage.record({"table5": table, **counts, "teacher": cost["model"], "cost": cost})
    return Made(found, table, cost)


async def _label(
    collection: Collection, queries: Mapping[str, str], settings: Profile, asker: Asker | None
) -> Synthesised:
    """Candidates and labels of a collection, by the teacher that fits it."""
    wanted = settings.synthesis
    kind = wanted.first_stage.get(collection.name, wanted.first_stage["default"])
    candidates = retrieval.first_stage(kind, collection, queries, wanted.candidates)
    if asker:
        teacher = RemoteTeacher(asker, collection)
    elif isinstance(collection, Worked):
        teacher = WorkedTeacher(collection, seed=settings.seed)
    else:
        teacher = OfflineTeacher(collection, wanted)
        teacher.warm_up([collection.queries[qid] for qid in queries])
    spent = asker.progress if asker else str
    return await synthesise(collection, teacher, candidates, wanted, settings.seed, spent)


def require_all(made: Made, replay: bool = False) -> None:
    """ValueError where a remote teacher was not asked about all queries, since its budget or its store had an end."""
    if missing := sum(result.failures.get(NOT_ASKED, 0) for result in made.collections.values()):
        limits = "the budget would be passed; raise synthesis.remote.money_budget or token_budget and run this again"
        why = "the store has no answer for them" if replay else limits
        raise ValueError(f"{missing} queries are not done: {why}")


def report(made: Mapping[str, Synthesised], cost: Mapping[str, Any]) -> list[str]:
    """Funnels, dropped queries with the first reason of each kind, and what the teacher cost, as lines."""
    lines = [
        f"{name}: {', '.join(f'{step} {count}' for step, count in result.funnel.items())}"
        for name, result in made.items()
    ]
    for kind, count in sum((Counter(result.failures) for result in made.values()), Counter()).items():
        reason = cost["reasons"].get(kind)
        lines.append(f"dropped, {kind}: {count} queries" + (f" ({reason})" if reason else ""))
    if "requests" in cost:
        failed = ", ".join(f"{count} {kind}" for kind, count in cost["failures"].items()) or "none"
        tokens = cost["prompt_tokens"] + cost["output_tokens"]
        lines.append(f"{cost['requests']} requests, failed: {failed}")
        lines.append(f"{tokens} tokens and {cost['money']:.4f} of money, earlier runs included")
    return lines
