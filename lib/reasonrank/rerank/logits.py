"""Ranking by one position, in the way of FIRST (Reddy et al. 2024, arXiv 2406.15657): no answer is written out.

The answer is begun for the model, without reasoning, up to where it names its first identifier; passages are ranked by
how probable their identifiers are there. FIRST has a letter for each passage. Ours are numbers, and where a tokenizer
splits them into digits, 1 and 10 begin alike. So the probabilities of tokens are multiplied along an identifier, each
given that some identifier is named: one request for each place where identifiers part.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reasonrank.answers import ANSWER, ANSWER_END, EMPTY_CHAIN, render
from reasonrank.engines import Completion, Sampling

from .listwise import ListwiseReranker
from .pointwise import VERDICT
from .run import as_one, gather

Tokens = tuple[int, ...]


@dataclass
class LogitsReranker(ListwiseReranker):
    """Sliding windows, an output token a request: one request for at most 9 passages, 1 + n // 10 for n where numbers
    are split into digits, none of which waits for another.

    An answer's text is the ranking as it would be written. Identifiers that are not among the likely tokens follow in
    the order of the window ("repaired"); where none is, the window stays as it is ("malformed"). `sampling` plays no
    part: there is no draw. Raises EngineError where the engine gives no log-probabilities.
    """

    retry: bool = field(default=False, init=False)
    constrained: bool = field(default=False, init=False)
    prefetch: bool = field(default=False, init=False)

    async def _ask(self, prompt: list[int], num_passages: int, sampling: Sampling) -> Completion:
        opening = EMPTY_CHAIN.removeprefix(self.prompt.begun).lstrip() + ANSWER
        decode = self.engine.tokenizer.decode
        names = identifiers(self.engine.tokenizer, f"{opening} [", range(1, num_passages + 1))
        asked = branches(names)
        done = await gather(self.engine.generate([*prompt, *path], VERDICT) for path in asked)
        scores = dict.fromkeys(names, 0.0)
        for (path, tokens), completion in zip(asked.items(), done, strict=True):
            top = completion.logprobs[0]
            found = {token: top[text] for token in tokens if (text := decode([token])) in top}
            total = np.logaddexp.reduce(list(found.values()))
            likely = {token: value - total for token, value in found.items()}  # given that it is one of them
            for ids in names:
                if ids[: len(path)] == path:
                    scores[ids] += likely.get(ids[len(path)], -math.inf)
        named = [(-score, n) for n, score in enumerate(scores.values(), start=1) if score > -math.inf]
        return as_one(done, prompt, f"{opening} {render(n for _, n in sorted(named))} {ANSWER_END}")


def identifiers(tokenizer: Any, opening: str, numbers: Iterable[int]) -> list[Tokens]:
    """The tokens of `opening`, which ends with a bracket, and of the rest of each identifier behind it."""
    options = {"add_special_tokens": False, "split_special_tokens": True}
    return [tuple(tokenizer(f"{opening}{number}]", **options)["input_ids"]) for number in numbers]


def branches(names: Sequence[Tokens]) -> dict[Tokens, list[int]]:
    """Where identifiers part: the tokens before -> the tokens that can follow, in the order of `names`."""
    after: dict[Tokens, dict[int, None]] = {}
    for ids in names:
        for k, token in enumerate(ids):
            after.setdefault(ids[:k], {})[token] = None
    return {path: list(tokens) for path, tokens in after.items() if len(tokens) > 1}
