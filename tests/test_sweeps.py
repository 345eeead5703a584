"""The table of a sweep, from runs and records that each test writes."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from reasonrank import profiles, sweeps
from reasonrank.cli.main import main

WORDS = st.text("abcxyz0123456789.-+_", min_size=1)
NDCG = {1: 1.0, 2: 0.6309297535714575, 3: 0.5}  # of one relevant passage at this rank


def point(run_dir: Path, name: str, seed: int = 1, n: int = 2, **ranks: int) -> Path:
    """A finished point: `n` queries of coding, and the rank at which each system has the relevant passage."""
    folder = run_dir / "sweep" / name / "05_gpu_evaluation"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    values = {s: {"coding": {f"q{i}": NDCG[rank] for i in range(n)}} for s, rank in ranks.items()}
    config = profiles.load("smoke", {"seed": seed}).model_dump(mode="json")
    record = {"seed": seed, "commit": "c0ffee", "config": config, "result": {"values": values}}
    (folder / "record.json").write_text(json.dumps(record))
    return folder


def test_the_seed_is_that_of_the_record_where_it_was_not_swept(tmp_path):
    point(tmp_path, "window=5", 20250807, SFT=1)
    points, unfinished = sweeps.read([tmp_path])
    assert sweeps.table(points)["seeds"].tolist() == ["20250807"]
    assert points[0].commit == "c0ffee" and unfinished == []


def test_rows_are_in_order_of_numbers(tmp_path):
    for value in ("10", "9", "none", "1e-4"):
        point(tmp_path, f"window={value}", SFT=1)
    order = sweeps.table(sweeps.read([tmp_path])[0])["window"].tolist()
    assert order == ["1e-4", "9", "10", "none"]


def test_the_command_prints_one_table_and_lists_what_is_not_finished(tmp_path, capsys):
    point(tmp_path, "alpha=0.3,seed=1", 1, retriever=3, SFT=2)
    point(tmp_path, "alpha=0.3,seed=2", 2, retriever=3, SFT=1)
    point(tmp_path, "window=5", 3, retriever=3, SFT=3)
    (tmp_path / "sweep" / "alpha=0.4,seed=1" / "notebooks").mkdir(parents=True)
    assert main(["sweep", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown.splitlines() if "|" in line]
    assert lines[0] == ["alpha", "window", "seeds", "n", "retriever", "SFT"]
    assert lines[2] == ["0.3", "-", "1, 2", "2", "50.0 (50.0 to 50.0)", "81.5 (63.1 to 100.0)"]
    assert lines[3] == ["-", "5", "3", "2", "50.0", "50.0"]
    assert "Not finished: alpha=0.4,seed=1." in shown
    assert (tmp_path / "sweep" / "comparison.md").read_text() == shown
    written = json.loads((tmp_path / "sweep" / "comparison.json").read_text())
    assert written["result"]["unfinished"] == ["alpha=0.4,seed=1"]
    assert [point["seed"] for point in written["result"]["points"]] == [1, 2, 3]


def test_tables_of_several_runs_are_merged(tmp_path, capsys):
    point(tmp_path / "a", "variant=whole_recipe,seed=1", 1, **{"SFT + RL (this run)": 1, "SFT (this run)": 2})
    assert main(["sweep", str(tmp_path / "a")]) == 0
    earlier = tmp_path / "a" / "sweep" / "comparison.json"
    point(tmp_path / "b", "variant=whole_recipe,seed=2", 2, **{"SFT + RL (this run)": 1, "SFT (this run)": 3})
    capsys.readouterr()
    assert main(["sweep", str(tmp_path / "b"), str(earlier)]) == 0
    shown = capsys.readouterr().out
    assert "| whole_recipe | 1, 2" in shown
    # 1 - 0.6309 and 1 - 0.5
    assert (
        "Whole recipe against only SFT: +43.5 points (95 % interval +43.5 to +43.5; n = 2 queries, 2 seeds)"
        in shown
    )
    assert "only RL: not run (not run yet)" in shown
    point(tmp_path / "c", "variant=whole_recipe,seed=1", 1, **{"SFT + RL (this run)": 3})
    assert main(["sweep", str(tmp_path / "c"), str(earlier)]) == 1
    assert "variant=whole_recipe,seed=1 has other scores than in an earlier place" in capsys.readouterr().err


def test_no_sweep_and_nothing_finished_are_said(tmp_path, capsys):
    assert main(["sweep", str(tmp_path)]) == 1
    assert "has no sweep, no folder as sweep/alpha=0.3" in capsys.readouterr().err
    (tmp_path / "sweep" / "alpha=0.4").mkdir(parents=True)
    assert main(["sweep", str(tmp_path)]) == 0
    assert "Not finished: alpha=0.4." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 3}, "alpha=0.3,seed=2 and alpha=0.3,seed=1 differ in 1 test queries, as [('coding', 'q2')]"),
        ({"retriever": 2}, "alpha=0.3,seed=2 and alpha=0.3,seed=1 differ in systems, as retriever"),
    ],
)
def test_points_that_cannot_be_compared_are_an_error(tmp_path, capsys, change, message):
    point(tmp_path, "alpha=0.3,seed=1", 1, SFT=2)
    point(tmp_path, "alpha=0.3,seed=2", 2, **{"SFT": 2, **change})
    assert main(["sweep", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err


def test_records_that_are_malformed_are_named(tmp_path, capsys):
    folder = point(tmp_path, "alpha=0.3", SFT=2)
    record = json.loads((folder / "record.json").read_text())
    for change, message in (
        ({"result": {"values": {"SFT": {"coding": {"q0": "high"}}}}}, "result.values: SFT.coding.q0: Input"),
        ({"seed": None}, "seed: Input should be a valid integer"),
    ):
        (folder / "record.json").write_text(json.dumps(record | change))
        assert main(["sweep", str(tmp_path)]) == 1
        said = capsys.readouterr().err
        assert "alpha=0.3/05_gpu_evaluation/record.json" in said and message in said
    for text in ('{"result": {}}', '{"result": {"points": [{"seed": 1}]}}', "[1]"):
        (tmp_path / "table.json").write_text(text)
        assert main(["sweep", str(tmp_path / "table.json")]) == 1
        assert "table.json" in capsys.readouterr().err


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), WORDS, min_size=1, max_size=4))
def test_a_name_gives_its_parameters_back(parameters):
    assert sweeps.parameters_of(sweeps.point_name(parameters)) == parameters


def test_names_of_points():
    assert sweeps.point_name({"model": "org/small", "sft.epochs": 3}) == "model=org_small,sft.epochs=3"
    assert sweeps.parameters_of("sft.epochs=3,seed=1") == {"sft.epochs": "3", "seed": "1"}


def test_sweeps_of_the_documentation_are_yaml(root):
    text = (root / "docs" / "BATCHES.md").read_text()
    sweeps_shown = [
        line.partition("SWEEP='")[2].partition("'")[0] for line in text.splitlines() if "SWEEP='" in line
    ]
    assert sweeps_shown
    for shown in sweeps_shown:
        sweep = yaml.safe_load(f"{{{shown}}}")
        assert all(
            isinstance(values, list) or (key, values) == ("variant", "all") for key, values in sweep.items()
        )
