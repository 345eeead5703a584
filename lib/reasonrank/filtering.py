"""The self-consistency filter (paper, section 4.1.5): the listwise label, judged by the pointwise labels.

It takes examples as `Example` objects or as mappings with the same fields, those of the authors' published data:
`final_list` (the listwise label: document ids, best first) and `relevant_docids` (the pointwise label), with
`dataset`, `qid` and `scenario` to name an example by.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import metrics
from .examples import Example
from .examples import save as write_examples
from .settings import Filtering
from .stages import Stage


@dataclass(frozen=True)
class Filtered:
    """What the filter keeps and drops, in input order and as it was given; `scores` (0..1) of all examples."""

    kept: list[Any]
    dropped: list[Any]
    scores: list[float]


def score(example: Any) -> float:
    """NDCG@10 of `final_list` by `relevant_docids`, in 0..1.

    Without relevant documents it is 1.0 where the list stays as it was, which takes the field `initial_list`, else 0.0.
    Raises ValueError, with the example's name and the key, for a missing field or one that is no list.
    """
    fields = _fields(example)
    name = f"example {fields.get('dataset', '?')}/{fields.get('qid', '?')}"
    for key in ("final_list", "relevant_docids"):
        if key not in fields:
            raise ValueError(f"{name}: key {key!r} is missing; it has {sorted(fields)}")
        if isinstance(fields[key], str) or not isinstance(fields[key], Sequence):
            found = type(fields[key]).__name__
            raise ValueError(f"{name}: {key!r} is {found}; expected a list of document ids")
    if not fields["relevant_docids"] and "initial_list" in fields:
        return float(list(fields["final_list"]) == list(fields["initial_list"]))
    return metrics.ndcg(fields["final_list"], fields["relevant_docids"], k=10)


def self_consistency(examples: Sequence[Any], alpha: float = 0.4) -> Filtered:
    """Drop the examples that score under `alpha` (0.4 in the paper); one that scores alpha is kept.

    Raises ValueError for an alpha outside 0..1 or a malformed example.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; expected a number in 0..1")
    filtered = Filtered([], [], [score(example) for example in examples])
    for example, value in zip(examples, filtered.scores, strict=True):
        (filtered.kept if value >= alpha else filtered.dropped).append(example)
    return filtered


def alpha_sweep(examples: Sequence[Any], alphas: Sequence[float]) -> list[dict[str, Any]]:
    """What each alpha would keep; a row each: alpha, kept, dropped, share, mean_score, by_scenario.

    `share`: kept of all, 0..1; `mean_score`: of the kept (None where there are none); `by_scenario`: how many
    are kept of each scenario, 0 included. An example without `scenario` counts under its `dataset`.
    """

    def scenario(example: Any) -> str:
        fields = _fields(example)
        return str(fields.get("scenario") or fields.get("dataset") or "unknown")

    rows = []
    for alpha in alphas:
        found = self_consistency(examples, alpha)
        good = [value for value in found.scores if value >= alpha]
        counts = Counter(map(scenario, found.kept))
        row = {"alpha": alpha, "kept": len(found.kept), "dropped": len(found.dropped)}
        row |= {"share": len(good) / len(examples) if examples else 0.0}
        row |= {"mean_score": sum(good) / len(good) if good else None}
        rows.append(row | {"by_scenario": {name: counts[name] for name in map(scenario, examples)}})
    return rows


def _fields(example: Any) -> Mapping[str, Any]:
    return example if isinstance(example, Mapping) else vars(example)


def save(stage: Stage, examples: Sequence[Example], wanted: Filtering) -> Filtered:
    """Filter with `wanted.alpha`; `kept.jsonl` and the record go into `stage`, which the caller finishes.

    Where `wanted.datasets` names some, examples of others are dropped too. The record has the counts, the scores by
    example, and the sweep over `wanted.alphas`.
    """
    result = self_consistency(examples, wanted.alpha)
    kept = [e for e in result.kept if wanted.datasets is None or e.dataset in wanted.datasets]
    chosen = {id(e) for e in kept}
    dropped = [e for e in examples if id(e) not in chosen]
    write_examples(stage.path("kept.jsonl"), kept)
    scores = [
        {"scenario": e.scenario, "dataset": e.dataset, "qid": e.qid, "score": value}
        for e, value in zip(examples, result.scores, strict=True)
    ]
    sweep = alpha_sweep(examples, wanted.alphas)
    counts = {"kept": len(kept), "dropped": len(dropped), "datasets": wanted.datasets}
    stage.record({"alpha": wanted.alpha, **counts, "sweep": sweep, "scores": scores})
    return Filtered(kept, dropped, result.scores)
