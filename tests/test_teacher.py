"""The remote teacher against a faulty server: nothing lost, nothing paid for twice, the budget held."""

import asyncio
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fakes.teacher_server import FAULTS, serving, settings
from fakes.teacher_worker import collection, make
from reasonrank import synthesis
from reasonrank.journal import JournalError
from reasonrank.sources import SCENARIOS
from reasonrank.teachers import Asker, TeacherError, TeacherFailure
from reasonrank.teachers.client import ChatClient

WORKER = Path(__file__).parent / "fakes" / "teacher_worker.py"


def ask_all(questions, chosen, path, read=lambda reply: reply.text, replay=False):
    """Answers of all questions at once (a failure as its kind), and the asker."""

    async def go():
        async with Asker(chosen, path, replay=replay) as asker:
            asked = (asker.ask(question(text), read) for text in questions)
            return await asyncio.gather(*asked, return_exceptions=True), asker

    return asyncio.run(go())


def question(text):
    return [{"role": "user", "content": f"{text}\n[1] a\n[2] b\nor <answer> None </answer>"}]


def test_300_requests_at_30_percent_faults_lose_and_double_nothing(tmp_path):
    c = collection(queries=100)
    with serving(rate=0.3, seed=5) as server:
        made, asker = asyncio.run(make(c, settings(server), tmp_path / "j.jsonl"))
        assert server.faults.keys() == set(FAULTS), "each kind of fault came up"
    assert len(server.paid) == asker.requests - asker.failures.total() == 300  # two selections, one ranking
    with serving() as calm:
        undisturbed, _ = asyncio.run(make(c, settings(calm), tmp_path / "calm.jsonl"))
        assert set(calm.paid.values()) == {1}
    assert made == undisturbed and made.failures == {}
    assert [example.qid for example in made.examples] == list(c.queries)
    kinds = {
        "rate limit",
        "server error",
        "time-out",
        "cut",
        "empty",
        "no permutation",
        "foreign identifiers",
    }
    assert kinds <= asker.failures.keys()


def test_a_second_run_asks_nothing_and_a_replay_needs_no_server(tmp_path):
    with serving(rate=0.2, seed=1) as server:
        chosen = settings(server)
        first, _ = asyncio.run(make(collection(5), chosen, tmp_path / "j.jsonl"))
        before = len(server.seen)
        again, asker = asyncio.run(make(collection(5), chosen, tmp_path / "j.jsonl"))
        assert len(server.seen) == before and asker.requests == 0
    size = (tmp_path / "j.jsonl").read_bytes()
    replayed, asker = asyncio.run(make(collection(5), chosen, tmp_path / "j.jsonl", replay=True))
    assert first == again == replayed and asker.budget.spent.tokens > 0
    assert (tmp_path / "j.jsonl").read_bytes() == size
    longer, _ = asyncio.run(make(collection(6), chosen, tmp_path / "j.jsonl", replay=True))
    assert longer.failures == {"not asked": 1} and longer.examples == first.examples


def test_the_same_question_is_paid_for_once(tmp_path):
    with serving(delay=0.02) as server:
        answers, asker = ask_all(["same"] * 5, settings(server), tmp_path / "j.jsonl")
    assert len(server.seen) == asker.requests == 1 and len(set(answers)) == 1


def test_kills_at_any_moment_change_nothing(tmp_path):
    with serving(rate=0.1, seed=2, delay=0.01) as server:
        url = settings(server).base_url
        rng, command = random.Random(7), [sys.executable, str(WORKER), url, str(tmp_path)]
        kills = 0
        for _ in range(4):
            goal = len(server.seen) + rng.randint(3, 15)
            worker = subprocess.Popen(command)
            while worker.poll() is None and len(server.seen) < goal:
                time.sleep(0.001)
            kills += worker.poll() is None
            worker.kill()
            worker.wait()
        subprocess.run(command, check=True)
    assert kills >= 3
    most = 2 * kills  # under way, or answered and not yet on the disk, when a process died
    assert sum(count - 1 for count in server.paid.values()) <= most
    killed = (tmp_path / "examples.jsonl").read_bytes()
    subprocess.run([*command, "replay"], check=True)
    assert (tmp_path / "examples.jsonl").read_bytes() == killed
    with serving() as calm:
        made, _ = asyncio.run(make(collection(), settings(calm), tmp_path / "calm.jsonl"))
    synthesis.save(tmp_path / "calm-examples.jsonl", made.examples)
    assert (tmp_path / "calm-examples.jsonl").read_bytes() == killed


@pytest.mark.parametrize("limit", [{"token_budget": 4000}, {"money_budget": 0.004}])
def test_the_budget_holds_over_runs_and_a_higher_one_goes_on(tmp_path, limit):
    with serving(rate=0.3, seed=3) as server:
        for _ in range(2):
            made, asker = asyncio.run(make(collection(30), settings(server, **limit), tmp_path / "j.jsonl"))
            assert asker.budget.stopped and made.failures
        spent = asker.budget.spent
        assert spent.tokens <= 4000 and asker.budget.cost(spent) <= 0.004
        assert 0 < server.billed <= spent.tokens, "what the server bills has been counted"
        whole, _ = asyncio.run(make(collection(30), settings(server), tmp_path / "j.jsonl"))
    assert len(whole.examples) == 30 > len(made.examples)


def test_a_budget_waits_for_what_is_under_way_to_turn_out_cheaper(tmp_path):
    with serving(delay=0.05) as server:
        worst = sum(len(m["content"].encode()) for m in question("0")) + 256 + 50
        answers, asker = ask_all("01", settings(server, token_budget=worst + 40), tmp_path / "j.jsonl")
    assert asker.requests == 2 and not asker.budget.stopped, answers


def test_retry_after_is_honoured_and_attempts_end(tmp_path, monkeypatch):
    chosen, slept, sleep = {"attempts": 3, "backoff": 0.0}, [], asyncio.sleep
    monkeypatch.setattr("asyncio.sleep", lambda seconds: slept.append(seconds) or sleep(0))
    with serving(script=["429", "429", None]) as server:
        ask_all(["x"], settings(server, **chosen), tmp_path / "a.jsonl")
        assert [seconds for seconds in slept if seconds] == [0.01, 0.01]
    with serving(script=["500"] * 4) as server:
        (failure,), asker = ask_all(["x"], settings(server, **chosen), tmp_path / "b.jsonl")
        assert isinstance(failure, TeacherFailure) and failure.kind == "server error"
        assert len(server.seen) == 3 and asker.budget.spent.tokens == 0
        replayed, _ = ask_all(["x"], settings(server, **chosen), tmp_path / "b.jsonl", replay=True)
        assert replayed[0].kind == "server error"
        (failure,), _ = ask_all(["x"], settings(server, **chosen), tmp_path / "b.jsonl")
        assert isinstance(failure, str), "an error on the way is worth another run"


def test_unusable_answers_are_paid_for_a_few_times_only(tmp_path):
    with serving(script=["empty"] * 9) as server:
        for _ in range(2):
            (failure,), _ = ask_all(["x"], settings(server, answers=2), tmp_path / "j.jsonl")
            assert failure.kind == "empty" and len(server.seen) == 2


def test_at_most_so_many_are_in_flight(tmp_path):
    with serving(delay=0.03) as server:
        ask_all("abcdef", settings(server, max_in_flight=2), tmp_path / "j.jsonl")
        assert server.most == 2 and len(server.seen) == 6


def test_the_key_comes_from_the_environment_and_is_shown_nowhere(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("MADE_UP_KEY", raising=False)
    with pytest.raises(TeacherError, match="the environment has no MADE_UP_KEY"):
        ChatClient(settings(key_variable="MADE_UP_KEY"))
    monkeypatch.setenv("MADE_UP_KEY", "very-secret")
    with serving() as server:
        ask_all(["x"], settings(server, key_variable="MADE_UP_KEY"), tmp_path / "j.jsonl")
        assert server.keys == {"Bearer very-secret"}
    assert "very-secret" not in (tmp_path / "j.jsonl").read_text() + "".join(capsys.readouterr())


def test_a_wrong_key_ends_all_and_is_not_repeated(tmp_path, monkeypatch):
    monkeypatch.setenv("MADE_UP_KEY", "very-secret")
    with serving() as server:
        server.RequestHandlerClass = type("Refusing", (server.RequestHandlerClass,), {"do_POST": refuse})
        c, chosen = collection(5), settings(server, key_variable="MADE_UP_KEY")
        with pytest.raises(TeacherError, match="answered 401") as error:
            asyncio.run(make(c, chosen, tmp_path / "j.jsonl"))
    assert "very-secret" not in str(error.value) and "(key)" in str(error.value)


def refuse(self):
    self.rfile.read(int(self.headers["Content-Length"]))
    self.reply(401, b'{"error": {"message": "no such key: very-secret"}}', {})


def test_nobody_listens_costs_nothing(tmp_path):
    (failure,), asker = ask_all(["x"], settings(attempts=2), tmp_path / "j.jsonl")
    assert failure.kind == "no connection" and asker.budget.spent.tokens == 0


def test_another_model_does_not_read_this_journal(tmp_path):
    with serving() as server:
        ask_all(["x"], settings(server), tmp_path / "j.jsonl")
        with pytest.raises(JournalError, match="made-up"):
            ask_all(["x"], settings(server, model="other"), tmp_path / "j.jsonl")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_gold_answer_is_in_every_selection_and_in_no_ranking(tmp_path, scenario):
    c = collection(4, scenario=scenario)
    with serving() as server:
        made, _ = asyncio.run(make(c, settings(server), tmp_path / "j.jsonl"))
    prompts = [body["messages"][-1]["content"] for body in server.seen]
    assert len(made.examples) == 4 and all(len(body["messages"]) == 1 for body in server.seen)
    ranking = [prompt for prompt in prompts if "None </answer>" not in prompt]
    selection = [prompt for prompt in prompts if "None </answer>" in prompt]
    steps = [step for query in c.queries.values() for step in query.solution]
    assert len(ranking) == 4 and len(selection) == (8 if scenario == "complex QA" else 4)
    assert all(any(step in prompt for step in steps) for prompt in selection)
    assert not [prompt for prompt in ranking for step in steps if step in prompt]
    assert all(example.reasoning.startswith("it starts with") for example in made.examples)
