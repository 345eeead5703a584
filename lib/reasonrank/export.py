"""Training data for others: JSON lines in the fields of the published 13k, a `datasets` data set, and a card."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .runs import write_jsonl
from .sources.published13k import FILES
from .stages import write_json, write_text
from .synthesis import Example

FIELDS = ("dataset", "qid", "initial_list", "final_list", "reasoning", "relevant_docids")
EXTRA = ("scenario", "hard_negatives")  # ours, after the published ones
Texts = Mapping[str, Mapping[str, str]]


def write(
    folder: Path | str,
    examples: Sequence[Example],
    queries: Texts,
    texts: Texts,
    *,
    statistics: Sequence[Mapping[str, Any]],
    about: str,
    teacher: str,
) -> Path:
    """Write a data set that appears whole or not at all, laid out as `reasonrank_data_13k` on the hub.

    `training_data_all.jsonl`, `id_query/` and `id_doc/` (a file per data set, the ids that examples name),
    `arrow/` (what `datasets.load_from_disk` reads) and `README.md`, the card. `statistics`: rows as in Table 5;
    `about`: a sentence on where the queries are from. The same input gives the same bytes. Raises ValueError for
    no examples, KeyError for an id without a text.
    """
    if not examples:
        raise ValueError("no example to export; see the funnel for the step that dropped all queries")
    folder = Path(folder)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    rows = [{key: getattr(example, key) for key in (*FIELDS, *EXTRA)} for example in examples]
    write_jsonl(partial / FILES["13k"], rows)
    _write_texts(partial, examples, queries, texts)
    _write_arrow(partial / "arrow", rows)
    write_text(partial / "README.md", card(folder.name, statistics, about, teacher))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    return folder


def _write_texts(folder: Path, examples: Sequence[Example], queries: Texts, texts: Texts) -> None:
    for dataset in dict.fromkeys(example.dataset for example in examples):
        own = [example for example in examples if example.dataset == dataset]
        named = {docid: texts[dataset][docid] for example in own for docid in example.initial_list}
        write_json(folder / "id_query" / f"{dataset}.json", {e.qid: queries[dataset][e.qid] for e in own})
        write_json(folder / "id_doc" / f"{dataset}.json", named)


def _write_arrow(folder: Path, rows: list[dict[str, Any]]) -> None:
    """With a fingerprint of the content in place of a random one, and without a bar."""
    from datasets import (
        Dataset,
        Features,
        List,
        Value,
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    text, many = Value("string"), List(Value("string"))
    lists = ("initial_list", "final_list", "relevant_docids", "hard_negatives")
    features = Features({key: many if key in lists else text for key in (*FIELDS, *EXTRA)})
    digest = hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()
    data = Dataset.from_list(rows, features=features)
    data._fingerprint = digest[:16]
    folder.parent.mkdir(parents=True, exist_ok=True)
    silent = are_progress_bars_disabled()
    disable_progress_bars()
    data.save_to_disk(str(folder), num_shards=1)
    if not silent:
        enable_progress_bars()


def card(name: str, statistics: Sequence[Mapping[str, Any]], about: str, teacher: str) -> str:
    """The README.md of a data set on the hub: metadata, fields, and the statistics as a table."""
    total = sum(row["examples"] for row in statistics)
    keys = list(statistics[0])
    table = [f"| {' | '.join(keys)} |", f"|{'---|' * len(keys)}"]
    table += [f"| {' | '.join(str(row[key]) for key in keys)} |" for row in statistics]
    return CARD.format(name=name, total=total, about=about, teacher=teacher, table="\n".join(table))


CARD = """---
task_categories:
- text-ranking
language:
- en
tags:
- passage-ranking
- reasoning
configs:
- config_name: default
  data_files: training_data_all.jsonl
---

# {name}

{total} training examples for a listwise passage reranker that reasons before it ranks, made in the way of
ReasonRank (arXiv 2508.07050, section 4.1). {about}

Labels by: {teacher}. They are a model's or a program's, not people's, unless it says so here.

{table}

| field | holds |
|---|---|
| `dataset`, `qid` | where the query is from; its text is in `id_query/<dataset>.json` |
| `initial_list` | passage ids as the teacher saw them; texts in `id_doc/<dataset>.json` |
| `final_list` | the listwise label: the same ids, best first, ranked without the gold answer |
| `reasoning` | the chain that led to `final_list` |
| `relevant_docids` | the pointwise label: ids that help, chosen with the gold answer in sight |
| `scenario`, `hard_negatives` | the kind of query; ids that share words with it and do not help |

The two labels can disagree. The self-consistency filter keeps examples whose `final_list` reaches an NDCG@10 of 0.4
against `relevant_docids`.
"""
