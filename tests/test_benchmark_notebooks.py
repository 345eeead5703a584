"""The published layouts through the notebooks, without the hub: every passage and query is made up here."""

import shutil
import subprocess
import sys

import pytest
import yaml

from fakes import public
from fakes.tiny import save_tiny_llama
from reasonrank import runs, stages
from reasonrank.cli.main import main
from test_reproduction import FIVE

TINY = {"dtype": "float32", "max_length": 2048}


@pytest.fixture
def run(tmp_path):
    """Run a notebook of a profile that extends another, in a run's folder; the exit code and the record."""

    def started(notebook, base, **sections):
        model = {"name": str(save_tiny_llama(tmp_path / "tiny", max_position_embeddings=2048))}
        body = {"extends": base, "model": TINY | model, **sections}
        body["evaluation"] = {"engine": "transformers"} | body.get("evaluation", {})
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(body))
        words = [
            "run",
            notebook,
            "--profile",
            str(tmp_path / "mine.yaml"),
            "--run-dir",
            str(tmp_path / "run"),
        ]
        code = main(words)
        record = tmp_path / "run" / notebook / "record.json"
        return code, stages.read_json(record)["result"] if record.is_file() else None

    return started


SMALL = {"systems": ["zero-shot"], "max_tokens": 8, "top": 15}


def test_bright_through_notebook_05(run, tmp_path):
    public.bright(tmp_path, "stackoverflow")
    public.training(tmp_path)
    data, caps = {"folder": str(tmp_path)}, {"passage_tokens": 12, "query_tokens": 12}
    own = {"max_tokens": 8, "top": 15, "window": 10, "step": 5, "bootstrap": 100}
    sections = {"data": data, "prompting": caps, "collections": ["bright/stackoverflow"], "evaluation": own}
    code, result = run("05_gpu_evaluation", "released-7b", **sections)
    (row,) = result["sets"]
    assert code == 0 and result["systems"] == ["retriever", "tiny"]
    assert (row["first_stage"], row["queries"]) == ("reasonir_gpt4cot_top100.txt", 2)
    assert len(row["inputs"]) == 5 and result["template"]["source"] == "recovered"
    trec = (tmp_path / "run" / "05_gpu_evaluation" / "runs" / "bright-stackoverflow.tiny.trec").read_text()
    assert len(trec.splitlines()) == 2 * 15 and "a page" not in trec
    assert result["cost"][0]["calls"] == 2 * 2


@pytest.mark.slow
def test_the_retriever_row_of_table_1(run, tmp_path, shared):
    for name in FIVE:
        place = shutil.copytree(shared / "bright" / name, tmp_path / "bright" / name)
        found = runs.read_trec(next(place.glob("*.run.gz")))
        ids = sorted({docid for docids in found.values() for docid in docids})
        runs.write_jsonl(
            place / "corpus.jsonl", [{"id": i, "text": f"a note, number {n}"} for n, i in enumerate(ids)]
        )
    public.training(tmp_path)
    own = {"first_stage": {"bright": str(tmp_path / "bright")}, "top": 20}
    own |= {"max_tokens": 2, "bootstrap": 100}
    caps, names = {"passage_tokens": 6, "query_tokens": 12}, [f"bright/{name}" for name in FIVE]
    sections = {"data": {"folder": str(tmp_path)}, "prompting": caps, "collections": names}
    code, result = run("05_gpu_evaluation", "released-7b", **sections, evaluation=own)
    assert code == 0
    assert {row["collection"]: round(100 * row["released"]["retriever"], 2) for row in result["sets"]} == {
        f"bright/{name}": figure for name, figure in FIVE.items()
    }


@pytest.mark.slow
def test_r2med_and_beir_with_graded_and_negative_judgements(run, tmp_path):
    public.beir(public.r2med(tmp_path))
    sections = {"data": {"folder": str(tmp_path)}, "collections": ["r2med/Biology", "beir/covid"]}
    code, result = run("05_gpu_evaluation", "smoke", **sections, evaluation=SMALL)
    assert code == 0 and [row["first_stage"] for row in result["sets"]] == ["dense", "dense"]
    assert "beir/covid/qrels/test.tsv" in result["sets"][1]["inputs"]
    assert {row["collection"] for row in result["scores"]} == {"r2med/Biology", "beir/covid", "average"}


@pytest.mark.slow
def test_a_run_and_judgements_of_ones_own(run, tmp_path):
    public.r2med(tmp_path)
    mine = tmp_path / "r2med" / "Biology"
    rows = [f"q{q} Q0 p{n} {n} {30 - n} x\n" for q in range(3) for n in range(15)]
    (mine / "first.trec").write_text("".join(rows))
    own = SMALL | {"first_stage": {"folder": str(mine / "first.trec")}}
    code, result = run("05_gpu_evaluation", "smoke", collections=[f"folder/{mine}"], evaluation=own)
    assert code == 0 and result["sets"][0]["first_stage"] == "first.trec"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"data": {"folder": "no/such"}},
            "no/such/runs: no such TREC run, nor a folder of them; set evaluation",
        ),
        ({"evaluation": {"top": 200}}, "candidates of 101; lower evaluation.top, or give a longer run"),
        ({"data": {"pinned": {"bright/pony/reasonir_gpt4cot_top100.txt": "0"}}}, "data.pinned expects 0"),
        ({"prompting": {"template": "none.jinja"}}, "none.jinja: no such template"),
    ],
)
def test_bad_input_ends_in_one_line(run, tmp_path, capsys, change, message):
    public.bright(tmp_path, "pony")
    sections = {"data": {"folder": str(tmp_path)}, "collections": ["bright/pony"]}
    for key, value in change.items():
        sections[key] = sections[key] | value if isinstance(sections.get(key), dict) else value
    code, _ = run("05_gpu_evaluation", "released-7b", **sections)
    error = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert code == 1 and len(error) == 1 and message in error[0]
    assert error[0].startswith("error: 05_gpu_evaluation, cell ")


@pytest.mark.slow
def test_pointwise_through_notebook_05(run, tmp_path):
    data, own = {"folder": str(public.r2med(tmp_path))}, SMALL | {"strategy": "pointwise"}
    code, result = run("05_gpu_evaluation", "smoke", data=data, collections=["r2med/Biology"], evaluation=own)
    assert code == 0 and result["systems"] == ["retriever", "zero-shot"]
    assert [row["n"] for row in result["answers"]] == [2 * 15]


STAND_IN = """
extends: released-7b
name: stand-in
model: {name: smollm2-135m-instruct, max_length: 4096}
prompting: {passage_tokens: 12, query_tokens: 16}
evaluation: {queries: 1, max_tokens: 24}
latency:
  {queries: 2, alone_queries: 1, growth_queries: 1, strategy_queries: 1, listwise_tokens: 24, pointwise_tokens: 16,
   length_scale: 0.02}
"""


@pytest.mark.slow
def test_all_of_released_7b_from_one_command(tmp_path):
    """BRIGHT in its published form, the template from the rows of the RL set; SmolLM2 stands in for the checkpoint."""
    data, profile, run_dir = tmp_path / "data", tmp_path / "stand-in.yaml", tmp_path / "run"
    public.training(public.all_of_bright(data))
    profile.write_text(STAND_IN)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--nolock", "--quiet", "rules"]
    command += ["--config", f"profile={profile}", f"run={run_dir}", f"data={data}"]
    subprocess.run(command, cwd=stages.ROOT, check=True)
    assert sorted(path.parent.name for path in run_dir.glob("[0-9]*/manifest.json")) == [
        "00_overview",
        "05_gpu_evaluation",
        "06_latency_study",
        "07_figures",
    ]
    result = stages.read_json(run_dir / "05_gpu_evaluation" / "record.json")["result"]
    assert len(result["sets"]) == 12 and result["template"]["source"] == "recovered"
    assert "35.74" in (run_dir / "notebooks" / "07_figures.ipynb").read_text()
