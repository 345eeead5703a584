"""The command line, on tiny notebooks that each test writes itself; the kernels are real."""

import json
import re
import sys
from pathlib import Path

import nbformat
import pytest

from reasonrank import profiles
from reasonrank.cli.main import main
from reasonrank.cli.parameters import UsageError, read_parameters
from reasonrank.cli.run import KERNEL, ThisPython, notebook_parameters, read_notebook

PARAMETERS = 'profile = ""\nrun_dir = ""\nalpha = 0.4'
STAGE = """from pathlib import Path
stage = Path(run_dir) / "03_tiny"
stage.mkdir(exist_ok=True)
"""
MANIFEST = '(stage / "manifest.json").write_text("{}")\n'
GOOD = [STAGE + MANIFEST, "import sys; print(alpha, sys.executable, Path.cwd().name)"]


def write_notebook(folder: Path, *cells: str, name: str = "03_tiny") -> Path:
    """A notebook with a parameters cell and the given code."""
    head = nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}, id="head")
    code = [nbformat.v4.new_code_cell(cell, id=f"cell-{i}") for i, cell in enumerate(cells)]
    kernel = {"name": "python3", "display_name": "somebody's", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=[head, *code], metadata={"kernelspec": kernel})
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


def run(notebook: Path, run_dir: Path, *more: str) -> int:
    return main(["run", str(notebook), "--profile", "default", "--run-dir", str(run_dir), *more])


def printed(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "".join(out.get("text", "") for cell in cells for out in cell.get("outputs", []))


def test_good_run(tmp_path, capsys):
    notebook = write_notebook(tmp_path / "books", *GOOD)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "03_tiny.failed.ipynb").write_text("from an earlier try")
    assert run(notebook, tmp_path, "-p", "alpha=0.3") == 0
    assert printed(tmp_path / "notebooks" / "03_tiny.ipynb") == f"0.3 {sys.executable} books\n"
    assert [path.name for path in (tmp_path / "notebooks").iterdir()] == ["03_tiny.ipynb"]
    assert "03_tiny" in capsys.readouterr().err  # papermill's bar


def test_what_was_finished_with_a_fingerprint_comes_back(tmp_path):
    counted = "runs = Path(run_dir) / 'runs'\nruns.open('a').write('x')\nearlier = '02_filtering'\n"
    notebook = write_notebook(tmp_path, STAGE + counted, MANIFEST)
    first = tmp_path / "02_filtering" / "manifest.json"
    first.parent.mkdir()
    first.write_text("{}")
    results = tmp_path / "03_tiny" / "manifest.json", tmp_path / "notebooks" / "03_tiny.ipynb"
    again = ["--fingerprint", "a1", "-p", "alpha=0.3"]

    def runs(*words):
        """How often the notebook has been run, after a call whose results were taken away before it."""
        for path in results:
            path.unlink(missing_ok=True)
        assert run(notebook, tmp_path, *words) == 0 and all(path.is_file() for path in results)
        return len((tmp_path / "runs").read_text())

    assert runs(*again) == 1
    made = [path.stat().st_mtime_ns for path in results]
    assert runs(*again) == 1 and [path.stat().st_mtime_ns for path in results] == made
    assert runs("--fingerprint", "a1") == 2  # other parameters
    assert runs("--fingerprint", "a2") == 3  # other code
    first.write_text("[]")
    assert runs("--fingerprint", "a2") == 4  # another earlier stage
    assert runs() == 5 and runs() == 6  # a person's own call
    assert runs("--fingerprint", "a2") == 7


LOAD = "from reasonrank import profiles; profiles.load('x')"
FAILS = {  # the cell after the stage's, options, the message
    "error": ("no_such_name", [], "cell 4 (In [4]): NameError: name 'no_such_name' is not defined"),
    "of a cell": ("raise ValueError('y: wrong')", [], "cell 4 (In [4]): ValueError: y: wrong"),
    "of ours": (LOAD, [], "cell 4 (In [4]): FileNotFoundError: no profile 'x'"),
    "dead": (MANIFEST + "import os; os._exit(9)", [], "cell 4: the kernel died"),
    "late": (
        "import time; time.sleep(600)",
        ["--deadline", "2"],
        "cell 4: not done by the deadline of 2 seconds",
    ),
}


@pytest.mark.parametrize(("cell", "more", "message"), FAILS.values(), ids=FAILS)
def test_a_notebook_that_fails_is_kept_as_far_as_it_got(tmp_path, capsys, cell, more, message):
    assert run(write_notebook(tmp_path, STAGE, cell, MANIFEST), tmp_path, *more) == 1
    assert [path.name for path in (tmp_path / "notebooks").iterdir()] == ["03_tiny.failed.ipynb"]
    said = capsys.readouterr().err
    assert f"03_tiny, {message}" in said and "03_tiny.failed.ipynb" in said
    assert ("Traceback" in said) == ("NameError" in message or "ValueError" in message)


def test_an_old_manifest_is_no_proof(tmp_path, capsys):
    (tmp_path / "03_tiny").mkdir()
    (tmp_path / "03_tiny" / "manifest.json").write_text("{}")
    assert run(write_notebook(tmp_path, STAGE), tmp_path) == 1
    assert "03_tiny ran to its end, but wrote no" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "beta=1"], "03_tiny.ipynb has no parameter 'beta'; it has: profile, run_dir, alpha"),
        (["-p", "hf_token=1"], "'hf_token' looks like a secret"),
        (["-p", "alpha"], "-p alpha: expected KEY=VALUE"),
        (["-p", "profile=smoke"], "-p profile=smoke: give it as --profile"),
        (["-p", "alpha=[1"], "-p alpha=[1: expected a value as in YAML"),
        (["--deadline", "0"], "Invalid value for '--deadline'"),
        (["--profile", "huge"], "no profile 'huge'; known are"),
    ],
)
def test_wrong_calls(tmp_path, capsys, arguments, message):
    notebook = write_notebook(tmp_path, *GOOD)
    assert run(notebook, tmp_path / "run", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_parameter_values_are_yaml():
    pairs = ["a=0.3", "b=true", "c=null", "d=[1, 2]", "e=SFT + RL", "f=1e-4", "g=a=b", "sft.epochs=7"]
    expected = {"a": 0.3, "b": True, "c": None, "d": [1, 2], "e": "SFT + RL", "f": 1e-4, "g": "a=b"}
    assert read_parameters(pairs) == expected | {"sft.epochs": 7}
    for date in ("2024-01-01", "2024-01-01 10:00:00", "2024-01-01T10:00:00Z"):  # no dates in JSON
        assert read_parameters([f"x={date}"]) == {"x": date}


@pytest.mark.parametrize("value", ["@cf/deepseek-ai/x", "[1", ".nan", "!!set {b}", "!!int b", "{[1]: 2}"])
def test_values_that_cannot_be_kept_are_named(value):
    with pytest.raises(UsageError, match=re.escape(f"-p a.b={value}: expected a value as in YAML, text in")):
        read_parameters([f"a.b={value}"])


@pytest.mark.parametrize(
    "metadata",
    [{}, {"language_info": {"name": "python"}}, {"kernelspec": {"name": "conda", "display_name": "x"}}],
)
def test_a_notebook_runs_without_a_kernelspec(tmp_path, metadata):
    path = write_notebook(tmp_path, *GOOD)
    nbformat.write(nbformat.v4.new_notebook(cells=nbformat.read(path, 4).cells, metadata=metadata), path)
    content = read_notebook(path)
    assert content.metadata.kernelspec == KERNEL and "alpha" in notebook_parameters(content)
    if not metadata:
        assert run(path, tmp_path / "run") == 0


def test_unknown_notebooks_and_other_languages_are_refused(tmp_path, capsys):
    path = write_notebook(tmp_path, *GOOD)
    path.write_text(path.read_text().replace('"language": "python"', '"language": "R"'))
    assert run(path, tmp_path) == run(Path("33_sft"), tmp_path) == 2
    said = capsys.readouterr().err
    assert "03_tiny.ipynb: a notebook in R; expected Python" in said
    assert "no notebook '33_sft'; expected a file *.ipynb, or one of 00_overview" in said


def test_settings_of_the_profile_go_into_one_that_extends_it(tmp_path, capsys):
    notebook = write_notebook(tmp_path / "books", *GOOD, "print(profile)")
    assert run(notebook, tmp_path / "run", "-p", "sft.epochs=3", "-p", "rl.lora=null", "-p", "alpha=0.5") == 0
    made = tmp_path / "run" / "overrides.yaml"
    assert printed(tmp_path / "run" / "notebooks" / "03_tiny.ipynb").splitlines()[-1] == str(made)
    settings = profiles.load(str(made))
    assert (settings.name, settings.sft.epochs, settings.rl.lora) == ("default", 3, None)
    assert run(notebook, tmp_path / "other", "-p", "sft.epoch=3") == 2
    assert "default.yaml: sft.epoch: Extra inputs" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_kernel_is_this_interpreter(tmp_path, monkeypatch):
    spec = tmp_path / "kernels" / "python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(json.dumps({"argv": ["/no/such/python"], "display_name": "foreign"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert ThisPython(kernel_name="python3").kernel_spec.argv[0] == sys.executable


def test_summary(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    score = {"collection": "coding", "ndcg": 0.25, "low": 0.125, "high": 0.5, "n": 14}
    scores = [{**score, "system": "retriever"}, {**score, "system": "SFT", "ndcg": 0.3}]
    stage = Path("runs/mine/05_gpu_evaluation")
    stage.mkdir(parents=True)
    (stage / "manifest.json").write_text("{}")
    record = {"config": {"name": "made-up"}, "seed": 1, "result": {"scores": scores}}
    (stage / "record.json").write_text(json.dumps(record))
    assert main(["summary", "runs/mine"]) == 0
    shown = capsys.readouterr().out
    assert "executed notebooks: runs/mine/notebooks (0)" in shown
    (row,) = [line for line in shown.splitlines() if "coding" in line]
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells == ["coding (n = 14)", "25.0 [12.5, 50.0]", "30.0 [12.5, 50.0]"]
