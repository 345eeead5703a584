"""Collections: queries, passages and judgements, with a loader for each source."""

from .base import SCENARIOS, Collection, Passage, Query, split_of
from .registry import COLLECTIONS, load, load_all

__all__ = ["COLLECTIONS", "SCENARIOS", "Collection", "Passage", "Query", "load", "load_all", "split_of"]
