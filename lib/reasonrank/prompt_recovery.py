"""The prompt template of the released checkpoints, learnt from the authors' published RL data.

Their prompts are not part of this project. A row of that data holds the messages that a template made of a
query and passages which are known, so the template is what remains when these are taken out. A recovered
template must render every row anew, character by character; its hashes tell whether it is a known one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, product
from typing import Any

from .answers import clean_identifiers

PLACEHOLDERS = ("num", "query", "passages")
LIMIT = 10  # places of a query or a number in one message; more would take too many trials
ROLES = ("system", "user")

Pieces = tuple[tuple[str, bool], ...]
"""Parts of a message in order: text, and whether it is the name of a placeholder."""


@dataclass(frozen=True)
class Template:
    """A system and a user message with places for `num`, `query` and `passages` (`[i] text`, a line each).

    `choices`: how many templates render all rows alike; with more than one, as where all rows have the same
    number of passages, this is the one with the most placeholders.
    """

    system: Pieces
    user: Pieces
    choices: int = 1

    def render(self, query: str, passages: Sequence[str]) -> list[dict[str, str]]:
        """The messages for a query and passages, which are taken as they are (see `prepare`)."""
        values = {"num": str(len(passages)), "query": query, "passages": block(passages)}
        texts = ["".join(values[t] if p else t for t, p in part) for part in (self.system, self.user)]
        return [{"role": role, "content": text} for role, text in zip(ROLES, texts, strict=True)]

    def texts(self) -> dict[str, str]:
        """Both messages with the literal placeholders {num}, {query} and {passages}, by role."""
        parts = zip(ROLES, (self.system, self.user), strict=True)
        return {role: "".join(f"{{{t}}}" if p else t for t, p in part) for role, part in parts}

    def hashes(self) -> dict[str, str]:
        """SHA-256 of each of `texts`, UTF-8, by role."""
        return {role: hashlib.sha256(text.encode()).hexdigest() for role, text in self.texts().items()}

    def known_as(self, known: Mapping[str, Any]) -> str | None:
        """The name under which `known` (name -> {"system": hash, "user": hash}) has this template, or None."""
        own = self.hashes()
        for name, entry in known.items():
            if isinstance(entry, Mapping) and all(entry.get(role) == own[role] for role in ROLES):
                return name
        return None


@dataclass(frozen=True)
class _Example:
    """A row: its two messages, and its query and passages as they stand in them."""

    system: str
    user: str
    query: str
    passages: tuple[str, ...]


def recover(
    rows: Iterable[Mapping[str, Any]],
    known: Mapping[str, Any] | None = None,
    *,
    tokenizer: Any = None,
    passage_tokens: int | None = None,
) -> Template:
    """Learn the template that made `rows`, and render each of them anew to be sure.

    A row has `messages` (or `prompt`): a system and a user message, each with `role` and `content`; `query`;
    `passages`, best with more than one number of passages over all rows. Query and passages stand in the
    messages as given or as `prepare` makes them, the passages cut to `passage_tokens` of `tokenizer`.
    `known`: hashes as for `Template.known_as`; of several templates that fit, a known one is taken. Raises
    ValueError, naming the row, for one that is malformed or whose query or passages are not in its messages,
    and where no template fits all rows.
    """
    examples = [
        _example(row, f"row {number}", tokenizer, passage_tokens) for number, row in enumerate(rows, start=1)
    ]
    if not examples:
        raise ValueError("no rows to learn a template from")
    base = min(examples, key=lambda e: (e.user.count(e.query) + e.system.count(e.query), -len(e.query)))
    systems = _fitting(_candidates(base.system, base, False), examples, "system")
    users = _fitting(_candidates(base.user, base, True), examples, "user")
    found = [Template(s, u, len(systems) * len(users)) for s, u in product(systems, users)]
    ours = [template for template in found if template.known_as(known or {})]
    return max(ours or found, key=lambda t: sum(place for _, place in (*t.system, *t.user)))


def _example(row: Mapping[str, Any], place: str, tokenizer: Any, tokens: int | None) -> _Example:
    messages = row["messages"] if "messages" in row else row.get("prompt")
    messages = [dict(message) for message in messages] if messages is not None else []
    roles = tuple(message.get("role") for message in messages)
    if roles != ROLES or not all(isinstance(message.get("content"), str) for message in messages):
        raise ValueError(f"{place}: expected a system and a user message with their text, got roles {roles}")
    query, passages = row.get("query"), row.get("passages")
    passages = tuple(passages) if passages is not None else ()
    if not isinstance(query, str) or not query or not passages:
        raise ValueError(f"{place}: expected a query and passages that are not empty")
    system, user = (message["content"] for message in messages)
    for text, texts in _forms(query, passages, tokenizer, tokens):
        before, found, after = user.partition(block(texts))
        if found and (text in before or text in after or text in system):
            return _Example(system, user, text, texts)
    raise ValueError(f"{place}: its query, or its passages as '[i] text' lines, are not in its messages")


def _forms(
    query: str, passages: tuple[str, ...], tokenizer: Any, tokens: int | None
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Query and passages as given, then prepared, then one of the two prepared."""
    yield query, passages
    prepared = prepare(query), tuple(prepare(text, tokenizer, tokens) for text in passages)
    yield prepared
    yield query, prepared[1]
    yield prepared[0], passages


def _candidates(text: str, example: _Example, passages: bool) -> Iterator[Pieces]:
    """Templates that might have made a message: each choice of the places where query and number stand."""
    whole: list[Pieces] = [((text, False),)]
    if passages:
        whole = [split for split in _splits(whole[0], block(example.passages), "passages") if len(split) > 1]
        whole = [split for split in whole if sum(place for _, place in split) == 1]
    for pieces in whole:
        for with_query in _splits(pieces, example.query, "query"):
            yield from _splits(with_query, str(len(example.passages)), "num")


def _splits(pieces: Pieces, value: str, name: str) -> Iterator[Pieces]:
    """The pieces with any choice of the places of `value` in their text turned into the placeholder `name`."""
    pattern = re.compile(rf"(?<!\d){value}(?!\d)" if name == "num" else re.escape(value))
    places = [(i, m.start()) for i, (t, p) in enumerate(pieces) if not p for m in pattern.finditer(t)]
    if len(places) > LIMIT:
        raise ValueError(
            f"{name} {value[:60]!r} stands at {len(places)} places of a message, too many to try"
        )
    for chosen in chain.from_iterable(combinations(places, count) for count in range(len(places), -1, -1)):
        yield tuple(
            chain.from_iterable(_cut(i, piece, chosen, value, name) for i, piece in enumerate(pieces))
        )


def _cut(
    index: int, piece: tuple[str, bool], chosen: Sequence[tuple[int, int]], value: str, name: str
) -> Iterator[tuple[str, bool]]:
    text, is_place = piece
    end = 0
    for _, start in (place for place in chosen if place[0] == index):
        if start > end:
            yield text[end:start], False
        yield name, True
        end = start + len(value)
    if text[end:]:
        yield text[end:], is_place


def _fitting(candidates: Iterable[Pieces], examples: Sequence[_Example], role: str) -> list[Pieces]:
    """The candidates that render this message of every row; ValueError where none does."""
    found = []
    for pieces in dict.fromkeys(candidates):
        template = Template(pieces, pieces)
        if all(template.render(e.query, e.passages)[0]["content"] == getattr(e, role) for e in examples):
            found.append(pieces)
    if not found:
        raise ValueError(f"no template makes the {role} messages of all {len(examples)} rows")
    return found


def block(passages: Sequence[str]) -> str:
    """Passages as the authors' prompts list them: `[i] text`, each on its line."""
    return "".join(f"[{number}] {text}\n" for number, text in enumerate(passages, start=1))


def prepare(text: str, tokenizer: Any = None, tokens: int | None = None) -> str:
    """A query or passage as it enters a prompt: fixed by ftfy, cut to `tokens` model tokens, `[12]` made `(12)`."""
    from ftfy import fix_text

    text = fix_text(text.strip())
    if tokenizer is not None and tokens is not None:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) > tokens:
            text = tokenizer.decode(ids[:tokens], skip_special_tokens=True).rstrip("\ufffd")
    return clean_identifiers(text)


class RecoveredPrompt:
    """Renders windows with a recovered template; takes the place of `prompts.ListwisePrompt` in a reranker.

    `passage_tokens`: cap of a passage (the paper: 512 on BRIGHT and R2MED, 100 on BEIR); `query_tokens`: None
    leaves queries whole; `max_length`: longest prompt, chat template included, all in tokens.
    """

    def __init__(
        self,
        template: Template,
        tokenizer: Any,
        *,
        passage_tokens: int = 512,
        query_tokens: int | None = None,
        max_length: int = 32_768,
    ):
        if min(passage_tokens, query_tokens or 1, max_length) < 1:
            raise ValueError("passage_tokens, query_tokens and max_length are counts of tokens, at least 1")
        self.template, self.tokenizer, self.max_length = template, tokenizer, max_length
        self.passage_tokens, self.query_tokens = passage_tokens, query_tokens

    def messages(self, query: str, passages: Sequence[str]) -> list[dict[str, str]]:
        """The system and the user message of a window."""
        texts = [prepare(text, self.tokenizer, self.passage_tokens) for text in passages]
        return self.template.render(prepare(query, self.tokenizer, self.query_tokens), texts)

    def text(self, query: str, passages: Sequence[str]) -> str:
        """The prompt as text, chat template and generation prompt included."""
        messages = self.messages(query, passages)
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def encode(self, query: str, passages: Sequence[str]) -> list[int]:
        """The prompt as token ids. Raises ValueError where it is longer than `max_length`."""
        text = self.text(query, passages)
        ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        if len(ids) > self.max_length:
            raise ValueError(
                f"a prompt of {len(ids)} tokens exceeds max_length {self.max_length}; "
                "lower the window, passage_tokens or query_tokens"
            )
        return ids
