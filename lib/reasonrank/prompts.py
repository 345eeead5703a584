"""Prompts of our own wording, rendered to text and to token ids.

Each passage is cut to a number of model tokens and tokenised once, however many windows it comes into. Token ids
of a prompt are those of its text, tokenised in pieces that end at line breaks, where byte-pair tokenizers split
anyway. Query and passages are tokenised as plain text: `<|im_end|>` in them is no control token.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from .answers import EMPTY_CHAIN, THINK, THINK_END, clean_identifiers
from .runs import well_formed

Overlong = Literal["error", "shorten"]

_PLACE = re.compile(r"\{(num|query|passages)\}")
_MARK = "\u0001"  # stands for the user's message while the chat template is taken apart


@dataclass(frozen=True)
class Template:
    """A system and a user message with places {num}, {query} and {passages} (`[i] text`, each on its line).

    `choices`: how many templates `recovery.recover` found that render all its rows alike.
    """

    system: str
    user: str
    choices: int = 1


def fill(text: str, values: Mapping[str, str]) -> str:
    """The text with `values` in its places; braces in the values are no places."""
    return _PLACE.sub(lambda place: values.get(place[1], place[0]), text)


def block(passages: Sequence[str]) -> str:
    """Passages as a prompt lists them."""
    return "".join(f"[{number}] {text}\n" for number, text in enumerate(passages, start=1))


def frame(tokenizer: Any, system: str, thinking: bool = True) -> tuple[str, str]:
    """What the tokenizer's chat template puts before and after a user's message, up to where the model goes on.

    `thinking`: for templates that have such a switch, as Qwen3's. Where the template raises at a system message,
    or drops it, the system text begins the user's message. Raises ValueError, with the template's own words, for
    any other failure.
    """

    def rendered(**messages: str) -> str:
        rows = [{"role": role, "content": content} for role, content in messages.items()]
        options = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": thinking}
        return tokenizer.apply_chat_template(rows, **options)

    name = getattr(tokenizer, "name_or_path", "the tokenizer")
    try:
        text = rendered(system=system, user=_MARK)
    except Exception:  # whatever a template raises; what it raises without a system message is told below
        text = ""
    try:
        text = text if text and system.strip() in text else rendered(user=f"{system}\n\n{_MARK}")
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"the chat template of {name} renders no user message: {reason}") from None
    head, *others = text.split(_MARK)
    if len(others) != 1:
        raise ValueError(
            f"the chat template of {name} shows the user's message {len(others)} times, not once"
        )
    return head, others[0]


def control_tokens(tokenizer: Any) -> dict[int, str]:
    """Id -> text of the tokens that no text may hold."""
    known = getattr(tokenizer, "added_tokens_decoder", {})
    return {id: str(token) for id, token in known.items() if token.special}


def spaced(text: str, controls: Iterable[str]) -> str:
    """A text in which control tokens have a blank inside, so that they are none."""
    for control in controls:
        text = text.replace(control, f"{control[:1]} {control[1:]}")
    return text


@dataclass(frozen=True)
class Piece:
    """A part of a prompt: its text and its token ids. `was_cut`: the text was longer than its cap."""

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
    """A chat prompt over one query and some passages, made by a template.

    `tokenizer`: of the model that reads it; `passage_tokens`, `query_tokens`: caps in tokens (section 5.1 of the
    paper caps passages); `max_length`: longest prompt in tokens. `overlong`: what becomes of a longer one: "error",
    or "shorten", which cuts the query to what the passages leave of the room, but not under half of it, and then
    caps the passages lower, all alike, until the prompt fits. `template`: in place of the class's own, as it is.
    `repeat`: the query before the passages too, in fewer words, and each identifier behind its passage again: a small
    model copies, and after words that it quotes comes what came after them in the prompt.

    `chain`: the output begins with reasoning that `</think>` has to close: where the chat template opens or closes
    a `<think>` at the end of the prompt, that decides, else `reasoning`. `begun`: what makes the output a whole
    completion when put before it: `<think>` where the prompt opened it, an empty chain where there is none.
    """

    template: Template
    repeating: Template
    reasoning = True
    """Whether it asks for a chain before the answer."""

    def __init__(
        self,
        tokenizer: Any,
        *,
        passage_tokens: int,
        query_tokens: int,
        max_length: int,
        overlong: Overlong = "error",
        template: Template | None = None,
        repeat: bool = False,
    ):
        if min(passage_tokens, query_tokens, max_length) < 1:
            raise ValueError("passage_tokens, query_tokens and max_length are counts of tokens, at least 1")
        if overlong not in ("error", "shorten"):
            raise ValueError(f"overlong is {overlong!r}; expected 'error' or 'shorten'")
        self.tokenizer, self.max_length, self.overlong = tokenizer, max_length, overlong
        self.passage_tokens, self.query_tokens = passage_tokens, query_tokens
        self.repeat = repeat and template is None
        self._controls = control_tokens(tokenizer).values()
        self.template = template or (self.repeating if repeat else self.template)
        self._before, _, self._after = self.template.user.partition("{passages}")
        self._frame = lru_cache(maxsize=1000)(self._frame)
        self._query = lru_cache(maxsize=10_000)(self.cut)
        self._passage = lru_cache(maxsize=200_000)(self._passage)
        self._piece = lru_cache(maxsize=20_000)(lambda text: Piece(text, self._tokenise(text)))
        tail = self._frame(self.template.system)[1].text.rstrip()
        opened, closed = tail.endswith(THINK), tail.endswith(THINK_END)
        self.chain = opened or (self.reasoning and not closed)
        self.begun = THINK if opened else "" if self.chain else EMPTY_CHAIN

    def text(self, query: str, passages: Sequence[str]) -> str:
        """The prompt as text, chat template and generation prompt included, however long it is."""
        return "".join(p.text for p in self._pieces(query, passages, self.passage_tokens, self.query_tokens))

    def encode(self, query: str, passages: Sequence[str]) -> list[int]:
        """The prompt as token ids; see `render`."""
        return self.render(query, passages).ids

    def render(self, query: str, passages: Sequence[str]) -> Rendered:
        """The prompt as token ids, at most `max_length` of them.

        Raises ValueError for a longer one where `overlong` is "error", and where even passages of one token do
        not make it fit.
        """
        cap, query_cap = self.passage_tokens, self.query_tokens
        pieces, excess = self._fit(query, passages, cap, query_cap)
        if excess > 0 and self.overlong == "shorten":
            asked = len(self._query(query, query_cap).ids)
            half = (asked - excess + sum(len(piece.ids) for piece in pieces[2:-2:2])) // 2
            query_cap = max(1, min(query_cap, max(half, asked - excess)))
            pieces, excess = self._fit(query, passages, cap, query_cap)
        while excess > 0:
            if self.overlong == "error" or cap == 1:
                tried = " with passages of one token" if cap == 1 else ""
                raise ValueError(
                    f"a prompt of {self.max_length + excess} tokens{tried} exceeds max_length {self.max_length}; "
                    "lower the window, passage_tokens or query_tokens"
                )
            sizes = [len(piece.ids) for piece in pieces[2:-2:2]]
            lower = range(min(cap, max(sizes, default=1)) - 1, 1, -1)  # the highest that takes enough away
            cap = next((c for c in lower if sum(max(0, n - c) for n in sizes) >= excess), 1)
            pieces, excess = self._fit(query, passages, cap, query_cap)
        ids = [token for piece in pieces for token in piece.ids]
        cut = tuple(place for place, piece in enumerate(pieces[2:-2:2]) if piece.was_cut)
        return Rendered(ids, cap, cap < self.passage_tokens, cut, self._query(query, query_cap).was_cut)

    def cut(self, text: str, limit: int) -> Piece:
        """A query or passage in one line of at most `limit` tokens, with `[12]` made `(12)`, no identifier."""
        text = " ".join(clean_identifiers(well_formed(text)).split())
        ids = self._tokenise(" " + text)
        if len(ids) <= limit:
            return Piece(text, ids)
        kept = self.tokenizer.decode(ids[:limit].tolist()).replace("\ufffd", "").strip()
        return Piece(kept, ids[:limit], was_cut=True)

    def _fit(self, query: str, passages: Sequence[str], *caps: int) -> tuple[list[Piece], int]:
        """The pieces, and by how many tokens they are longer than `max_length`."""
        pieces = self._pieces(query, passages, *caps)
        return pieces, sum(len(piece.ids) for piece in pieces) - self.max_length

    def _pieces(self, query: str, passages: Sequence[str], cap: int, query_cap: int) -> list[Piece]:
        """Head, then what leads to a passage and the passage by turns, what follows the last one, tail."""
        values = {"num": str(len(passages)), "query": self._query(query, query_cap).text}
        in_system = spaced(values["query"], self._controls).replace(_MARK, " ")
        head, tail = self._frame(fill(self.template.system, values | {"query": in_system}))
        pieces, between = [head], fill(self._before, values)
        for number, passage in enumerate(passages, start=1):
            pieces += [self._piece(f"{between}[{number}]"), self._passage(passage, cap)]
            between = f" [{number}]\n" if self.repeat else ""
        return [*pieces, self._piece(between + fill(self._after, values)), tail]

    def _frame(self, system: str) -> list[Piece]:
        """The chat template around the user's message; control tokens in it are such."""
        parts = frame(self.tokenizer, system, self.reasoning)
        return [Piece(part, self._tokenise(part, control=True)) for part in parts]

    def _passage(self, passage: str, cap: int) -> Piece:
        kept = self.cut(passage, cap)
        line = f" {kept.text}" if kept.text else ""
        line += "" if self.repeat else "\n"
        return Piece(line, self._tokenise(line), kept.was_cut)

    def _tokenise(self, text: str, control: bool = False) -> array[int]:
        options = {} if control else {"split_special_tokens": True}
        return array("i", self.tokenizer(text, add_special_tokens=False, **options)["input_ids"])


def _templates(system: str, opening: str, task: str, in_short: str) -> tuple[Template, Template]:
    """A template, and the one that repeats the query, which says the task in fewer words."""
    plain = f"{opening}\n{{passages}}{task}\nQuestion: {{query}}"
    repeating = f"Question: {{query}}\n{{passages}}Question: {{query}}\n{in_short}"
    return Template(system, plain), Template(system, repeating)


_RANK = (
    "You compare passages and rank them by how much they help to answer a question.",
    "Here are {num} passages, each after its identifier.",
)


class ListwisePrompt(Prompt):
    """Rank a window of passages: reasoning, then a permutation of the identifiers (section 3 of the paper)."""

    template, repeating = _templates(
        *_RANK,
        "Think about what the question needs inside <think> </think>. Then rank all {num} passages, best first, "
        "inside <answer> </answer>, as in <answer> [2] > [1] </answer>.",
        "Think inside <think> </think>, then rank all {num} passages inside <answer> </answer>, best first.",
    )


class DirectPrompt(Prompt):
    """The same without reasoning (the non-reasoning rows of Table 3)."""

    reasoning = False
    template, repeating = _templates(
        *_RANK,
        "Rank all {num} passages, best first, inside <answer> </answer>, as in <answer> [2] > [1] </answer>.",
        "Rank all {num} passages inside <answer> </answer>, best first.",
    )


class PointwisePrompt(Prompt):
    """Judge one passage: reasoning, then true or false (the way of Rank1, Weller et al. 2025)."""

    template, repeating = _templates(
        "You judge whether a passage helps to answer a question.",
        "Here is a passage.",
        "Think inside <think> </think>, then say true if the passage helps with the question, else false.",
        "Think inside <think> </think>, then say true if the passage helps with the question, else false.",
    )
