"""Generated answers through parser, reward and rerankers; awkward texts through every strategy."""

import math
import random
from functools import partial
from itertools import product

import pytest

from fakes.engine import FakeEngine, by_number
from fakes.rerankers import docs, listwise, texts, topdown
from reasonrank import models
from reasonrank.answers import TAGS, THINK, THINK_END, format_completion, parse
from reasonrank.prompts import Template, control_tokens
from reasonrank.rerank.strategies import STRATEGIES, build
from reasonrank.rewards import multi_view_reward

CONTROL = ["<|im_end|>", "<|im_start|>assistant", "<|endoftext|>", "<｜end▁of▁sentence｜>"]
PIECES = [
    *TAGS * 3, *CONTROL, *"[]()>,;.:-\n\t ", " > ", "[1]", "[2]", "[03]", "[0]", "[99]", "[²]", "[٣]", "[-1]", "3",
    "1.5", "1. ", "(2) ", "Rank 1: ", "none", "why", "9" * 4400, "\x00", "\ud83d", "\u2028", "é", "東京", "🙂", "<",
    "</", "<think", "answer>", "\u202e", "\ufeff",
]  # fmt: skip
STRICTLY = partial(multi_view_reward, variant="strict")


def completion(rng, n):
    """Pieces in any order, any characters, or a right completion that was damaged."""
    kind = rng.random()
    if kind < 0.4:
        return "".join(rng.choices(PIECES, k=rng.randrange(30)))
    if kind < 0.5:
        return "".join(map(chr, rng.choices(range(0x3000), k=rng.randrange(60))))
    text = format_completion("".join(rng.choices(PIECES, k=rng.randrange(8))), rng.sample(range(1, n + 1), n))
    for _ in range(rng.randrange(4)):
        start, end = sorted(rng.choices(range(len(text) + 1), k=2))
        text = text[:start] + rng.choice(["", text[start:end] * 2, rng.choice(PIECES)]) + text[end:]
    return text


def reads_well(text, n, rng):
    """What holds for every text."""
    answer, direct = parse(text, n), parse(text, n, reasoning=False)
    assert sorted(answer.ranking) == sorted(direct.ranking) == list(range(1, n + 1))
    _, closed, after = text.rpartition(THINK_END)
    if closed:
        alone = parse(THINK + THINK_END + after, n)
        assert (alone.ranking, alone.status) == (answer.ranking, answer.status)
    else:
        assert answer.ranking == list(range(1, n + 1)) and answer.status in ("truncated", "malformed")
    if n:
        gold = rng.sample(range(1, n + 1), n)
        label = {"gold_ranking": gold, "relevant": set(gold[: rng.randrange(n + 1)]), "num_passages": n}
        chain = "".join(
            rng.choices([piece for piece in PIECES if piece not in TAGS and "<" not in piece], k=3)
        )
        for reward in (multi_view_reward, STRICTLY):
            value = reward(text, **label)
            assert value in (-1.0, 0.0) or (math.isfinite(value) and 0 < value <= 1.3 + 1e-9)
            begun = [f"{THINK}{inside}{THINK_END}{after if closed else text}" for inside in ("", chain)]
            assert reward(begun[0], **label) == reward(begun[1], **label)
    return answer.ranking


def test_generated_answers(size, report):
    count, rng, batch = size(100_000, 3000), random.Random(0), 500
    statuses = {}
    for begin in range(0, count, batch):
        given = [(completion(rng, n), n) for n in rng.choices(range(26), k=batch)]
        expected = []
        for number, (text, n) in enumerate(given, begin):
            try:
                expected.append(reads_well(text, n, rng))
            except Exception as error:
                raise AssertionError(f"answer {number}, {text!r} of {n}") from error
        engine = FakeEngine(lambda query, passages, sampling: given[int(query)][0])  # noqa: B023
        queries = {str(place): str(place) for place in range(batch)}
        candidates = {str(place): docs(n) for place, (_, n) in enumerate(given)}
        result = listwise(engine, window=25, step=1, strategy="full").rerank_run_sync(
            candidates, queries, texts(25)
        )
        for place, ranking in enumerate(expected):
            assert result.run[str(place)] == [f"d{i - 1}" for i in ranking]
        for status, found in result.counts.items():
            statuses[status] = statuses.get(status, 0) + found
        partitioned = topdown(engine, window=4).rerank_run_sync(candidates, queries, texts(25)).run
        assert all(sorted(partitioned[qid]) == sorted(candidates[qid]) for qid in queries)
    assert set(statuses) == {"ok", "repaired", "truncated", "malformed"}
    report("generated answers", answers=count, errors=0, **{"no permutation": 0}, **statuses)


AWKWARD = [
    *TAGS, *CONTROL, "[1] > [2]", "</think> <answer> [1] > [2] > [3] </answer>", "<answer>", "[12] [0] ]][[", "",
    "{query} {passages} {num} %s {0}", "\x01 \x00 \ud83d \u202e", "1. 2. 3.", "\n\n[1] another\n[2] one", "word " * 200,
]  # fmt: skip


class Engine(FakeEngine):
    """Takes prompts apart by their lines, as a model would; keeps their ids."""

    max_model_len = 100_000

    async def _generate(self, prompt, sampling):
        self.prompts = [*getattr(self, "prompts", []), list(prompt)]
        text = self.tokenizer.decode(prompt)
        lines = [line.split("] ", 1)[1] for line in text.splitlines() if line.startswith("[")]
        numbers = [line.split()[0] for line in lines]
        return await super()._generate([ord(c) for c in "\n".join(["q", *numbers])], sampling)


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer("smollm2-135m-instruct")


def likely(query, passages):
    """Low numbers first: by the verdict on a passage, or by the identifiers of all."""
    return {"true": -int(passages[0]) - 1.0} | {str(k): -float(n) for k, n in enumerate(passages, start=1)}


TEMPLATE = Template("You rank passages for: {query}", "{num} passages.\n{passages}Rank them for {query}.")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_awkward_texts(tokenizer, strategy, report):
    caps = {"passage_tokens": 30, "query_tokens": 60, "max_length": 50_000, "window": 4, "step": 2}
    special, n = set(control_tokens(tokenizer)), 9
    for awkward, template in product(AWKWARD, (None, TEMPLATE)):
        seen = []
        for text in ("plain", awkward):
            engine = Engine(by_number, logprobs=likely)
            engine.tokenizer = tokenizer
            reranker = build(strategy, engine, **caps, template=template)
            passages = {f"d{i}": f"{i} {text} [{i}] {text}" for i in range(n)}
            result = reranker.rerank_run_sync({"q": docs(n)}, {"q": f"{text} ?"}, passages)
            seen.append((result.run, [[i for i in ids if i in special] for ids in engine.prompts]))
            statuses = set(result.counts)
        assert statuses == {"ok"} and seen[0] == seen[1], awkward
    report(f"awkward texts, {strategy}", texts=2 * len(AWKWARD), errors=0)
