"""Ways to rerank a candidate list, by name: what each asks of the model, how often, and where it comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from reasonrank.engines import GREEDY, Engine, Sampling
from reasonrank.prompts import DirectPrompt, ListwisePrompt, Overlong, PointwisePrompt, Prompt

from .listwise import ListwiseReranker
from .pointwise import PointwiseReranker
from .run import Reranker
from .schedule import Variant, schedule
from .topdown import TopDownReranker, topdown_calls

Calls = tuple[int, int]
"""The fewest and the most requests to the engine."""


@dataclass(frozen=True)
class Strategy:
    """A way to rerank. `source`: where it comes from; `options`: of `reranker`, fixed by the strategy.

    `calls(num_candidates, window, step)`: requests to the engine for one query, the fewest and the most;
    they are the same for all but top-down partitioning, where the answers decide. A retry, and the second
    request of a constrained answer with reasoning, come on top.
    """

    name: str
    about: str
    source: str
    reranker: type[Reranker]
    prompt: type[Prompt]
    calls: Callable[[int, int, int], Calls]
    options: dict[str, Any]


def _scheduled(name: str) -> Callable[[int, int, int], Calls]:
    return lambda num_candidates, window, step: (len(schedule(name, num_candidates, window, step)),) * 2


def _listwise(name: str, about: str, source: str) -> Strategy:
    options = {"strategy": name}
    return Strategy(name, about, source, ListwiseReranker, ListwisePrompt, _scheduled(name), options)


_TABLE = (
    _listwise("sliding", "windows slid from the back to the front", "paper: 20/10; Table 10: 10/5"),
    _listwise("single", "one window over the first candidates", "paper, Table 9 (top 20)"),
    _listwise("full", "one window over all candidates", "full ranking, for long contexts"),
    Strategy(
        "topdown",
        "a pivot from the first window, compared with the rest in parallel",
        "Parry et al. 2024, arXiv 2405.14589",
        TopDownReranker,
        ListwisePrompt,
        lambda num_candidates, window, step: topdown_calls(num_candidates, window),
        {},
    ),
    Strategy(
        "pointwise",
        "a chain and a score for each candidate by itself; two requests each",
        "Rank1, Weller et al. 2025; the paper's Figures 1 and 5",
        PointwiseReranker,
        PointwisePrompt,
        lambda num_candidates, window, step: (2 * num_candidates,) * 2,
        {},
    ),
    Strategy(
        "direct",
        "sliding windows, no reasoning",
        "the paper's non-reasoning rows of Table 3",
        ListwiseReranker,
        DirectPrompt,
        _scheduled("sliding"),
        {"strategy": "sliding"},
    ),
)
STRATEGIES = {strategy.name: strategy for strategy in _TABLE}


def build(
    name: str,
    engine: Engine,
    *,
    passage_tokens: int,
    query_tokens: int,
    max_length: int,
    overlong: Overlong = "error",
    window: int = 20,
    step: int = 10,
    sampling: Sampling = GREEDY,
    max_in_flight: int = 64,
    retry: bool = False,
    constrained: bool = False,
    variant: Variant = "ours",
    reasoning: bool = True,
) -> Reranker:
    """A reranker of the strategy `name`, with its prompt, over an open engine.

    Caps and `max_length` (of a prompt) in tokens, see `prompts.Prompt`; the rest as the rerankers take it.
    What a strategy has no use for is left out: `step` and `variant` (of the window rule) without a slide,
    `retry` and `constrained` where there is no permutation, `window` too. `reasoning=False`: rankings are asked for
    without it, as by "direct", whatever the schedule; a pointwise judgement always reasons.
    Raises ValueError for an unknown strategy or a setting out of range.
    """
    strategy = find(name)
    kind = strategy.prompt if reasoning or strategy.prompt is not ListwisePrompt else DirectPrompt
    caps = {"passage_tokens": passage_tokens, "query_tokens": query_tokens, "max_length": max_length}
    prompt = kind(engine.tokenizer, **caps, overlong=overlong)
    options = {"sampling": sampling, "max_in_flight": max_in_flight, **strategy.options}
    if strategy.reranker is not PointwiseReranker:
        options |= {"window": window, "retry": retry, "constrained": constrained}
    if strategy.reranker is ListwiseReranker:
        options |= {"step": step, "variant": variant}
    return strategy.reranker(engine, prompt, **options)


def find(name: str) -> Strategy:
    """The strategy called `name`. Raises ValueError with the known names for another."""
    if name not in STRATEGIES:
        raise ValueError(f"unknown strategy {name!r}: expected one of {', '.join(STRATEGIES)}")
    return STRATEGIES[name]
