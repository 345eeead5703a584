"""Prompts of our own wording, rendered to text and to token ids.

Each passage is cut to a number of model tokens and tokenised once, however many windows it comes into. Token ids
of a prompt are those of its text: the pieces end at line breaks, where byte-pair tokenizers split anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from .answers import clean_identifiers

_MARK = "\u0001"  # stands for the user's message while the chat template is taken apart


class Prompt:
    """A chat prompt over one query and some passages.

    `tokenizer`: of the model that reads it, with a chat template; `passage_tokens`, `query_tokens`: caps in tokens
    (section 5.1 of the paper caps passages); `max_length`: longest prompt in tokens.
    """

    system = ""
    opening = ""
    closing = ""

    def __init__(self, tokenizer: Any, *, passage_tokens: int, query_tokens: int, max_length: int):
        if min(passage_tokens, query_tokens, max_length) < 1:
            raise ValueError("passage_tokens, query_tokens and max_length are counts of tokens, at least 1")
        self.tokenizer, self.max_length = tokenizer, max_length
        self.passage_tokens, self.query_tokens = passage_tokens, query_tokens
        messages = [{"role": "system", "content": self.system}, {"role": "user", "content": _MARK}]
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        self._head, self._tail = rendered.split(_MARK)
        self._ids = lru_cache(maxsize=200_000)(self._tokenise)
        self._cut = lru_cache(maxsize=200_000)(self._truncate)

    def lines(self, query: str, passages: Sequence[str]) -> list[str]:
        """The prompt in pieces, each ending at a line break; together they are its text."""
        query = self._cut(query, self.query_tokens)
        body = [self.opening.format(n=len(passages)) + "\n"]
        for number, passage in enumerate(passages, start=1):
            text = self._cut(passage, self.passage_tokens)
            body += [f"[{number}]", f" {text}\n" if text else "\n"]
        body.append(f"{self.closing.format(n=len(passages))}\n")
        return [self._head, *body, f"Question: {query}", self._tail]

    def text(self, query: str, passages: Sequence[str]) -> str:
        """The prompt as text, chat template and generation prompt included."""
        return "".join(self.lines(query, passages))

    def encode(self, query: str, passages: Sequence[str]) -> list[int]:
        """The prompt as token ids. Raises ValueError where it is longer than `max_length`."""
        ids = [token for line in self.lines(query, passages) for token in self._ids(line)]
        if len(ids) > self.max_length:
            raise ValueError(
                f"a prompt of {len(ids)} tokens exceeds max_length {self.max_length}; "
                "lower the window, passage_tokens or query_tokens"
            )
        return ids

    def _tokenise(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _truncate(self, text: str, limit: int) -> str:
        """One line of at most `limit` tokens, with `[12]` made `(12)` so that it is no identifier."""
        text = " ".join(clean_identifiers(text).replace(_MARK, " ").split())
        ids = self._tokenise(" " + text)
        if len(ids) <= limit:
            return text
        return self.tokenizer.decode(ids[:limit]).replace("\ufffd", "").strip()


class ListwisePrompt(Prompt):
    """Rank a window of passages: reasoning, then a permutation of the identifiers (section 3 of the paper)."""

    system = "You compare passages and rank them by how much they help to answer a question."
    opening = "Here are {n} passages, each after its identifier."
    closing = (
        "Think about what the question needs inside <think> </think>. Then rank all {n} passages, best first, "
        "inside <answer> </answer>, as in <answer> [2] > [1] </answer>."
    )


class DirectPrompt(Prompt):
    """The same without reasoning (the non-reasoning rows of Table 3)."""

    system = ListwisePrompt.system
    opening = ListwisePrompt.opening
    closing = (
        "Rank all {n} passages, best first, inside <answer> </answer>, as in <answer> [2] > [1] </answer>."
    )


class PointwisePrompt(Prompt):
    """Judge one passage: reasoning, then true or false (the way of Rank1, Weller et al. 2025)."""

    system = "You judge whether a passage helps to answer a question."
    opening = "Here is a passage."
    closing = (
        "Think inside <think> </think>, then say true if the passage helps with the question, else false."
    )
