"""Parts of the remote teacher: reading answers, waiting times, the budget, the scenario files."""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from reasonrank.sources import SCENARIOS, Passage, Query
from reasonrank.teachers import OfflineTeacher, RemoteTeacher, scenarios
from reasonrank.teachers.asking import Unusable
from reasonrank.teachers.budget import Budget, BudgetSpent, Usage
from reasonrank.teachers.client import Reply, _retry_after, split_reasoning
from reasonrank.teachers.remote import ranking_reader, read_selection


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<answer> [2], [5] </answer>", [2, 5]),
        ("so <answer>5, 2 and 5</answer> done", [2, 5]),
        ("<answer> None </answer>", []),
        ("<answer>**none.**</answer>", []),
        ("<answer>[1]</answer> no: <answer>[03]</answer>", [3]),
    ],
)
def test_selections_that_can_be_read(text, found):
    assert read_selection(text, 5) == found


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[2], [5]", "no answer"),
        ("<answer> [2], [5]", "no answer"),
        ("<answer> the second </answer>", "no answer"),
        ("<answer> [2], [6] </answer>", "foreign identifiers"),
        ("<answer> [0] </answer>", "foreign identifiers"),
        (f"<answer> [{'9' * 5000}] </answer>", "foreign identifiers"),
    ],
)
def test_selections_that_cannot(text, fault):
    with pytest.raises(Unusable, match=fault):
        read_selection(text, 5)


@given(st.text(alphabet="<answer>/ [0123456789], None\n", max_size=60))
def test_a_selection_names_passages_or_is_refused(text):
    try:
        found = read_selection(text, 7)
    except Unusable:
        return
    assert found == sorted(set(found)) and set(found) <= set(range(1, 8))


def test_rankings_need_a_permutation_and_reasons():
    read = ranking_reader(3)
    reply = Reply("<answer> [3] > [1] > [2] </answer>", "since </think> so", Usage())
    assert read(reply) == {"ranking": [3, 1, 2], "reasoning": "since  so"}
    for text, reasoning, fault in (
        ("<answer> [3] > [1] </answer>", "since", "no permutation"),
        ("<answer> none </answer>", "since", "no answer"),
        ("[3] > [1] > [2]", "since", "no answer"),
        ("<answer> [3] > [1] > [2] </answer>", " ", "no reasoning"),
    ):
        with pytest.raises(Unusable, match=fault):
            read(Reply(text, reasoning, Usage()))


@pytest.mark.parametrize(
    ("content", "given", "expected"),
    [
        ("<answer>[1]</answer>", "why", ("<answer>[1]</answer>", "why")),
        ("<think>why</think> <answer>[1]</answer>", None, ("<answer>[1]</answer>", "why")),
        ("why</think><answer>[1]</answer>", None, ("<answer>[1]</answer>", "why")),
        ("why <answer>[1]</answer>", None, ("<answer>[1]</answer>", "why")),
        ("<think>why", None, ("", "why")),
        ("[1], I think", None, ("[1], I think", "")),
        ("", "why", ("", "why")),
    ],
)
def test_where_reasoning_is_found(content, given, expected):
    assert split_reasoning(content, given) == expected


def test_retry_after_in_seconds_and_as_a_date():
    assert (_retry_after("2.5"), _retry_after(None), _retry_after("soon"), _retry_after("-1")) == (
        2.5,
        0,
        0,
        0,
    )
    assert 5 < _retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=9), usegmt=True)) <= 9


def test_a_budget_sets_the_worst_case_aside():
    async def go():
        budget = Budget(money=10.0, input_price=1e6, output_price=2e6, spent=Usage(1, 1))  # 3 spent
        await budget.reserve(Usage(1, 2))  # 5 set aside
        waiting = asyncio.create_task(budget.reserve(Usage(1, 1)))  # 3: too much while 5 are set aside
        await asyncio.sleep(0)
        assert not waiting.done()
        await budget.settle(Usage(1, 2), Usage(1, 0))
        await waiting
        await budget.settle(Usage(1, 1), Usage(1, 1))
        with pytest.raises(BudgetSpent):
            await budget.reserve(Usage(0, 2))
        assert budget.cost(budget.spent) == 7 and budget.stopped
        with pytest.raises(BudgetSpent):
            await budget.reserve(Usage(0, 0))

    asyncio.run(go())


def test_each_scenario_has_its_own_definition_of_relevance():
    found = [scenarios.scenario(name) for name in SCENARIOS]
    assert len({scenario.relevance for scenario in found}) == 5
    assert [scenario.scenario for scenario in found if scenario.hard_negatives] == ["complex QA"]
    assert [scenario.scenario for scenario in found if scenario.positives_from == "labels"] == ["web search"]


def test_scenario_files_are_validated(tmp_path):
    raw = yaml.safe_load((scenarios.FOLDER / "coding.yaml").read_text())
    path = tmp_path / "coding.yaml"
    for change, message in (
        ({"relevant": "x"}, "relevant: Extra inputs"),
        ({"ranking": "Rank."}, "ranking: String should have at least 40"),
        ({"scenario": "chess"}, "scenario: Input should be 'complex QA'"),
    ):
        path.write_text(yaml.safe_dump(raw | change))
        with pytest.raises(ValueError, match=rf"coding\.yaml: .*{message}"):
            scenarios.load(path)


def test_brackets_in_texts_are_no_identifiers_and_a_passage_is_one_line():
    scenario = scenarios.scenario("coding")
    (message,) = scenario.listwise("Fix a[0]", [Passage("p", "see [7]\nand\n\nthis", "T")])
    assert "\n[1] T: see (7) and this\n" in message["content"] and "a(0)" in message["content"]


def test_labels_stand_in_for_the_teacher_in_web_search():
    class Silent:
        settings = type("settings", (), {"model": "made-up"})

    teacher = RemoteTeacher(Silent(), "web search", {"q": {"b": 1, "a": 0}})
    passages = [Passage("a", "x"), Passage("b", "y")]
    assert asyncio.run(teacher.select_positives(Query("q", "text"), passages)) == [2]
    assert asyncio.run(teacher.select_hard_negatives(Query("q", "text"), passages)) == []


def test_both_teachers_have_the_same_tasks():
    for task in ("select_positives", "select_hard_negatives", "rank"):
        assert all(
            asyncio.iscoroutinefunction(getattr(kind, task)) for kind in (OfflineTeacher, RemoteTeacher)
        )
