"""The registry of published figures, and of what paper, released code and this project do."""

import math

import pytest
import yaml

from reasonrank import paper

TABLES = ["reproduction", "table1", "table10", "table2", "table3_6", "table4_7", "table5", "table8", "table9"]


def test_all_tables_are_there_and_name_their_source():
    assert sorted(paper.tables()) == TABLES
    for name, table in paper.tables().items():
        assert table.id == name and len({row.system for row in table.rows}) == len(table.rows)
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
    counts = paper.tables()["table5"].frame()
    assert list(counts.columns) == ["examples"] and counts["examples"].sum() == 13517


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
    assert paper.facts().figure13.tokens == source["figure13_reasoning_tokens"]["values_seen"]
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
        (GOOD.replace("[a, b]", "[a, b"), r"t\.yaml: not valid YAML: .*line \d+"),
        ("", r"t\.yaml: content: "),
    ],
)
def test_a_malformed_file_is_an_error_that_names_file_and_key(tmp_path, text, message):
    path = tmp_path / "t.yaml"
    path.write_text(GOOD)
    assert paper.load(path, paper.Table).row("x").values == (1, 2)
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        paper.load(path, paper.Table)


def test_the_map_names_the_eight_notebooks_in_order_and_modules_that_exist():
    lines, lib = paper.notebooks(), paper.ROOT / "lib" / "reasonrank"
    assert [line.notebook[:2] for line in lines] == [f"{number:02d}" for number in range(8)]
    for place in (lib / module.replace(".", "/") for line in lines for module in line.modules):
        assert place.is_dir() or place.with_suffix(".py").is_file()


def test_each_table_of_the_paper_says_what_it_takes_and_how_far_off_is_fine():
    for name, table in paper.tables().items():
        assert (table.needs is None) == (table.tolerance is None) == (name == "reproduction")
        assert {row.noise or table.noise for row in table.rows} <= paper.noises().keys()


def test_all_eleven_differences_are_in_the_table_of_settings():
    rows = paper.settings()
    assert {row.difference for row in rows} - {None} == set(range(1, 12))
    assert all(row.key or row.switch or row.setting == "SFT: ZeRO stage" for row in rows)
    assert all((row.key is None) == (row.expected is None) == (row.ours is not None) for row in rows)


@pytest.mark.parametrize("row", [r for r in paper.settings() if r.key], ids=lambda r: r.setting)
def test_the_profiles_hold_what_the_table_expects(row):
    assert paper.setting(row.key) == tuple(row.expected)
