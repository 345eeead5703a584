"""Prompts of our own wording, rendered to text and to token ids.

Each passage is cut to a number of model tokens and tokenised once, however many windows it comes into. Token ids
of a prompt are those of its text: the pieces end at line breaks, where byte-pair tokenizers split anyway.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from .answers import THINK, THINK_END, clean_identifiers
from .prompt_recovery import Template, recover

__all__ = [
    "DirectPrompt",
    "ListwisePrompt",
    "Piece",
    "PointwisePrompt",
    "Prompt",
    "Rendered",
    "Template",
    "recover",
]

Overlong = Literal["error", "shorten"]

_MARK = "\u0001"  # stands for the user's message while the chat template is taken apart


@dataclass(frozen=True)
class Piece:
    """A part of a prompt: its text, its token ids, and whether the text was cut at its cap."""

    text: str
    ids: array[int]
    was_cut: bool = False


@dataclass(frozen=True)
class Rendered:
    """A prompt as token ids, and what was cut to make it.

    `cap`: tokens that each passage was allowed; `shortened`: less than usual, for the prompt to fit. `cut`:
    0-based places of the passages that were longer than `cap`; `query_cut`: the query was longer than its own.
    """

    ids: list[int]
    cap: int = 0
    shortened: bool = False
    cut: tuple[int, ...] = ()
    query_cut: bool = False


class Prompt:
    """A chat prompt over one query and some passages.

    `tokenizer`: of the model that reads it, with a chat template; `passage_tokens`, `query_tokens`: caps in tokens
    (section 5.1 of the paper caps passages); `max_length`: longest prompt in tokens. `overlong`: what becomes of
    a prompt that is longer: "error", or "shorten", which caps its passages lower, all alike, until it fits.
    """

    system = ""
    opening = ""
    closing = ""
    reasoning = True
    """Whether it asks for a chain of reasoning before the answer."""
    chain: bool
    """Whether the output begins with a chain that `</think>` closes: the chat template may have opened or closed it."""

    def __init__(
        self,
        tokenizer: Any,
        *,
        passage_tokens: int,
        query_tokens: int,
        max_length: int,
        overlong: Overlong = "error",
    ):
        if min(passage_tokens, query_tokens, max_length) < 1:
            raise ValueError("passage_tokens, query_tokens and max_length are counts of tokens, at least 1")
        if overlong not in ("error", "shorten"):
            raise ValueError(f"overlong is {overlong!r}; expected 'error' or 'shorten'")
        self.tokenizer, self.max_length, self.overlong = tokenizer, max_length, overlong
        self.passage_tokens, self.query_tokens = passage_tokens, query_tokens
        messages = [{"role": "system", "content": self.system}, {"role": "user", "content": _MARK}]
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        self._head, self._tail = rendered.split(_MARK)
        begun = self._tail.rstrip()
        self.chain = begun.endswith(THINK) or (self.reasoning and not begun.endswith(THINK_END))
        self._fixed = lru_cache(maxsize=10_000)(lambda text: Piece(text, self._tokenise(text)))
        self._query = lru_cache(maxsize=10_000)(self._query_piece)
        self._passage = lru_cache(maxsize=200_000)(self._passage_piece)

    def text(self, query: str, passages: Sequence[str]) -> str:
        """The prompt as text, chat template and generation prompt included, however long it is."""
        return "".join(piece.text for piece in self._pieces(query, passages, self.passage_tokens))

    def encode(self, query: str, passages: Sequence[str]) -> list[int]:
        """The prompt as token ids; see `render`."""
        return self.render(query, passages).ids

    def render(self, query: str, passages: Sequence[str]) -> Rendered:
        """The prompt as token ids, at most `max_length` of them.

        Raises ValueError for a longer one where `overlong` is "error", and where even passages of one token
        do not make it fit.
        """
        cap, pieces = self.passage_tokens, self._pieces(query, passages, self.passage_tokens)
        length = _length(pieces)
        while length > self.max_length:
            if self.overlong == "error" or cap == 1:
                raise ValueError(self._too_long(length, cap))
            cap = self._lower(pieces, length, cap)
            pieces = self._pieces(query, passages, cap)
            length = _length(pieces)
        ids: list[int] = []
        for piece in pieces:
            ids += piece.ids
        cut = tuple(place for place, piece in enumerate(pieces[3:-3:2]) if piece.was_cut)
        return Rendered(ids, cap, cap < self.passage_tokens, cut, pieces[-2].was_cut)

    def _pieces(self, query: str, passages: Sequence[str], cap: int) -> list[Piece]:
        """Head, opening, then identifier and passage by turns, closing, query, tail."""
        body = [self._fixed(self._head), self._fixed(self.opening.format(n=len(passages)) + "\n")]
        for number, passage in enumerate(passages, start=1):
            body += [self._fixed(f"[{number}]"), self._passage(passage, cap)]
        body.append(self._fixed(f"{self.closing.format(n=len(passages))}\n"))
        return [*body, self._query(query), self._fixed(self._tail)]

    def _lower(self, pieces: Sequence[Piece], length: int, cap: int) -> int:
        """The highest cap under `cap` that takes enough from the passages, if each ends up at its cap."""
        passages = [len(piece.ids) for piece in pieces[3:-3:2]]
        excess = length - self.max_length
        longest = max(passages, default=1)
        for lower in range(min(cap, longest) - 1, 1, -1):
            if sum(max(0, tokens - lower) for tokens in passages) >= excess:
                return lower
        return 1

    def _too_long(self, length: int, cap: int) -> str:
        tried = " with passages of one token" if self.overlong == "shorten" and cap == 1 else ""
        return (
            f"a prompt of {length} tokens{tried} exceeds max_length {self.max_length}; "
            "lower the window, passage_tokens or query_tokens"
        )

    def _tokenise(self, text: str) -> array[int]:
        return array("i", self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _passage_piece(self, passage: str, cap: int) -> Piece:
        text, was_cut = self._truncate(passage, cap)
        line = f" {text}\n" if text else "\n"
        return Piece(line, self._tokenise(line), was_cut)

    def _query_piece(self, query: str) -> Piece:
        text, was_cut = self._truncate(query, self.query_tokens)
        return Piece(f"Question: {text}", self._tokenise(f"Question: {text}"), was_cut)

    def _truncate(self, text: str, limit: int) -> tuple[str, bool]:
        """One line of at most `limit` tokens, with `[12]` made `(12)` so that it is no identifier."""
        text = " ".join(clean_identifiers(text).replace(_MARK, " ").split())
        ids = self._tokenise(" " + text)
        if len(ids) <= limit:
            return text, False
        return self.tokenizer.decode(ids[:limit].tolist()).replace("\ufffd", "").strip(), True


def _length(pieces: Sequence[Piece]) -> int:
    return sum(len(piece.ids) for piece in pieces)


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

    reasoning = False
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
