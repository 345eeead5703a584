"""Training examples: their form, their files, and what to read of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from ..runs import read_jsonl, write_jsonl
from ..sources import Collection
from ..stages import write_json

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
