"""Test sets: queries, judgements and first-stage candidates of a collection, computed or read from TREC runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import retrieval
from ..runs import Qrels, Run, read_scores, read_trec, released_order
from ..settings import Profile
from ..sources import Collection, expand, load
from ..sources.benchmarks import find_run, read_run
from ..sources.folder import hashes
from ..stages import ROOT
from .score import evaluate

MEASURE = "nDCG@10"


@dataclass(frozen=True)
class TestSet:
    """Queries of one split of a collection with their first-stage run and judgements.

    `stage`: "dense", "bm25", or the name of the file that the run was read from; `scores`: those of the run by query,
    descending, where it is evaluated as the authors do; `inputs`: what was read -> SHA-256, as "bright/biology/FILE".
    """

    __test__ = False  # no test case, whatever pytest makes of the name

    collection: Collection
    stage: str
    queries: dict[str, str]
    run: Run
    qrels: Qrels
    scores: Mapping[str, list[float]] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def retriever(self) -> Run:
        """The run as the retriever is scored: with `scores`, those that tie ordered as trec_eval does."""
        return released_order(self.run, self.scores) if self.scores else self.run

    def ndcg(self, run: Run) -> dict[str, float]:
        """NDCG@10 in 0..1 of each query in a run on this set, without its excluded documents.

        Judged queries that the run lacks count 0; with `scores` they are left out, as in the authors' code.
        """
        queries = "run" if self.scores else "judged"
        found = evaluate(run, self.qrels, queries=queries, excluded=self.collection.excluded)
        return found.per_query[MEASURE]

    def released(self, run: Run) -> float:
        """Mean NDCG@10 in 0..1 as the authors' code gives it: the first stage's scores stay at their places, so that
        where they tie the model's order is lost."""
        values = self.ndcg(released_order(run, self.scores))
        return sum(values.values()) / len(values)


def test_set(
    settings: Profile, name: str, split: str = "test", queries: int | None = None, top: int | None = None
) -> TestSet:
    """The first `queries` (None: all) judged queries of a split, with the first-stage run the profile names.

    `top`: candidates of a query; None: the profile's `evaluation.top`. A first stage is computed ("dense", "bm25"), or
    read from a TREC run, see `benchmarks.find_run`, at a place relative to `data.folder`. Raises ValueError or
    FileNotFoundError, with the file, for what is missing, does not fit together, or has another hash than pinned.
    """
    own, data, top = settings.evaluation, settings.data, top or settings.evaluation.top
    stages, scores, inputs = own.first_stage, {}, {}
    stage = stages.get(name) or stages.get(name.partition("/")[0]) or stages["default"]
    if stage in retrieval.FIRST_STAGES:
        collection, found = load(name, data.path), None
    else:
        path = find_run(name, (data.path or ROOT) / stage)
        wanted = {docid for docids in read_trec(path).values() for docid in docids}
        collection = load(name, data.path, wanted)
        released = {"lenient_ids": False} if own.scoring == "released" else {}
        found = read_run(collection, path, top, **released)
        scores = read_scores(path, **released) if released else {}
        stage, inputs = path.name.removesuffix(".gz"), hashes(path.parent, [path])
    inputs = {f"{name}/{file}": digest for file, digest in (collection.inputs | inputs).items()}
    for file, digest in data.pinned.items():
        if file.startswith(f"{name}/") and inputs.get(file) != digest:
            raise ValueError(f"{file}: its SHA-256 is {inputs.get(file)}; data.pinned expects {digest}")
    chosen = {qid: collection.queries[qid].text for qid in collection.ids(split, queries)}
    found = found or retrieval.first_stage(stage, collection, collection.searched(chosen), top)
    run = {qid: found[qid] for qid in chosen if qid in found}
    qrels = {qid: collection.qrels[qid] for qid in chosen}
    return TestSet(collection, stage, chosen, run, qrels, scores, inputs)


def test_sets(settings: Profile, names: Iterable[str], *args: Any, **kwargs: Any) -> dict[str, TestSet]:
    """`test_set` of each collection, by name; "bright" stands for its twelve, see `sources.expand`."""
    return {name: test_set(settings, name, *args, **kwargs) for name in expand(names)}


def set_rows(sets: Mapping[str, TestSet], runs: Mapping[str, Mapping[str, Run]]) -> list[dict[str, Any]]:
    """What a record says of each test set: its first stage, queries of all that are judged, hashes of what was read,
    and NDCG@10 of each system's run (`runs`: system -> collection -> run) by the authors' code, where it is scored so.
    """
    rows = []
    for name, test in sets.items():
        row = {"collection": name, "first_stage": test.stage, "queries": len(test.queries)}
        row |= {"judged": len(test.collection.ids("test")), "inputs": dict(test.inputs)}
        if test.scores:
            row["released"] = {system: test.released(found[name]) for system, found in runs.items()}
        rows.append(row)
    return rows
