"""Scores of runs (`score`), intervals and paired tests (`statistics`), systems side by side (`compare`)."""

from .compare import (
    MEASURE,
    TestSet,
    answer_counts,
    cost,
    first_windows,
    open_reranker,
    rerank_sets,
    reranker,
    run_file,
    score_frame,
    score_rows,
    systems,
    test_set,
    this_run,
    weight_files,
    write_runs,
)
from .score import Scores, evaluate
from .statistics import Interval, PairedTest, bootstrap, mean_interval, paired_test
