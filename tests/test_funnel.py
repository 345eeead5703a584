"""The funnel figure: a bar and a number for each step, and what it refuses."""

import pytest
from matplotlib.text import Text

from reasonrank import figures

STEPS = {"queries": ("queries", "with positives"), "passages": ("candidates", "without copies")}


def rows():
    return [
        {"dataset": dataset, "unit": unit, "step": step, "count": 1000 * place + 7}
        for dataset in ("coding", "own")
        for unit, steps in STEPS.items()
        for place, step in enumerate(steps)
    ]


def test_every_count_is_drawn_and_written():
    figure = figures.funnel(rows())
    figure.draw_without_rendering()
    shown = [text.get_text() for text in figure.findobj(Text)]
    assert shown.count("1,007") == shown.count("7") == 4
    assert {"coding", "own", "queries", "passages", "without copies"} <= set(shown)
    assert len(figure.axes) == 4 and [bar.get_width() for bar in figure.axes[0].patches] == [7, 1007]


def test_what_is_no_funnel_is_refused():
    with pytest.raises(ValueError, match="row 1: no unit"):
        figures.funnel([{"dataset": "x", "step": "queries", "count": 1}])
    with pytest.raises(ValueError, match="expected a count of queries or passages"):
        figures.funnel([{"dataset": "x", "unit": "words", "step": "queries", "count": 1}])
