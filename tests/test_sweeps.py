"""The table of a sweep, from records that each test writes, and a seed for notebooks that have no parameter for it."""

import json
from pathlib import Path

import nbformat
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from reasonrank import profiles, sweeps
from reasonrank.cli.main import main
from test_cli import GOOD, printed, run, write_notebook

WORDS = st.text("abcxyz0123456789.-+_", min_size=1)


def point(run_dir: Path, name: str, seed: int, n: int = 60, **scores: float) -> Path:
    """A finished point with these averages (0..1)."""
    stage = run_dir / "sweep" / name / "05_gpu_evaluation"
    stage.mkdir(parents=True)
    (stage / "manifest.json").write_text("{}")
    average = [{"collection": "average", "system": key, "ndcg": v, "n": n} for key, v in scores.items()]
    other = [{"collection": "coding", "system": key, "ndcg": 0.9, "n": 12} for key in scores]
    record = {"seed": seed, "commit": "c0ffee", "result": {"scores": other + average}}
    (stage / "record.json").write_text(json.dumps(record))
    return stage


def test_points_that_differ_only_in_the_seed_are_one_row(tmp_path):
    point(tmp_path, "alpha=0.3,seed=1", 1, retriever=0.20, SFT=0.30)
    point(tmp_path, "alpha=0.3,seed=2", 2, retriever=0.20, SFT=0.36)
    point(tmp_path, "alpha=0.4,seed=1", 1, retriever=0.20, SFT=0.25)
    finished, unfinished = sweeps.read(tmp_path)
    first, second = sweeps.rows(finished)
    assert first["parameters"] == {"alpha": "0.3"} and first["seeds"] == [1, 2] and first["n"] == 60
    assert first["systems"]["SFT"] == pytest.approx({"mean": 33, "least": 30, "most": 36})
    assert first["points"] == ["alpha=0.3,seed=1", "alpha=0.3,seed=2"] and first["commits"] == ["c0ffee"]
    assert second["parameters"] == {"alpha": "0.4"} and second["seeds"] == [1]
    assert unfinished == []


def test_the_seed_is_that_of_the_record_where_it_was_not_swept(tmp_path):
    point(tmp_path, "window=5", 20250807, SFT=0.1)
    (row,) = sweeps.rows(sweeps.read(tmp_path)[0])
    assert row["seeds"] == [20250807]


def test_rows_are_in_order_of_numbers(tmp_path):
    for value in ("10", "9", "none", "1e-4"):
        point(tmp_path, f"window={value}", 1, SFT=0.1)
    order = [row["parameters"]["window"] for row in sweeps.rows(sweeps.read(tmp_path)[0])]
    assert order == ["1e-4", "9", "10", "none"]


def test_the_command_prints_one_table_and_lists_what_is_not_finished(tmp_path, capsys):
    point(tmp_path, "alpha=0.3,seed=1", 1, retriever=0.2, SFT=0.3)
    point(tmp_path, "alpha=0.3,seed=2", 2, retriever=0.2, SFT=0.361)
    point(tmp_path, "window=5", 3, retriever=0.2, SFT=0.125)
    (tmp_path / "sweep" / "alpha=0.4,seed=1" / "notebooks").mkdir(parents=True)
    assert main(["sweep", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown.splitlines() if "|" in line]
    assert lines[0] == ["alpha", "window", "seeds", "retriever", "SFT", "n"]
    assert lines[2] == ["0.3", "-", "1, 2", "20.0 (20.0 to 20.0)", "33.0 (30.0 to 36.1)", "60"]
    assert lines[3] == ["-", "5", "3", "20.0", "12.5", "60"]
    assert "Not finished: alpha=0.4,seed=1." in shown
    assert (tmp_path / "sweep" / "comparison.md").read_text() == shown
    written = json.loads((tmp_path / "sweep" / "comparison.json").read_text())
    assert written["unfinished"] == ["alpha=0.4,seed=1"]
    assert [row["seeds"] for row in written["rows"]] == [[1, 2], [3]]


def test_nothing_finished_is_said(tmp_path, capsys):
    (tmp_path / "sweep" / "alpha=0.4").mkdir(parents=True)
    assert main(["sweep", str(tmp_path)]) == 0
    assert "Not finished: alpha=0.4." in capsys.readouterr().out


def test_no_sweep_is_a_wrong_call(tmp_path, capsys):
    assert main(["sweep", str(tmp_path)]) == 2
    assert "has no sweep, no folder as sweep/alpha=0.3" in capsys.readouterr().err


def test_points_that_cannot_be_compared_are_an_error(tmp_path, capsys):
    point(tmp_path, "alpha=0.3,seed=1", 1, SFT=0.3)
    point(tmp_path, "alpha=0.3,seed=2", 2, n=30, SFT=0.3)
    assert main(["sweep", str(tmp_path)]) == 1
    assert "alpha=0.3,seed=2 has 30 test queries and SFT; alpha=0.3,seed=1 has 60" in capsys.readouterr().err


def test_a_malformed_record_is_named(tmp_path, capsys):
    stage = point(tmp_path, "alpha=0.3", 1, SFT=0.3)
    (stage / "record.json").write_text('{"seed": 1}')
    assert main(["sweep", str(tmp_path)]) == 1
    assert "alpha=0.3/05_gpu_evaluation/record.json: expected seed" in capsys.readouterr().err


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), WORDS, min_size=1, max_size=4))
def test_a_name_gives_its_parameters_back(parameters):
    assert sweeps.parameters_of(sweeps.point_name(parameters)) == parameters


def test_names_of_points():
    assert sweeps.point_name({"model": "org/small", "alpha": 0.3}) == "model=org_small,alpha=0.3"
    with pytest.raises(ValueError, match="expected the name of a point"):
        sweeps.parameters_of("notebooks")


def test_a_notebook_without_a_seed_gets_a_profile_with_it(tmp_path):
    notebook = write_notebook(tmp_path / "books", *GOOD, "print(profile)")
    assert run(notebook, tmp_path / "run", "-p", "seed=3") == 0
    made = tmp_path / "run" / "seed.yaml"
    assert printed(tmp_path / "run" / "notebooks" / "03_tiny.ipynb").splitlines()[-1] == str(made)
    given = profiles.load(str(made))
    assert given.seed == 3 and given.name == "default"
    assert given.model_copy(update={"seed": 0}) == profiles.load("default").model_copy(update={"seed": 0})


def test_a_notebook_with_a_seed_gets_it_as_a_parameter(tmp_path):
    notebook = write_notebook(tmp_path / "books", *GOOD, "print(seed, profile)")
    content = nbformat.read(notebook, as_version=4)
    content.cells[0].source += "\nseed = None"
    nbformat.write(content, notebook)
    assert run(notebook, tmp_path / "run", "-p", "seed=3") == 0
    assert printed(tmp_path / "run" / "notebooks" / "03_tiny.ipynb").endswith("3 default\n")
    assert not (tmp_path / "run" / "seed.yaml").exists()


@pytest.mark.parametrize("seed", ["x", "-1", "0.5", "true", str(2**32)])
def test_a_seed_that_is_none(tmp_path, capsys, seed):
    assert run(write_notebook(tmp_path, *GOOD), tmp_path / "run", "-p", f"seed={seed}") == 2
    assert "expected a whole number, 0 to 4294967295" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_sweeps_of_the_documentation_are_yaml(root):
    text = (root / "docs" / "BATCHES.md").read_text()
    sweeps_shown = [
        line.partition("SWEEP='")[2].partition("'")[0] for line in text.splitlines() if "SWEEP='" in line
    ]
    assert sweeps_shown
    for shown in sweeps_shown:
        assert all(isinstance(values, list) for values in yaml.safe_load(f"{{{shown}}}").values())
