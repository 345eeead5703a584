"""The table of what the paper, the released code and this project do."""

import pytest

from reasonrank import fidelity, paper


def test_all_eleven_differences_are_in_the_table():
    assert {row.difference for row in fidelity.settings()} - {None} == set(range(1, 12))


@pytest.mark.parametrize("row", [r for r in fidelity.settings() if r.key], ids=lambda r: r.setting)
def test_the_profiles_hold_what_the_table_expects(row):
    assert fidelity.in_profiles(row.key) == tuple(row.expected)


def test_each_difference_has_a_switch_a_key_or_changes_no_result():
    for row in fidelity.settings():
        assert row.key or row.switch or row.setting == "SFT: ZeRO stage"


def test_the_table_is_rendered_from_profiles():
    lines = fidelity.markdown().splitlines()
    assert len(lines) == 2 + len(fidelity.settings())
    assert all(line.count(" | ") == 4 for line in lines[2:])
    rows = {line.split(" | ")[0].strip("| "): line for line in lines[2:]}
    assert "| 5e-06 (7B), 0.0001 (32B) (`sft.learning_rate`) |" in rows["SFT: learning rate"]
    assert "| 200 (`rl.steps`) |" in rows["RL: steps"]
    assert "none (7B), rank 32, alpha 32, target_modules all-linear (32B)" in rows["RL: adapters"]
    assert 'theirs: `evaluation.evaluate(queries="run")`' in rows["mean over"]


def test_the_short_table_leaves_out_what_is_the_same():
    short = fidelity.markdown(only_differences=True)
    assert "document ids with a blank" in short and "RL: steps" not in short
    assert "| same |" not in short


def test_an_unknown_key_is_named():
    with pytest.raises(KeyError, match=r"no setting 'rl\.momentum'"):
        fidelity.in_profiles("rl.momentum")


def test_a_row_must_say_what_ours_is(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("- {setting: a, paper: b, released: c}\n")
    with pytest.raises(ValueError, match=r"s\.yaml: .*a: expected a key"):
        paper.load(path, tuple[fidelity.Setting, ...])
