"""Collections: queries, passages and judgements, with a loader for each source."""

from . import beir, bright, r2med
from .base import SCENARIOS, Collection, Passage, Query, split_of
from .layouts import Benchmark
from .registry import COLLECTIONS, load, load_all

__all__ = [
    "COLLECTIONS",
    "SCENARIOS",
    "Benchmark",
    "Collection",
    "Passage",
    "Query",
    "beir",
    "bright",
    "load",
    "load_all",
    "r2med",
    "split_of",
]
