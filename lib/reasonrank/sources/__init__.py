"""Collections: queries, passages and judgements, each by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Collection as Container
from functools import partial
from pathlib import Path

from ..stages import ROOT
from . import authored, benchmarks, champ, folder, humaneval, worked
from .base import SCENARIOS, Collection, Passage, Query, split_of

COLLECTIONS: dict[str, Callable[[], Collection]] = {
    "complex_qa": authored.complex_qa,
    "coding": humaneval.builtin_documentation,
    "math_problem": champ.similar_problems,
    "math_theorem": champ.concepts,
    "web_search": authored.web_search,
    **{f"worked_{name}": partial(worked.load, name) for name in worked.KINDS},
    **{f"worked_{name}_reworded": partial(worked.load, name, wordings="held_out") for name in worked.KINDS},
}


def load(name: str, data_dir: Path | str | None = None, wanted: Container[str] | None = None) -> Collection:
    """A collection by name: one of COLLECTIONS, a set of a benchmark as "bright/biology", or "folder/PATH".

    `data_dir`: where the benchmarks lie, and `wanted`: ids of the passages that are needed, see `benchmarks.load`. A
    folder of your own needs queries, passages and judgements, all for evaluation; see `folder.parts` for their forms.
    Its PATH is relative to the project. A ValueError names the collections that exist.
    """
    if name in COLLECTIONS:
        return COLLECTIONS[name]()
    kind, _, place = name.partition("/")
    if kind == "folder" and place:
        return folder.read(ROOT / place, name, split="test", wanted=wanted)
    if kind in benchmarks.FAMILIES:
        return benchmarks.load(name, data_dir, wanted)
    more = ", ".join(f"{family}/SET" for family in benchmarks.FAMILIES)
    raise ValueError(f"unknown collection {name!r}; known are {', '.join(COLLECTIONS)}, {more}, folder/PATH")


def expand(names: Iterable[str]) -> list[str]:
    """The collections that are meant: "bright" stands for its twelve sets, "r2med" and "beir" for theirs."""
    families = benchmarks.FAMILIES
    return [sub for name in names for sub in (benchmarks.names(name) if name in families else [name])]


def load_all(names: Iterable[str]) -> dict[str, Collection]:
    """Several collections, by name, see `expand`."""
    return {name: load(name) for name in expand(names)}
