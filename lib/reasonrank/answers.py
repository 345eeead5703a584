"""The one parser of model answers, shared by reward, teacher and inference, and the renderer beside it.

A completion is `<think> reasoning </think> <answer> [3] > [1] > [2] </answer>`; identifiers are 1-based
positions in the window.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "repaired", "truncated", "malformed"]

THINK, THINK_END = "<think>", "</think>"
ANSWER, ANSWER_END = "<answer>", "</answer>"
TAGS = (THINK, THINK_END, ANSWER, ANSWER_END)
EMPTY_CHAIN = f"{THINK} {THINK_END} "
"""What stands for the reasoning before an answer that was asked for without any."""
NONE = "None of these."
"""What a chain says where no passage helps."""

_BRACKETED = re.compile(r"\[\s*([0-9]+)\s*\]")
_NUMBER = re.compile(r"(?<![\w.])[0-9]+(?!\w|\.[0-9])")
# "1. ", "(1) ", "Rank 1: "; without a point, a bracket or a colon (group 2) it is no sure sign of a list
_COUNT = re.compile(
    r"[^\w\[]*(?:(?:rank|place|position|top|no|number)\W*)?([0-9]+)"
    r"(?:\s*(\.(?![0-9])|[):])(?=.*\S)|[^\w.\[\]]+(?=.*[0-9]))",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Answer:
    """A parsed answer: a permutation of 1..n, how it was read, and the reasoning ("" for none)."""

    ranking: list[int]
    status: Status
    reasoning: str


def parse(text: str, num_passages: int, reasoning: bool = True) -> Answer:
    """Read a completion for a window of `num_passages`; never raises for any text.

    `Answer.status` is

    - `ok`: the tags hold and the answer is a permutation;
    - `repaired`: the answer names at least one valid identifier; duplicates and foreign ones are dropped,
      missing ones are appended in input order;
    - `truncated`: there are tags, but no `</think>`, or no `</answer>` after the last one; input order;
    - `malformed`: no tags at all, or no valid identifier in `<answer>`; input order.

    All up to the last `</think>` is reasoning, whatever it holds, so digits in it never count. The opening
    `<think>` may be missing, since some chat templates put it at the end of the prompt; text before it is
    ignored. Of several answers after the reasoning the last closed one counts; a `<think>` that opens again
    ends what is read. Identifiers are `[n]`, or bare numbers where the bracketed ones are no ranking; only
    the digits 0 to 9 make one. A numbered list is read by what its entries name, never by its counts. Raises
    ValueError for a negative `num_passages`.

    `reasoning=False` is for a model that was asked for none: a text without any `<think>` or `</think>` counts
    as if its reasoning, empty, had been closed before it.
    """
    if num_passages < 0:
        raise ValueError(f"num_passages is {num_passages}; expected 0 or more")
    tagged = any(tag in text for tag in TAGS)
    if not reasoning and tagged and THINK not in text and THINK_END not in text:
        text = THINK_END + text
    chain, answer, failure = _split(text)
    if answer is None:
        return Answer(list(range(1, num_passages + 1)), failure, chain)
    ranking, status = _ranking(answer, num_passages)
    return Answer(ranking, status, chain)


def _split(text: str) -> tuple[str, str | None, Status]:
    """Reasoning, the inside of the answer (None where there is none) and the status in that case."""
    before, closed, after = text.rpartition(THINK_END)
    if not closed:
        status: Status = "truncated" if any(tag in text for tag in TAGS) else "malformed"
        return text.partition(THINK)[2].strip(), None, status
    prefix, opened, inside = before.partition(THINK)
    reasoning = (inside if opened else prefix).strip()
    after = after.partition(THINK)[0]
    if ANSWER_END not in after:
        return reasoning, None, "truncated"
    blocks = [part.rpartition(ANSWER) for part in after.split(ANSWER_END)[:-1]]
    answers = [inside for _, opened, inside in blocks if opened]
    return reasoning, answers[-1] if answers else None, "malformed"


def _ranking(answer: str, num_passages: int) -> tuple[list[int], Status]:
    """The permutation that the inside of an answer stands for, and its status."""
    known = {str(i): i for i in range(1, num_passages + 1)}  # looked up: a number may be huge
    order, listed = list(known.values()), _listed(answer)
    readings = [_BRACKETED.findall(answer), _NUMBER.findall(answer) if listed is None else listed]
    found = [[known.get(token.lstrip("0")) for token in reading] for reading in readings]
    for reading in found:
        if len(reading) == num_passages and set(reading) == set(order):
            return [i for i in reading if i is not None], "ok"
    for reading in found if listed is None else found[1:]:
        if valid := [i for i in reading if i is not None]:
            return list(dict.fromkeys(valid + order)), "repaired"
    return order, "malformed"


def _listed(answer: str) -> list[str] | None:
    """What the entries of a numbered list name, in order ("1. Passage 2" names 2); None where it is none.

    Entries are lines, or parts of a single line. They begin with counts: from 1 or 0 on, or 1 each. An entry
    names its bracketed identifiers, or else the first number after its count. Counts without a sure sign make
    a list only where numbers come twice, so that two columns are one and `1 > 3 > 2` is none.
    """
    lines = answer.strip().splitlines()
    entries = lines if len(lines) > 1 else re.split(r"[;,]|(?<![-=])>", answer)
    counted = [(found, entry[found.end() :]) for entry in entries if (found := _COUNT.match(entry))]
    counts, size = [int(found[1][:9]) for found, _ in counted], len(counted)
    if not counts or counts not in ([1] * size, list(range(size)), list(range(1, size + 1))):
        return None
    numbers, sure = _NUMBER.findall(answer), all(found[2] for found, _ in counted)
    if (size == 1 and len(numbers) > 2) or (not sure and len(set(numbers)) == len(numbers)):
        return None
    return [token for _, rest in counted for token in _BRACKETED.findall(rest) or _NUMBER.findall(rest)[:1]]


def read_released(text: str, num_passages: int) -> list[int]:
    """The permutation of 1..n that the authors' released code reads, where `parse` is ours.

    Every run of digits in `<answer>` counts, and of the whole text, reasoning included, where there is none;
    numbers outside 1..n and those that come again are dropped, missing ones appended in input order.
    """
    found = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL)
    known = {str(i): i for i in range(1, num_passages + 1)}
    tokens = [token.lstrip("0") for token in re.findall(r"[0-9]+", found[1] if found else text)]
    named = [known[token] for token in tokens if token in known]
    return list(dict.fromkeys([*named, *known.values()]))


def render(ranking: Iterable[int]) -> str:
    """A ranking as the answer writes it: `[3] > [1] > [2]`."""
    return " > ".join(f"[{identifier}]" for identifier in ranking)


def format_completion(reasoning: str, ranking: Iterable[int]) -> str:
    """A whole completion, as the model is trained to write it. `parse` gives both parts back, stripped."""
    return after_chain(reasoning, format_answer(ranking))


def after_chain(reasoning: str, answer: str) -> str:
    """An answer of any form after its reasoning."""
    return f"{THINK} {reasoning.strip()} {THINK_END} {answer}"


def format_answer(ranking: Iterable[int]) -> str:
    """A completion of a model that was asked for no reasoning."""
    return f"{ANSWER} {render(ranking)} {ANSWER_END}"


def clean_identifiers(text: str) -> str:
    """Turn each `[12]` of a query or passage into `(12)`, no identifier, as the released code does."""
    return re.sub(r"\[(\d+)\]", r"(\1)", text)
