"""The exported data set, the loader of the published sets, and the commands from own data to a filtered set."""

import json
from dataclasses import asdict

import pytest
from datasets import Dataset, load_from_disk

from fakes.teacher_server import serving
from reasonrank import answers, export, runs, stages, synthesis
from reasonrank.cli.main import main
from reasonrank.sources import published13k
from reasonrank.synthesis import Example
from test_folder import write

EXAMPLES = [
    Example("leetcode", "coding", "q1", ["a", "b"], ["b", "a"], "since b", ["b"]),
    Example("biology", "complex QA", "q2", ["c", "a"], ["c", "a"], "since c", ["a"], ["c"]),
]
QUERIES = {"leetcode": {"q1": "sort", "q9": "unused"}, "biology": {"q2": "why"}}
TEXTS = {"leetcode": {"a": "A", "b": "B", "z": "unused"}, "biology": {"a": "a cell", "c": "C"}}
TABLE = synthesis.statistics_table(EXAMPLES, {"leetcode": 2, "biology": 1})


def write_set(folder, examples=EXAMPLES):
    return export.write(
        folder, examples, QUERIES, TEXTS, statistics=TABLE, about="From tests.", teacher="made-up"
    )


def test_what_is_written_is_read_back(tmp_path):
    folder = write_set(tmp_path / "mine")
    rows = published13k.rows(folder)
    assert [synthesis.example_of(row) for row in rows] == EXAMPLES
    assert list(rows[0])[:6] == [
        "dataset",
        "qid",
        "initial_list",
        "final_list",
        "reasoning",
        "relevant_docids",
    ]
    queries, texts = published13k.texts(folder)
    assert queries == {"leetcode": {"q1": "sort"}, "biology": {"q2": "why"}}
    assert texts == {"leetcode": {"a": "A", "b": "B"}, "biology": {"a": "a cell", "c": "C"}}
    assert load_from_disk(str(folder / "arrow")).to_list() == rows
    card = (folder / "README.md").read_text()
    assert "2 training examples" in card and "| coding | leetcode | 2 | 1 |" in card and "made-up" in card


def test_the_same_examples_give_the_same_bytes(tmp_path):
    first, second = write_set(tmp_path / "1" / "x"), write_set(tmp_path / "2" / "x")
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) >= 8
    assert [(first / f).read_bytes() for f in files] == [(second / f).read_bytes() for f in files]


def test_nothing_to_export_and_a_text_that_is_missing(tmp_path):
    with pytest.raises(ValueError, match="no example to export"):
        write_set(tmp_path / "x", [])
    with pytest.raises(KeyError, match="q3"):
        write_set(tmp_path / "x", [Example("biology", "complex QA", "q3", ["a"], ["a"], "r", ["a"])])
    assert not (tmp_path / "x").exists()


def published(folder, rows=None):
    """The three sets as on the hub, in small."""
    rows = rows or [{key: asdict(e)[key] for key in export.FIELDS} for e in EXAMPLES]
    write_set(folder / "13k")
    runs.write_jsonl(folder / "13k" / "training_data_all.jsonl", rows)
    example = EXAMPLES[1]
    output = answers.format_completion(example.reasoning, example.gold_ranking)
    entry = {"instruction": "Rank.", "output": output, "system": "You rank."}
    (folder / "sft").mkdir()
    (folder / "sft" / "reasonrank_sft-data.json").write_text(json.dumps([entry]))
    (folder / "rl").mkdir()
    lists = {key: asdict(EXAMPLES[0])[key] for key in published13k.LISTS}
    row = {"data_source": "ranking", "prompt": [{"role": "user", "content": "Rank."}], "extra_info": lists}
    Dataset.from_list([row]).to_parquet(str(folder / "rl" / "train.parquet"))
    return folder


def test_the_published_sets_are_taken_over_and_filtered(tmp_path):
    folder = published(tmp_path)
    places = [f"--data-{name}={folder / name}" for name in ("13k", "sft", "rl")]
    for subset, qids in (("13k", ["q1", "q2"]), ("sft", ["q2"]), ("rl", ["q1"])):
        out = tmp_path / "runs" / subset
        common = ["--profile", "smoke", "--out", str(out)]
        assert main(["published", "--subset", subset, *places, *common]) == 0
        found = synthesis.load(stages.stage_file(out, "01_synthesis", "examples.jsonl"))
        assert [e.qid for e in found] == qids
        assert {e.scenario for e in found} <= {"coding", "complex QA"}
    # q1: NDCG@10 1; q2: its positive is second, 1 / log2(3) = 0.63
    assert (
        main(["filter", "--alpha", "0.7", "--profile", "smoke", "--out", str(tmp_path / "runs" / "13k")]) == 0
    )
    kept = synthesis.load(stages.stage_file(tmp_path / "runs" / "13k", "02_filtering", "kept.jsonl"))
    assert [e.qid for e in kept] == ["q1"]


def test_faults_of_published_files_are_named(tmp_path, capsys):
    with pytest.raises(
        FileNotFoundError, match=r"training_data_all\.jsonl: no such file; a folder as liuwenhan"
    ):
        published13k.rows(tmp_path)
    good = {key: asdict(EXAMPLES[0])[key] for key in export.FIELDS}
    for change, message in (
        ({"final_list": ["a"]}, "line 2: final_list is no permutation"),
        ({"relevant_docids": ["z"]}, "line 2: relevant_docids names a passage"),
        ({"reasoning": None}, "line 2: reasoning is missing"),
        ({"initial_list": [1.5]}, "line 2: initial_list is missing or no list of ids"),
        ({"dataset": "chess"}, "line 2: data set 'chess' is none of Table 5"),
    ):
        runs.write_jsonl(tmp_path / "training_data_all.jsonl", [good, good | change])
        with pytest.raises(ValueError, match=message):
            published13k.rows(tmp_path)
    folder = published(tmp_path / "more")
    with pytest.raises(ValueError, match=r"sft-data\.json, entry 1: is no example of the full set"):
        published13k.sft_rows(folder / "sft", [good])


def test_scenarios_of_published_data_sets():
    names = ("math-qa", "math_theorem", "leetcode", "msmarco", "earth_science")
    found = [published13k.scenario_of(name) for name in names]
    assert found == ["math: problem", "math: theorem", "coding", "web search", "complex QA"]


def own_data(folder):
    folder.mkdir()
    words = ["apple", "bread", "cloud", "dust", "earth", "fire", "grass", "hill", "iron", "jade"]
    passages = [{"id": w, "text": f"All about {w}, and how {w} is made."} for w in words]
    queries = [{"id": f"q-{w}", "text": f"Tell me of {w}", "answer": f"{w} is made so."} for w in words[:4]]
    return write(folder, queries, passages, None)


def test_from_own_data_to_a_filtered_set(tmp_path, capsys):
    data, out = own_data(tmp_path / "mine"), tmp_path / "run"
    common = ["--profile", "smoke", "--out", str(out)]
    with serving(rate=0.2, seed=4) as server:
        remote = {
            "base_url": f"http://127.0.0.1:{server.server_address[1]}/v1",
            "model": "made-up",
            "key_variable": "",
            "timeout": 0.15,
            "backoff": 0.001,
            "attempts": 30,
            "answers": 20,
        }
        settings = [
            word for key, value in remote.items() for word in ("-p", f"synthesis.remote.{key}={value}")
        ]
        ask = ["synthesise", "--data", str(data), "--teacher", "remote", "--first-stage", "bm25", *settings]
        assert main([*ask, *common]) == 0
        printed = capsys.readouterr()
        assert "with positives                 4" in printed.out and "requests" in printed.out
    stage = out / "01_synthesis"
    made = {p: p.read_bytes() for p in (stage / "dataset").rglob("*") if p.is_file()}
    made |= {stage / name: (stage / name).read_bytes() for name in ("examples.jsonl", "statistics.json")}
    assert main([*ask, *common, "--replay"]) == 0
    assert {path: path.read_bytes() for path in made} == made
    assert main(["filter", "--alpha", "0", *common]) == 0
    kept = synthesis.load(stages.stage_file(out, "02_filtering", "kept.jsonl"))
    assert sorted(e.qid for e in kept) == ["q-apple", "q-bread", "q-cloud", "q-dust"]
    assert {e.dataset for e in kept} == {"mine"}


def test_a_budget_that_ends_is_said_and_what_is_done_stays(tmp_path, capsys):
    data, out = own_data(tmp_path / "mine"), tmp_path / "run"
    with serving() as server:
        url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        ask = ["synthesise", "--data", str(data), "--teacher", "remote", "--first-stage", "bm25"]
        ask += ["--profile", "smoke", "--out", str(out)]
        ask += ["-p", f"synthesis.remote.base_url={url}", "-p", "synthesis.remote.key_variable="]
        limit = ["-p", "synthesis.remote.token_budget=100"]
        assert main([*ask, *limit]) == 1
        assert "no example was made" in capsys.readouterr().err and not server.seen
        assert main([*ask, "--queries", "3"]) == 0
        asked = len(server.seen)
        assert main([*ask, *limit]) == 1, "three are in the journal, the fourth is over the limit"
        assert "1 queries are not done: the budget would be passed; raise" in capsys.readouterr().err
        assert len(server.seen) == asked
        assert len(synthesis.load(out / "01_synthesis" / "examples.jsonl")) == 3
        assert main(ask) == 0
        assert len(synthesis.load(out / "01_synthesis" / "examples.jsonl")) == 4


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--data", "nowhere"], 2, "nowhere: no such folder"),
        (["-p", "synthesis.windw=3"], 2, "synthesis.windw: Extra inputs"),
        (["-p", "synthesis"], 2, "expected KEY=VALUE"),
        (["--teacher", "remote"], 1, "the environment has no REASONRANK_TEACHER_KEY"),
        (["--teacher", "remote", "--replay"], 1, "teacher.jsonl"),
    ],
)
def test_wrong_calls(tmp_path, capsys, monkeypatch, more, code, message):
    monkeypatch.delenv("REASONRANK_TEACHER_KEY", raising=False)
    data = own_data(tmp_path / "mine")
    ask = ["synthesise", "--data", str(data), "--first-stage", "bm25", "--profile", "smoke"]
    assert main([*ask, "--out", str(tmp_path / "run"), *more]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "01_synthesis").exists()
