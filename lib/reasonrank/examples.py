"""Training examples: their form, their files, what to read of them, and the data set that others can load."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from .runs import write_jsonl
from .settings import Profile
from .sources import published13k
from .sources.published13k import Example, read
from .stages import ROOT, Stage, read_json, sha256, stage_file, write_json, write_text

load = read
CARD = ROOT / "data" / "cards" / "dataset.md"
Texts = Mapping[str, Mapping[str, str]]
"""Data set -> id -> text."""


def source(run: Path, profile: Profile, stage: str) -> Path:
    """The file of examples that the next stage goes on from: those of `stage`, "01_synthesis" or "02_filtering".

    Where the profile names a set of the authors (`synthesis.published`), that is stage 01 of the run; where it has no
    stage 02, nothing is filtered. Raises FileNotFoundError where the stage has not run, errors of `published13k.load`.
    """
    if stage == "02_filtering" and stage in profile.stages:
        return stage_file(run, stage, "kept.jsonl")
    if subset := profile.synthesis.published:
        files = published13k.files(subset, profile.data.path).values()
        hashes, done = {path.name: sha256(path) for path in files}, run / "01_synthesis" / "manifest.json"
        if not done.is_file() or read_json(done)["inputs"] != hashes:
            found, queries, texts = published13k.load(subset, profile.data.path)
            made = Stage(run, "01_synthesis", profile, profile.seed, inputs=files)
            table = statistics(found, Counter(example.dataset for example in found))
            made.record({"table5": table, "teacher": "DeepSeek-R1, published", "published": subset})
            save_parts(made, found, queries, texts)
            made.finish()
    return stage_file(run, "01_synthesis", "examples.jsonl")


def save_parts(stage: Stage, examples: Sequence[Example], queries: Texts, texts: Texts) -> None:
    """What later stages read of stage 01: the examples, and all queries and passages."""
    save(stage.path("examples.jsonl"), examples)
    write_json(stage.path("id_query.json"), queries)
    write_json(stage.path("id_doc.json"), texts)


def save(path: Path, examples: Sequence[Example]) -> None:
    """Write examples as JSON lines."""
    write_jsonl(path, [asdict(example) for example in examples])


def describe(example: Example, query: str, texts: Mapping[str, str], width: int = 110) -> str:
    """An example as a person reads it: query, passages with their labels, reasoning, ranking."""
    lines = [f"query ({example.dataset}, {example.qid}): {query}", ""]
    for i, docid in enumerate(example.initial_list, start=1):
        mark = "+" if docid in example.relevant_docids else "-" if docid in example.hard_negatives else " "
        lines.append(f" {mark} [{i}] {' '.join(texts[docid].split())[:width]}")
    ranking = " > ".join(f"[{i}]" for i in example.gold_ranking)
    return "\n".join([*lines, "", f"<think> {example.reasoning} </think>", f"<answer> {ranking} </answer>"])


def passages_of(example: Example, texts: Mapping[str, str]) -> list[str]:
    """The texts of an example's list, in its order; KeyError names the example and the passage."""
    try:
        return [texts[docid] for docid in example.initial_list]
    except KeyError as error:
        raise KeyError(
            f"{example.dataset}, query {example.qid}: no text for passage {error.args[0]!r}"
        ) from None


def statistics(
    examples: Sequence[Example], queries: Mapping[str, int], tokens: Callable[[str], int] | None = None
) -> list[dict[str, Any]]:
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


def save_dataset(
    folder: Path,
    examples: Sequence[Example],
    queries: Texts,
    texts: Texts,
    table: Sequence[Mapping[str, Any]],
    about: str,
    teacher: str,
) -> None:
    """Write a data set as `reasonrank_data_13k` is laid out on the hub; the same input gives the same bytes.

    `training_data_all.jsonl`, `id_query/` and `id_doc/` (a file per data set, the ids that examples name),
    `arrow/` (what `datasets.load_from_disk` reads) and `README.md`, the card. `table`: rows of `statistics`;
    `about`: a sentence on where the queries are from. Raises KeyError for an id without a text.
    """
    import datasets
    from huggingface_hub import DatasetCard, DatasetCardData

    save(folder / published13k.FILES["13k"], examples)
    for name in dict.fromkeys(example.dataset for example in examples):
        own = [example for example in examples if example.dataset == name]
        named = {docid: texts[name][docid] for example in own for docid in example.initial_list}
        write_json(folder / "id_query" / f"{name}.json", {e.qid: queries[name][e.qid] for e in own})
        write_json(folder / "id_doc" / f"{name}.json", named)
    rows, text = [asdict(example) for example in examples], datasets.Value("string")
    columns = {key: text if isinstance(value, str) else datasets.List(text) for key, value in rows[0].items()}
    data = datasets.Dataset.from_list(rows, features=datasets.Features(columns))
    data._fingerprint = hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]  # in place of a random one
    silent = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    data.save_to_disk(str(folder / "arrow"), num_shards=1)
    if not silent:
        datasets.enable_progress_bars()
    files = [{"config_name": "default", "data_files": published13k.FILES["13k"]}]
    tags = {"task_categories": ["text-ranking"], "language": ["en"], "tags": ["passage-ranking", "reasoning"]}
    shown = {"total": len(examples), "about": about, "teacher": teacher, "table": table}
    card = DatasetCard.from_template(DatasetCardData(**tags, configs=files), CARD, **shown)
    write_text(folder / "README.md", str(card) + "\n")
