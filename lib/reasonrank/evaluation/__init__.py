"""Scores of runs (`score`), intervals and paired tests (`statistics`), systems side by side (`compare`)."""

from .compare import (
    MEASURE,
    STATES,
    TestSet,
    answer_row,
    dev_sets,
    open_reranker,
    rerank_sets,
    reranker,
    run_file,
    score_frame,
    score_rows,
    systems,
    test_set,
    this_run,
    totals,
)
from .score import DEFAULT_MEASURES, Scores, evaluate
from .statistics import Interval, PairedTest, bootstrap, mean_interval, paired_test

__all__ = [
    "DEFAULT_MEASURES",
    "MEASURE",
    "STATES",
    "Interval",
    "PairedTest",
    "Scores",
    "TestSet",
    "answer_row",
    "bootstrap",
    "dev_sets",
    "evaluate",
    "mean_interval",
    "open_reranker",
    "paired_test",
    "rerank_sets",
    "reranker",
    "run_file",
    "score_frame",
    "score_rows",
    "systems",
    "test_set",
    "this_run",
    "totals",
]
