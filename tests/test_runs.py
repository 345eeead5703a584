"""Reading and writing of runs and judgements."""

import gzip
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonrank import runs, stages
from reasonrank.evaluation import evaluate

RUN = {"q1": ["b", "a c  d", "é\u00a0\u2028x"], "q2": ["[1] > [2].txt"]}


def put(folder, text, name="file.txt"):
    path = folder / name
    path.write_bytes(text.encode())
    return path


def read_rows(path):
    return [row for _, row in runs.objects(path)]


def test_written_rows_round_trips_and_gzip_that_is_reproducible(tmp_path):
    runs.write_trec(tmp_path / "x", {"q": ["a", "b c"]}, "me")
    assert (tmp_path / "x").read_text() == "q Q0 a 1 1 me\nq Q0 b c 2 0 me\n"
    for name in ("a.gz", "b.gz"):
        runs.write_trec(tmp_path / "new" / name, RUN, "tag")
        assert runs.read_trec(tmp_path / "new" / name) == RUN
    a, b = sorted((tmp_path / "new").iterdir())  # and nothing else
    assert a.read_bytes() == b.read_bytes()
    assert gzip.decompress(a.read_bytes()).startswith(b"q1 Q0 b 1 2 tag\n")


TIES = "q Q0 a 1 0.5 t\nq Q0 c 2 0.5 t\nq Q0 b 3 0.5 t\nq Q0 z 4 0.9 t\n"


def test_order_is_by_score_in_single_precision_for_trec_eval(tmp_path):
    path = put(tmp_path, TIES)
    assert runs.read_trec(path) == {"q": ["z", "a", "c", "b"]}
    assert runs.read_trec(path, ties="trec_eval") == {"q": ["z", "c", "b", "a"]}
    path = put(tmp_path, "q Q0 a 1 0.50000000001 t\nq Q0 b 2 0.5 t\n")
    assert runs.read_trec(path) == {"q": ["a", "b"]}
    assert runs.read_trec(path, ties="trec_eval") == {"q": ["b", "a"]}


def test_ids_with_blanks(tmp_path):
    path = put(tmp_path, "q\tQ0\ta b\t1\t2.0\tt\r\n\nq Q0  c  d\te 2  1.0 t \n")
    assert runs.read_trec(path) == {"q": ["a b", "c  d\te"]}
    path = put(tmp_path, TIES + "q Q0 a b 5 2 t\n")
    assert runs.read_trec(path, lenient_ids=False) == {"q": ["z", "a", "c", "b"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q Q0 a 1 2 t\nq Q0 a 1 2\n", "line 2: expected 'qid Q0 docid rank score tag', got 'q Q0 a 1 2'"),
        ("q Q0   1 2 t\n", "line 1: expected 'qid Q0"),
        ("q Q0 a 1 high t\n", "line 1: expected a number as the score, got 'high'"),
        ("q Q0 a 1 nan t\n", "got 'nan'"),
        ("q Q0 a 1 2 t\n\nq Q0 a 2 1 t\n", "line 3: document 'a' comes twice for query 'q'"),
    ],
)
def test_malformed_runs_name_file_and_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        runs.read_trec(put(tmp_path, text))
    assert "file.txt" in str(error.value)


def test_broken_bytes(tmp_path):
    (tmp_path / "x").write_bytes(b"q Q0 a 1 2 t\nq Q0 \xff 2 1 t\n")
    with pytest.raises(ValueError, match="x, line 2: not valid UTF-8"):
        runs.read_trec(tmp_path / "x")
    whole = gzip.compress(b"q Q0 a 1 2 t\n")
    for data in (whole[:-9], b"q Q0 a 1 2 t\n"):
        (tmp_path / "x.gz").write_bytes(data)
        with pytest.raises(ValueError, match=r"x\.gz: not a whole gzip file"):
            runs.read_trec(tmp_path / "x.gz")
    with pytest.raises(ValueError, match="ties is 'random'"):
        runs.read_trec(tmp_path / "x", ties="random")


@pytest.mark.parametrize(
    ("run", "tag", "message"),
    [
        ({"q7": ["a", docid]}, "t", "query 'q7', document ")
        for docid in ("", " a", "a\t", "a\nb", "a\r", "a\ud83d")
    ]
    + [({qid: ["a"]}, "t", "document 'a': expected ids") for qid in ("q 7", "\ufeffq", "q\ude00", "")]
    + [({"q": ["a"]}, "a b", "tag 'a b'"), ({"q": ["a", "a"]}, "t", "query 'q': document 'a' comes twice")],
)
def test_runs_that_could_not_be_read_back(tmp_path, run, tag, message):
    with pytest.raises(ValueError, match=message):
        runs.write_trec(tmp_path / "x", run, tag)
    assert not (tmp_path / "x").exists()


inner = st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1)
docids = inner.filter(lambda text: text == text.strip(" \t\r"))
qids = st.text(st.characters(codec="utf-8", exclude_characters=" \t\r\n\ufeff"), min_size=1)
rankings = st.lists(docids, min_size=1, max_size=6, unique=True)


judged = st.dictionaries(docids, st.integers(-1, 3), min_size=1, max_size=4)


@given(run=st.dictionaries(qids, rankings, max_size=4), qrels=st.dictionaries(qids, judged, max_size=3))
def test_any_run_and_any_judgements_survive(tmp_path_factory, run, qrels):
    path = tmp_path_factory.getbasetemp() / "any"
    runs.write_trec(path, run, "tag")
    assert runs.read_trec(path) == run == runs.read_trec(path, ties="trec_eval")
    runs.write_qrels(path, qrels)
    assert runs.read_qrels(path) == qrels


def test_judgements_and_excluded_documents(tmp_path):
    path = put(tmp_path, "q\t0\ta b.txt\t1\nq 0 c 0\nr 0 a 2\n")
    assert runs.read_qrels(path) == {"q": {"a b.txt": 1, "c": 0}, "r": {"a": 2}}
    with pytest.raises(ValueError, match="line 1: expected a number as the grade, got 'yes'"):
        runs.read_qrels(put(tmp_path, "q 0 c yes\n"))
    with pytest.raises(ValueError, match="line 2: document 'c' comes twice"):
        runs.read_qrels(put(tmp_path, "q 0 c 1\nq 0 c 0\n"))
    path = put(tmp_path, "q a b.txt\nq c\nr a\r\n")
    assert runs.read_excluded(path) == {"q": {"a b.txt", "c"}, "r": {"a"}}
    with pytest.raises(ValueError, match="line 1: expected 'qid docid'"):
        runs.read_excluded(put(tmp_path, "q\n"))


def test_jsonl(tmp_path):
    rows = [{"a": [1, 2.5, None], "b": "é\u2028\n"}, {}]
    for name in ("x.jsonl", "x.jsonl.gz"):
        runs.write_jsonl(tmp_path / name, iter(rows))
        assert read_rows(tmp_path / name) == rows
    with pytest.raises(ValueError, match="line 2: not valid JSON"):
        read_rows(put(tmp_path, '{"a": 1}\n{"a": }\n'))
    with pytest.raises(ValueError, match="line 1: expected a JSON object, got list"):
        read_rows(put(tmp_path, "[1]\n"))
    for bad in (float("nan"), {1}, "\ud83d"):
        with pytest.raises(ValueError, match="row 2: "):
            runs.write_jsonl(tmp_path / "y.jsonl", [{}, {"a": bad}])
    assert not (tmp_path / "y.jsonl").exists()


BOM = "\ufeff"


def test_a_byte_order_mark_is_skipped_by_every_reader(tmp_path):
    assert runs.read_trec(put(tmp_path, BOM + TIES)) == {"q": ["z", "a", "c", "b"]}
    assert runs.read_qrels(put(tmp_path, BOM + "q 0 c 1\n")) == {"q": {"c": 1}}
    assert runs.read_excluded(put(tmp_path, BOM + "q a\nq b\n")) == {"q": {"a", "b"}}
    assert read_rows(put(tmp_path, BOM + '{"a": 1}\n')) == [{"a": 1}]
    assert next(runs.lines(put(tmp_path, BOM + "\n x \n")))[1] == " x "
    assert stages.read_json(put(tmp_path, BOM + "[1]")) == [1]


def test_a_lone_surrogate_is_read_as_the_replacement_character(tmp_path):
    rows = (
        '{"a": "x\\ud83d", "b": ["\\uDE00y"], "c": {"\\udfff": 1}, "d": "\\ud83d\\ude00", "e": "\\\\ud83d"}\n'
    )
    expected = {"a": "x\ufffd", "b": ["\ufffdy"], "c": {"\ufffd": 1}, "d": "\U0001f600", "e": "\\ud83d"}
    assert read_rows(put(tmp_path, rows)) == [expected]
    assert stages.read_json(put(tmp_path, rows)) == expected
    runs.write_jsonl(tmp_path / "out.jsonl", read_rows(put(tmp_path, rows)))


def test_ties_of_the_first_stage_undo_the_order_only_as_released():
    """The model puts b before c and d; the scores by position tie at places 2 and 3."""
    run, scores = {"q": ["b", "c", "d", "a"]}, {"q": [9.0, 5.0, 5.0 + 1e-9, 1.0]}
    theirs = runs.released_order(run, scores)
    assert theirs == {"q": ["b", "d", "c", "a"]}
    ours, theirs = (evaluate(r, {"q": {"c": 1}}).mean["nDCG@10"] for r in (run, theirs))
    assert (ours, theirs) == (pytest.approx(0.6309, abs=1e-4), 0.5)  # 1 / log2(3), 1 / log2(4)
    with pytest.raises(ValueError, match="query 'q': 2 documents, but 1 scores"):
        runs.released_order({"q": ["a", "b"]}, {"q": [1.0]})


def test_scores_of_a_file_are_read_with_ids_that_hold_blanks(tmp_path):
    path = put(tmp_path, "q Q0 a b.txt 1 0.5 t\nq Q0 c 2 0.75 t\n\nr Q0 c 1 2 t\n")
    assert runs.read_scores(path) == {"q": [0.75, 0.5], "r": [2.0]}


def test_published_runs_have_ties_that_matter(shared):
    folder = shared / "bright" / "stackoverflow"
    path = folder / "reasonir_gpt4cot_top100.run.gz"
    run, qrels = runs.read_trec(path), runs.read_qrels(folder / "qrels.txt.gz")
    again = runs.released_order(run, runs.read_scores(path))
    assert again == runs.read_trec(path, ties="trec_eval")
    assert evaluate(run, qrels).mean["nDCG@10"] != evaluate(again, qrels).mean["nDCG@10"]
