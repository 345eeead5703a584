"""A folder of one's own: what it holds, and faults by file and line."""

import json

import pytest

from reasonrank import sources
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
    assert folder.read(write(tmp_path, labels=None)).qrels == {}
    c = folder.read(write(tmp_path), scenario="coding")
    assert (c.name, c.scenario) == (tmp_path.name, "coding")
    steps = [("Because.", "It is so."), ("first", "then"), ("a", "b")]
    assert [q.solution for q in c.queries.values()] == steps
    assert c.texts() == {"p1": "T: one", "p 2": "two"}
    assert c.qrels == {"q1": {"p 2": 1, "p1": 0}} and set(c.splits.values()) == {"train"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"queries": [QUERIES[0], "", "{"]}, r"queries\.jsonl, line 3: not valid JSON"),
        ({"queries": ["[1]"]}, r"queries\.jsonl, line 1: expected a JSON object, got list"),
        ({"queries": [QUERIES[0], QUERIES[0]]}, r"line 2: id 'q1' a second time; the first is .*line 1"),
        ({"queries": [{"id": "q", "text": " ", "answer": "x"}]}, "line 1: query 'q' is empty"),
        ({"queries": [{"id": 1.5, "text": "x", "answer": "x"}]}, r"line 1: the id is 1\.5; expected text or"),
        ({"passages": [{"id": True, "text": "x"}]}, "line 1: the id is True"),
        ({"passages": [{"id": " ", "text": "x"}]}, "line 1: the id is ' '; expected text"),
        ({"queries": [{"id": "q", "text": 3, "answer": "x"}]}, "line 1: no text; expected a string under"),
        ({"queries": [QUERIES[0] | {"excluded_ids": "b"}]}, "line 1: excluded_ids is 'b'; expected a list"),
        ({"queries": [{"id": "q", "text": "x"}]}, "line 1: no answer"),
        ({"queries": [{"id": "q", "text": "x", "answer": ""}]}, "line 1: no answer"),
        ({"queries": [{"id": "q", "text": "x", "solution": ["a", 2]}]}, "line 1: no answer"),
        ({"queries": [{"id": "q", "text": "x", "solution": []}]}, "line 1: no answer"),
        ({"passages": [], "labels": None}, r"passages\.jsonl: no row in it"),
        ({"labels": [{"query": "q9", "passage": "p1"}]}, "line 1: a judgement for 'q9', which is not in"),
        ({"labels": [{"query": "q1", "passage": "p9"}]}, "line 1: a judgement for 'p9'"),
        ({"labels": [{**LABELS[0], "gain": "high"}]}, "line 1: the grade is 'high'"),
        ({"labels": [LABELS[0], LABELS[0] | {"gain": 2}]}, "line 2: 'p 2' is judged a second time"),
    ],
)
def test_faults_are_named(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        folder.read(write(tmp_path, **rows))


def test_what_a_folder_lacks(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder"):
        folder.read(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no queries; expected a file named queries or query"):
        folder.read(tmp_path)


def test_whole_numbers_as_ids_are_the_same_ids_as_text(tmp_path):
    passages = [{"id": 1, "text": "one"}, {"docid": "2", "contents": "two", "title": None}]
    queries = [QUERIES[0] | {"id": 7}, QUERIES[1] | {"id": 0}]
    labels = [{"query": 7, "passage": 1}, {"query": "0", "passage": "2"}]
    c = folder.read(write(tmp_path, queries, passages, labels))
    assert list(c.queries) == ["7", "0"] and c.qrels == {"7": {"1": 1}, "0": {"2": 1}}
    assert c.texts() == {"1": "one", "2": "two"}
    with pytest.raises(ValueError, match=r"passages\.jsonl, line 2: id '1' a second time"):
        folder.read(write(tmp_path, queries, [passages[0], {"id": "1", "text": "again"}], None))


def test_tab_separated_lines_trec_judgements_and_marks(tmp_path):
    """Every reader skips a byte order mark, and reads half a surrogate as U+FFFD."""
    (tmp_path / "queries.tsv").write_text("\ufeffq1\tWhat does a bee collect?\nq2\ta\tb\n", encoding="utf-8")
    corpus = '\ufeff{"_id": "d1", "text": "sun \\ud83d"}\n{"_id": "d2", "text": ""}\n'
    (tmp_path / "corpus.jsonl").write_text(corpus)
    (tmp_path / "qrels.txt").write_text("\ufeffq1 0 d1 2\nq1 0 elsewhere 1\n", encoding="utf-8")
    (tmp_path / "excluded.txt").write_text("\ufeffq1 d2\nq1 N/A\n", encoding="utf-8")
    c = sources.load(f"folder/{tmp_path}")
    assert c.searched(c.queries) == {"q1": "What does a bee collect?", "q2": "a\tb"}
    assert c.texts() == {"d1": "sun \ufffd", "d2": ""} and c.excluded == {"q1": {"d2"}}
    assert c.qrels == {"q1": {"d1": 2, "elsewhere": 1}} and c.ids("test") == ["q1"]
    assert set(c.inputs) == {"queries.tsv", "corpus.jsonl", "qrels.txt", "excluded.txt"}
    (tmp_path / "qrels.txt").write_text("")
    with pytest.raises(ValueError, match="no judgement; expected qrels"):
        sources.load(f"folder/{tmp_path}")
    (tmp_path / "queries.tsv").write_text("query_id\ttext\nq1\twith a header\nq3\n")
    with pytest.raises(ValueError, match=r"queries\.tsv, line 3: expected 'query_id TAB text', got 'q3'"):
        sources.load(f"folder/{tmp_path}")
    (tmp_path / "queries.tsv").unlink()
    (tmp_path / "queries.txt").write_text("q1\tx\n")
    with pytest.raises(ValueError, match=r"queries\.txt: expected a name that ends in one of \.jsonl"):
        sources.load(f"folder/{tmp_path}")


def test_passages_in_several_files(tmp_path):
    for name, row in (("a", {"id": "1", "text": "x"}), ("b", {"id": "2", "text": "y"})):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    files = {"passages": folder.tables(tmp_path)}
    assert list(folder.collection(files, "c").passages) == ["1", "2"]
    assert list(folder.collection(files, "c", wanted={"2", "3"}).passages) == ["2"]
    (tmp_path / "c.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(ValueError, match=r"c\.jsonl\.gz: not a whole gzip file"):
        folder.collection({"passages": folder.tables(tmp_path)}, "c")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty: no such file, nor a folder with files"):
        folder.tables(tmp_path / "empty")
