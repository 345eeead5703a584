"""What the reranking benchmark asks, and the engine that keeps count of its own time.

Reasoning lengths differ from window to window and have a long tail (Figure 13 of the paper gives their means per
data set, 626 to 928 tokens). Here they are drawn once, so that every scheduler computes the same tokens.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from reasonrank.answers import format_completion
from reasonrank.engines import Completion, Engine, Sampling
from reasonrank.engines.vllm import VllmEngine
from reasonrank.prompts import ListwisePrompt, Rendered
from reasonrank.rerank import windows

WORDS = (
    *("water", "light", "number", "surface", "energy", "market", "price", "river", "function", "theorem"),
    *("growth", "protein", "signal", "memory", "pressure", "current", "matrix", "branch", "gradient"),
    *("mineral", "policy", "demand", "orbit", "sensor", "plant", "triangle", "random", "model"),
)
PAPER_MEAN, PAPER_LIMIT = 736, 3172  # output tokens: Figure 13, mean of its data sets; section 5.1


@dataclass(frozen=True)
class Setting:
    """One task: `queries` lists of `candidates`, in windows of `window` by `step`.

    `passage_tokens`: of a passage in the prompt. `mean_tokens`: of an output; the limit is as many times the mean
    as in the paper. `spread`: standard deviation of the logarithm of a length. `shortest`: of all outputs.
    """

    queries: int
    candidates: int
    window: int
    step: int
    passage_tokens: int
    mean_tokens: int
    spread: float = 0.8
    shortest: int = 4
    seed: int = 42

    @property
    def longest(self) -> int:
        """Limit of an output in tokens."""
        return round(self.mean_tokens * PAPER_LIMIT / PAPER_MEAN)

    @property
    def places(self) -> list[tuple[int, int]]:
        """Windows of a query, in their order."""
        return windows(self.candidates, self.window, self.step)


@dataclass(frozen=True)
class Task:
    """Run, query texts and passages of a setting, the length and the ranking of each output by query text."""

    setting: Setting
    run: dict[str, list[str]]
    queries: dict[str, str]
    texts: dict[str, str]
    lengths: dict[str, list[int]]
    rankings: dict[str, list[list[int]]]


def draw_task(setting: Setting) -> Task:
    """The same task for the same setting, on any machine."""
    rng = random.Random(setting.seed)
    task = Task(setting, {}, {}, {}, {}, {})
    for number in range(setting.queries):
        qid, query = f"q{number}", f"{number} " + _words(rng, 12)
        docids = [f"{qid}-{i}" for i in range(setting.candidates)]
        task.run[qid], task.queries[qid] = docids, query
        task.texts.update((docid, _words(rng, 2 * setting.passage_tokens)) for docid in docids)
        task.lengths[query] = [_length(rng, setting) for _ in setting.places]
        sizes = [end - start for start, end in setting.places]
        task.rankings[query] = [rng.sample(range(1, size + 1), size) for size in sizes]
    return task


def _words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(count))


def _length(rng: random.Random, setting: Setting) -> int:
    """Log-normal with the mean asked for; values beyond the limit end at it, as an unfinished answer does."""
    median = setting.mean_tokens / 2.718281828459045 ** (setting.spread**2 / 2)
    drawn = rng.lognormvariate(0.0, setting.spread) * median
    return min(max(round(drawn), setting.shortest), setting.longest)


Request = tuple[list[int], int]
"""Token ids of a prompt and the length of its output."""


def plan(task: Task, prompt: Any) -> list[Request]:
    """Every window of every query, worked out without a model."""
    requests = []
    for qid, docids in task.run.items():
        order, query = list(docids), task.queries[qid]
        drawn = zip(task.setting.places, task.rankings[query], task.lengths[query], strict=True)
        for (start, end), ranking, length in drawn:
            window = order[start:end]
            requests.append((prompt.render(query, [task.texts[d] for d in window]).ids, length))
            order[start:end] = [window[n - 1] for n in ranking]
    return requests


def prompt_sizes(setting: Setting) -> dict[str, int]:
    """Caps of the prompts, in tokens."""
    return {"passage_tokens": setting.passage_tokens, "query_tokens": 32, "max_length": 1024}


class AnewPrompt:
    """Builds a prompt from nothing for each window: template, cut passages, whole text, its token ids.

    The ids are those of `ListwisePrompt`, which keeps what it has seen.
    """

    def __init__(self, tokenizer: Any, **sizes: int) -> None:
        self.tokenizer, self.sizes = tokenizer, sizes

    def render(self, query: str, passages: Sequence[str]) -> Rendered:
        text = ListwisePrompt(self.tokenizer, **self.sizes).text(query, passages)
        return Rendered(self.tokenizer(text, add_special_tokens=False)["input_ids"])


class Noted:
    """A prompt that notes which query its token ids belong to."""

    def __init__(self, prompt: Any) -> None:
        self.prompt, self.owner, self.chain = prompt, {}, True

    def render(self, query: str, passages: Sequence[str]) -> Rendered:
        rendered = self.prompt.render(query, passages)
        self.owner[tuple(rendered.ids)] = query
        return rendered


@dataclass
class Bounded(Engine):
    """An engine whose outputs have the lengths and the rankings of a task, whatever its model says.

    The model computes as many tokens as the task says for the n-th window of a query; the text is then put in
    place of its own. `asked` are the requests in their order: prompt and length.
    """

    engine: Engine
    task: Task
    prompt: Noted
    asked: list[Request] = field(default_factory=list)
    numbers: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    most_in_flight: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        self.name, self.tokenizer = self.engine.name, self.engine.tokenizer
        self.max_model_len = self.engine.max_model_len

    async def _generate(self, prompt: list[int], sampling: Sampling) -> Completion:
        query = self.prompt.owner[tuple(prompt)]
        number = self.numbers[query]
        self.numbers[query] += 1
        length = self.task.lengths[query][number]
        self.asked.append((prompt, length))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        done = await self.engine.generate(prompt, replace(sampling, max_tokens=length, stop=(), exact=True))
        self.in_flight -= 1
        text = format_completion("so " * length, self.task.rankings[query][number])
        return replace(done, text=text, finish_reason="stop")

    def close(self) -> None:
        """The engine inside stays open: it serves the next scheduler."""


class MeteredVllm(VllmEngine):
    """vLLM that counts its steps and the seconds in them."""

    steps = 0
    busy = 0.0

    def _load(self) -> None:
        super()._load()
        step = self._engine.step

        def metered() -> Any:
            begin = time.perf_counter()
            try:
                return step()
            finally:
                self.busy += time.perf_counter() - begin
                self.steps += 1

        self._engine.step = metered
