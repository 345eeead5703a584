"""Training data (section 4.1): per query a list of passages, a pointwise label, and a listwise label with reasons."""

from .examples import Example, describe, example_of, load, passages_of, save, save_texts, statistics_table
from .making import Lists, Synthesised, assemble, funnel_rows, linked_passages, list_settings, synthesise

__all__ = [
    "Example",
    "Lists",
    "Synthesised",
    "assemble",
    "describe",
    "example_of",
    "funnel_rows",
    "linked_passages",
    "list_settings",
    "load",
    "passages_of",
    "save",
    "save_texts",
    "statistics_table",
    "synthesise",
]
