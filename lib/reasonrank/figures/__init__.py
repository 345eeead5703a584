"""Figures of the notebooks: data in, a matplotlib `Figure` out, in one style, safe for colour-blind readers.

Functions take rows (a list of mappings or a DataFrame), name units, n and intervals inside the figure, and
raise ValueError where a row lacks a key or a value is out of range.
"""

from .method import method_diagram, sliding_window_diagram
from .results import answer_status, latency_figure, latency_parts, ndcg_by_collection
from .style import save, style
from .training import alpha_sweep, long_run, reward_parts, score_distribution, training_curve
