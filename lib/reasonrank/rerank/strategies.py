"""Ways to rerank a candidate list, by name: who asks the model, with which prompt, and how often."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
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
    """A way to rerank: by `windows` of a schedule (see `listwise.schedule`), unless its reranker has a way of its own.

    `prompt`: None for a listwise one. `counted`: in place of a request a window, see `calls`.
    """

    windows: str = "sliding"
    reranker: type[Reranker] = ListwiseReranker
    prompt: type[Prompt] | None = None
    counted: Callable[[int, int, int], tuple[int, int]] | None = None

    def calls(self, num_candidates: int, window: int, step: int) -> tuple[int, int]:
        """Requests to the engine for one query, the fewest and the most; they differ for top-down partitioning and
        pointwise, where the answers decide, and for logits, where the tokenizer does. A retry, and the second request
        of a constrained answer with reasoning, come on top."""
        if self.counted is not None:
            return self.counted(num_candidates, window, step)
        return (len(schedule(self.windows, num_candidates, window, step)),) * 2


def _logits_calls(num_candidates: int, window: int, step: int) -> tuple[int, int]:
    """A request a window where no number is split, and 1 + n // 10 for n passages where all are."""
    sizes = [end - start for start, end in schedule("sliding", num_candidates, window, step)]
    return len(sizes), sum(1 + size // 10 for size in sizes)


STRATEGIES = {
    "sliding": Strategy(),  # paper: 20/10; Table 10: 10/5
    "single": Strategy("single"),  # paper, Table 9 (top 20)
    "full": Strategy("full"),  # for long contexts
    "topdown": Strategy(reranker=TopDownReranker, counted=lambda n, window, step: topdown_calls(n, window)),
    "pointwise": Strategy(
        reranker=PointwiseReranker, prompt=PointwisePrompt, counted=lambda n, window, step: (n, 2 * n)
    ),
    "direct": Strategy(prompt=DirectPrompt),  # the paper's non-reasoning rows of Table 3
    "logits": Strategy(reranker=LogitsReranker, counted=_logits_calls),
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
    setting out of range, TypeError for an option that no strategy has.
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
    own, *others = (
        {option.name for option in fields(reranker) if option.init}
        for reranker in (chosen.reranker, *(other.reranker for other in STRATEGIES.values()))
    )
    if odd := options.keys() - own.union(*others):
        raise TypeError(f"no reranker has an option {min(odd)!r}")
    used = {key: value for key, value in (options | {"strategy": chosen.windows}).items() if key in own}
    return chosen.reranker(engine, prompt, **used)
