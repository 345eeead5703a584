"""The multi-view reward: the authors' golden cases, the strict variant, and what TRL passes."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonrank import runs
from reasonrank.answers import EMPTY_CHAIN, TAGS, format_completion
from reasonrank.rewards import Reward, multi_view_reward, trl_reward

LABELS = dict(gold_ranking=[2, 1, 3], relevant={2}, num_passages=3)
LOG3 = math.log2(3)


def test_released_variant_matches_the_golden_cases(shared):
    cases = [case for _, case in runs.objects(shared / "golden" / "reward_released.jsonl")]
    assert len(cases) == 240
    for case in cases:
        labels = {key: case[key] for key in ("gold_ranking", "relevant", "num_passages")}
        found = multi_view_reward(case["completion"], **labels)
        assert found == pytest.approx(case["reward"], abs=1e-9), case


def test_parts_by_hand():
    parts = Reward().parts(format_completion("why", [1, 2, 3]), **LABELS)
    assert (parts.ndcg, parts.recall, parts.format) == (pytest.approx(1 / LOG3), 1.0, 1.0)
    assert parts.rbo == pytest.approx((0 + 1 + 1) / 3)
    assert parts.total == pytest.approx(1 / LOG3 + 0.2 + 0.1 * 2 / 3)
    strict = Reward(variant="strict", recall_weight=0.5).parts(format_completion("why", [1, 2, 3]), **LABELS)
    assert strict.rbo == pytest.approx(0.1 * (0 + 0.9 + 0.81))
    assert strict.total == pytest.approx(1 / LOG3 + 0.5 + 0.1 * strict.rbo)
    assert multi_view_reward(format_completion("", [2, 1, 3]), **LABELS) == pytest.approx(
        1.3
    )  # the best answer
    unjudged = LABELS | {"relevant": set()}  # leaves the listwise label
    assert multi_view_reward(format_completion("", [2, 1, 3]), **unjudged) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("completion", "released", "strict"),
    [
        ("", -1, -1),
        ("[2] > [1] > [3]", -1, -1),
        ("<think>x</think> [2] > [1] > [3]", -1, -1),
        ("x</think><answer>[2] > [1] > [3]</answer>", -1, -1),
        ("<think>x</think><answer>[2] > [1]</answer>", 0, 0),
        ("<think>x</think><answer>[2] > [2] > [3]</answer>", 0, 0),
        ("<think>x</think><answer>[2] > [1] > [²]</answer>", 0, 0),
        ("<think>x</think><answer>[2] > [1] > [" + "9" * 5000 + "]</answer>", 0, 0),
        (" <think>1</think>\n\n<answer>2, 1, 3</answer>\n", 1, 1),
        # only the released variant overlooks these
        ("<think>x</think><answer>[2] > [1] > [0]</answer>", 1, 0),
        ("<think>x</think><answer>[2] > [1] > [7]</answer>", 1, 0),
        ("so <think>x</think><answer>[2] > [1] > [3]</answer>", 1, -1),
        ("<think>x</think><answer>[2] > [1] > [3]</answer> done", 1, -1),
        ("<think>x</think><answer>[2] > [1] > [3]</answer><answer>[1]</answer>", 1, -1),
        ("<think>x</think> thus <answer>[2] > [1] > [3]</answer>", -1, -1),
        # and counts this digit
        ("<think>x</think><answer>Top 3: [2] > [1] > [3]</answer>", 0, 1),
    ],
)
def test_formats(completion, released, strict):
    for variant, expected in (("released", released), ("strict", strict)):
        parts = Reward(variant=variant).parts(completion, **LABELS)
        assert parts.format == expected
        assert parts.total > 0 if expected == 1 else parts.total == expected


@pytest.mark.parametrize("answer", ["[3] > [2] > [0]", "[9] > [2] > [1]"])
def test_what_the_released_variant_makes_of_identifiers_out_of_range(answer):
    """[0] names passage 3 again, which counts at its last place; [9] is dropped. So 2 moves up to place 1."""
    parts = Reward().parts(f"<think></think><answer>{answer}</answer>", **LABELS)
    assert parts.ndcg == 1.0
    assert parts.rbo == pytest.approx((0 + 1 / 2 + 2 / 3) / 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variant": "paper"}, "variant\n.*'released' or 'strict'.*input_value='paper'"),
        ({"gold_ranking": [1, 1, 2]}, "gold_ranking is"),
        ({"gold_ranking": [1, 4]}, "1..3"),
        ({"gold_ranking": []}, "gold_ranking is"),
        ({"rbo_weight": math.inf}, "rbo_weight\n.*finite"),
        ({"rbo_p": 1.0}, "rbo_p\n.*less than 1"),
    ],
)
def test_bad_labels_and_settings(change, message):
    with pytest.raises(ValueError, match=message):
        multi_view_reward("", **(LABELS | change))


PIECES = ["[1]", "[2]", "[3]", "0", "²", "٣", " > ", "\n", "why", "9" * 4400, *TAGS]
anything = st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=20).map("".join))


@given(anything, st.sampled_from(["released", "strict"]))
def test_finite_for_every_string(text, variant):
    for completion in (text, f"<think></think><answer>{text}</answer>"):
        reward = multi_view_reward(completion, **LABELS, variant=variant)
        assert reward in (-1.0, 0.0) or 0.0 < reward <= 1.3 + 1e-9


def test_trl_passes_strings_or_messages_and_columns():
    text = format_completion("why", [2, 1, 3])
    completions = [text, [{"role": "assistant", "content": text}], [{"role": "assistant", "content": None}]]
    columns = dict(gold_ranking=[[2, 1, 3]] * 3, relevant=[[2], [2], [2]], num_passages=[3] * 3)
    rewards = trl_reward(completions=completions, prompts=["p"] * 3, trainer_state=None, **columns)
    assert rewards == pytest.approx([1.3, 1.3, -1.0])
    weighted = trl_reward(completions, **columns, recall_weight=0.5, rbo_weight=0.0)
    assert weighted == pytest.approx([1.5, 1.5, -1.0])
    with pytest.raises(ValueError, match="'relevant' has 1 values for 2 completions"):
        trl_reward(["", ""], [[1], [1]], [[1]], [1, 1])


def test_what_trl_gets_has_a_name_and_logs_its_parts():
    logged = []
    reward = Reward(variant="strict", recall_weight=0.0, rbo_weight=0.0).for_trl(logged.append)
    columns = dict(gold_ranking=[[2, 1], [2, 1]], relevant=[[2], [2]], num_passages=[2, 2])
    completions = [format_completion("", [2, 1]), "<think></think><answer>[2]</answer>"]
    assert reward(completions=completions, **columns, recall_weight=[9, 9]) == [1.0, 0.0]
    assert reward.__name__ == "multi_view_strict"
    assert [[part.format for part in parts] for parts in logged] == [[1.0, 0.0]]


@pytest.mark.parametrize("variant", ["released", "strict"])
def test_an_answer_that_was_asked_for_without_reasoning(variant):
    labels = {"gold_ranking": [[2, 1]], "relevant": [[2]], "num_passages": [2]}
    direct, plain = Reward(variant=variant).for_trl(prefix=EMPTY_CHAIN), Reward(variant=variant).for_trl()
    whole = plain([format_completion("", [2, 1])], **labels)
    assert whole[0] > 1.2
    assert direct(["<answer> [2] > [1] </answer>"], **labels) == whole
    assert direct(["[2] > [1]"], **labels) == plain(["<answer> [2] > [1] </answer>"], **labels) == [-1.0]
