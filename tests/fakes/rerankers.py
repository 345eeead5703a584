"""Rerankers of n made-up documents, whose texts are their numbers, over a fake engine."""

from fakes.engine import FakePrompt
from reasonrank.rerank import Reranked
from reasonrank.rerank.listwise import ListwiseReranker
from reasonrank.rerank.topdown import TopDownReranker


def docs(n):
    return [f"d{i}" for i in range(n)]


def texts(n):
    return {f"d{i}": str(i) for i in range(n)}


def listwise(engine, window=4, step=2, prompt=None, **options):
    return ListwiseReranker(engine, prompt or FakePrompt(), window=window, step=step, **options)


def topdown(engine, window=4, **options):
    return TopDownReranker(engine, FakePrompt(), window=window, **options)


def rank(reranker, n):
    """The documents of one query, reranked, and its traces."""
    result = reranker.rerank_run_sync({"q": docs(n)}, {"q": "q"}, texts(n))
    return Reranked(result.run["q"], result.traces["q"])
