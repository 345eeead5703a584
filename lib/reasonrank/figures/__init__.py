"""Figures of the notebooks: data in, a matplotlib `Figure` out, in one style, safe for colour-blind readers.

Functions take rows (a list of mappings or a DataFrame), name units, n and intervals inside the figure, and
raise ValueError where a row lacks a key or a value is out of range.
"""

from .ablations import ablations
from .diagrams import method_diagram, sliding_window_diagram
from .funnel import funnel
from .published import figure1, latency_figure
from .results import answer_status, ndcg_by_collection, reasoning_lengths
from .style import save, style
from .training import alpha_sweep, dev_curve, reward_parts, score_distribution, training_curve

__all__ = [
    "ablations",
    "alpha_sweep",
    "answer_status",
    "dev_curve",
    "figure1",
    "funnel",
    "latency_figure",
    "method_diagram",
    "ndcg_by_collection",
    "reasoning_lengths",
    "reward_parts",
    "save",
    "score_distribution",
    "sliding_window_diagram",
    "style",
    "training_curve",
]
