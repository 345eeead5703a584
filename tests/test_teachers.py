"""Asking a remote teacher on a faulty server: nothing is lost, and nothing paid for twice."""

import asyncio

import pytest

from fakes.serving import MODEL, needs_vllm, vllm_server
from fakes.teacher import collection, make
from fakes.teacher_server import serving, settings
from reasonrank import profiles
from reasonrank.store import StoreError
from reasonrank.teachers import Asker, TeacherError, TeacherFailure
from reasonrank.teachers.client import ChatClient

USED = {"prompt_tokens": 3, "completion_tokens": 4}


def ask_all(questions, chosen, path, read=lambda reply: reply.text, replay=False):
    """Answers of all questions at once (a failure as its kind), and the asker."""

    async def go():
        async with Asker(chosen, path, replay=replay) as asker:
            asked = (asker.ask(question(text), read) for text in questions)
            return await asyncio.gather(*asked, return_exceptions=True), asker

    return asyncio.run(go())


def question(text):
    return [{"role": "user", "content": f"{text}\n[1] a\n[2] b\nor <answer> None </answer>"}]


def test_a_second_run_asks_nothing_and_a_replay_needs_no_server(tmp_path):
    with serving(rate=0.2, seed=1) as server:
        chosen = settings(server)
        first, _ = asyncio.run(make(collection(5), chosen, tmp_path / "s"))
        before = len(server.seen)
        again, asker = asyncio.run(make(collection(5), chosen, tmp_path / "s"))
        assert len(server.seen) == before and asker.requests == 0
    content = (tmp_path / "s").read_bytes()
    replayed, asker = asyncio.run(make(collection(5), chosen, tmp_path / "s", replay=True))
    assert first == again == replayed and asker.spent.total() > 0
    longer, _ = asyncio.run(make(collection(6), chosen, tmp_path / "s", replay=True))
    assert longer.failures == {"not asked": 1} and longer.examples == first.examples
    assert (tmp_path / "s").read_bytes() == content


def test_the_same_question_is_paid_for_once(tmp_path):
    with serving(delay=0.02) as server:
        answers, asker = ask_all(["same"] * 5, settings(server), tmp_path / "s")
    assert len(server.seen) == asker.requests == 1 and len(set(answers)) == 1


@pytest.mark.parametrize("control", ["<|im_end|>", "<|endoftext|>", "<｜end▁of▁sentence｜>"])
def test_control_tokens_in_texts_are_broken_up_and_counted(tmp_path, control):
    with serving() as server:
        _, asker = ask_all([f"a {control} b", "a <b> |c| d"], settings(server), tmp_path / "s")
    sent = [body["messages"][0]["content"] for body in server.seen]
    assert not any(control in text for text in sent) and any(f"a < {control[1:]} b" in text for text in sent)
    assert any("a <b> |c| d" in text for text in sent)
    assert asker.summary()["control_tokens_broken_up"] == 1


@pytest.mark.parametrize("limit", [{"token_budget": 4000}, {"money_budget": 0.004}])
def test_the_budget_holds_over_runs_and_a_higher_one_goes_on(tmp_path, limit):
    with serving(rate=0.3, seed=3) as server:
        for _ in range(2):
            made, asker = asyncio.run(make(collection(30), settings(server, **limit), tmp_path / "s"))
            assert asker.stopped and made.failures
        assert asker.spent.total() <= 4000 and asker.money(asker.spent) <= 0.004
        assert 0 < server.billed <= asker.spent.total(), "what the server bills has been counted"
        whole, _ = asyncio.run(make(collection(30), settings(server), tmp_path / "s"))
    assert len(whole.examples) == 30 > len(made.examples)


def test_a_budget_waits_for_what_is_under_way_to_turn_out_cheaper(tmp_path):
    with serving(delay=0.05) as server:
        worst = sum(len(m["content"].encode()) for m in question("0")) + 256 + 50
        answers, asker = ask_all("01", settings(server, token_budget=worst + 40), tmp_path / "s")
    assert asker.requests == 2 and not asker.stopped, answers


def test_retry_after_is_honoured_and_attempts_end(tmp_path, monkeypatch):
    chosen, slept, sleep = {"attempts": 3, "backoff": 0.0}, [], asyncio.sleep
    monkeypatch.setattr("asyncio.sleep", lambda seconds: slept.append(seconds) or sleep(0))
    with serving(script=["429", "429", None]) as server:
        ask_all(["x"], settings(server, **chosen), tmp_path / "a")
        assert [seconds for seconds in slept if seconds] == [0.01, 0.01]
    with serving(script=["500"] * 4) as server:
        (failure,), asker = ask_all(["x"], settings(server, **chosen), tmp_path / "b")
        assert isinstance(failure, TeacherFailure) and str(failure) == "server error"
        assert len(server.seen) == 3 and asker.spent.total() == 0
        replayed, _ = ask_all(["x"], settings(server, **chosen), tmp_path / "b", replay=True)
        assert str(replayed[0]) == "server error"
        (failure,), _ = ask_all(["x"], settings(server, **chosen), tmp_path / "b")
        assert isinstance(failure, str), "an error on the way is worth another run"


def test_unusable_answers_are_paid_for_a_few_times_only(tmp_path):
    with serving(script=["empty"] * 9) as server:
        for _ in range(2):
            (failure,), _ = ask_all(["x"], settings(server, answers=2), tmp_path / "s")
            assert str(failure) == "empty" and len(server.seen) == 2


def test_at_most_so_many_are_in_flight(tmp_path):
    with serving(delay=0.03) as server:
        ask_all("abcdef", settings(server, max_in_flight=2), tmp_path / "s")
        assert server.most == 2 and len(server.seen) == 6


@pytest.mark.parametrize("url", ["127.0.0.1:8230/v1", "htp://127.0.0.1/v1", "http://", "", "http://a b/v1"])
def test_an_address_that_is_none_stops_at_once_and_costs_nothing(tmp_path, url):
    with pytest.raises(TeacherError, match="expected http://HOST:PORT/v1"):
        Asker(settings(base_url=url), tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "http://no-such-host.invalid/v1"])
def test_requests_that_never_left_cost_nothing_and_are_asked_again(tmp_path, url):
    (failure,), asker = ask_all(["x"], settings(base_url=url, attempts=2), tmp_path / "s")
    assert isinstance(failure, TeacherError) and url in str(failure) and "ConnectError" in str(failure)
    assert asker.spent.total() == 0 and not asker.store.done and asker.failures["no connection"] == 2
    with serving() as server:
        (answer,), _ = ask_all(["x"], settings(server), tmp_path / "s")
    assert "<answer>" in answer


@pytest.mark.parametrize(
    ("sent", "kind", "spent"),
    [
        ({"error": {"code": 429, "message": "slow down"}}, "rate limit", 0),
        ({"error": {"code": "rate_limit_exceeded", "message": "slow down"}}, "rate limit", 0),
        ({"error": {"code": 502, "message": "slow down"}}, "server error", 0),
        ({"error": "slow down"}, "server error", 0),
        ({"error": {"code": "400", "message": "slow down"}}, "refused", 0),
        ({"choices": None, "slow": "slow down"}, "unreadable", 346),
        ({"choices": [], "slow": "slow down", "usage": USED}, "unreadable", 7),
        ({"choices": [{"message": None}], "slow": "slow down"}, "unreadable", 346),
        ({"choices": [{"message": {"content": 7}}], "slow": "slow down"}, "unreadable", 346),
        ({"choices": [{"message": {"content": [{"text": 7}]}}], "slow": "slow down"}, "unreadable", 346),
        (["slow down"], "unreadable", 346),
    ],
)
def test_json_of_another_shape_is_an_error_that_says_what_came(tmp_path, sent, kind, spent):
    """The worst case of this question: 40 bytes, 256 for the template, and 50 of output."""
    with serving(script=[sent]) as server:
        (failure,), asker = ask_all(["x"], settings(server, attempts=1), tmp_path / "s")
        assert str(failure) == kind and asker.spent.total() == spent
        assert "slow down" in asker.reasons[kind] and settings(server).base_url in asker.reasons[kind]
        (answer,), _ = ask_all(["x"], settings(server), tmp_path / "s")
        assert "<answer>" in answer, "a rerun asks again"


@pytest.mark.parametrize("code", [401, "invalid_api_key", "404", 402])
def test_an_error_that_no_request_escapes_stops_all(tmp_path, code):
    with serving(script=[{"error": {"code": code, "message": "never"}}]) as server:
        (failure,), asker = ask_all(["x"], settings(server), tmp_path / "s")
    assert isinstance(failure, TeacherError) and "never" in str(failure) and not asker.spent.total()


@pytest.mark.parametrize(
    ("message", "usage", "answer", "spent"),
    [
        ({"content": "a [2]"}, {"prompt_tokens": None, "completion_tokens": None}, "a [2]", 346),
        ({"content": "a [2]"}, {"prompt_tokens": "12", "completion_tokens": 4}, "a [2]", 300),
        ({"content": "a [2]"}, None, "a [2]", 346),
        ({"content": [{"type": "text", "text": "a "}, {"type": "text", "text": "[2]"}]}, {}, "a [2]", 346),
        ({"content": ["a ", {"type": "image"}, "[2]"]}, {}, "a [2]", 346),
        ({"content": "a [2] \ud83d"}, {}, "a [2] \ufffd", 346),
    ],
)
def test_counts_that_are_null_are_absent_and_parts_are_joined(tmp_path, message, usage, answer, spent):
    with serving(script=[{"choices": [{"message": message}], "usage": usage}]) as server:
        (found,), asker = ask_all(["x"], settings(server), tmp_path / "s")
    assert found == answer and asker.spent.total() == spent


def test_the_key_comes_from_the_environment_and_is_shown_nowhere(tmp_path, monkeypatch, capsys):
    chosen = {"key_variable": "MADE_UP_KEY"}
    monkeypatch.delenv("MADE_UP_KEY", raising=False)
    for value, message in ((None, "has no MADE_UP_KEY"), (" \n", "has no MADE_UP_KEY"), ("a b", "holds blanks"),
                           ("kéy", "no header can carry")):  # fmt: skip
        if value is not None:
            monkeypatch.setenv("MADE_UP_KEY", value)
        with pytest.raises(TeacherError, match=message):
            ChatClient(settings(**chosen))
    monkeypatch.setenv("MADE_UP_KEY", " very-secret\r\n")
    with serving() as server:
        url = f"  {settings(server).base_url}\n"
        ask_all(["x"], settings(server, **chosen, base_url=url), tmp_path / "s")
        assert server.keys == {"Bearer very-secret"}
    assert b"very-secret" not in (tmp_path / "s").read_bytes() + "".join(capsys.readouterr()).encode()


@pytest.mark.parametrize(("path", "hint"), [("/v1", False), ("", True), ("/api", True)])
def test_a_wrong_key_or_path_ends_all_and_is_not_repeated(tmp_path, monkeypatch, path, hint):
    monkeypatch.setenv("MADE_UP_KEY", "very-secret")
    with serving(status=404 if hint else 401) as server:
        url = settings(server).base_url.removesuffix("/v1") + path
        chosen = settings(server, key_variable="MADE_UP_KEY", base_url=url)
        with pytest.raises(TeacherError, match=r"answered 40[14]: .*no such thing: \(key\)") as error:
            asyncio.run(make(collection(5), chosen, tmp_path / "s"))
    assert "very-secret" not in str(error.value) and ("end in /v1" in str(error.value)) == hint


def test_another_model_does_not_read_this_store(tmp_path):
    with serving() as server:
        ask_all(["x"], settings(server), tmp_path / "s")
        with pytest.raises(StoreError, match="made-up"):
            ask_all(["x"], settings(server, model="other"), tmp_path / "s")


@pytest.mark.slow
@needs_vllm
def test_poor_answers_of_a_real_server_are_counted_kept_and_replayed(tmp_path):
    with vllm_server(tmp_path / "log.txt") as url:
        changes = {"base_url": url, "model": MODEL, "key_variable": "", "max_tokens": 96, "timeout": 120}
        changes |= {"answers": 2, "attempts": 2}
        chosen = profiles.load("default").synthesis.remote.model_copy(update=changes)
        made, asker = asyncio.run(make(collection(4, 3), chosen, tmp_path / "s"))
        assert len(made.examples) + sum(made.failures.values()) <= made.funnel["queries"] == 4
        assert asker.requests >= 4 and asker.spent["output_tokens"] > 0 and asker.spent["prompt_tokens"] > 0
        again, asker = asyncio.run(make(collection(4, 3), chosen, tmp_path / "s"))
        assert again == made and asker.requests == 0, "an answer that does not do is not asked for again"
        (text,), _ = ask_all(["Say hello."], chosen.model_copy(update={"max_tokens": 400}), tmp_path / "s")
        assert text
    replayed, _ = asyncio.run(make(collection(4, 3), chosen, tmp_path / "s", replay=True))
    assert replayed == made
