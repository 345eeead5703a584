"""`rerank --data` on the layouts that BEIR and BRIGHT are published in."""

import gzip
import json

import pyarrow
import pytest
from pyarrow import parquet

from reasonrank.cli.main import main
from reasonrank.runs import read_trec
from reasonrank.sources import benchmarks

RUN = "q1 Q0 a/x y.txt 1 3 t\nq1 Q0 b 2 2 t\nq1 Q0 c 3 1 t\n"
PASSAGES = {"a/x y.txt": "1 one", "b": "2 two", "c": "3 three", "unused": "no number"}


@pytest.fixture
def go_data(tmp_path, engines):
    """Runs the command on `tmp_path/data` and gives the run that came out."""
    (tmp_path / "first.trec").write_text(RUN)
    for name in ("data", "model"):
        (tmp_path / name).mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")

    def run(*more):
        options = {"--run": "first.trec", "--data": "data", "--model": "model", "--out": "out.trec"}
        paths = [text for option, name in options.items() for text in (option, str(tmp_path / name))]
        status = main(["rerank", *paths, "--max-tokens", "100", *more])
        return status, read_trec(tmp_path / "out.trec") if status == 0 else None

    return run


def put(path, rows):
    """JSON lines, gzipped where the name says so, or Parquet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


def test_beir_and_what_a_folder_lacks(tmp_path, go_data, capsys):
    assert go_data() == (2, None)
    assert "no queries: give --queries FILE" in capsys.readouterr().err
    put(tmp_path / "data/queries.jsonl.gz", [{"_id": "q1", "text": "which?", "metadata": {}}])
    assert go_data() == (2, None)
    assert "no corpus: give --corpus FILE" in capsys.readouterr().err
    rows = [{"_id": docid, "title": "", "text": text} for docid, text in PASSAGES.items()]
    put(tmp_path / "data/corpus.jsonl.gz", rows)
    (tmp_path / "data" / "qrels").mkdir()
    (tmp_path / "data" / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n")
    assert go_data() == (0, {"q1": ["c", "b", "a/x y.txt"]})


def bright(folder, subset, end="parquet", excluded=("N/A",)):
    example = {"query": "which?", "reasoning": "", "id": "q1", "excluded_ids": list(excluded)}
    example |= {"gold_ids_long": ["N/A"], "gold_ids": ["c"], "gold_answer": "N/A"}
    put(folder / f"examples/{subset}.{end}", [example])
    rows = [{"id": docid, "content": text} for docid, text in PASSAGES.items()]
    put(folder / f"documents/{subset}.{end}", rows)


@pytest.mark.parametrize("end", ["parquet", "jsonl"])
def test_bright_with_excluded_documents(tmp_path, go_data, capsys, end):
    bright(tmp_path / "data", "aops-00000-of-00001", end, excluded=["b", "elsewhere"])
    assert go_data() == (0, {"q1": ["c", "a/x y.txt"]})
    assert "1 excluded rows" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.trec.json").read_text())["result"]["excluded_rows"] == 1


def test_bright_with_several_subsets(tmp_path, go_data, capsys):
    for subset in ("aops-00000-of-00001", "biology-00000-of-00002"):
        bright(tmp_path / "data", subset)
    put(tmp_path / "data/documents/biology-00001-of-00002.parquet", [{"id": "more", "content": "4"}])
    assert go_data() == (2, None)
    assert "there are several subsets; expected one of aops, biology" in capsys.readouterr().err
    assert go_data("--subset", "physics")[0] == 2
    assert "no subset 'physics'" in capsys.readouterr().err
    assert go_data("--subset", "biology") == (0, {"q1": ["c", "b", "a/x y.txt"]})
    (tmp_path / "first.trec").write_text("q1 Q0 b 1 2 t\nq1 Q0 more 2 1 t\n")  # in the second shard
    assert go_data("--subset", "biology", "--journal", str(tmp_path / "new")) == (0, {"q1": ["more", "b"]})


def test_the_real_topics_and_runs(shared, tmp_path, go_data, name="aops"):
    """BRIGHT's own queries, excluded ids and run, with made-up passages; every row comes out again."""
    folder = shared / "bright" / name
    first = read_trec(folder / "reasonir_gpt4cot_top100.run.gz")
    docids = sorted({docid for found in first.values() for docid in found})
    put(tmp_path / "texts.jsonl", [{"id": docid, "text": str(n)} for n, docid in enumerate(docids)])
    more = ["--run", str(folder / "reasonir_gpt4cot_top100.run.gz"), "--data", str(folder)]
    status, run = go_data(
        *more, "--corpus", str(tmp_path / "texts.jsonl"), "--top", "4", "--query-tokens", "50"
    )
    assert status == 0 and list(run) == list(first)
    excluded = benchmarks.load(f"bright/{name}", shared, wanted=()).excluded
    for qid, docids in first.items():
        kept = [docid for docid in docids if docid not in excluded.get(qid, ())]
        assert sorted(run[qid]) == sorted(kept) and run[qid][4:] == kept[4:]
