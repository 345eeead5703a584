"""Traces: what `rerank --traces` keeps, and the page of 100 queries of 100 candidates in a real browser."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from browser import browser, runs_over
from fakes.engine import FakeEngine, FakePrompt, reverse
from fakes.rerank_script import NumberEngine, write_inputs
from reasonrank import stages, traces
from reasonrank.cli import rerank
from reasonrank.cli.main import main
from reasonrank.metrics import ndcg
from reasonrank.rerank.listwise import ListwiseReranker
from reasonrank.runs import objects, write_qrels

HTML = '<img src=x onerror="document.title=1"></script><b>'


@pytest.fixture
def go(monkeypatch):
    """The commands, with a model that sorts by number."""
    monkeypatch.setattr(rerank, "open_engine", lambda options, kind: NumberEngine())
    monkeypatch.setattr(stages, "hardware", dict)
    return lambda *words: main(list(map(str, words)))


def test_rerank_keeps_its_answers_and_trace_finds_them(tmp_path, go, capsys):
    arguments = write_inputs(tmp_path, queries=2)
    assert go("rerank", *arguments, "--traces") == 0
    first, _ = (row for _, row in objects(tmp_path / "out.trec.traces.jsonl"))
    assert [(w["start"], w["end"], w["status"], w["output_tokens"]) for w in first["windows"]] == [
        (2, 6, "ok", 7),
        (0, 4, "ok", 7),
    ]
    assert first["windows"][0]["docids"] == [f"doc 0/{d}" for d in (2, 3, 4, 5)]
    assert first["windows"][0]["ranking"] == [4, 3, 2, 1] and "[4] > [3]" in first["windows"][0]["text"]
    assert first["after"] == [f"doc 0/{d}" for d in (5, 4, 1, 0, 3, 2)]
    assert first["passages"]["doc 0/3"].endswith("3 is its number")
    for place in ("out.trec", "out.trec.json", "out.trec.traces.jsonl"):
        assert go("trace", tmp_path / place, "--out", tmp_path / "trace.html", "--limit", 1) == 0
        assert "1 queries -> " in capsys.readouterr().out
    assert go("rerank", *arguments) == 2  # the journal holds answers
    assert "made with other settings: traces was True" in capsys.readouterr().err


def test_each_system_of_notebook_05_has_traces_of_its_own(tmp_path):
    assert traces.of_system("SFT + RL (this run)") == "runs/all.sft-rl-this-run.traces.jsonl"
    path = tmp_path / traces.of_system("SFT (this run)")
    path.parent.mkdir()
    path.write_text("")
    assert traces.find(path) == path  # as `reasonrank trace FILE` takes it


def test_rows_of_test_sets_hold_judgements_and_pointwise_scores():
    docids = ["a", "b", "c"]
    test = SimpleNamespace(queries={"q": "which?"}, run={"q": docids}, qrels={"q": {"c": 1}})
    test.collection = SimpleNamespace(texts=lambda: dict.fromkeys(docids, "text"))
    with FakeEngine(reverse) as engine:
        reranker = ListwiseReranker(engine, FakePrompt(), window=3, step=2)
        done = reranker.rerank_run_sync(test.run, test.queries, test.collection.texts())
    (found,) = traces.rows({"own": done}, {"own": test})
    assert (found["qid"], found["before"], found["after"]) == ("own/q", docids, ["c", "b", "a"])
    assert found["relevant"] == {"c": 1} and found["windows"][0]["ranking"] == [3, 2, 1]
    point = replace(done.traces["q"][0], start=4, end=5, docids=("c",), ranking=[1], score=0.75)
    assert traces.window(point).items() >= {"start": 4, "end": 5, "docids": ["c"], "score": 0.75}.items()
    page = traces.page([found])
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert data[0]["ndcg"] == [0.5, 1.0]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none", None, "none: no traces; expected a run's folder, or a run made with"),
        ("a.traces.jsonl", "{}\n", "a.traces.jsonl, line 1: expected a query's trace"),
        ("b.traces.jsonl", "", "no query to show"),
    ],
)
def test_wrong_traces(tmp_path, go, capsys, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    assert go("trace", tmp_path / name, "--out", tmp_path / "trace.html") == 1
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1 and not (tmp_path / "trace.html").exists()


@pytest.fixture(scope="module")
def chromium():
    with browser() as opened:
        yield opened
    assert not opened.problems


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 390])
def test_a_page_of_100_queries_of_100_candidates(tmp_path, go, chromium, width):
    arguments = write_inputs(tmp_path, queries=100, candidates=100)
    corpus = (tmp_path / "corpus.jsonl").read_text().replace("is its number", json.dumps(HTML)[1:-1])
    (tmp_path / "corpus.jsonl").write_text(corpus)
    size = ["--window", "20", "--step", "10", "--traces"]
    assert go("rerank", *arguments[:-6], "--max-tokens", "100", *size) == 0
    run = {f"q{q}": {f"doc {q}/{d}": 1 for d in (7, 93)} for q in range(99)}
    write_qrels(tmp_path / "qrels", run)
    assert (
        go("trace", tmp_path / "out.trec", "--out", tmp_path / "t.html", "--qrels", tmp_path / "qrels") == 0
    )
    rows = list(traces.read(tmp_path / "out.trec.traces.jsonl", run))
    page = chromium.open((tmp_path / "t.html").as_uri(), width)
    assert page.locator("#query option").count() == 100 and not runs_over(page)
    assert page.locator(".window").count() == 9
    expected = [100 * ndcg(rows[0][which], run["q0"]) for which in ("before", "after")]
    assert "NDCG@10: {:.1f} → {:.1f}".format(*expected) in page.locator(".score").inner_text()
    window = page.locator(".window").first
    assert window.locator("li").count() == 40 and window.locator("line").count() == 20
    assert window.locator("li.relevant").count() == 2 and window.locator("line.relevant").count() == 1
    assert "ok · " in window.inner_text() and " + 7 tokens" in window.inner_text()
    assert page.locator("main img, main b >> text=img").count() == 0 and page.title() == "ReasonRank: traces"
    window.locator("li").nth(3).click()
    assert HTML in window.locator(".full").inner_text()
    mark = window.locator("mark").first
    mark.click()
    lit = window.locator(".lit")
    assert set(lit.evaluate_all("found => found.map(e => e.dataset.id)")) == {mark.get_attribute("data-id")}
    assert lit.count() == 4  # in the chain, before, after, and the line between
    page.locator("#find").fill("question 99")
    assert page.locator("#query option").count() == 1
    assert "No judgements for this query" in page.locator("main").inner_text()
