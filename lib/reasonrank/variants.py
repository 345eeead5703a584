"""What the released code's way of evaluating changes in a score: ties, blanks in ids, averaging.

Differences 4, 5 and 7 of the list in data/paper/settings.yaml, on files in the form that BRIGHT's runs have.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import released, runs
from .evaluation import evaluate
from .runs import Qrels, Run
from .stages import write_text

MEASURE = "nDCG@10"


@dataclass(frozen=True)
class Files:
    """A reranked run, the first stage's scores by place, and the judgements, as TREC files."""

    reranked: Path
    first_stage: Path
    qrels: Path


def published_form(
    run: Mapping[str, Sequence[str]], qrels: Qrels, folder: Path, lost: Collection[str] = ()
) -> Files:
    """Write a reranked run (best first) in the form of BRIGHT's published files, with what is awkward in them.

    Every third document id, in alphabetical order, gets a blank in it, as ids of stackoverflow have. The first
    stage's scores are 0.7 * rank^-0.15 to two digits, so that ties begin at ranks 9 and 10. Queries in `lost` are
    judged, but in neither run, as after a crash. Raises ValueError for a lost query that is not judged.
    """
    if odd := sorted(set(lost) - set(qrels)):
        raise ValueError(f"lost query {odd[0]!r} is not judged")
    ids = sorted(
        {docid for docids in run.values() for docid in docids} | {d for g in qrels.values() for d in g}
    )
    names = {docid: f"{docid} part" if place % 3 == 2 else docid for place, docid in enumerate(ids)}
    kept = {qid: [names[d] for d in docids] for qid, docids in run.items() if qid not in lost}
    files = Files(folder / "reranked.trec", folder / "first_stage.trec", folder / "qrels.txt")
    runs.write_trec(files.reranked, kept, "reranked")
    rows = [
        f"{qid} Q0 {docid} {rank} {0.7 * rank**-0.15:.2f} first\n"
        for qid, docids in kept.items()
        for rank, docid in enumerate(sorted(docids), start=1)
    ]
    write_text(files.first_stage, "".join(rows))
    renamed = {qid: {names[d]: grade for d, grade in grades.items()} for qid, grades in qrels.items()}
    runs.write_qrels(files.qrels, renamed)
    return files


def compare(files: Files) -> list[dict[str, Any]]:
    """NDCG@10 in percent with ours and with the released code's side of each switch, the others left at ours.

    Rows of `difference` (its number in the list), `what`, `ours`, `released`, `n` (queries of the released
    mean) and `queries` (how many have another score; one that is left out counts).
    """
    qrels, scores = runs.read_qrels(files.qrels), released.read_scores(files.first_stage)
    own = runs.read_trec(files.reranked)
    ours = evaluate(own, qrels, [MEASURE])
    ways: list[tuple[int, str, Callable[[], Run], str]] = [
        (
            4,
            "ties of the first stage's scores",
            lambda: released.scored_order(own, scores, "released"),
            "judged",
        ),
        (5, "ids with a blank", lambda: runs.read_trec(files.reranked, lenient_ids=False), "judged"),
        (7, "mean over the queries of the run", lambda: own, "run"),
    ]
    rows = []
    for number, what, read, queries in ways:
        theirs = evaluate(read(), qrels, [MEASURE], queries=queries)
        values = theirs.per_query[MEASURE]
        changed = sum(values.get(qid) != value for qid, value in ours.per_query[MEASURE].items())
        rows.append(
            {
                "difference": number,
                "what": what,
                "ours": 100 * ours.mean[MEASURE],
                "released": 100 * theirs.mean[MEASURE],
                "n": len(values),
                "queries": changed,
            }
        )
    return rows
