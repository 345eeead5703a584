"""The self-consistency filter (paper, section 4.1.5): the listwise label, judged by the pointwise labels.

An example is a mapping with the fields of the authors' published data: `initial_list` (the window),
`final_list` (the listwise label: document ids, best first) and `relevant_docids` (the pointwise label), with
`dataset`, `qid` and `scenario` to name it by.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import metrics

Example = Mapping[str, Any]


@dataclass(frozen=True)
class Filtered:
    """What the filter keeps and drops, in input order, and the score (0..1) of every input example."""

    kept: list[Example]
    dropped: list[Example]
    scores: list[float]


def score(example: Example) -> float:
    """NDCG@10 of `final_list` by `relevant_docids`, in 0..1; 0.0 for an example without relevant documents.

    Raises ValueError, with the example's name and the key, for a missing field or one that is no list.
    """
    ranking, relevant = _field(example, "final_list"), _field(example, "relevant_docids")
    return metrics.ndcg(ranking, relevant, k=10)


def _field(example: Example, key: str) -> Sequence[str]:
    name = f"example {example.get('dataset', '?')}/{example.get('qid', '?')}"
    if key not in example:
        raise ValueError(f"{name}: key {key!r} is missing; it has {sorted(example)}")
    value = example[key]
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValueError(f"{name}: {key!r} is {type(value).__name__}; expected a list of document ids")
    return value


def self_consistency(examples: Sequence[Example], alpha: float = 0.4) -> Filtered:
    """Drop the examples that score under `alpha` (0.4 in the paper); one that scores alpha is kept.

    Raises ValueError for an alpha outside 0..1 or a malformed example.
    """
    _check_alpha(alpha)
    scores = [score(example) for example in examples]
    scored = list(zip(examples, scores, strict=True))
    kept = [example for example, value in scored if value >= alpha]
    dropped = [example for example, value in scored if value < alpha]
    return Filtered(kept, dropped, scores)


def alpha_sweep(examples: Sequence[Example], alphas: Sequence[float]) -> list[dict[str, Any]]:
    """What each alpha would keep; a row each: alpha, kept, dropped, share, mean_score, by_scenario.

    `share`: kept of all, 0..1; `mean_score`: of the kept (None where there are none); `by_scenario`: how many
    are kept of each scenario, 0 included. An example without `scenario` counts under its `dataset`.
    """
    scored = [(_scenario(example), score(example)) for example in examples]
    return [_sweep_row(scored, alpha) for alpha in alphas]


def _sweep_row(scored: list[tuple[str, float]], alpha: float) -> dict[str, Any]:
    _check_alpha(alpha)
    kept = [(scenario, value) for scenario, value in scored if value >= alpha]
    counts = Counter(scenario for scenario, _ in kept)
    return {
        "alpha": alpha,
        "kept": len(kept),
        "dropped": len(scored) - len(kept),
        "share": len(kept) / len(scored) if scored else 0.0,
        "mean_score": sum(value for _, value in kept) / len(kept) if kept else None,
        "by_scenario": {scenario: counts[scenario] for scenario in dict.fromkeys(s for s, _ in scored)},
    }


def _scenario(example: Example) -> str:
    return str(example.get("scenario") or example.get("dataset") or "unknown")


def _check_alpha(alpha: float) -> None:
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; expected a number in 0..1")
