"""The count of right workings, on answers that are written for it."""

import pytest

from benchmarks.workings import count, is_right
from reasonrank.answers import NONE
from reasonrank.sources import load
from reasonrank.sources.base import Passage
from reasonrank.teachers.offline import worked_chain

COLLECTION = load("worked_math")
QID = COLLECTION.ids("test")[0]
WORKING = COLLECTION.workings[QID]
RIGHT = worked_chain(WORKING, [Passage(WORKING.docid, COLLECTION.passages[WORKING.docid].text)])


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (RIGHT, True),
        (RIGHT.replace(WORKING.steps[-1], "1 + 1 = 3"), False),
        (f"{worked_chain(COLLECTION.slips[QID], ())}", False),
        ("", False),
    ],
)
def test_a_working_is_right_step_by_step(text, right):
    assert is_right(text, WORKING) == right


def test_windows_that_hold_the_relevant_passage_are_counted():
    others = [docid for docid in COLLECTION.passages if docid != WORKING.docid][:2]
    held, bare = {"docids": [others[0], WORKING.docid]}, {"docids": others, "ranking": [1, 2], "text": RIGHT}
    windows = [
        held | {"ranking": [2, 1], "text": RIGHT},
        held | {"ranking": [1, 2], "text": RIGHT},
        held | {"ranking": [2, 1], "text": "a guess"},
        held | {"ranking": [1, 2], "text": NONE},
        bare,
    ]
    rows = [{"qid": f"worked_math/{QID}", "relevant": {WORKING.docid: 1}, "windows": windows}]
    numbers = {"windows": 4, "right": 2, "on_top": 1, "on_top_wrong": 1, "none": 1}
    found = count(rows, {"worked_math": COLLECTION})
    assert found == [{"collection": name, **numbers} for name in ("worked_math", "all")]
