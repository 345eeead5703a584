"""BRIGHT, R2MED and BEIR read from small folders in their published form, made here."""

import gzip
import hashlib
import json

import pyarrow
import pytest
from pyarrow import parquet

from reasonrank import evaluation, retrieval, runs
from reasonrank.sources import beir, bright, layouts, r2med

EXAMPLES = [
    {"id": "0", "query": "why do ferns curl", "gold_ids": ["d/a b.txt"], "excluded_ids": ["N/A"]},
    {"id": "1", "query": "what do wolves eat", "gold_ids": ["d2", "d3"], "excluded_ids": ["d4", "gone"]},
]
REWRITTEN = [{**row, "query": f"rewritten: {row['query']}"} for row in EXAMPLES]
DOCUMENTS = [
    {"id": "d/a b.txt", "content": "ferns curl in drought"},
    {"id": "d2", "content": "wolves eat deer"},
    {"id": "d3", "content": "deer"},
    {"id": "d4", "content": "wolves eat what wolves eat"},
]


def put_parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def put_jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture
def bright_folder(tmp_path):
    """Parquet as on the hub, the documents in two shards."""
    extra = [{"reasoning": "", "gold_ids_long": [], "gold_answer": "N/A"}] * 2
    examples = [row | more for row, more in zip(EXAMPLES, extra, strict=True)]
    put_parquet(tmp_path / "examples" / "biology-00000-of-00001.parquet", examples)
    put_parquet(tmp_path / "gpt4_reason" / "biology-00000-of-00001.parquet", REWRITTEN)
    put_parquet(tmp_path / "documents" / "biology-00000-of-00002.parquet", DOCUMENTS[:1])
    put_parquet(tmp_path / "documents" / "biology-00001-of-00002.parquet", DOCUMENTS[1:])
    return tmp_path


def test_bright_is_read_with_both_queries_and_excluded_ids(bright_folder):
    b = bright.load("biology", bright_folder)
    assert b.queries["1"].text == "what do wolves eat"
    assert b.retrieval_queries["1"] == "rewritten: what do wolves eat"
    assert list(b.passages) == ["d/a b.txt", "d2", "d3", "d4"]
    assert b.passages["d3"].full == "deer"
    assert b.qrels == {"0": {"d/a b.txt": 1}, "1": {"d2": 1, "d3": 1}}
    assert b.excluded == {"1": {"d4", "gone"}}
    assert sorted(b.ids("test")) == ["0", "1"]
    assert (b.scenario, b.passage_tokens) == ("complex QA", 512)


def test_bright_in_json_lines_is_the_same(bright_folder, tmp_path):
    other = tmp_path / "lines"
    for table, rows in (("examples", EXAMPLES), ("gpt4_reason", REWRITTEN), ("documents", DOCUMENTS)):
        put_jsonl(other / table / "biology.jsonl.gz", rows)
    a, b = bright.load("biology", bright_folder), bright.load("biology", other)
    assert (a.queries, a.passages, a.qrels, a.excluded) == (b.queries, b.passages, b.qrels, b.excluded)
    text = "".join(json.dumps(row) + "\n" for row in EXAMPLES).encode()
    assert b.inputs["examples/biology.jsonl"] == hashlib.sha256(text).hexdigest()


def test_excluded_documents_are_in_no_ranking_at_any_step(bright_folder, tmp_path):
    b = bright.load("biology", bright_folder)
    retrieved = retrieval.bm25(b, b.retrieval_queries, top=100)
    assert "d4" in retrieved["0"] and "d4" not in retrieved["1"]
    path = tmp_path / "r.run"
    full = list(b.passages)
    runs.write_trec(path, {"0": full, "1": ["d4", "d2", "d3", "d/a b.txt"]}, "t")
    loaded = b.read_run(path, candidates=None)
    assert loaded == {"0": full, "1": ["d2", "d3", "d/a b.txt"]}
    theirs = b.read_run(path, candidates=None, variant="released")
    assert theirs == {"0": ["d2", "d3", "d4"], "1": ["d4", "d2", "d3"]}  # ids with a blank dropped
    assert evaluation.evaluate(theirs, b.qrels, excluded=b.excluded).removed == 1
    assert evaluation.evaluate(loaded, b.qrels, excluded=b.excluded).removed == 0
    with pytest.raises(ValueError, match="variant is 'theirs'"):
        b.read_run(path, variant="theirs")


def test_candidates_are_counted(bright_folder, tmp_path):
    b = bright.load("biology", bright_folder)
    path = tmp_path / "r.run"
    four, three = list(b.passages), ["d2", "d3", "d/a b.txt"]
    runs.write_trec(path, {"0": four, "1": three}, "t")  # all that may be retrieved, of four and of three
    assert b.read_run(path)["1"] == three
    assert b.read_run(path, top=1) == {"0": four[:1], "1": three[:1]}
    with pytest.raises(ValueError, match=r"r\.run: query '0' has 4 candidates, expected 3"):
        b.read_run(path, candidates=3)
    runs.write_trec(path, {"0": four, "1": three[:2]}, "t")
    with pytest.raises(ValueError, match="query '1' has 2 candidates, expected 3"):
        b.read_run(path)
    runs.write_trec(path, {"0": four, "1": ["d2", "d3", "other"]}, "t")
    with pytest.raises(ValueError, match="query '1': 'other' is no passage of biology"):
        b.read_run(path)
    runs.write_trec(path, {"0": four}, "t")
    with pytest.raises(ValueError, match="query '1' is only in"):
        b.read_run(path)
    assert layouts.candidate_counts({"a": ["x"], "b": ["x"], "c": []}) == {1: 2, 0: 1}


def test_inputs_are_pinned_by_hash(bright_folder):
    found = bright.load("biology", bright_folder).inputs
    assert len(found) == 4
    assert bright.load("biology", bright_folder, pinned=found).inputs == found
    with pytest.raises(
        ValueError, match=r"examples/biology-00000-of-00001\.parquet: SHA-256 .*, expected 00"
    ):
        bright.load("biology", bright_folder, pinned={"examples/biology-00000-of-00001.parquet": "00"})


def test_faults_in_bright_are_named(bright_folder):
    with pytest.raises(KeyError, match=r"unknown set 'botany' of BRIGHT; known are economics"):
        bright.load("botany", bright_folder)
    with pytest.raises(
        FileNotFoundError, match=r"found none of examples/pony-\*\.parquet, examples/pony\.jsonl"
    ):
        bright.load("pony", bright_folder)
    path = bright_folder / "gpt4_reason" / "biology-00000-of-00001.parquet"
    put_parquet(path, REWRITTEN[:1])
    with pytest.raises(ValueError, match="query '1' of biology is in only one of examples and gpt4_reason"):
        bright.load("biology", bright_folder)
    put_parquet(path, [{"id": "0", "text": "no query here"}])
    with pytest.raises(ValueError, match=r"parquet, row 1: expected the keys id, query; lacks query"):
        bright.load("biology", bright_folder)
    put_parquet(path, REWRITTEN + REWRITTEN[:1])
    with pytest.raises(ValueError, match="row 3: id '0' a second time"):
        bright.load("biology", bright_folder)
    path.write_bytes(b"PAR1 cut off")
    with pytest.raises(ValueError, match="not a whole Parquet file"):
        bright.load("biology", bright_folder)


def test_a_document_that_is_judged_and_excluded_is_refused(bright_folder):
    odd = [EXAMPLES[0], {**EXAMPLES[1], "excluded_ids": ["d2"]}]
    put_parquet(bright_folder / "examples" / "biology-00000-of-00001.parquet", odd)
    with pytest.raises(ValueError, match="'d2' is both judged and excluded for '1'"):
        bright.load("biology", bright_folder)


def test_there_are_twelve_eight_and_seven_sets():
    assert (len(bright.SCENARIOS), len(r2med.SETS), len(beir.SETS)) == (12, 8, 7)


@pytest.mark.parametrize("name", ["aops", "biology", "leetcode", "stackoverflow", "theoremqa_questions"])
def test_topics_of_bright_and_its_published_run(shared, name):
    b = bright.load_topics(name, shared / "bright")
    assert b.qrels == {qid: dict.fromkeys(judged, 1) for qid, judged in b.qrels.items()}
    run = b.read_run(shared / "bright" / name / f"{bright.RUN}.gz")
    assert layouts.candidate_counts(run) == {100: len(b.queries)}  # nothing had to be taken out
    assert not any(b.excluded.get(qid, set()) & set(docids) for qid, docids in run.items())
    assert bool(b.excluded) == (name in ("aops", "leetcode", "theoremqa_questions"))


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_r2med(tmp_path, suffix):
    place = tmp_path / "PMC-Clinical"
    put_jsonl(place / f"corpus.jsonl{suffix}", [{"id": "p1", "text": "a"}, {"id": "p2", "text": "b"}])
    put_jsonl(place / f"query.jsonl{suffix}", [{"id": "q1", "text": "which?"}])
    judged = [{"q_id": "q1", "p_id": "p2", "score": 1}, {"q_id": "q1", "p_id": "absent", "score": 1.0}]
    put_jsonl(place / f"qrels.jsonl{suffix}", judged)
    c = r2med.load("PMC-Clinical", tmp_path)
    assert c.qrels == {"q1": {"p2": 1, "absent": 1}}
    assert c.texts() == {"p1": "a", "p2": "b"}
    assert c.retrieval_queries == {"q1": "which?"} and c.passage_tokens == 512
    assert evaluation.evaluate({"q1": ["p2", "p1"]}, c.qrels).mean["nDCG@10"] == pytest.approx(
        0.6131, abs=1e-4
    )
    put_jsonl(place / f"qrels.jsonl{suffix}", [{"q_id": "q1", "p_id": "p2", "score": 0.4}])
    with pytest.raises(ValueError, match=r"row 1: score is 0\.4, expected a whole number"):
        r2med.load("PMC-Clinical", tmp_path)
    put_jsonl(place / f"qrels.jsonl{suffix}", [{"q_id": "q9", "p_id": "p2", "score": 1}])
    with pytest.raises(ValueError, match="judgements for 'q9', which is no query"):
        r2med.load("PMC-Clinical", tmp_path)
    with pytest.raises(KeyError, match="unknown set 'PMC' of R2MED"):
        r2med.load("PMC", tmp_path)


def test_beir(tmp_path):
    place = tmp_path / "trec-covid"
    put_jsonl(place / "corpus.jsonl", [{"_id": "1", "title": "T", "text": 'a "quoted'}])
    queries = [{"_id": "q1", "text": "covid?"}, {"_id": "train", "text": "of another split"}]
    put_jsonl(place / "queries.jsonl", queries)
    (place / "qrels").mkdir()
    (place / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\t1\t2\n")
    c = beir.load("covid", tmp_path)
    assert c.queries.keys() == {"q1"} and c.qrels == {"q1": {"1": 2}}
    assert c.texts() == {"1": 'T: a "quoted'} and c.passage_tokens == 100
    assert set(c.inputs) == {"corpus.jsonl", "queries.jsonl", "qrels/test.tsv"}
    with pytest.raises(FileNotFoundError, match="robust04 is licensed"):
        beir.load("robust04")
    with pytest.raises(KeyError, match="unknown set 'trec-covid' of BEIR"):
        beir.load("trec-covid", tmp_path)


def test_the_hub_is_asked_only_when_it_may_be(monkeypatch):
    """Tests run with HF_HUB_OFFLINE=1."""
    with pytest.raises(ConnectionError, match=r"reasonrank-tests/no-such: not to be had .* local folder"):
        layouts.fetch("reasonrank-tests/no-such", ["*"])
    asked = []
    monkeypatch.setattr(bright, "fetch", lambda *args: asked.append(args) or "/nowhere")
    with pytest.raises(FileNotFoundError):
        bright.load("pony", revision="abc")
    assert asked == [("xlangai/BRIGHT", ["examples/pony-*", "documents/pony-*", "gpt4_reason/pony-*"], "abc")]


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "corpus.csv").write_text("a")
    with pytest.raises(ValueError, match=r"corpus\.csv: expected a \.parquet, \.jsonl or \.tsv"):
        list(layouts.rows([tmp_path / "corpus.csv"], ("id",)))
    (tmp_path / "x.tsv.gz").write_bytes(b"no gzip")
    with pytest.raises(ValueError, match="not a whole gzip file"):
        list(layouts.rows([tmp_path / "x.tsv.gz"], ("id",)))
