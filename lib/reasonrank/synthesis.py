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

from .records import write_json
from .runs import Run, read_jsonl, write_jsonl
from .sources import Collection, Passage, Query
from .teacher import Teacher

FIELDS = ("dataset", "scenario", "qid", "initial_list", "final_list", "reasoning", "relevant_docids")


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
class Synthesised:
    """Examples of one collection and its funnel: how many queries each step left over."""

    examples: list[Example]
    funnel: dict[str, int]


async def synthesise(
    collection: Collection,
    teacher: Teacher,
    candidates: Run,
    *,
    window: int,
    max_positives: int,
    max_hard_negatives: int,
    lists_per_query: int = 1,
    seed: int = 0,
    progress: Callable[[], None] | None = None,
) -> Synthesised:
    """Steps 4.1.2 to 4.1.4 for every query of `candidates` (query id -> passage ids of a first stage).

    A query for which the teacher finds no positive is dropped and counted. Raises ValueError where `window` is
    below 2 or has no room for a negative.
    """
    if window < 2 or max_positives >= window:
        raise ValueError(f"window {window} needs room for at most {max_positives} positives and a negative")
    counts = Counter(queries=len(candidates))
    examples: list[Example] = []

    async def one(qid: str) -> list[Example]:
        query = collection.queries[qid]
        made = await _query_examples(
            collection,
            teacher,
            query,
            candidates[qid],
            window,
            max_positives,
            max_hard_negatives,
            lists_per_query,
            seed,
        )
        if progress:
            progress()
        return made

    for made in await asyncio.gather(*(one(qid) for qid in candidates)):
        counts["with positives"] += bool(made)
        counts["lists"] += len(made)
        examples += made
    return Synthesised(examples, {key: counts[key] for key in ("queries", "with positives", "lists")})


async def _query_examples(
    collection: Collection,
    teacher: Teacher,
    query: Query,
    retrieved: Sequence[str],
    window: int,
    max_positives: int,
    max_hard_negatives: int,
    lists_per_query: int,
    seed: int,
) -> list[Example]:
    pool = list(dict.fromkeys([*retrieved, *linked_passages(collection, query.id)]))
    passages = [collection.passages[docid] for docid in pool]
    positives = [pool[i - 1] for i in await teacher.select_positives(query, passages)]
    if not positives:
        return []
    hard = [pool[i - 1] for i in await teacher.select_hard_negatives(query, passages)]
    examples = []
    for number in range(lists_per_query):
        rng = Random(f"{seed}/{collection.name}/{query.id}/{number}")
        initial, chosen, kept_hard = assemble(
            retrieved, positives, hard, window, max_positives, max_hard_negatives, rng
        )
        ranked = await teacher.rank(query, [collection.passages[docid] for docid in initial])
        examples.append(
            Example(
                dataset=collection.name,
                scenario=collection.scenario,
                qid=query.id,
                initial_list=initial,
                final_list=[initial[i - 1] for i in ranked.ranking],
                reasoning=ranked.reasoning,
                relevant_docids=chosen,
                hard_negatives=kept_hard,
            )
        )
    return examples


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
    examples: Sequence[Example], queries: Mapping[str, int], tokens: Callable[[str], int]
) -> list[dict]:
    """Table 5 in our form: per collection, queries tried, examples, mean positives and length of the reasoning."""
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
                "reasoning_tokens_mean": round(fmean(tokens(e.reasoning) for e in chosen), 1),
            }
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
        examples.append(
            Example(**{name: row[name] for name in FIELDS}, hard_negatives=row.get("hard_negatives", []))
        )
    return examples


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
    "load",
    "save",
    "save_texts",
    "synthesise",
]
