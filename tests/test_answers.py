"""The parser of answers: every status, odd texts, and properties that hold for any text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonrank import answers
from reasonrank.answers import format_completion, parse

INPUT_ORDER = [1, 2, 3]


def completion(answer: str, reasoning: str = "x") -> str:
    return f"<think>{reasoning}</think><answer>{answer}</answer>"


@pytest.mark.parametrize(
    ("answer", "ranking", "status"),
    [
        ("[3] > [1] > [2]", [3, 1, 2], "ok"),
        ("[3]>[1]>[2]", [3, 1, 2], "ok"),
        ("\n[ 3 ] > [01] > [2].\n", [3, 1, 2], "ok"),
        ("3, 1, 2", [3, 1, 2], "ok"),
        ("[3, 1, 2]", [3, 1, 2], "ok"),
        ("Ranking of 3: [3] > [1] > [2]", [3, 1, 2], "ok"),
        ("1. [3]\n2. [1]\n3. [2]", [3, 1, 2], "ok"),
        ("[3] > 1 > [2]", [3, 1, 2], "ok"),
        ("[3]", [3, 1, 2], "repaired"),
        ("[2] > [2] > [3]", [2, 3, 1], "repaired"),
        ("[0] > [2] > [3] > [4]", [2, 3, 1], "repaired"),
        ("[3] > [1] > [2] > [3]", [3, 1, 2], "repaired"),
        ("[99] > 2", [2, 1, 3], "repaired"),
        ("[²] > [3] > [٣] > [¹2]", [3, 1, 2], "repaired"),
        ("[" + "9" * 5000 + "] > [2]", [2, 1, 3], "repaired"),
        ("passage3 is 1.5 times 2nd", INPUT_ORDER, "malformed"),
        ("[0] > [4]", INPUT_ORDER, "malformed"),
        ("None", INPUT_ORDER, "malformed"),
        ("", INPUT_ORDER, "malformed"),
    ],
)
def test_inside_of_the_answer(answer, ranking, status):
    assert parse(completion(answer), 3) == answers.Answer(ranking, status, "x")


@pytest.mark.parametrize(
    ("answer", "ranking", "status"),
    [
        ("1. Passage 3\n2. Passage 1\n3. Passage 2", [3, 1, 2], "ok"),
        ("1) 3\n2) 1\n3) 2", [3, 1, 2], "ok"),
        ("Rank 1: Passage 3; Rank 2: Passage 1; Rank 3: 2", [3, 1, 2], "ok"),
        ("| 1 | 3 |\n| 2 | 1 |\n| 3 | 2 |", [3, 1, 2], "ok"),
        ("1 3\n2 1\n3 2", [3, 1, 2], "ok"),
        ("1. 3, 2. 1, 3. 2", [3, 1, 2], "ok"),
        ("1. Passage 3\n1. Passage 1\n1. Passage 2", [3, 1, 2], "ok"),
        ("0. 3\n1. 1\n2. 2", [3, 1, 2], "ok"),
        ("The 3 passages:\n**1.** Passage 3 (9/10)\n**2.** [1], with 2 facts", [3, 1, 2], "repaired"),
        ("1. Passage 2", [2, 1, 3], "repaired"),
        ("1. Bees\n2. Birds\n3. Wasps", INPUT_ORDER, "malformed"),
        # no lists: identifiers alone, or at the beginnings of lines out of order
        ("1 > 3 > 2", [1, 3, 2], "ok"),
        ("1. 3. 2.", [1, 3, 2], "ok"),
        ("3. Bees\n1. Birds\n2. Wasps", [3, 1, 2], "ok"),
    ],
)
def test_numbered_lists_are_read_by_what_they_name(answer, ranking, status):
    assert parse(completion(answer), 3) == answers.Answer(ranking, status, "x")


def test_what_the_released_code_reads():
    text = "<think> [1] </think> <answer> [3] > [3] > [9] > [02] </answer>"
    assert answers.read_released(text, 3) == parse(text, 3).ranking == [3, 2, 1]
    cut = "<think> [3] fits best, then 12 and [2]"  # digits of the reasoning count where no answer is
    assert answers.read_released(cut, 4) == [3, 2, 1, 4] and parse(cut, 4).ranking == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("text", "ranking", "status", "reasoning"),
    [
        ("", INPUT_ORDER, "malformed", ""),
        ("[3] > [1] > [2]", INPUT_ORDER, "malformed", ""),
        ("<think> [3] is best", INPUT_ORDER, "truncated", "[3] is best"),
        ("<think> a <answer>[3] > [1] > [2]</answer>", INPUT_ORDER, "truncated", None),
        ("<answer>[3] > [1] > [2]</answer>", INPUT_ORDER, "truncated", ""),
        ("<think>a</think> [3] > [1] > [2]", INPUT_ORDER, "truncated", "a"),
        ("<think>a</think><answer>[3] > [1]", INPUT_ORDER, "truncated", "a"),
        ("<think>a</think>[3] > [1] > [2]</answer>", INPUT_ORDER, "malformed", "a"),
        # the last closed answer after the reasoning counts
        (
            "<think>a<answer>1</answer></think><answer>2</answer><answer>3, 1, 2</answer>",
            [3, 1, 2],
            "ok",
            None,
        ),
        ("<think>a</think><answer>[3] > [1] > [2]</answer><answer>[2] >", [3, 1, 2], "ok", "a"),
        ("<think>a</think><answer>[1]<answer>[3] > [1] > [2]</answer>", [3, 1, 2], "ok", "a"),
        ("<think>a</think><answer>[3] > [1] > [2]</answer> so [2] </answer>", [3, 1, 2], "ok", "a"),
        # text before <think> is ignored, a second </think> extends the reasoning, a second <think> ends all
        ("Sure, 2! <think>a</think><answer>3, 1, 2</answer>", [3, 1, 2], "ok", "a"),
        ("a</think><answer>[3] > [1] > [2]</answer>", [3, 1, 2], "ok", "a"),
        ("<think>a</think>b</think><answer>3, 1, 2</answer>", [3, 1, 2], "ok", "a</think>b"),
        ("<think>a</think><answer>3, 1, 2</answer></think>", INPUT_ORDER, "truncated", None),
        ("<think>a</think><think>b<answer>3, 1, 2</answer>", INPUT_ORDER, "truncated", "a"),
        ("<think>a</think><answer>3, 1, 2</answer><think>b", [3, 1, 2], "ok", "a"),
    ],
)
def test_tags(text, ranking, status, reasoning):
    answer = parse(text, 3)
    assert (answer.ranking, answer.status) == (ranking, status)
    assert reasoning is None or answer.reasoning == reasoning


def test_windows_of_one_and_none():
    assert parse(completion("[1]"), 1) == answers.Answer([1], "ok", "x")
    assert parse(completion("[2]"), 1) == answers.Answer([1], "malformed", "x")
    assert parse("[1]", 0).ranking == []
    with pytest.raises(ValueError, match="num_passages is -1"):
        parse("", -1)


def test_render_and_clean():
    assert answers.render([3, 1, 2]) == "[3] > [1] > [2]"
    assert format_completion(" why ", [2, 1]) == "<think> why </think> <answer> [2] > [1] </answer>"
    assert answers.clean_identifiers("see [12], [x] and [3] [ 4 ]") == "see (12), [x] and (3) [ 4 ]"


PIECES = ["[1]", "[2]", " > ", "3", "0", "²", "٣", "[99]", " ", "\n", "why", *answers.TAGS]
anything = st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=25).map("".join))


@given(anything, st.integers(0, 25))
def test_ranking_is_a_permutation_of_any_text(text, n):
    assert sorted(parse(text, n).ranking) == list(range(1, n + 1))


@given(anything, st.integers(1, 6).flatmap(lambda n: st.permutations(range(1, n + 1))))
def test_a_written_completion_is_read_back(reasoning, ranking):
    answer = parse(format_completion(reasoning, ranking), len(ranking))
    assert answer == answers.Answer(list(ranking), "ok", reasoning.strip())


@given(anything, anything.filter(lambda text: "<think>" not in text))
def test_reasoning_never_changes_the_answer(reasoning, tail):
    tail = tail.replace("</think>", "")
    plain, long = parse("<think></think>" + tail, 3), parse(f"<think>{reasoning}</think>" + tail, 3)
    assert (plain.ranking, plain.status) == (long.ranking, long.status)


@pytest.mark.parametrize(
    ("text", "status", "ranking", "reasoning"),
    [
        ("<answer> [2] > [1] </answer>", "ok", [2, 1], ""),
        ("Sure. [1]: <answer>[2] > [1]</answer>", "ok", [2, 1], ""),
        ("<answer> [2] > [1]", "truncated", [1, 2], ""),
        ("[2] > [1] </answer>", "malformed", [1, 2], ""),
        ("[2] > [1]", "malformed", [1, 2], ""),
        ("<think> hm </think> <answer> [2] > [1] </answer>", "ok", [2, 1], "hm"),
        ("<think> <answer> [2] > [1] </answer>", "truncated", [1, 2], "<answer> [2] > [1] </answer>"),
    ],
)
def test_answers_of_a_model_that_was_asked_for_no_reasoning(text, status, ranking, reasoning):
    answer = parse(text, 2, reasoning=False)
    assert (answer.status, answer.ranking, answer.reasoning) == (status, ranking, reasoning)
