"""Reranking: the window schedule and the rerankers that follow it."""

from .listwise import windows
from .run import Reranked, RerankedRun, Reranker, run_sync

__all__ = ["Reranked", "RerankedRun", "Reranker", "run_sync", "windows"]
