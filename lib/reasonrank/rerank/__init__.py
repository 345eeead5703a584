"""Reranking: the window schedule and the rerankers that follow it."""

from .run import Reranked, RerankedRun, Reranker, run_sync
from .schedule import windows

__all__ = ["Reranked", "RerankedRun", "Reranker", "run_sync", "windows"]
