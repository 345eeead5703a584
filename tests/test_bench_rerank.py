"""The schedulers of benchmarks/rerank.py on an engine that counts steps in place of seconds."""

import asyncio
import sys
from dataclasses import replace

import pytest

from fakes.engine import FakePrompt
from reasonrank.engines import Completion, Engine
from reasonrank.throughput import Measured, markdown, summarise

SLOTS = 4


@pytest.fixture(scope="module")
def bench(root):
    """The benchmark's two modules."""
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


def test_all_schedulers_do_the_same_work(bench):
    task = bench[1].draw_task(setting(bench))
    planned = sorted(bench[1].plan(task, FakePrompt()))
    assert len(planned) == 8 * 9
    for name in bench[0].SCHEDULERS:
        engine, bounded = run(bench, name, task)
        assert sorted(bounded.asked) == planned, name
        assert engine.stats.output_tokens == sum(length for _, length in planned)


def test_requests_in_flight(bench):
    task = bench[1].draw_task(setting(bench))
    most = {name: run(bench, name, task)[1].most_in_flight for name in bench[0].SCHEDULERS}
    assert most == {"asynchronous": SLOTS + 1, "stepwise": 8, "unbounded": 8, "independent": 72}


def test_stepwise_waits_for_all_and_ours_does_not(bench):
    task = bench[1].draw_task(setting(bench, queries=2, candidates=15))
    slow, fast = task.queries.values()
    task.lengths.update({slow: [30, 5], fast: [5, 5]})
    steps = {name: run(bench, name, task)[0] for name in ("stepwise", "asynchronous")}
    # The fast query's second window starts after 5 steps, or after the slow one's 30.
    assert sorted(step for step, _ in steps["stepwise"].started) == [0, 0, 30, 30]
    assert sorted(step for step, _ in steps["asynchronous"].started) == [0, 0, 5, 30]
    assert (steps["stepwise"].steps, steps["asynchronous"].steps) == (35, 35)


def test_steps_of_a_long_tail(bench):
    task = bench[1].draw_task(setting(bench))
    steps = {name: run(bench, name, task)[0].steps for name in bench[0].SCHEDULERS}
    least = -(-sum(map(sum, task.lengths.values())) // SLOTS)
    assert least <= steps["independent"] and least <= steps["asynchronous"] < steps["stepwise"]


def test_lengths_are_drawn_once_with_the_mean_and_the_limit_asked_for(bench):
    asked = setting(bench, queries=300)
    task = bench[1].draw_task(asked)
    lengths = [length for row in task.lengths.values() for length in row]
    assert asked.longest == 86  # 20 x 3172 / 736
    assert min(lengths) >= 4 and max(lengths) == 86
    assert sum(lengths) / len(lengths) == pytest.approx(20, rel=0.1)
    assert bench[1].draw_task(asked) == task
    assert bench[1].draw_task(replace(asked, seed=43)).lengths != task.lengths


def test_a_prompt_built_anew_has_the_same_token_ids(bench):
    from reasonrank.models import load_tokenizer
    from reasonrank.prompts import ListwisePrompt

    tokenizer = load_tokenizer("smollm2-135m-instruct")
    task = bench[1].draw_task(setting(bench, queries=1))
    sizes = bench[1].prompt_sizes(task.setting)
    kept, anew = ListwisePrompt(tokenizer, **sizes), bench[1].AnewPrompt(tokenizer, **sizes)
    assert bench[1].plan(task, kept) == bench[1].plan(task, anew)


def measured(name, seconds, busy=0.98):
    return Measured(name, 10, 20, 1000, 400, 8, 100, seconds, busy * seconds, 0.04)


def test_summary_and_table():
    ours = {"stepwise": 14.0, "unbounded": 10.0, "independent": 8.0}
    repeats = [
        {"asynchronous": measured("asynchronous", 10.0)} | {n: measured(n, s) for n, s in ours.items()},
        {"asynchronous": measured("asynchronous", 20.0)} | {n: measured(n, 2.4 * s) for n, s in ours.items()},
    ]
    result = summarise(repeats)
    found = {row["to"]: (row["values"], row["median"], row["met"]) for row in result["ratios"]}
    assert found["stepwise"] == (pytest.approx([1.4, 1.68]), pytest.approx(1.54), True)
    assert found["unbounded"] == (pytest.approx([1.0, 1.2]), pytest.approx(1.1), True)
    assert found["independent"] == (pytest.approx([0.8, 0.96]), pytest.approx(0.88), False)
    assert result["overhead"]["median"] == pytest.approx(0.02) and result["overhead"]["met"]
    first = result["rows"][0]
    assert (first["queries_per_second"], first["own_cpu_ms_per_window"]) == (1.0, 2.0)
    assert (first["output_tokens_per_second"], first["tokens_per_step"]) == (40.0, 4.0)
    result["growth"] = [{"candidates": 20, **measured("asynchronous", 10.0).row()}]
    sizes = {"queries": 10, "candidates": 20, "window": 10, "step": 5, "mean_tokens": 20}
    config = {"compared": sizes, "growth": sizes, "engine": {"max_num_seqs": 4}}
    text = markdown({"config": config, "result": result})
    assert "| 0.75 [0.50, 1.00] | 30 [20, 40] |  |  | 2.0 % | 2.0 ms a window |" in text
    assert "1.54 [1.40, 1.68] times | at least 1.3: met" in text
    assert "0.88 [0.80, 0.96] times | at least 0.9: missed" in text
    assert "| 20 | 2 | 10.0 | 2.00 | 2.0 % | 2.0 ms a window |" in text


def test_ours_has_to_be_faster_than_unbounded_not_as_fast():
    repeat = {name: measured(name, 10.0) for name in ("asynchronous", "stepwise", "unbounded", "independent")}
    assert [ratio["met"] for ratio in summarise([repeat])["ratios"]] == [False, False, True]
