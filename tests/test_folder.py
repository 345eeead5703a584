"""A folder of one's own: what it holds, and faults by file and line."""

import json

import pytest

from reasonrank.sources import folder

QUERIES = [
    {"id": "q1", "text": "Why?", "answer": "Because. It is so."},
    {"id": "q2", "text": "How?", "solution": ["first", "then"]},
    {"id": "q3", "text": "What?", "solution": "a\n\nb"},
]
PASSAGES = [{"id": "p1", "text": "one", "title": "T"}, {"id": "p 2", "text": "two"}]
LABELS = [{"query": "q1", "passage": "p 2"}, {"query": "q1", "passage": "p1", "gain": 0}]


def write(place, queries=QUERIES, passages=PASSAGES, labels=LABELS):
    for name, rows in (("queries", queries), ("passages", passages), ("labels", labels)):
        if rows is not None:
            lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
            (place / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return place


def test_a_folder_as_a_collection(tmp_path):
    c = folder.read(write(tmp_path), "coding")
    assert (c.name, c.scenario) == (tmp_path.name, "coding")
    assert [q.solution for q in c.queries.values()] == [
        ("Because.", "It is so."),
        ("first", "then"),
        ("a", "b"),
    ]
    assert c.texts() == {"p1": "T: one", "p 2": "two"}
    assert c.qrels == {"q1": {"p 2": 1, "p1": 0}} and set(c.splits.values()) == {"train"}


def test_labels_may_be_missing(tmp_path):
    assert folder.read(write(tmp_path, labels=None)).qrels == {}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"queries": [QUERIES[0], "", "{"]}, r"queries\.jsonl, line 3: not valid JSON"),
        ({"queries": ["[1]"]}, r"queries\.jsonl, line 1: expected a JSON object, got list"),
        ({"queries": [QUERIES[0], QUERIES[0]]}, r"line 2: id 'q1' a second time, after .*line 1"),
        ({"queries": [{"id": "q", "text": " ", "answer": "x"}]}, "line 1: text is missing or empty"),
        ({"queries": [{"id": 1, "text": "x", "answer": "x"}]}, "line 1: id is int; expected text"),
        ({"queries": [{"id": "q", "text": "x"}]}, "line 1: neither answer nor solution"),
        ({"queries": [{"id": "q", "text": "x", "answer": ""}]}, "line 1: answer is missing or empty"),
        ({"queries": [{"id": "q", "text": "x", "solution": ["a", 2]}]}, "line 1: solution is int"),
        ({"queries": [{"id": "q", "text": "x", "solution": []}]}, "line 1: neither answer nor solution"),
        ({"passages": []}, r"passages\.jsonl: empty"),
        ({"passages": [{"id": "p", "text": "x", "title": 3}]}, "line 1: title is int"),
        ({"labels": [{"query": "q9", "passage": "p1"}]}, r"labels\.jsonl, line 1: query 'q9' is not in"),
        ({"labels": [{"query": "q1", "passage": "p9"}]}, "line 1: passage 'p9' is not in passages"),
        ({"labels": [{**LABELS[0], "gain": -1}]}, "line 1: gain is -1"),
        ({"labels": [LABELS[0], LABELS[0]]}, "line 2: passage 'p 2' is judged a second time"),
    ],
)
def test_faults_are_named(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        folder.read(write(tmp_path, **rows))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"queries\.jsonl: no such file; your folder needs"):
        folder.read(tmp_path)
