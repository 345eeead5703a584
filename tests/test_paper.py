"""The registry of published figures, the claims and the verdicts."""

import math

import pytest
import yaml

from fakes import made_up
from reasonrank import evaluation, paper, report

TABLES = ["reproduction", "table1", "table10", "table2", "table3_6", "table4_7", "table5", "table8", "table9"]


def test_all_tables_are_there_and_name_their_source():
    assert sorted(paper.tables()) == TABLES
    for table in paper.tables().values():
        assert table.metric in ("NDCG@10 in percent", "training examples")
        assert "2508.07050v3, Table" in table.source or table.id == "reproduction"


def test_a_frame_holds_the_printed_values():
    frame = paper.tables()["table1"].frame()
    assert frame.shape == (11, 13)
    assert frame.loc["ReasonRank (7B)", "biology"] == 56.70
    assert frame.loc["ReasonIR (8B)", "avg"] == 30.59
    only_average = paper.tables()["table3_6"].frame().loc["non-reasoning, SFT + RL"]
    assert only_average["avg"] == 33.60
    assert math.isnan(only_average["biology"])


def test_a_table_without_averages_has_no_such_column():
    frame = paper.tables()["table5"].frame()
    assert list(frame.columns) == ["examples"]
    assert frame["examples"].sum() == 13517


def test_printed_averages_are_the_means_of_their_rows():
    """To the last digit; two rows are cut instead of rounded, and say so in their note."""
    exceptions = []
    for table in paper.tables().values():
        for row in table.rows:
            if row.values is None or row.avg is None:
                continue
            gap = abs(sum(row.values) / len(row.values) - row.avg)
            assert gap < 0.01, (table.id, row.system)
            if gap > 0.00501:
                exceptions.append((table.id, row.system))
                assert "cut, not rounded" in row.note
    assert exceptions == [("table8", "Llama-3.1-8B-Instruct"), ("table8", "Qwen3-8B, only SFT")]


def test_the_registry_agrees_with_the_source_it_was_taken_from(shared):
    source = yaml.safe_load((shared / "paper" / "tables.yaml").read_text())
    names = {"table3_6": "table3_and_6", "table4_7": "table4_and_7", "table10": "table10_"}
    for name in set(TABLES) - {"table5", "reproduction"}:
        (key,) = [key for key in source if key.startswith(names.get(name, f"{name}_"))]
        table = paper.tables()[name]
        assert list(table.columns) == source["columns"][source[key]["columns"]]
        assert [row.system for row in table.rows] == list(source[key]["rows"])
        for row in table.rows:
            printed = source[key]["rows"][row.system]
            assert (list(row.values) if row.values else None) == printed["values"]
            assert row.avg == printed["avg"]
    assert (
        list(paper.tables()["reproduction"].rows[0].values)
        == source["independent_reproduction"]["ndcg_at_10"]
    )
    assert list(paper.facts().figure13.tokens) == source["figure13_reasoning_tokens"]["values_seen"]
    assert paper.facts().figure1.values == source["figure1_latency_earth_science_s_per_query"]


def test_an_unknown_system_is_named_with_the_known_ones():
    with pytest.raises(KeyError, match=r"table1: no row 'GPT'.*ReasonRank \(7B\)"):
        paper.tables()["table1"].row("GPT")


GOOD = "id: t\nsource: s\ncaption: c\nmetric: m\ncolumns: [a, b]\nrows:\n  - {system: x, values: [1, 2]}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("metric", "metrik"), r"t\.yaml: metric: .*metrik"),
        (GOOD.replace("[1, 2]", "[1, 2, 3]"), r"t\.yaml: .*row 'x': 3 values, expected .* 2 columns"),
        (GOOD.replace("[1, 2]", "[1, two]"), r"t\.yaml: rows\.0\.values\.1"),
        (GOOD + "  - {system: x}\n", r"t\.yaml: .*'x'.* twice"),
        (GOOD.replace("[a, b]", "[a, b"), r"t\.yaml, line \d+: not valid YAML"),
        ("", r"t\.yaml: file: "),
    ],
)
def test_a_malformed_file_is_an_error_that_names_file_and_key(tmp_path, text, message):
    path = tmp_path / "t.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        paper.load(path, paper.Table)


def test_the_good_twin_of_the_malformed_files_is_read(tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text(GOOD)
    assert paper.load(path, paper.Table).row("x").values == (1, 2)


@pytest.mark.parametrize(
    ("ours", "tolerance", "noise", "expected"),
    [
        (30.59, 0.01, 0.0, "OK"),
        (30.60, 0.01, 0.0, "OK"),  # 30.60 - 30.59 is 0.0100000000000016 in floating point
        (30.61, 0.01, 0.0, "FAIL"),
        (30.61, 0.01, 0.5, "OKish"),
        (30.08, 0.01, 0.5, "OKish"),
        (30.07, 0.01, 0.5, "FAIL"),
        (None, 0.01, 0.5, "not run"),
    ],
)
def test_verdict(ours, tolerance, noise, expected):
    assert paper.verdict(ours, 30.59, tolerance, noise) == expected


def test_verdict_refuses_what_it_cannot_compare():
    with pytest.raises(ValueError, match="finite"):
        paper.verdict(float("nan"), 1.0, 0.1)
    with pytest.raises(ValueError, match="0 or more"):
        paper.verdict(1.0, 1.0, -0.1)


def test_claims_are_c1_to_c7_and_only_the_worked_example_gets_a_verdict_from_a_small_run():
    checked = report.check_claims(made_up.results())
    assert [item.claim.id for item in checked] == ["C1", "C2", "C3", "C4", "C5", "C6", "C7"]
    assert [item.verdict for item in checked] == ["not run"] * 6 + ["OK"]
    ours = {item.claim.id: item.ours for item in checked}
    assert ours["C4"] == "small run: 2.4 times (2.1 to 2.8, 95 %)"
    assert ours["C7"] == "NDCG@10 0.61 and 0.36"
    assert "SFT + RL" in ours["C3"]


def test_claims_without_any_run_still_check_the_worked_example():
    checked = report.check_claims({})
    assert [item.ours for item in checked[:6]] == [""] * 6
    assert checked[6].verdict == "OK"


def test_score_frame_shows_percent_interval_and_n():
    row = {"collection": "coding", "system": "SFT", "ndcg": 0.3123, "low": 0.25, "high": 0.361, "n": 12}
    other = {**row, "collection": "average", "system": "retriever", "n": 60}
    frame = evaluation.score_frame([row, other])
    assert frame.loc["SFT", "coding (n = 12)"] == "31.2 [25.0, 36.1]"
    assert frame.loc["retriever", "coding (n = 12)"] == ""
    assert list(frame.columns) == ["coding (n = 12)", "average (n = 60)"]


def test_results_page_holds_scores_claims_figures_and_provenance():
    recorded = {
        name: {"result": result, "commit": "abc", "seed": 7, "created": "2026-01-01"}
        for name, result in made_up.results().items()
    }
    page = report.results_markdown("smoke", recorded, {"a.png": "a caption"})
    assert page.startswith("# Results of profile smoke\n")
    assert "| C7 " in page
    assert "math-theorem (n = 12)" in page
    assert "![a caption](a.png)" in page
    assert "Commit abc, seed 7" in page


def test_the_map_names_the_eight_notebooks_in_order():
    names = [line.notebook for line in paper.notebooks()]
    assert [name[:2] for name in names] == [f"{number:02d}" for number in range(8)]


def test_each_table_of_the_paper_says_what_it_takes_and_how_far_off_is_fine():
    for name, table in paper.tables().items():
        assert (table.needs is None) == (name == "reproduction")
        assert {row.noise or table.noise for row in table.rows} <= paper.noises().keys()
    assert paper.tables()["reproduction"].figures() == []


def test_figures_carry_the_needs_of_their_row():
    found = {figure.id: figure for figure in paper.tables()["table1"].figures()}
    assert len(found) == 11 * 13
    retriever = found["table1 / ReasonIR (8B) / biology"]
    assert (retriever.paper, retriever.tolerance, retriever.noise) == (43.49, 0.01, 0.0)
    assert str(retriever.needs).startswith("BRIGHT (12 sets)")  # neither model nor hardware
    large = found["table1 / ReasonRank (32B) / avg"]
    assert (large.needs.model, large.needs.hardware) == ("ReasonRank (32B)", "2 GPUs of 80 GB")
    assert (large.paper, large.noise) == (38.03, 0.48)


def test_the_rows_that_claims_name_are_in_the_tables():
    for claim in paper.claims():
        for table, systems in claim.rows.items():
            assert all(paper.tables()[table].row(system) for system in systems)
