"""Reranking: the window schedule and the rerankers that follow it."""

from .schedule import windows

__all__ = ["windows"]
