"""How benchmarks/grpo_step.py shares out the time of a step."""

import sys

import pytest

from reasonrank import profiles
from reasonrank.training.grpo import batch_sizes
from tools import costs


@pytest.fixture(scope="module")
def bench(root):
    """The benchmark's module."""
    sys.path.insert(0, str(root / "benchmarks"))
    import grpo_step

    yield grpo_step
    sys.path.remove(str(root / "benchmarks"))


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
    assert costs.parts_of_a_step({"TRL": runs}) == [row]
