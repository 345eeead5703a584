"""Answers that are held to their form while they are decoded.

Reasoning is free; once `</think>` is there, a second request continues the text, and its tokens are held to
a regular expression: as many identifiers of the window as it has passages, between `<answer>` and `</answer>`.
A regular expression that forbids an identifier to come twice would have to list all n! permutations, so
duplicates can still occur: they are repaired by `answers.parse`, and counted as such.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from reasonrank.answers import ANSWER, ANSWER_END, THINK_END, render
from reasonrank.engines import Completion, Sampling

from .base import Gate


def answer_pattern(num_passages: int) -> str:
    """The regular expression of what follows `<answer>`; `num_passages` is at least 1."""
    number = "|".join(str(number) for number in range(1, num_passages + 1))
    identifier = rf"\[({number})\]"
    return rf" {identifier}( > {identifier}){{{num_passages - 1}}} {ANSWER_END}"


async def complete(
    gate: Gate, prompt: Sequence[int], num_passages: int, sampling: Sampling, reasoning: bool
) -> tuple[Completion, float, int]:
    """A completion whose answer is held to its form, its seconds, and the requests that it took.

    `sampling.max_tokens` bounds the whole; what an answer needs is kept free of it. Reasoning that meets its
    limit is not closed by force: such a completion is returned as it is, truncated. The prompt is counted
    once. To be called with a slot held.
    """
    tokenizer, text, tokens, seconds = gate.engine.tokenizer, "", 0, 0.0
    room = _answer_tokens(tokenizer, num_passages)
    if reasoning:
        limit = max(1, sampling.max_tokens - room)
        chain, seconds = await gate.generate(prompt, replace(sampling, max_tokens=limit, stop=(THINK_END,)))
        if THINK_END not in chain.text:
            return chain, seconds, 1
        text, tokens = chain.text + " ", chain.output_tokens
    text += ANSWER
    begun = [*prompt, *tokenizer.encode(text, add_special_tokens=False)]
    limit, pattern = min(room, sampling.max_tokens), answer_pattern(num_passages)
    held = replace(sampling, max_tokens=limit, stop=(ANSWER_END,), constraint=pattern)
    ending, more = await gate.generate(begun, held)
    tokens += ending.output_tokens
    whole = replace(ending, text=text + ending.text, prompt_tokens=len(prompt), output_tokens=tokens)
    return whole, seconds + more, 2 if reasoning else 1


def _answer_tokens(tokenizer: Any, num_passages: int) -> int:
    """Tokens that the longest answer can take, with some to spare for another way to split the text."""
    longest = f" {ANSWER} {render([num_passages] * num_passages)} {ANSWER_END}"
    return len(tokenizer.encode(longest, add_special_tokens=False)) + num_passages
