"""Bootstrap intervals and paired randomisation tests over queries, by scipy.

Where there are several collections, each counts the same: the figure is the mean over collections of their means
over queries, and queries are drawn, or have their signs flipped, within their own collection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

PerQuery = Mapping[str, Mapping[str, float]]
"""Collection -> query id -> value."""


@dataclass(frozen=True)
class Interval:
    """A figure with the low and high end of its interval over queries; of a difference, its p-value against 0 too."""

    value: float
    low: float
    high: float
    p_value: float | None = None


def bootstrap(
    samples: Sequence[Sequence[float]],
    statistic: Callable[..., Any],
    seed: int,
    draws: int = 10_000,
    paired: bool = False,
) -> Interval:
    """Percentile bootstrap interval of 95 % of `statistic(*samples, axis=...)`.

    `paired`: a draw takes the same places from all samples; else each is drawn from by itself. Raises
    ValueError for no sample, an empty one, or a value that is not finite.
    """
    arrays = [np.asarray(sample, dtype=float) for sample in samples]
    if not arrays or any(a.size == 0 or not np.isfinite(a).all() for a in arrays):
        got = [a[:3].tolist() for a in arrays]
        raise ValueError(f"expected finite values of one query or more, got {got}")
    # scipy asks for two values; one value, or the same one twice, have the same draws
    twice = [np.repeat(a, 2) if a.size == 1 else a for a in arrays]
    settings = {"method": "percentile", "n_resamples": draws, "paired": paired, "vectorized": True}
    found = stats.bootstrap(twice, statistic, rng=np.random.default_rng(seed), batch=1000, **settings)
    low, high = map(float, found.confidence_interval)
    value = float(statistic(*arrays, axis=-1))
    return Interval(value, min(low, value), max(value, high))  # of equal values the mean is off by a rounding


def mean_interval(groups: Sequence[Sequence[float]], seed: int, draws: int = 10_000) -> Interval:
    """Mean over groups (the queries of each collection) of their means; errors as for `bootstrap`."""

    def mean_of_means(*samples: np.ndarray, axis: int) -> np.ndarray:
        return np.mean([sample.mean(axis=axis) for sample in samples], axis=0)

    return bootstrap(groups, mean_of_means, seed, draws)


def paired_test(a: PerQuery, b: PerQuery, seed: int, draws: int = 10_000) -> Interval:
    """Mean difference of two systems, a - b, with a paired randomisation test: two-sided, signs flipped at random.

    The p-value is the share of flips whose mean is at least as far from 0: of all flips where there are at most
    `draws`, else (1 + those of `draws`) / (1 + `draws`). ValueError where the two do not have the same queries.
    """
    keys = [{(name, qid) for name, values in side.items() for qid in values} for side in (a, b)]
    if odd := sorted(keys[0] ^ keys[1]):
        raise ValueError(f"the two differ in {len(odd)} queries, as {odd[:3]}; expected the same queries")
    groups = [np.array([a[name][qid] - b[name][qid] for qid in a[name]], dtype=float) for name in a]
    interval = mean_interval(groups, seed, draws)
    weighted = np.concatenate([group / (len(groups) * group.size) for group in groups])
    # scipy asks for two values here as well; with a zero beside it, one value has the same flips, each twice
    flipped = np.append(weighted, 0.0) if weighted.size == 1 else weighted
    settings = {"permutation_type": "samples", "alternative": "greater", "vectorized": True, "batch": 1000}
    settings |= {"n_resamples": draws, "rng": np.random.default_rng(seed)}
    test = stats.permutation_test((flipped,), lambda x, axis: np.abs(x.sum(axis=axis)), **settings)
    return replace(interval, p_value=float(test.pvalue))
