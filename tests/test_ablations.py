"""Ablations: variants, differences worked out by hand, sentences and the figure."""

import pytest

from reasonrank import ablations, checks, figures, profiles
from reasonrank.ablations import STAGES
from test_figures import texts

ROW = {"variant": "only RL", "value": 2.0, "low": 0.5, "high": 3.5, "n": 60, "seeds": [1, 2], "paper": 7.05}


def test_variants_are_those_that_are_checked():
    named = {variant.variant: variant for variant in ablations.variants()}
    checked = {check.part: check for check in checks.checks() if check.way == "ablation"}
    assert set(checked) <= set(named)
    for part, check in checked.items():
        assert named[part].paper == check.beside
    assert all(variant.published > 0 for variant in named.values())
    assert named["only RL"].published == pytest.approx(35.74 - 28.69)


@pytest.mark.parametrize("profile", profiles.names())
def test_the_changes_of_each_variant_fit_every_profile(profile):
    base = profiles.load(profile)
    for variant in ablations.variants():
        changed = profiles.load(profile, variant.changes)
        assert not variant.changes or changed != base
        assert set(variant.datasets) <= set(base.collections)


def test_a_variant_runs_from_the_first_stage_that_differs():
    stages = {variant.variant: variant.own_stages for variant in ablations.variants()}
    assert stages["without filter"] == stages["only web search"] == STAGES[1:]
    assert stages["only RL"] == STAGES[2:]
    assert stages["NDCG alone"] == STAGES[3:]
    assert stages["without reasoning"] == STAGES[2:]
    assert stages["only SFT"] == stages["without reasoning, only SFT"] == ()


def test_a_change_of_what_no_stage_reads_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("- {variant: x, paper: y, changes: {latency.top: 3}}")
    with pytest.raises(
        ValueError, match=r"a.yaml: 0: .*latency.top: expected a setting of filtering, prompting, sft, rl"
    ):
        ablations.variants(tmp_path / "a.yaml")


def test_a_difference_is_a_mean_over_collections_and_its_interval_is_over_queries():
    whole = {1: {"a": {"q1": 0.5, "q2": 0.7}, "b": {"q1": 0.4}}}
    other = {1: {"a": {"q1": 0.3, "q2": 0.7}, "b": {"q1": 0.1}}}
    found = ablations.compare(whole, other, draw_seed=1, draws=2000)
    assert found["value"] == pytest.approx(100 * (0.1 + 0.3) / 2)  # a: (0.2 + 0) / 2; b: 0.3
    # a drawn anew is 0, 0.1 or 0.2, b always 0.3
    assert found["low"] == pytest.approx(15) and found["high"] == pytest.approx(25)
    assert found["n"] == 3 and found["seeds"] == [1]


def test_seeds_are_averaged_for_each_query():
    whole = {1: {"a": {"q1": 0.5, "q2": 0.5}}, 2: {"a": {"q1": 0.5, "q2": 0.5}}}
    other = {1: {"a": {"q1": 0.4, "q2": 0.2}}, 2: {"a": {"q1": 0.2, "q2": 0.4}}}
    found = ablations.compare(whole, other, draw_seed=1, draws=100)
    assert found["by_seed"] == pytest.approx([20, 20])
    assert [found[key] for key in ("low", "value", "high")] == pytest.approx(
        [20, 20, 20]
    )  # (0.1 + 0.3) / 2 each


def test_runs_that_do_not_match_are_refused():
    one = {1: {"a": {"q1": 0.5}}}
    with pytest.raises(ValueError, match=r"differ in 2 queries, as \[\('a', 'q1'\), \('a', 'q2'\)\]"):
        ablations.compare(one, {1: {"a": {"q2": 0.5}}}, 1)
    with pytest.raises(ValueError, match=r"seeds \[1\] and \[2\]"):
        ablations.compare(one, {2: one[1]}, 1)


@pytest.mark.parametrize(
    ("low", "high", "paper", "expected"),
    [
        (0.5, 3.5, 7.05, "same direction"),
        (-3.5, -0.5, 7.05, "opposite direction"),
        (-0.5, 3.5, 7.05, "not to be told apart"),
        (0.0, 3.5, 7.05, "not to be told apart"),
        (-3.5, -0.5, -1.0, "same direction"),
    ],
)
def test_the_interval_decides(low, high, paper, expected):
    row = ROW | {"low": low, "high": high, "value": (low + high) / 2, "paper": paper}
    assert ablations.outcome(row) == expected


def test_a_sentence_holds_the_figures():
    assert ablations.sentence(ROW) == (
        "Whole recipe against only RL: +2.0 points (95 % interval +0.5 to +3.5; n = 60 queries, 2 seeds), "
        "+7.05 in the paper: the same direction as in the paper."
    )
    unsure = ablations.sentence(ROW | {"low": -1.0, "seeds": [1]})
    assert unsure.endswith("not to be told apart from no difference.") and "1 seed)" in unsure


def test_the_figure_shows_ours_beside_the_papers():
    figure = figures.ablations([ROW, ROW | {"variant": "only SFT", "n": 12}])
    shown = texts(figure)
    for piece in (
        "only RL\nn = 60",
        "only SFT\nn = 12",
        "ours, 95 % interval",
        "paper, 7B on BRIGHT",
        "(percentage points",
    ):
        assert piece in shown
    with pytest.raises(ValueError, match="ablations, row 1: no paper"):
        figures.ablations([{key: value for key, value in ROW.items() if key != "paper"}])


def test_a_batch_that_is_not_there_names_what_is_not_run(tmp_path):
    found = ablations.recorded(tmp_path / "none.json")
    assert found["comparisons"] == [] and ablations.record_files(tmp_path / "none.json") == []
    shown = ablations.lines(found)
    assert shown[0] == "only web search: not run (not run yet)" and len(shown) == len(ablations.variants())
    assert ablations.frame([]).empty
