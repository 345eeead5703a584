"""What the remote teacher is shown, and how its answers are read."""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import yaml

from fakes.teacher import collection, make
from fakes.teacher_server import serving, settings
from reasonrank.engines.openai import retry_after
from reasonrank.sources import SCENARIOS, Passage
from reasonrank.teachers import RemoteTeacher, remote
from reasonrank.teachers.asking import Unusable
from reasonrank.teachers.client import Reply, split_reasoning
from reasonrank.teachers.remote import read_ranking, read_selection


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_gold_answer_is_in_every_selection_and_in_no_ranking(tmp_path, scenario):
    c = collection(4, scenario=scenario)
    with serving() as server:
        made, _ = asyncio.run(make(c, settings(server), tmp_path / "s"))
    prompts = [body["messages"][-1]["content"] for body in server.seen]
    assert len(made.examples) == 4 and all(len(body["messages"]) == 1 for body in server.seen)
    ranking = [prompt for prompt in prompts if "None </answer>" not in prompt]
    selection = [prompt for prompt in prompts if "None </answer>" in prompt]
    steps = [step for query in c.queries.values() for step in query.solution]
    assert len(ranking) == 4 and len(selection) == (8 if scenario == "complex QA" else 4)
    assert all(any(step in prompt for step in steps) for prompt in selection)
    assert not [prompt for prompt in ranking for step in steps if step in prompt]
    assert all(example.reasoning.startswith("it starts with") for example in made.examples)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<answer> [2], [5] </answer>", [2, 5]),
        ("so <answer>5, 2 and 5</answer> done", [2, 5]),
        ("<answer> None </answer>", []),
        ("<answer>**none.**</answer>", []),
        ("<answer>[1]</answer> no: <answer>[03]</answer>", [3]),
        ("[2], [5]", "no answer"),
        ("<answer> [2], [5]", "no answer"),
        ("<answer> the second </answer>", "no answer"),
        ("<answer> [2], [6] </answer>", "foreign identifiers"),
        ("<answer> [0] </answer>", "foreign identifiers"),
        (f"<answer> [{'9' * 5000}] </answer>", "foreign identifiers"),
    ],
)
def test_selections(text, found):
    if isinstance(found, list):
        assert read_selection(text, 5) == found
    else:
        with pytest.raises(Unusable, match=found):
            read_selection(text, 5)


def test_rankings_need_a_permutation_and_reasons():
    reply = Reply("<answer> [3] > [1] > [2] </answer>", "since </think> so", {})
    assert read_ranking(reply, 3) == {"ranking": [3, 1, 2], "reasoning": "since  so"}
    for text, reasoning, fault in (
        ("<answer> [3] > [1] </answer>", "since", "no permutation"),
        ("<answer> none </answer>", "since", "no answer"),
        ("[3] > [1] > [2]", "since", "no answer"),
        ("<answer> [3] > [1] > [2] </answer>", " ", "no reasoning"),
    ):
        with pytest.raises(Unusable, match=fault):
            read_ranking(Reply(text, reasoning, {}), 3)


@pytest.mark.parametrize(
    ("content", "given", "expected"),
    [
        ("<answer>[1]</answer>", "why", ("<answer>[1]</answer>", "why")),
        ("<think>why</think> <answer>[1]</answer>", "", ("<answer>[1]</answer>", "why")),
        ("why</think><answer>[1]</answer>", "", ("<answer>[1]</answer>", "why")),
        ("why <answer>[1]</answer>", "", ("<answer>[1]</answer>", "why")),
        ("<think>why", "", ("", "why")),
        ("[1], I think", "", ("[1], I think", "")),
        ("", "why", ("", "why")),
    ],
)
def test_where_reasoning_is_found(content, given, expected):
    assert split_reasoning(content, given) == expected


def test_retry_after_in_seconds_and_as_a_date():
    assert [retry_after(value) for value in ("2.5", None, "soon", "-1")] == [2.5, 0, 0, 0]
    assert 5 < retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=9), usegmt=True)) <= 9


def test_each_scenario_has_its_own_definition_of_relevance():
    found = [remote.scenarios()[name] for name in SCENARIOS]
    assert len({scenario.relevance for scenario in found}) == 5
    assert [scenario.scenario for scenario in found if scenario.hard_negatives] == ["complex QA"]
    assert [scenario.scenario for scenario in found if scenario.positives_from == "labels"] == ["web search"]


def test_scenario_files_are_validated(tmp_path):
    raw = yaml.safe_load((remote.FOLDER / "coding.yaml").read_text())
    path = tmp_path / "coding.yaml"
    for change, message in (
        ({"relevant": "x"}, "relevant: Extra inputs"),
        ({"ranking": "Rank."}, "ranking: String should have at least 40"),
        ({"scenario": "chess"}, "scenario: Input should be 'complex QA'"),
    ):
        path.write_text(yaml.safe_dump(raw | change))
        with pytest.raises(ValueError, match=rf"coding\.yaml: {message}"):
            remote.scenarios(tmp_path)


def test_brackets_in_texts_are_no_identifiers_and_a_passage_is_one_line():
    passages = [Passage("p", "see [7]\nand\n\nthis", "T")]
    (message,) = remote.scenarios()["coding"].messages("Rank.", "Fix a[0]", passages)
    assert "\n[1] T: see (7) and this\n" in message["content"] and "a(0)" in message["content"]


def test_labels_stand_in_for_the_teacher_in_web_search():
    c = collection(1, 2, scenario="web search")
    c.qrels = {"q0": {"p1": 1, "p0": 0}}
    teacher, asked = RemoteTeacher(None, c), (c.queries["q0"], list(c.passages.values()))
    assert asyncio.run(teacher.select_positives(*asked)) == ["p1"]
    assert asyncio.run(teacher.select_hard_negatives(*asked)) == []
