"""The remote teacher against a real `vllm serve`: poor answers, the full path, and a replay."""

import asyncio

import pytest

from fakes.serving import MODEL, needs_vllm, vllm_server
from reasonrank import profiles, synthesis
from reasonrank.sources import Collection, Passage, Query
from reasonrank.teachers import Asker, RemoteTeacher
from reasonrank.teachers.asking import Unusable

pytestmark = [pytest.mark.slow, needs_vllm]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """A running server, and the default profile's settings turned to it."""
    with vllm_server(tmp_path_factory.mktemp("server") / "log.txt") as url:
        chosen = profiles.load("default").synthesis.remote
        changes = {"base_url": url, "model": MODEL, "key_variable": "", "max_tokens": 96, "timeout": 120}
        yield chosen.model_copy(update={**changes, "answers": 2, "attempts": 2, "backoff": 0.1})


def collection():
    passages = {
        f"p{i}": Passage(f"p{i}", f"Passage {i} is about {t}.") for i, t in enumerate(["tea", "rain", "cats"])
    }
    queries = {f"q{i}": Query(f"q{i}", f"What falls on day {i}?", ("Rain falls.",)) for i in range(4)}
    return Collection("small", "complex QA", "tests", queries, passages, {}, dict.fromkeys(queries, "train"))


async def make(settings, path, replay=False):
    c = collection()
    async with Asker(settings, path, replay=replay) as asker:
        teacher = RemoteTeacher(asker, c.scenario)
        run = {qid: list(c.passages) for qid in c.queries}
        made = await synthesis.synthesise(c, teacher, run, window=3, max_positives=1, max_hard_negatives=1)
        return made, asker.summary()


def test_poor_answers_are_counted_kept_and_replayed(settings, tmp_path):
    made, cost = asyncio.run(make(settings, tmp_path / "j.jsonl"))
    assert len(made.examples) + sum(made.failures.values()) <= made.funnel["queries"] == 4
    assert cost["requests"] >= 4 and cost["output_tokens"] > 0 and cost["prompt_tokens"] > 0
    assert cost["money"] > 0 and not cost["stopped_by_budget"]
    again, more = asyncio.run(make(settings, tmp_path / "j.jsonl"))
    assert again == made and more["requests"] == 0, (
        "an answer that does not do is paid for, and not asked again"
    )
    replayed, _ = asyncio.run(make(settings, tmp_path / "j.jsonl", replay=True))
    assert replayed == made


def test_a_real_answer_with_its_usage(settings, tmp_path):
    """Any text will do here, so the whole way of a good answer is gone."""

    def read(reply):
        if not reply.text:
            raise Unusable("empty")
        return {"text": reply.text, "tokens": reply.usage.output_tokens}

    async def go():
        async with Asker(settings.model_copy(update={"max_tokens": 400}), tmp_path / "j.jsonl") as asker:
            return await asker.ask([{"role": "user", "content": "Say hello in one word."}], read)

    found = asyncio.run(go())
    assert found["text"] and 0 < found["tokens"] <= 400
