"""How benchmarks/grpo_step.py shares out the time of a step."""

import sys

import pytest
import torch

from reasonrank import profiles
from reasonrank.training.grpo import batch_sizes
from tools import results


@pytest.fixture(scope="module")
def bench(root):
    """The benchmark's module."""
    sys.path.insert(0, str(root / "benchmarks"))
    import grpo_step

    yield grpo_step
    sys.path.remove(str(root / "benchmarks"))


class Clock:
    """Seconds that pass only when told."""

    now = 0.0

    def __call__(self):
        return self.now

    def wait(self, seconds):
        self.now += seconds


class Trainer:
    """The methods of a trainer that are watched, one calling the other as TRL's do."""

    def __init__(self, clock):
        self.clock = clock

    def training_step(self):
        self._prepare_inputs()
        self._get_per_token_logps_and_entropies(5)
        self.clock.wait(7)

    def _prepare_inputs(self):
        self._generate_single_turn()
        with torch.no_grad():
            self._get_per_token_logps_and_entropies(3)
        self.clock.wait(0.5)

    def _generate_single_turn(self):
        self.clock.wait(20)

    def _get_per_token_logps_and_entropies(self, seconds):
        if not torch.is_grad_enabled():
            self._passes_check()
        self.clock.wait(seconds)

    def _passes_check(self):
        self.clock.wait(100)


def test_the_time_of_a_step_is_shared_out_and_nothing_counts_twice(bench):
    clock = Clock()
    trainer = Trainer(clock)
    parts = bench.watched(trainer, clock)
    with parts.part("rest"):
        trainer.training_step()
        clock.wait(1)
    expected = {"answers": 20, "log-probabilities": 3, "gradient": 12, "rest": 1.5, bench.CHECK: 100}
    assert parts.seconds == expected and sum(expected.values()) == clock.now


def test_a_shaped_profile_has_one_step_of_so_many_prompts(bench):
    own = bench.shaped(profiles.load("default"), 2, 8, 128).rl
    assert (own.steps, own.max_completion_tokens) == (1, 128)
    assert batch_sizes(own) == (16, 8, 8)


def test_the_readme_shows_medians_of_parts():
    runs = [
        {"parts": {"answers": seconds, "rest": 1.0}, "answer_tokens": tokens}
        for seconds, tokens in ((1.0, 60), (9.0, 61), (2.0, 65))
    ]
    row = {"way": "TRL", "answers": "2.0", "rest": "1.0", "tokens of an answer, n": "62, 3"}
    assert results.parts_of_a_step({"TRL": runs}) == [row]
