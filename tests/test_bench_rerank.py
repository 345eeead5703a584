"""The schedulers of benchmarks/rerank.py on an engine that counts steps in place of seconds."""

import asyncio
import json
import sys

import pytest

from fakes.engine import FakePrompt
from reasonrank.engines import Completion, Engine

SLOTS = 4


@pytest.fixture(scope="module")
def bench(root):
    """The benchmark's modules."""
    sys.path.insert(0, str(root / "benchmarks"))
    import _common
    import rerank

    yield rerank, _common
    sys.path.remove(str(root / "benchmarks"))


class StepEngine(Engine):
    """One token a step for the first SLOTS requests that are in, as continuous batching does it."""

    kind, name, tokenizer, max_model_len = "steps", "steps", None, 100_000

    def __init__(self):
        super().__init__()
        self.steps, self.waiting, self.started = 0, [], []

    async def _generate(self, prompt, sampling):
        done = asyncio.get_running_loop().create_future()
        self.started.append((self.steps, prompt))
        self.waiting.append([sampling.max_tokens, done])
        if len(self.waiting) == 1:
            self.clock = asyncio.ensure_future(self.run())
        await done
        return Completion("said", (1,) * sampling.max_tokens, len(prompt), sampling.max_tokens, "length")

    async def run(self):
        while self.waiting:
            for _ in range(50):  # until everyone has reacted to the step before
                await asyncio.sleep(0)
            self.steps += 1
            for request in self.waiting[:SLOTS]:
                request[0] -= 1
            for request in [r for r in self.waiting if r[0] == 0]:
                self.waiting.remove(request)
                request[1].set_result(None)

    def close(self):
        pass


def setting(bench, **changes):
    given = {"queries": 8, "candidates": 50, "window": 10, "step": 5, "passage_tokens": 4, "mean_tokens": 20}
    return bench[1].Setting(**given | changes)


def run(bench, name, task, bound=SLOTS + 1):
    engine, prompt = StepEngine(), bench[1].Noted(FakePrompt())
    bounded = bench[1].Bounded(engine, task, prompt)
    asyncio.run(bench[0].SCHEDULERS[name](bounded, task, prompt, bound))
    return engine, bounded


def test_all_schedulers_do_the_same_work_and_ours_in_fewer_steps(bench):
    task = bench[1].draw_task(setting(bench))
    planned = sorted(bench[1].plan(task, FakePrompt()))
    assert len(planned) == 8 * 9
    steps, most = {}, {}
    for name in bench[0].SCHEDULERS:
        engine, bounded = run(bench, name, task)
        assert sorted(bounded.asked) == planned, name
        assert engine.stats["output_tokens"] == sum(length for _, length in planned)
        steps[name], most[name] = engine.steps, bounded.most_in_flight
    assert most == {"asynchronous": SLOTS + 1, "stepwise": 8, "unbounded": 8, "independent": 72}
    assert steps["asynchronous"] < steps["stepwise"] and steps["independent"] < steps["stepwise"]


def test_ratios_goals_and_the_table(bench, root):
    from rerank_table import markdown, summarise

    def measured(name, seconds):
        return {"scheduler": name, "seconds": seconds, "overhead": 0.02}

    times = {"asynchronous": 10.0, "stepwise": 14.0, "unbounded": 10.0, "independent": 8.0}
    result = summarise([{name: measured(name, seconds) for name, seconds in times.items()}])
    found = {row["to"]: (row["median"], row["met"]) for row in result["ratios"]}
    assert found["stepwise"] == (pytest.approx(1.4), True)
    assert found["unbounded"] == (1.0, False)  # ours has to be faster, not as fast
    assert found["independent"] == (pytest.approx(0.8), False)
    assert result["overhead"] == {"median": 0.02, "goal": 0.03, "met": True}
    record = json.loads((root / "data/records/rerank_benchmark.json").read_text(encoding="utf-8"))
    text = markdown(record)
    assert "| stepwise: a batch for each window number, then the next | 0.55 [0.55, 0.56] |" in text
    assert "1.22 [1.22, 1.25] times | at least 1.3: missed" in text
