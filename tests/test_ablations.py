"""Ablations: variants, differences worked out by hand, the committed record, and sentences."""

import pytest

from reasonrank import ablations, profiles, stages, sweeps
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
    own = ablations.changes()
    assert all(v.of in own and not v.changes for v in ablations.variants() if v.of)  # systems of another run
    with pytest.raises(ValueError, match="variant: 'filter': expected whole recipe, only web search"):
        ablations.changes(["filter"])


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
    whole = {"a": {"q1": 0.5, "q2": 0.7}, "b": {"q1": 0.4}}
    other = {"a": {"q1": 0.3, "q2": 0.7}, "b": {"q1": 0.1}}
    found = ablations.compare({1: (whole, other)})
    assert found["value"] == pytest.approx(100 * (0.1 + 0.3) / 2)  # a: (0.2 + 0) / 2; b: 0.3
    # a drawn anew is 0, 0.1 or 0.2, b always 0.3
    assert found["low"] == pytest.approx(15) and found["high"] == pytest.approx(25)
    assert found["n"] == 3 and found["seeds"] == [1]


def test_seeds_are_averaged_for_each_query():
    whole = {"a": {"q1": 0.5, "q2": 0.5}}
    others = {1: {"a": {"q1": 0.4, "q2": 0.2}}, 2: {"a": {"q1": 0.2, "q2": 0.4}}}
    found = ablations.compare({seed: (whole, other) for seed, other in others.items()})
    assert found["by_seed"] == pytest.approx([20, 20])
    assert [found[key] for key in ("low", "value", "high")] == pytest.approx([20, 20, 20])


@pytest.mark.parametrize(
    ("where", "last_seed", "n"),
    [("real collections", 2, "224"), ("collections that a program makes", 1, "160")],
)
def test_a_committed_record_is_the_table_of_its_points(where, last_seed, n):
    result = stages.read_json(ablations.RECORDS[where])["result"]
    points, _ = sweeps.read([ablations.RECORDS[where]])
    assert {(point.parameters["variant"], point.seed) for point in points} >= {
        ("whole_recipe", 1),
        ("without_reasoning", last_seed),
    }
    assert sweeps.table(points).set_index("variant").loc["whole_recipe", "n"] == n
    found, missing = ablations.comparisons(points)
    for new, old in zip(found, result["comparisons"], strict=True):
        assert new == {
            key: pytest.approx(old[key]) if isinstance(old[key], float) else old[key] for key in new
        }
    assert missing == result["not_run"]


def test_comparisons_as_a_table():
    found = stages.read_json(ablations.RECORDS["real collections"])["result"]["comparisons"]
    assert ablations.frame([]).empty
    assert ablations.frame(found).loc["only web search", "difference"].startswith("+2.1 [+0.9, +3.")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.5, 3.5, "the same direction as in the paper."),
        (-3.5, -0.5, "the opposite of the paper."),
        (-0.5, 3.5, "not to be told apart from no difference."),
    ],
)
def test_the_interval_decides_the_outcome(low, high, expected):
    row = ROW | {"value": (low + high) / 2, "low": low, "high": high}
    (line,) = ablations.lines({"comparisons": [row], "not_run": []})
    assert line == (
        f"Whole recipe against only RL: {(low + high) / 2:+.1f} points (95 % interval {low:+.1f} to {high:+.1f}; "
        f"n = 60 queries, 2 seeds), +7.05 in the paper: {expected}"
    )
