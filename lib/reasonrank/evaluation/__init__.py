"""Scores of runs (`score`), intervals and tests (`statistics`), test sets (`sets`), systems compared (`compare`)."""

from .compare import (
    OneEngine,
    answer_counts,
    cost,
    first_windows,
    qrels_file,
    query_scores,
    redone,
    rerank_sets,
    reranker,
    run_file,
    score_frame,
    score_rows,
    systems,
    this_run,
    trained,
    weight_files,
    write_runs,
)
from .score import Scores, evaluate
from .sets import MEASURE, TestSet, set_rows, test_set, test_sets
from .statistics import Interval, bootstrap, mean_interval, paired_test
