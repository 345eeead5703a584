"""Collections by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from . import authored, champ, humaneval
from .base import Collection

COLLECTIONS: dict[str, Callable[[], Collection]] = {
    "complex_qa": authored.complex_qa,
    "coding": humaneval.builtin_documentation,
    "math_problem": champ.similar_problems,
    "math_theorem": champ.concepts,
    "web_search": authored.web_search,
}


def load(name: str) -> Collection:
    """The collection `name`, one of COLLECTIONS; a KeyError names those that exist."""
    if name not in COLLECTIONS:
        raise KeyError(f"unknown collection {name!r}; known are {', '.join(COLLECTIONS)}")
    return COLLECTIONS[name]()


def load_all(names: Iterable[str]) -> dict[str, Collection]:
    """Several collections, by name."""
    return {name: load(name) for name in names}
