"""Ablations: variants, differences worked out by hand, the committed record, and sentences."""

import pytest

from reasonrank import ablations, profiles, sweeps
from reasonrank.evaluation import this_run

ROW = {"variant": "only RL", "value": 2.0, "low": 0.5, "high": 3.5, "n": 60, "seeds": [1, 2], "paper": 7.05}


def point(variant: str, seed: int, changes: dict | None = None, **means: float) -> sweeps.Point:
    """A point with two queries whose NDCG@10 is the mean of a system: "SFT" and "SFT_RL"."""
    config = profiles.load("smoke", {"seed": seed, **(changes or {})}).model_dump(mode="json")
    scores = {
        this_run(name.replace("_", " + ")): {"coding": {"q1": value, "q2": value}}
        for name, value in means.items()
    }
    return sweeps.Point(parameters={"variant": variant}, seed=seed, commit="c", config=config, scores=scores)


def test_published_differences_are_those_of_table_3():
    named = {variant.variant: variant for variant in ablations.variants()}
    assert all(variant.published > 0 for variant in named.values())
    assert named["only RL"].published == pytest.approx(35.74 - 28.69)


@pytest.mark.parametrize("profile", profiles.names())
def test_the_changes_of_each_variant_fit_every_profile(profile):
    for variant in ablations.variants():
        assert not variant.changes or profiles.load(profile, variant.changes) != profiles.load(profile)


def test_the_runs_of_a_sweep_are_the_whole_recipe_and_what_is_asked_for():
    assert list(ablations.changes())[:2] == ["whole recipe", "only web search"]
    assert "only SFT" not in ablations.changes()  # a system of the whole recipe's run
    assert ablations.changes(["without reasoning"]) == {
        "whole recipe": {},
        "without reasoning": {"prompting.reasoning": False},
    }
    with pytest.raises(ValueError, match="variant: 'filter': expected whole recipe, only web search"):
        ablations.changes(["filter"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {variant: x, paper: y, of: z}", "a.yaml: x: of: 'z': expected one of "),
        ("- {variant: x, paper: y, of: z, changes: {rl.steps: 1}}", "of: a system of another variant's run"),
    ],
)
def test_a_system_of_no_run_is_refused(tmp_path, text, message):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        ablations.variants(tmp_path / "a.yaml")


def test_variants_are_compared_over_the_seeds_that_both_have():
    changed = ablations.changes()["NDCG alone"]
    points = [
        point("whole_recipe", 1, SFT=0.4, SFT_RL=0.5),
        point("whole_recipe", 2, SFT=0.4, SFT_RL=0.7),
        point("NDCG_alone", 1, changed, SFT_RL=0.3),
        sweeps.Point(**(point("x", 3, SFT=0.1).model_dump() | {"parameters": {"alpha": "0.3"}})),
    ]
    found, missing = ablations.comparisons(points)
    rows = {row["variant"]: row for row in found}
    assert set(rows) == {"only SFT", "NDCG alone"}
    assert rows["NDCG alone"]["value"] == pytest.approx(20) and rows["NDCG alone"]["seeds"] == [1]
    assert rows["only SFT"]["by_seed"] == pytest.approx([10, 30]) and rows["only SFT"]["n"] == 2
    assert {"variant": "only RL", "paper": 7.05, "reason": "not run yet"} in missing


def test_a_variant_that_differs_in_more_than_its_changes_is_refused():
    points = [point("whole_recipe", 1, SFT_RL=0.5), point("NDCG_alone", 1, {"rl.steps": 9}, SFT_RL=0.3)]
    with pytest.raises(ValueError, match=r"variant=NDCG_alone,seed=1 has rl.steps = 9, variant=whole_recipe"):
        ablations.comparisons(points)


def test_a_difference_is_a_mean_over_collections_and_its_interval_is_over_queries():
    whole = {1: {"a": {"q1": 0.5, "q2": 0.7}, "b": {"q1": 0.4}}}
    other = {1: {"a": {"q1": 0.3, "q2": 0.7}, "b": {"q1": 0.1}}}
    found = ablations.compare(whole, other)
    assert found["value"] == pytest.approx(100 * (0.1 + 0.3) / 2)  # a: (0.2 + 0) / 2; b: 0.3
    # a drawn anew is 0, 0.1 or 0.2, b always 0.3
    assert found["low"] == pytest.approx(15) and found["high"] == pytest.approx(25)
    assert found["n"] == 3 and found["seeds"] == [1]


def test_seeds_are_averaged_for_each_query():
    whole = {1: {"a": {"q1": 0.5, "q2": 0.5}}, 2: {"a": {"q1": 0.5, "q2": 0.5}}}
    other = {1: {"a": {"q1": 0.4, "q2": 0.2}}, 2: {"a": {"q1": 0.2, "q2": 0.4}}}
    found = ablations.compare(whole, other)
    assert found["by_seed"] == pytest.approx([20, 20])
    assert [found[key] for key in ("low", "value", "high")] == pytest.approx([20, 20, 20])


def test_the_committed_record_is_the_table_of_its_points():
    result = ablations.recorded()
    points, _ = sweeps.read([ablations.RECORD])
    assert {(point.parameters["variant"], point.seed) for point in points} >= {
        ("whole_recipe", 1),
        ("without_reasoning", 2),
    }
    assert sweeps.table(points).set_index("variant").loc["whole_recipe", "n"] == "224"
    found, missing = ablations.comparisons(points)
    for new, old in zip(found, result["comparisons"], strict=True):
        assert new == {
            key: pytest.approx(old[key]) if isinstance(old[key], float) else old[key] for key in new
        }
    assert missing == result["not_run"] and ablations.frame([]).empty
    assert ablations.frame(found).loc["only web search", "difference"].startswith("+2.1 [+0.9, +3.")


@pytest.mark.parametrize(
    ("low", "high", "paper", "expected"),
    [
        (0.5, 3.5, 7.05, "same direction"),
        (-3.5, -0.5, 7.05, "opposite direction"),
        (-0.5, 3.5, 7.05, "not to be told apart"),
    ],
)
def test_the_interval_decides_the_outcome(low, high, paper, expected):
    row = {"value": (low + high) / 2, "low": low, "high": high, "paper": paper}
    assert ablations.outcome(row) == expected


def test_a_sentence_holds_the_figures():
    unsure = ROW | {"low": -1.0, "seeds": [1]}
    first, second = ablations.lines({"comparisons": [ROW, unsure], "not_run": []})
    assert first == (
        "Whole recipe against only RL: +2.0 points (95 % interval +0.5 to +3.5; n = 60 queries, 2 seeds), "
        "+7.05 in the paper: the same direction as in the paper."
    )
    assert second.endswith("not to be told apart from no difference.") and "1 seed)" in second
