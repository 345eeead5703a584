"""Four collections made by this program, in which a query must be worked out before its passage can be found.

A place has 22 short passages of one kind, and a query names its place: a first stage finds the passages of the place
and cannot order them. One answers, which follows from query and passage alone; most others are near misses. Calendar,
kinship and directions are complex QA, lines of Python coding, arithmetic in words mathematics, and things that the
passage has under another word web search. A problem is its working, without names; its hash says which split it is
in, so train, dev and test share none, whatever the seed, and those of web search share no fact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import product
from operator import add, floordiv, mod, mul, sub
from random import Random
from typing import Any

from ..settings import read_yaml
from ..stages import ROOT
from .base import Collection, Passage, Query, split_of

KINDS = {  # name -> scenario, difficulty, kinds of its places
    "complex": ("complex QA", 2, ("calendar", "kinship", "directions", "calendar", "directions")),
    "coding": ("coding", 2, ("program",)),
    "math": ("math: problem", 2, ("seats", "seats", "minutes", "days", "eggs", "feet", "ounces")),
    "web": ("web search", 2, ("need",)),
}
UNITS = {"minutes": 60, "days": 7, "eggs": 12, "feet": 3, "ounces": 16}  # seats: any number
SIZES, PER_PLACE, PASSAGES = {"test": 300, "dev": 200}, 4, 22  # of train as many queries as asked for
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
AXES = ("north", "south"), ("east", "west")
SIGNS = {"+": add, "-": sub, "x": mul, "*": mul, "//": floordiv, "%": mod}


@dataclass(frozen=True)
class Working:
    """A query worked out: single steps, what a passage must state, and the passage that does."""

    steps: tuple[str, ...]
    answer: tuple[str, ...]
    docid: str = ""


@dataclass
class Worked(Collection):
    """`workings` and `slips`: query id -> how it is worked out, and the same with a slip that is carried through."""

    workings: dict[str, Working] = field(default_factory=dict)
    slips: dict[str, Working] = field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """A query before it is put into words; `traps`: answers of passages that share words with it, and no more."""

    given: dict[str, Any]
    pieces: list[tuple[str, dict[str, Any]]]
    right: Working
    traps: list[tuple[str, ...]] = field(default_factory=list)


def load(name: str, difficulty: int | None = None, seed=0, train: int = 2000, wordings="usual") -> Worked:
    """The collection `name` ("complex", "coding", "math", "web"), the same for the same arguments.

    `difficulty`: steps of a working, 1 to 3 (None: as in KINDS); `train`: training queries, beside 200 of dev and
    300 of test. `wordings="held_out"`: the test split alone, the same problems under the same ids, in words that no
    query and no passage has otherwise. Raises KeyError for another name, and ValueError for another difficulty,
    other wordings, or more training queries than there are names of places.
    """
    scenario, usual, kinds = KINDS[name]
    difficulty = usual if difficulty is None else difficulty
    if difficulty not in (1, 2, 3) or wordings not in ("usual", "held_out"):
        raise ValueError(f"difficulty {difficulty}, {wordings}: expected 1, 2 or 3, usual or held_out")
    kinds = kinds[:1] if name == "math" and difficulty == 1 else kinds  # of units there are too few products
    towns = [" ".join(pair) for pair in product(*_read("words")["towns"])]
    Random(f"{name} {seed}").shuffle(towns)
    if train > (most := PER_PLACE * len(towns) - sum(SIZES.values())):
        raise ValueError(f"train is {train}; there are names for {most} training queries")
    made = Worked(f"worked_{name}", scenario, "made by a program", {}, {}, {}, {})
    made.name += "_reworded" * (wordings == "held_out")
    for split, size in (SIZES | {"train": train}).items():
        what, how = (Random(f"{name} {difficulty} {seed} {split} {of}") for of in ("problems", wordings))
        for start in range(0, size, PER_PLACE):
            kind, town = what.choice(kinds), towns.pop()
            place = _place(kind, split, difficulty, min(PER_PLACE, size - start), what)
            if wordings == "usual" or split == "test":
                _add(made, split, town, _read("words")[wordings][kind], *place, how)
    return made


@cache
def _read(name: str) -> dict[str, Any]:
    return read_yaml(ROOT / "data" / "worked" / f"{name}.yaml")


def _place(kind: str, split: str, difficulty: int, queries: int, rng: Random) -> tuple[list, list]:
    """Problems of one place and split with different answers, each with a slip, and what its passages state."""
    known = _read("facts")[split]
    make = partial(_need, known) if kind == "need" else MAKERS.get(kind) or partial(_amount, kind)
    names = [*known] if kind == "need" else _read("words")["relations"]
    problems, stated = {}, {}
    while len(problems) < queries:
        problem = make(rng, difficulty)
        key = " ".join(problem.right.steps + problem.right.answer) if problem else ""
        if key and (kind == "need" or split_of(key) == split):
            slip = _slip(problem.right, _near(problem.right.answer, names, rng))
            problems.setdefault(problem.right.answer, (problem, slip))
            stated |= dict.fromkeys(problem.traps)
    chains = [[slip.answer, answer] for answer, (_, slip) in problems.items()]
    stated |= dict.fromkeys(answer for chain in chains for answer in chain)
    while len(stated) < PASSAGES:  # each beside the last: an answer is not the middle of its near misses
        chain = rng.choice(chains)
        chain.append(_near(chain[-1], names, rng)[0])
        stated[chain[-1]] = None
        chain.reverse()
    return [*problems.values()], rng.sample([*stated], PASSAGES)


def _near(answer: tuple[str, ...], names: Sequence[str], rng: Random) -> list[tuple[str, ...]]:
    """Answers that differ in one word, in random order: a number nearby or with its digits the other way round, a
    day nearby, the opposite side, another one of `names`."""
    found, last = set(), 24 if set(DAYS) & set(answer) else 10_000
    for place, text in enumerate(answer):
        number, _, side = text.partition(" ")
        others = rng.sample(names, 5) if text in names else []
        if text in DAYS:
            others = [DAYS[(DAYS.index(text) + off) % 7] for off in (-2, -1, 1, 2)]
        elif number.isdigit():
            values = [*(int(number) + off for off in (-10, -2, -1, 1, 2, 10)), int(number[::-1])]
            others = [f"{value} {side}".strip() for value in values if 0 < value < last]
            others += [f"{number} {other}" for axis in AXES if side in axis for other in axis]
        found |= {(*answer[:place], other, *answer[place + 1 :]) for other in others} - {answer}
    return rng.sample(sorted(found), len(found))


def _slip(right: Working, near: list[tuple[str, ...]]) -> Working:
    """The working with its last result wrong that gives the first of `near` for which there is such a step."""
    for answer in near:
        (was, now), *_ = [pair for pair in zip(right.answer, answer, strict=True) if pair[0] != pair[1]]
        for place, step in reversed([*enumerate(right.steps)]):
            if step.endswith(f" {was}"):
                wrong = f"{step.removesuffix(was)}{now}"
                return Working((*right.steps[:place], wrong, *right.steps[place + 1 :]), answer)
    raise AssertionError("every working gives a part of its answer in a step")


def _add(made: Worked, split: str, town: str, words: dict, problems: list, stated: list, rng: Random) -> None:
    """Put a place into words: one wording for its passages, one for each query."""
    place, wording, ids = town.lower().replace(" ", "-"), rng.choice(words["passage"]), {}
    for answer, who in zip(stated, rng.sample(_read("words")["people"], len(stated)), strict=True):
        ids[answer], when = f"{place}/{who.lower()}", "".join(map(add, (", ", " at "), answer[1:]))
        text = wording.format(*answer, who=who, town=town, when=when)
        made.passages[ids[answer]] = Passage(ids[answer], text)
    for number, (problem, slip) in enumerate(problems, start=1):
        qid, right = f"{place}-{number}", problem.right
        parts = "".join(rng.choice(words[piece]).format(**values) for piece, values in problem.pieces)
        text = rng.choice(words["query"]).format(town=town, parts=parts, **problem.given)
        query = Query(qid, f"{town}. {text[0].upper()}{text[1:]}", right.steps)
        made.add(query, split, [ids[right.answer]])
        made.hard_negatives[qid] = [ids[answer] for answer in (slip.answer, *problem.traps) if answer in ids]
        made.workings[qid] = replace(right, docid=ids[right.answer])
        made.slips[qid] = replace(slip, docid=ids[slip.answer])


def _trace(value: int, operations: list[tuple[str, int]], unit: str = "") -> Working:
    """Steps such as "31 + 5 = 36", and the last value. A product is taken apart: "10 x 7 = 70", "3 x 7 = 21", "70 + 21
    = 91", so that each step is one that a small model can take."""
    steps = []
    for sign, n in operations:
        small, large = sorted((value, n))
        if sign in ("x", "*") and large > 10 and large % 10:
            parts = [part * small for part in (large - large % 10, large % 10)]
            steps += [f"{part // small} {sign} {small} = {part}" for part in parts]
            value, sign, n = parts[0], "+", parts[1]
        steps.append(f"{value} {sign} {n} = {(value := SIGNS[sign](value, n))}{unit}")
    return Working(tuple(steps), (f"{value}{unit}",))


def _number(start: int, operations: list, pieces: list) -> Problem | None:
    """A problem with a number as answer; None where a value on the way is below 2, or the answer not in 10 to 400."""
    right = _trace(start, operations)
    values = [int(step.split()[-1]) for step in right.steps]
    return Problem({}, pieces, right) if min(values) > 1 and 10 <= values[-1] <= 400 else None


def _amount(kind: str, rng: Random, difficulty: int) -> Problem | None:
    """So many times so many, or so many of a larger unit in a smaller one; then more or fewer."""
    b = UNITS.get(kind) or rng.randint(11, 49)
    a = rng.randint(2, max(9, 200 // b))
    changes = [(rng.choice("+-"), rng.randint(2, 29)) for _ in range(difficulty - 1)]
    pieces = [("base", {"a": a, "b": b}), *((sign, {"n": n}) for sign, n in changes)]
    return _number(a, [("x", b), *changes], pieces)


def _program(rng: Random, difficulty: int) -> Problem | None:
    """A value, as many lines that change it as `difficulty` says (a loop is one), and print."""
    start, operations, pieces = rng.randint(2, 60), [], []
    for _ in range(difficulty):
        sign, times = rng.choice(("+", "-", "*", "//", "%", "+=")), rng.randint(2, 3)
        n = rng.randint(2, 9) if sign in ("*", "//", "+=") else rng.randint(2, 29)
        operations += [("+", n)] * times if sign == "+=" else [(sign, n)]
        pieces.append(("loop" if sign == "+=" else "change", {"sign": sign, "n": n, "times": times}))
    return _number(start, operations, [("set", {"n": start}), *pieces, ("print", {})])


def _calendar(rng: Random, difficulty: int) -> Problem:
    """A time from now: a step for the day, one for the hour, one for a change to it."""
    day, hour, n = rng.randrange(7), rng.randint(7, 12), rng.randint(2, 9)
    changes = [("+", rng.randint(2, 7)), (rng.choice("+-"), rng.randint(2, 4))][: difficulty - 1]
    hours = _trace(hour, changes)
    names = [DAYS[(day + i) % 7] for i in range(1, n + 1)]
    counted = f"{DAYS[day]} + {n}: {', '.join(f'{i} {name}' for i, name in enumerate(names, start=1))}"
    said = [("hours", changes[0][1]), *changes[1:]] if changes else [("at", hour)]
    pieces = [(piece, {"n": number}) for piece, number in [("days", n), *said]]
    right = Working((counted, *hours.steps), (names[-1], *hours.answer))
    return Problem({"day": DAYS[day], "hour": hour}, pieces, right)


def _need(known: dict[str, str], rng: Random, difficulty: int) -> Problem:
    """Who gives what; from difficulty 2 on a day, at 3 at an hour too."""
    does, time = rng.choice([*known]), _calendar(rng, max(1, difficulty - 1))
    need, more = rng.choice(known[does].split(", ")), difficulty - 1
    steps = f"For {need}, find who {does}", *time.right.steps[:more]
    right = Working(steps, (does, *time.right.answer[:more]))
    wants = f"also wants {need.replace('my ', 'the ')}"
    traps = [(wants, *right.answer[1:])] if difficulty < 3 and len(need) < 20 else []
    return Problem({"need": need, **time.given}, time.pieces[:more], right, traps)


def _kinship(rng: Random, difficulty: int) -> Problem | None:
    """The mother's brother's son: each step names who that is. None where the next one has no name."""
    table, steps = _read("words")["kin"], []
    path = [who := rng.choice([*table][:8])]
    for _ in range(difficulty):
        if who not in table:
            return None
        path.append(rng.choice([*table[who]]))
        steps.append(f"{who}'s {path[-1]} = {(who := table[who][path[-1]])}")
    given = dict(zip(("host", "guest"), rng.sample(_read("words")["guests"], 2), strict=True))
    return Problem(given, [("relation", {"n": kin}) for kin in reversed(path)], Working(tuple(steps), (who,)))


def _directions(rng: Random, difficulty: int) -> Problem | None:
    """A walk in legs along two axes; None where it comes back to one of them, or crosses it."""
    steps, ends, pieces = (), (), []
    for sides, turns in zip(AXES, ((1, 0), (1, 1), (2, 1))[difficulty - 1], strict=True):
        ahead, back = rng.sample(sides, 2)
        legs = [("+", rng.randint(1, 9)), *((rng.choice("+-"), rng.randint(1, 9)) for _ in range(turns))]
        along = _trace(legs[0][1], legs[1:], f" {ahead}")
        steps, ends = steps + along.steps, ends + along.answer
        pieces += [("leg", {"n": f"{n} {ahead if sign == '+' else back}"}) for sign, n in legs]
    on_it = all(int(step.split()[-2]) > 0 for step in steps)
    return Problem({}, pieces, Working(steps, ends)) if on_it else None


MAKERS = {"calendar": _calendar, "kinship": _kinship, "directions": _directions, "program": _program}
