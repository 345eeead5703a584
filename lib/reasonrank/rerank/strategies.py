"""Ways to rerank a candidate list, by name: who asks the model, with which prompt, and how often."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from reasonrank.engines import Engine
from reasonrank.prompts import DirectPrompt, ListwisePrompt, Overlong, PointwisePrompt, Prompt, Template
from reasonrank.recovery import RecoveredPrompt

from .listwise import ListwiseReranker, schedule
from .logits import LogitsReranker
from .pointwise import PointwiseReranker
from .run import Reranker
from .topdown import TopDownReranker, topdown_calls


@dataclass(frozen=True)
class Strategy:
    """A way to rerank.

    `calls(num_candidates, window, step)`: requests to the engine for one query, the fewest and the most; they differ
    for top-down partitioning and pointwise, where the answers decide, and for logits, where the tokenizer does. A
    retry, and the second request of a constrained answer with reasoning, come on top. `prompt`: None for a listwise
    one. `unused`: options that it has no use for, since nothing slides, or nothing is written.
    """

    reranker: Callable[..., Reranker]
    calls: Callable[[int, int, int], tuple[int, int]]
    prompt: type[Prompt] | None = None
    unused: tuple[str, ...] = ()


def _windows(name: str) -> Strategy:
    """The windows of `listwise.schedule`, a request each."""
    calls = lambda n, window, step: (len(schedule(name, n, window, step)),) * 2  # noqa: E731
    return Strategy(partial(ListwiseReranker, strategy=name), calls)


def _logits_calls(num_candidates: int, window: int, step: int) -> tuple[int, int]:
    """A request a window where no number is split, and 1 + n // 10 for n passages where all are."""
    sizes = [end - start for start, end in schedule("sliding", num_candidates, window, step)]
    return len(sizes), sum(1 + size // 10 for size in sizes)


STRATEGIES = {
    "sliding": _windows("sliding"),  # paper: 20/10; Table 10: 10/5
    "single": _windows("single"),  # the first candidates alone; paper, Table 9 (top 20)
    "full": _windows("full"),  # all candidates in one prompt, for long contexts
    "topdown": Strategy(
        TopDownReranker,
        lambda n, window, step: topdown_calls(n, window),
        unused=("step", "variant", "prefetch"),
    ),
    "pointwise": Strategy(
        PointwiseReranker,
        lambda n, window, step: (n, 2 * n),
        PointwisePrompt,
        unused=("window", "step", "variant", "retry", "constrained", "prefetch"),
    ),
    # the paper's non-reasoning rows of Table 3
    "direct": replace(_windows("sliding"), prompt=DirectPrompt),
    "logits": Strategy(LogitsReranker, _logits_calls, unused=("retry", "constrained", "prefetch")),
}


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
    rerankers take them, but for those that the strategy has no use for, which are left out. `reasoning=False`:
    rankings are asked for without it, as by "direct", whatever the schedule; a pointwise judgement always reasons.
    `template`: of listwise prompts with reasoning, in place of ours. Raises ValueError for an unknown strategy or a
    setting out of range.
    """
    if name not in STRATEGIES:
        raise ValueError(f"unknown strategy {name!r}: expected one of {', '.join(STRATEGIES)}")
    chosen = STRATEGIES[name]
    kind = chosen.prompt or (ListwisePrompt if reasoning else DirectPrompt)
    if template is not None and kind is ListwisePrompt:
        kind = RecoveredPrompt
    caps = {"passage_tokens": passage_tokens, "query_tokens": query_tokens, "max_length": max_length}
    caps |= {"template": template if kind is RecoveredPrompt else None}
    prompt = kind(engine.tokenizer, **caps, overlong=overlong, repeat=repeat)
    used = {key: value for key, value in options.items() if key not in chosen.unused}
    return chosen.reranker(engine, prompt, **used)
