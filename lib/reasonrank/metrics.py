"""Rank metrics on plain sequences, for the reward and the filter. Runs are scored in `evaluation`."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence

Relevant = Iterable[Hashable] | Mapping[Hashable, float]


def ndcg(ranking: Sequence[Hashable], relevant: Relevant, k: int = 10) -> float:
    """NDCG at cut-off `k`, in 0..1, with linear gain and a log2 discount, as trec_eval's `ndcg_cut`.

    `ranking`: items, best first; an item that comes again counts at its first place only. `relevant`: the
    relevant items, or their gains (only positive ones count). The ideal is over all relevant items, ranked or
    not. 0.0 where nothing is relevant. Raises ValueError for k < 1.
    """
    gains = _gains(relevant)
    found = _dcg(gains.get(item, 0.0) for item in _top(ranking, k))
    ideal = _dcg(sorted(gains.values(), reverse=True)[:k])
    return found / ideal if ideal > 0 else 0.0


def recall(ranking: Sequence[Hashable], relevant: Relevant, k: int = 10) -> float:
    """The share of all relevant items among the first `k`, in 0..1; arguments and errors as for `ndcg`."""
    gains = _gains(relevant)
    found = sum(item in gains for item in _top(ranking, k))
    return found / len(gains) if gains else 0.0


def rbo(a: Sequence[Hashable], b: Sequence[Hashable], p: float | None = None) -> float:
    """Rank-biased overlap of two rankings, in 0..1, to the depth D of the shorter one.

    With `p` in (0, 1) it is the paper's sum (section 4.2), (1 - p) * sum over d = 1..D of p^(d-1) * overlap@d / d, so
    that two equal rankings get 1 - p^D. `p=None` is average overlap, the mean of overlap@d / d, as in the authors'
    released code. Items that come again count once. Two empty rankings agree (1.0), an empty one agrees with no other
    (0.0). Raises ValueError for a `p` outside (0, 1).
    """
    if p is not None and not 0 < p < 1:
        raise ValueError(f"p is {p}; expected a number between 0 and 1, or None for average overlap")
    a, b = list(dict.fromkeys(a)), list(dict.fromkeys(b))
    if not a or not b:
        return float(not a and not b)
    agreements = [len(set(a[:depth]) & set(b[:depth])) / depth for depth in range(1, min(len(a), len(b)) + 1)]
    if p is None:
        return math.fsum(agreements) / len(agreements)
    return (1 - p) * math.fsum(p**depth * agreement for depth, agreement in enumerate(agreements))


def _dcg(gains: Iterable[float]) -> float:
    return sum(gain / math.log2(place + 1) for place, gain in enumerate(gains, start=1))


def _gains(relevant: Relevant) -> dict[Hashable, float]:
    if isinstance(relevant, Mapping):
        return {item: gain for item, gain in relevant.items() if gain > 0}
    return dict.fromkeys(relevant, 1.0)


def _top(ranking: Iterable[Hashable], k: int) -> list[Hashable]:
    """The first `k` items, each counted once."""
    if k < 1:
        raise ValueError(f"k is {k}; expected 1 or more")
    return list(dict.fromkeys(ranking))[:k]
