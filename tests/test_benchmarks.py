"""BRIGHT, R2MED and BEIR read from small folders in their published form, made here."""

import hashlib
import json

import pyarrow
import pytest
from pyarrow import parquet

from reasonrank import evaluation, profiles, retrieval, runs, sources
from reasonrank.sources import benchmarks

EXAMPLES = [
    {"id": "0", "query": "why do ferns curl", "gold_ids": ["d/a b.txt"], "excluded_ids": ["N/A"]},
    {"id": "1", "query": "what do wolves eat", "gold_ids": ["d2", "d3"], "excluded_ids": ["d4", "gone"]},
]
FILE = "examples/biology-00000-of-00001.parquet"
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


@pytest.fixture
def bright_folder(tmp_path):
    """Parquet as on the hub, the documents in two shards."""
    examples = [row | {"reasoning": "", "gold_ids_long": [], "gold_answer": "N/A"} for row in EXAMPLES]
    put_parquet(tmp_path / FILE, examples)
    put_parquet(tmp_path / "gpt4_reason" / "biology-00000-of-00001.parquet", REWRITTEN)
    put_parquet(tmp_path / "documents" / "biology-00000-of-00002.parquet", DOCUMENTS[:1])
    put_parquet(tmp_path / "documents" / "biology-00001-of-00002.parquet", DOCUMENTS[1:])
    return tmp_path


def test_bright_is_read_from_parquet_or_json_lines(bright_folder, tmp_path):
    for table, rows in (("examples", EXAMPLES), ("gpt4_reason", REWRITTEN), ("documents", DOCUMENTS)):
        runs.write_jsonl(tmp_path / "lines" / table / "biology.jsonl.gz", rows)
    for place in (bright_folder, tmp_path / "lines"):
        b = benchmarks.load("bright/biology", place)
        assert b.queries["1"].text == "what do wolves eat"
        assert b.rewritten["1"] == "rewritten: what do wolves eat"
        assert list(b.passages) == ["d/a b.txt", "d2", "d3", "d4"] and b.passages["d3"].full == "deer"
        assert b.qrels == {"0": {"d/a b.txt": 1}, "1": {"d2": 1, "d3": 1}}
        assert b.excluded == {"1": {"d4", "gone"}} and sorted(b.ids("test")) == ["0", "1"]
        assert (b.scenario, b.passage_tokens) == ("complex QA", 512)
    text = "".join(json.dumps(row) + "\n" for row in EXAMPLES).encode()
    assert b.inputs["examples/biology.jsonl"] == hashlib.sha256(text).hexdigest()


def test_excluded_documents_are_in_no_ranking_at_any_step(bright_folder, tmp_path):
    b = benchmarks.load("bright/biology", bright_folder)
    assert "d4" not in retrieval.bm25(b, b.searched(b.queries), top=100)["1"]
    path, full = tmp_path / "r.run", list(b.passages)
    runs.write_trec(path, {"0": full, "1": ["d4", "d2", "d3", "d/a b.txt"]}, "t")
    loaded = benchmarks.read_run(b, path)
    assert loaded == {"0": full, "1": ["d2", "d3", "d/a b.txt"]}
    strict = benchmarks.read_run(b, path, lenient_ids=False)
    assert strict == {"0": ["d2", "d3", "d4"], "1": ["d2", "d3"]}
    whole = evaluation.evaluate(runs.read_trec(path), b.qrels, excluded=b.excluded)
    assert whole == evaluation.evaluate(loaded, b.qrels)


def test_a_run_by_place_with_its_candidates_counted(bright_folder, tmp_path):
    b, path = benchmarks.load("bright/biology", bright_folder), tmp_path / "r.run"
    four, three = list(b.passages), ["d2", "d3", "d/a b.txt"]  # all that may be retrieved
    authors = "runs/biology/reasonir_gpt4cot_top100.txt"
    for name in ("r.run", "flat/biology.trec.gz", "more/biology/any.run", authors):
        runs.write_trec(tmp_path / name, {"0": four, "1": three}, "t")
        found = benchmarks.find_run(b.name, tmp_path / name.split("/")[0])
        assert found == tmp_path / name
        assert benchmarks.read_run(b, found, top=100) == {"0": four, "1": three}
    assert benchmarks.read_run(b, path, top=1) == {"0": four[:1], "1": three[:1]}
    for ranking, message in (
        (three[:2], r"r\.run: query '1' has 2 candidates of 3; lower evaluation\.top, or give a longer run"),
        (["d2", "d3", "other"], "query '1': 'other' is no passage of bright/biology; is it another corpus"),
        ([], "query '1' of bright/biology is not in the run; give a run of all judged queries"),
    ):
        runs.write_trec(path, {"0": four, "1": ranking}, "t")
        with pytest.raises(ValueError, match=message):
            benchmarks.read_run(b, path, top=100)
    runs.write_trec(path, {"0": four, "1": three, "9": three}, "t")
    with pytest.raises(ValueError, match="query '9' is no judged query of bright/biology"):
        benchmarks.read_run(b, path)
    with pytest.raises(FileNotFoundError, match=r"one run of bright/biology, biology\.run or .*; found 0"):
        benchmarks.find_run(b.name, bright_folder / "documents")
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such TREC run.*; set evaluation\.first_stage"):
        benchmarks.find_run(b.name, tmp_path / "nowhere")
    r2med = tmp_path / "runs" / "r2med_Biology" / "e5-mistral-7b-instruct_top100.txt"
    runs.write_trec(r2med, {"0": four}, "t")
    assert benchmarks.find_run("r2med/Biology", tmp_path / "runs") == r2med


def evaluated(data, **changes):
    """A profile that evaluates runs of the folder `data`, at `runs` in it, scored as the authors do."""
    settings = {"data.folder": str(data), "evaluation.first_stage": {"default": "runs"}, "evaluation.top": 3}
    return profiles.load("smoke", settings | {"evaluation.scoring": "released"} | changes)


def test_a_test_set_of_a_read_run_as_the_authors_score_it(bright_folder):
    """Blank ids are dropped, ties go by id, descending; the reranker gets the order of the file."""
    rows = [("0", "d2", 0.5), ("0", "d3", 0.5), ("0", "d/a b.txt", 0.4), ("0", "d4", 0.1)]
    rows += [("1", "d2", 0.9), ("1", "d3", 0.9), ("1", "d4", 0.9), ("1", "d/a b.txt", 0.5)]
    path = bright_folder / "runs" / "biology" / "reasonir_gpt4cot_top100.txt"
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"{q} Q0 {d} 1 {s} t\n" for q, d, s in rows))
    test = evaluation.test_set(evaluated(bright_folder), "bright/biology")
    assert (test.stage, test.run) == (path.name, {"0": ["d2", "d3", "d4"], "1": ["d2", "d3"]})
    assert test.retriever == {"0": ["d3", "d2", "d4"], "1": ["d3", "d2"]}
    assert test.queries["1"] == "what do wolves eat" and test.ndcg(test.run) == {"0": 0.0, "1": 1.0}
    # queries that the run lacks count nothing, and where scores tie the model's order is lost
    assert test.ndcg({"1": ["d2", "d3"]}) == {"1": 1.0}
    assert test.released({"1": ["d4", "d2"]}) == test.released({"1": ["d2", "d4"]})
    rows = evaluation.set_rows({"bright/biology": test}, {"retriever": {"bright/biology": test.retriever}})
    assert (rows[0]["queries"], rows[0]["judged"], rows[0]["released"]) == (2, 2, {"retriever": 0.5})
    own = evaluation.test_set(evaluated(bright_folder, **{"evaluation.scoring": "ours"}), "bright/biology")
    assert own.run["0"] == ["d2", "d3", "d/a b.txt"] and own.retriever is own.run


def test_inputs_are_recorded_and_pinned_by_hash(bright_folder):
    runs.write_trec(bright_folder / "runs" / "biology.run", {q: ["d2", "d3", "d/a b.txt"] for q in "01"}, "t")
    test = evaluation.test_set(evaluated(bright_folder), "bright/biology")
    named = [FILE, "gpt4_reason/biology-00000-of-00001.parquet", "documents/biology-00000-of-00002.parquet"]
    named += ["documents/biology-00001-of-00002.parquet", "biology.run"]
    assert test.inputs.keys() == {f"bright/biology/{name}" for name in named}
    pinned = {"data.pinned": dict(test.inputs) | {"bright/pony/biology.run": "of another set"}}
    assert evaluation.test_set(evaluated(bright_folder, **pinned), "bright/biology").inputs == test.inputs
    pinned = {"data.pinned": {"bright/biology/biology.run": "00"}}
    with pytest.raises(ValueError, match=r"biology\.run: its SHA-256 is .*; data\.pinned expects 00"):
        evaluation.test_set(evaluated(bright_folder, **pinned), "bright/biology")


def test_passages_of_beir_are_cut_to_the_papers_cap(bright_folder):
    class Made:
        prompt = type("P", (), {"passage_tokens": 300})()

        bounds = lambda self: None  # noqa: E731

        async def rerank_run(self, *asked, bounds):
            return self.prompt.passage_tokens

    test = evaluation.TestSet(benchmarks.load("bright/biology", bright_folder), "bm25", {}, {}, {})
    assert evaluation.rerank_sets(Made(), {"own": test}) == {"own": 300}  # BRIGHT's is 512
    test.collection.passage_tokens = 100
    assert evaluation.rerank_sets(Made(), {"own": test}) == {"own": 100} and Made.prompt.passage_tokens == 300


def test_faults_in_bright_are_named(bright_folder):
    def fault(kind, message, name="biology", **options):
        with pytest.raises(kind, match=message):
            benchmarks.load(f"bright/{name}", bright_folder, **options)

    fault(ValueError, "unknown collection 'bright/botany'; known are bright/economics", "botany")
    fault(ValueError, "examples: no subset 'pony'; expected one of biology", "pony")
    path = bright_folder / "gpt4_reason" / "biology-00000-of-00001.parquet"
    for rows, message in (
        (REWRITTEN[:1], "query '1' of bright/biology is in only one of examples and gpt4_reason"),
        (
            [{"id": "0", "said": "none"}],
            "parquet, row 1: no text; expected a string under one of text, query",
        ),
        (REWRITTEN + REWRITTEN[:1], "row 3: id '0' a second time; the first is .*row 1"),
    ):
        put_parquet(path, rows)
        fault(ValueError, message)
    path.write_bytes(b"PAR1 cut off")
    fault(ValueError, "not a whole Parquet file")
    path.unlink()
    path.parent.rmdir()
    fault(FileNotFoundError, "no rewritten; expected a file named gpt4_reason")
    found = benchmarks.load("bright/biology", bright_folder, wanted={"d2"})  # nothing is searched
    assert found.texts() == {"d2": "wolves eat deer"}
    put_parquet(bright_folder / FILE, [EXAMPLES[0], EXAMPLES[1] | {"excluded_ids": ["d2"]}])
    fault(ValueError, "'d2' is both judged and excluded for '1'", wanted={"d2"})
    put_parquet(bright_folder / FILE, [EXAMPLES[0] | {"gold_ids": []}, EXAMPLES[1]])
    fault(ValueError, "query '0' of bright/biology has no judgement", wanted=())


@pytest.mark.parametrize("name", ["aops", "biology", "theoremqa_questions"])
def test_topics_of_bright_and_its_published_run(shared, name):
    b = benchmarks.load(f"bright/{name}", shared, wanted=())
    assert b.qrels == runs.read_qrels(shared / "bright" / name / "qrels.txt.gz")
    run = benchmarks.read_run(b, benchmarks.find_run(b.name, shared / "bright"), top=100)
    assert {len(docids) for docids in run.values()} == {100}  # nothing had to be taken out
    assert not any(b.excluded.get(qid, set()) & set(docids) for qid, docids in run.items())
    assert bool(b.excluded) == (name != "biology")
    with pytest.raises(FileNotFoundError, match=f"{name}: no passages; expected a file named corpus or"):
        benchmarks.load(f"bright/{name}", shared / "bright")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_r2med(tmp_path, suffix):
    place = tmp_path / "r2med" / "PMC-Clinical"
    runs.write_jsonl(place / f"corpus.jsonl{suffix}", [{"id": "p1", "text": "a"}, {"id": "p2", "text": "b"}])
    runs.write_jsonl(place / f"query.jsonl{suffix}", [{"id": "q1", "text": "which?"}])
    judged = [{"q_id": "q1", "p_id": "p2", "score": 1}, {"q_id": "q1", "p_id": "absent", "score": 1.0}]
    runs.write_jsonl(place / f"qrels.jsonl{suffix}", judged)
    c = sources.load("r2med/PMC-Clinical", tmp_path)
    assert c.qrels == {"q1": {"p2": 1, "absent": 1}}
    assert c.texts() == {"p1": "a", "p2": "b"}
    assert c.searched(["q1"]) == {"q1": "which?"} and c.passage_tokens == 512
    ndcg = evaluation.evaluate({"q1": ["p2", "p1"]}, c.qrels).mean["nDCG@10"]
    assert ndcg == pytest.approx(0.6131, abs=1e-4)
    for row, message in (
        ({"q_id": "q1", "p_id": "p2", "score": 0.4}, r"line 1: the grade is 0\.4; expected a whole number"),
        ({"q_id": "q1", "p_id": "p2", "score": None}, "line 1: the grade is None"),
        ({"q_id": "q9", "p_id": "p2", "score": 1}, "line 1: a judgement for 'q9', which is not in"),
    ):
        runs.write_jsonl(place / f"qrels.jsonl{suffix}", [row])
        with pytest.raises(ValueError, match=message):
            benchmarks.load("r2med/PMC-Clinical", tmp_path)
    with pytest.raises(ValueError, match="unknown collection 'r2med/PMC'"):
        sources.load("r2med/PMC", tmp_path)
    with pytest.raises(FileNotFoundError, match="MedQA-Diag: no such folder; expected the published files"):
        sources.load("r2med/MedQA-Diag", tmp_path)


def test_beir_with_graded_and_negative_judgements(tmp_path):
    place = tmp_path / "trec-covid"
    runs.write_jsonl(place / "corpus.jsonl", [{"_id": "1", "title": "T", "text": 'a "quoted'}])
    queries = [{"_id": "q1", "text": "covid?"}, {"_id": "train", "text": "of another split"}]
    runs.write_jsonl(place / "queries.jsonl", queries)
    (place / "qrels").mkdir()
    test = place / "qrels" / "test.tsv"
    (place / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\ntrain\t1\t1\n")
    test.write_text("\ufeffquery-id\tcorpus-id\tscore\nq1\t1\t2\nq1\tgone\t-1\n")
    c = benchmarks.load("beir/covid", tmp_path)
    assert c.queries.keys() == {"q1"} and c.qrels == {"q1": {"1": 2, "gone": -1}}
    assert c.texts() == {"1": 'T: a "quoted'} and c.passage_tokens == 100
    assert set(c.inputs) == {"corpus.jsonl", "queries.jsonl", "qrels/test.tsv"}
    test.write_text("query-id\tcorpus-id\tscore\nq1\t1\n")
    with pytest.raises(ValueError, match=r"test\.tsv, line 2: expected 'query-id TAB corpus-id TAB score'"):
        benchmarks.load("beir/covid", tmp_path)


def test_the_hub_is_asked_only_where_no_folder_is_given(monkeypatch, tmp_path):
    """Tests run with HF_HUB_OFFLINE=1."""
    with pytest.raises(ConnectionError, match=r"R2MED/Biology: the hub does not give it .* local folder"):
        benchmarks.load("r2med/Biology")
    asked = []

    def snapshot(repository, repo_type, allow_patterns):
        asked.append((repository, allow_patterns))
        place = tmp_path / repository
        if repository.endswith("-qrels"):
            place.mkdir(parents=True)
            (place / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\t1\t1\n")
        else:
            for name in ("corpus", "queries"):
                put_parquet(place / name / f"{name}-00000-of-00001.parquet", [{"_id": "q1", "text": "x"}])
        return place

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert benchmarks.load("beir/covid").qrels == {"q1": {"1": 1}}
    assert asked == [("BeIR/trec-covid", ["corpus*", "queries*"]), ("BeIR/trec-covid-qrels", ["test.tsv"])]


def test_a_set_in_a_folder_of_its_own_with_its_corpus_in_files(tmp_path):
    assert [len(benchmarks.names(family)) for family in ("bright", "r2med", "beir")] == [12, 8, 7]
    place = tmp_path / "BRIGHT" / "biology"
    runs.write_jsonl(place / "topics.jsonl.gz", EXAMPLES)
    runs.write_jsonl(place / "corpus" / "part1.jsonl", DOCUMENTS)
    b = benchmarks.load("bright/biology", tmp_path, wanted=["d2", "d3"])
    assert list(b.texts()) == ["d2", "d3"] and not b.rewritten
    assert b.searched(["0"]) == {"0": "why do ferns curl"}
