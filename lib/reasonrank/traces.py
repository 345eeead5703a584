"""Why a passage went up: the windows of each query, as a page that needs nothing beside it.

The reranker's answers are kept as JSON lines, a query in each (`rerank --traces`, notebook 05); `page` turns such
rows into HTML. What the page shows is real: nothing is made up for what a row lacks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .evaluation import TestSet, run_file
from .metrics import ndcg
from .rerank.run import RerankedRun, Trace
from .runs import Qrels, objects

Row = dict[str, Any]
FORM = {"qid": str, "query": str, "before": list, "after": list, "windows": list, "passages": dict}
ENDING, STAGE_FILE = ".traces.jsonl", "05_gpu_evaluation/traces.jsonl"


def window(trace: Trace) -> Row:
    """An answer as JSON holds it: [start, end) of the list, documents, ranking, status, text and tokens. A pointwise
    answer is a window of one passage, with its score."""
    place = {"start": trace.start, "end": trace.end, "docids": list(trace.docids), "ranking": trace.ranking}
    place |= {} if trace.score is None else {"score": trace.score}
    kept = ("status", "text", "prompt_tokens", "output_tokens", "attempts")
    return place | {name: getattr(trace, name) for name in kept}


def row(
    qid: str,
    query: str,
    before: Sequence[str],
    after: Sequence[str],
    windows: Sequence[Row],
    texts: Mapping[str, str],
    relevant: Mapping[str, int] | None = None,
) -> Row:
    """One query: its text, its documents before and after, its windows, the passages seen, and judgements if any."""
    lists = {"qid": qid, "query": query, "before": list(before), "after": list(after)}
    passages = {docid: texts[docid] for found in windows for docid in found["docids"]}
    return lists | {"windows": list(windows), "passages": passages, "relevant": relevant and dict(relevant)}


def rows(results: Mapping[str, RerankedRun], sets: Mapping[str, TestSet]) -> list[Row]:
    """A row of each query of reranked test sets, named COLLECTION/QUERY, with its judgements."""
    found = []
    for name, test in sets.items():
        done, texts = results[name], test.collection.texts()
        for qid, query in test.queries.items():
            shown = test.run[qid], done.run[qid], list(map(window, done.traces[qid]))
            found.append(row(f"{name}/{qid}", query, *shown, texts, test.qrels[qid]))
    return found


def of_system(system: str) -> str:
    """Where notebook 05 keeps the traces of one system, in the folder of its stage."""
    return f"runs/{run_file('all', system).removesuffix('.trec')}{ENDING}"


def find(place: Path) -> Path:
    """The traces of a run's folder, of a TREC run that `rerank --traces` wrote, or of its record; FileNotFoundError
    where there are none."""
    stem = place.with_suffix("") if place.suffix == ".json" else place
    for path in (place / STAGE_FILE, stem.with_name(stem.name + ENDING), place):
        if path.is_file() and path.name.endswith(ENDING.lstrip(".")):
            return path
    raise FileNotFoundError(
        f"{place}: no traces; expected a run's folder, or a run made with `rerank --traces`"
    )


def read(path: Path, qrels: Qrels | None = None) -> Iterator[Row]:
    """Rows of a file of traces; `qrels` (query -> document -> grade) go before the judgements in it. ValueError, with
    file and line, for what is no row."""
    for place, found in objects(path):
        if not all(isinstance(found.get(key), kind) for key, kind in FORM.items()):
            raise ValueError(f"{place}: expected a query's trace, as `rerank --traces` writes it")
        yield found if qrels is None else found | {"relevant": qrels.get(found["qid"])}


def page(rows: Iterable[Row]) -> str:
    """A self-contained page of rows. NDCG@10 before and after stand where there are judgements."""
    shown = []
    for found in rows:
        grades = found.get("relevant")
        scores = [ndcg(found[which], grades) for which in ("before", "after")] if grades else None
        shown.append(found | {"ndcg": scores})
    if not shown:
        raise ValueError("no query to show")
    data = json.dumps(shown, ensure_ascii=False).replace("<", "\\u003c")
    return Path(__file__).with_suffix(".html").read_text(encoding="utf-8").replace("__TRACES__", data)
