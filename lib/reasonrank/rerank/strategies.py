"""Ways to rerank a candidate list, by name: what each asks of the model, how often, and where it comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from reasonrank.engines import Engine
from reasonrank.prompts import DirectPrompt, ListwisePrompt, Overlong, PointwisePrompt, Template
from reasonrank.recovery import RecoveredPrompt

from .listwise import ListwiseReranker
from .logits import LogitsReranker
from .pointwise import PointwiseReranker
from .run import Reranker
from .schedule import schedule
from .topdown import TopDownReranker, topdown_calls


@dataclass(frozen=True)
class Strategy:
    """A way to rerank, and where it comes from.

    `calls(num_candidates, window, step)`: requests to the engine for one query, the fewest and the most; they differ
    for top-down partitioning and pointwise, where the answers decide, and for logits, where the tokenizer does. A
    retry, and the second request of a constrained answer with reasoning, come on top.
    """

    about: str
    source: str
    calls: Callable[[int, int, int], tuple[int, int]]


def _windows(name: str) -> Callable[[int, int, int], tuple[int, int]]:
    return lambda num_candidates, window, step: (len(schedule(name, num_candidates, window, step)),) * 2


def _logits_calls(num_candidates: int, window: int, step: int) -> tuple[int, int]:
    """A request a window where no number is split, and 1 + n // 10 for n passages where all are."""
    sizes = [end - start for start, end in schedule("sliding", num_candidates, window, step)]
    return len(sizes), sum(1 + size // 10 for size in sizes)


STRATEGIES = {
    "sliding": Strategy(
        "windows slid from the back to the front", "paper: 20/10; Table 10: 10/5", _windows("sliding")
    ),
    "single": Strategy("one window over the first candidates", "paper, Table 9 (top 20)", _windows("single")),
    "full": Strategy("one window over all candidates", "full ranking, for long contexts", _windows("full")),
    "topdown": Strategy(
        "a pivot from the first window, compared with the rest in parallel",
        "Parry et al. 2024, arXiv 2405.14589",
        lambda num_candidates, window, step: topdown_calls(num_candidates, window),
    ),
    "pointwise": Strategy(
        "a chain and a score for each candidate by itself",
        "Rank1, Weller et al. 2025; the paper's Figures 1 and 5",
        lambda num_candidates, window, step: (num_candidates, 2 * num_candidates),
    ),
    "direct": Strategy(
        "sliding windows, no reasoning", "the paper's non-reasoning rows of Table 3", _windows("sliding")
    ),
    "logits": Strategy(
        "sliding windows, by the probabilities of identifiers where an answer begins",
        "FIRST, Reddy et al. 2024, arXiv 2406.15657",
        _logits_calls,
    ),
}


UNUSED = {
    "pointwise": ("window", "step", "variant", "retry", "constrained", "prefetch"),
    "logits": ("retry", "constrained", "prefetch"),
    "topdown": ("step", "variant", "prefetch"),
}
"""Options that a strategy has no use for: nothing slides, or nothing is written."""


def build(
    name: str,
    engine: Engine,
    *,
    passage_tokens: int,
    query_tokens: int,
    max_length: int,
    overlong: Overlong = "error",
    repeat: bool = False,
    reasoning: bool = True,
    template: Template | None = None,
    **options: Any,
) -> Reranker:
    """A reranker of the strategy `name`, with its prompt, over an open engine.

    Caps and `max_length` (of a prompt) in tokens, `overlong` and `repeat`: see `prompts.Prompt`; `options` as the
    rerankers take them, but for those in UNUSED, which are left out. `reasoning=False`: rankings are asked for without
    it, as by "direct", whatever the schedule; a pointwise judgement always reasons. `template`: of listwise prompts
    with reasoning, in place of ours. Raises ValueError for an unknown strategy or a setting out of range.
    """
    if name not in STRATEGIES:
        raise ValueError(f"unknown strategy {name!r}: expected one of {', '.join(STRATEGIES)}")
    kind = ListwisePrompt if reasoning else DirectPrompt
    kind = {"pointwise": PointwisePrompt, "direct": DirectPrompt}.get(name, kind)
    caps = {"passage_tokens": passage_tokens, "query_tokens": query_tokens, "max_length": max_length}
    if template is not None and kind is ListwisePrompt:
        kind, caps = RecoveredPrompt, caps | {"template": template}
    prompt = kind(engine.tokenizer, **caps, overlong=overlong, repeat=repeat)
    others = {"pointwise": PointwiseReranker, "logits": LogitsReranker, "topdown": TopDownReranker}
    if name not in others:
        options["strategy"] = "sliding" if name == "direct" else name
    used = {key: value for key, value in options.items() if key not in UNUSED.get(name, ())}
    return others.get(name, ListwiseReranker)(engine, prompt, **used)
