"""Reranking pointwise, top-down and by logits around a fake engine, and strategies by name."""

import math
import re
from collections import Counter
from dataclasses import replace

import pytest
import torch

from fakes.engine import FakeEngine, FakePrompt, by_number, reverse
from fakes.rerankers import docs, rank, texts, topdown
from fakes.tiny import save_tiny_llama
from fakes.tokenizer import CharTokenizer
from reasonrank.engines import Completion, EngineError, Sampling, open_engine
from reasonrank.rerank import logits
from reasonrank.rerank.pointwise import PointwiseReranker, verdict_score
from reasonrank.rerank.strategies import STRATEGIES, build
from reasonrank.rerank.topdown import topdown_calls
from reasonrank.settings import Evaluation
from reasonrank.store import Store

# Pointwise


def test_pointwise_scores_sorts_and_keeps_ties_in_order():
    scores = {"0": (0.2, 0.6), "1": (0.3, 0.1), "2": (0.3, 0.1), "3": (0.0, 0.0)}

    def logprobs(query, passages):
        yes, no = scores[passages[0]]
        tops = {"\n": math.log(0.1)}
        return tops | ({" true": math.log(yes), "False": math.log(no)} if yes else {})

    def answer(query, passages, sampling):
        said = {"0": "<think> hm", "2": "<think> hm </think> true"}
        return "" if sampling.max_tokens == 1 else said.get(passages[0], "<think> hm </think> well")

    engine = FakeEngine(answer, logprobs=logprobs)
    # The fake engine reads the second prompt back too: its last passage holds the reasoning behind a digit.
    scores |= {f"{d}<think> hm </think>": v for d, v in scores.items()}
    scores["0<think> hm</think>"] = scores["0"]
    result = PointwiseReranker(engine, FakePrompt()).rerank_run_sync({"q": docs(4)}, {"q": "q"}, texts(4))
    assert result.run == {"q": ["d1", "d2", "d3", "d0"]}
    assert [trace.score for trace in result.traces["q"]] == pytest.approx([0.25, 0.75, 0.75, 0.5])
    assert result.counts == {"truncated": 1, "ok": 2, "undecided": 1}
    assert result.calls == 7 == len(engine.samplings)  # the model has given one verdict by itself
    ends = ["<think> hm</think>", "<think> hm </think>", "<think> hm </think> true", "<think> hm </think>"]
    assert [trace.text for trace in result.traces["q"]] == ends
    assert engine.samplings[0].stop[:2] == ("true", "false") and engine.samplings[0].chain


def test_a_kept_answer_has_the_log_probabilities_of_its_verdict_alone(tmp_path):
    class Long(FakeEngine):
        async def _generate(self, prompt, sampling):
            found = await super()._generate(prompt, sampling)
            return replace(found, logprobs=[{"so": -0.1}] * 500 + found.logprobs)

    engine = Long(lambda *_: "<think> </think> true", logprobs=lambda *_: {" true": -0.1, " false": -2.0})
    with Store(tmp_path / "kept.sqlite", {}) as engine.kept:
        first = rank(PointwiseReranker(engine, FakePrompt()), 3)
        assert all(len(done["logprobs"]) == 1 for done in engine.kept.done.values())
        again = rank(PointwiseReranker(engine, FakePrompt()), 3)
    assert engine.stats["requests"] == 3  # nothing was asked again
    assert [t.score for t in again.windows] == [t.score for t in first.windows]


def test_a_verdict_alone_where_the_prompt_closed_the_reasoning():
    engine = FakeEngine(
        lambda *_: "", logprobs=lambda query, passages: {"true": -int(passages[0]) - 1.0, "false": -2.0}
    )
    result = rank(PointwiseReranker(engine, FakePrompt(chain=False)), 3)
    assert result.docids == docs(3) and [(t.calls, t.status) for t in result.windows] == [(1, "ok")] * 3


def test_verdict_score():
    tops = {" true": math.log(0.6), "true": math.log(0.1), " false": math.log(0.3)}
    assert verdict_score(tops) == pytest.approx(0.7)
    assert verdict_score({" false": -0.1, "x": -3.0}) == 0.0
    assert verdict_score({"untrue": -0.1}) is None


# Top-down partitioning


def test_topdown_worked_out_by_hand():
    """w = 4, k = 2, a model that puts high numbers first, documents d0 to d9."""
    result = rank(topdown(FakeEngine(by_number)), 10)
    asked = [(trace.start, trace.end, list(trace.docids)) for trace in result.windows]
    assert asked == [
        (0, 4, ["d0", "d1", "d2", "d3"]),  # d3 > d2 > d1 > d0: the pivot is d2
        (4, 7, ["d2", "d4", "d5", "d6"]),  # all three beat it
        (7, 10, ["d2", "d7", "d8", "d9"]),
        (0, 4, ["d3", "d6", "d5", "d4"]),  # the first four candidates; d9, d8, d7 are past the budget
    ]
    assert result.docids == ["d6", "d5", "d4", "d3", "d9", "d8", "d7", "d2", "d1", "d0"]


def test_topdown_stops_where_nothing_beats_the_pivot():
    """The documents stand in their best order already: one window and its batches, and nothing moves."""
    order = docs(10)[::-1]
    result = topdown(FakeEngine(by_number)).rerank_run_sync({"q": order}, {"q": "q"}, texts(10))
    assert (result.run["q"], result.calls) == (order, 3)
    unfinished = rank(topdown(FakeEngine(lambda *_: "no answer")), 10)
    assert unfinished.docids == docs(10) and [t.status for t in unfinished.windows] == ["malformed"] * 3


@pytest.mark.parametrize(("bound", "seen"), [(64, 3), (2, 2)])
def test_batches_of_a_query_run_side_by_side_under_the_bound(bound, seen):
    engine = FakeEngine(reverse)
    rank(topdown(engine, max_in_flight=bound), 13)
    assert engine.most_in_flight == seen


# Strategies by name


class TalkingEngine(FakeEngine):
    """Answers prompts of `prompts.py`: window sizes are read off the identifiers."""

    tokenizer, max_model_len = CharTokenizer(), 100_000

    async def _generate(self, prompt, sampling):
        text = "".join(map(chr, prompt))
        lines = re.findall(r"^\[(\d+)\] (.*)$", text, re.MULTILINE)
        self.prompts = [*getattr(self, "prompts", []), text]
        return await super()._generate(
            [ord(c) for c in "\n".join(["q", *(line for _, line in lines)])], sampling
        )


CAPS = {"passage_tokens": 20, "query_tokens": 20, "max_length": 5000}


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("n", [0, 1, 4, 9])
def test_every_strategy_makes_the_calls_it_states(name, n):
    engine = TalkingEngine(by_number, logprobs=lambda query, passages: {"true": -int(passages[0]) - 1.0})
    result = build(name, engine, **CAPS, window=4, step=2).rerank_run_sync(
        {"q": docs(n)}, {"q": "?"}, texts(n)
    )
    low, high = STRATEGIES[name].calls(n, 4, 2)
    assert low <= result.calls == engine.stats["requests"] <= high
    assert (low == high) or name in ("topdown", "pointwise", "logits")
    assert sorted(result.run["q"]) == docs(n)


def test_calls_at_the_papers_sizes():
    calls = {name: strategy.calls(100, 20, 10) for name, strategy in STRATEGIES.items()}
    assert calls == {
        "sliding": (9, 9),
        "single": (1, 1),
        "full": (1, 1),
        "topdown": (6, 7),
        "pointwise": (100, 200),
        "direct": (9, 9),
        "logits": (9, 27),
    }
    with pytest.raises(ValueError, match="window is 1; top-down partitioning needs 2"):
        topdown_calls(10, 1)


def test_the_names_are_those_of_the_profiles():
    field = Evaluation.model_fields["strategy"].annotation
    assert set(field.__args__) == set(STRATEGIES)
    with pytest.raises(ValueError, match="unknown strategy 'zigzag': expected one of sliding, single"):
        build("zigzag", TalkingEngine(reverse), **CAPS)
    with pytest.raises(TypeError, match="no reranker has an option 'widnow'"):
        build("pointwise", TalkingEngine(reverse), **CAPS, window=4, widnow=4)


def test_direct_asks_for_no_reasoning_and_reads_none():
    engine = TalkingEngine(lambda *_: "<answer> [2] > [1] </answer>")
    direct = rank(build("direct", engine, **CAPS, retry=True), 2)
    trace = direct.windows[0]
    assert (direct.docids, trace.status, trace.attempts) == (["d1", "d0"], "ok", 1)
    assert "<think>" not in engine.prompts[0]
    sliding = rank(build("sliding", engine, **CAPS), 2)
    assert sliding.docids == ["d0", "d1"] and sliding.windows[0].status == "truncated"


# By logits


class NamingEngine(TalkingEngine):
    """Names identifier n with the probability `shares[n]`, at most `tops` characters a place; it has no answers."""

    def __init__(self, shares, tops=20):
        super().__init__(None)
        self.shares, self.tops, self.begun = shares, tops, []

    async def _generate(self, prompt, sampling):
        before, _, begun = "".join(map(chr, prompt)).rpartition("[")
        mass = Counter({"x": 0.3, " ": 0.1})  # no identifier goes on like this
        for number, share in self.shares.items():
            if f"{number}]".startswith(begun):
                mass[f"{number}]"[len(begun)]] += share
        self.begun.append(before[before.rindex("\n") + 1 :] + "[" + begun)
        top = {text: math.log(share) for text, share in mass.most_common(self.tops)}
        return Completion(next(iter(top)), (1,), len(prompt), 1, "length", [top])


def shares(order):
    """Shares of identifiers, the first the most likely."""
    return {number: 0.9**place / 20 for place, number in enumerate(order)}


ORDER = [12, 3, 20, 1, 7, 10, 19, 2, 4, 15, 5, 6, 8, 11, 9, 13, 17, 14, 18, 16]


def test_twenty_identifiers_of_digits_are_told_apart():
    """Three requests: at the bracket, behind 1, behind 2. By their first digits alone 1 and 10 to 19 would tie."""
    engine = NamingEngine(shares(ORDER))
    result = rank(build("logits", engine, **CAPS), 20)
    assert result.docids == [f"d{number - 1}" for number in ORDER]
    (trace,) = result.windows
    opening = "<think> </think> <answer> ["
    assert engine.begun == [opening, opening + "1", opening + "2"]
    assert (trace.calls, trace.output_tokens, trace.status) == (3, 3, "ok")
    assert trace.text.startswith("<think> </think> <answer> [12] > [3] > [20] > [1] >")


def test_windows_slide_and_an_answer_without_reasoning_begins_at_once():
    engine = NamingEngine(shares([4, 3, 2, 1]))
    result = rank(build("logits", engine, **CAPS, window=4, step=2, reasoning=False), 6)
    assert result.docids == ["d4", "d5", "d1", "d0", "d3", "d2"]  # [2, 6) is turned around, then [0, 4)
    assert engine.begun == ["<answer> ["] * 2


def test_unlikely_identifiers_follow_in_order():
    few = rank(build("logits", NamingEngine(shares([3, 1, 2, 4]), tops=4), **CAPS), 4)
    assert (few.docids, few.windows[0].status) == (["d2", "d0", "d1", "d3"], "repaired")  # 3, 1, and no digit
    none = rank(build("logits", NamingEngine({}), **CAPS), 4)
    assert (none.docids, none.windows[0].status) == (docs(4), "malformed")


def test_an_engine_without_log_probabilities_is_refused():
    with pytest.raises(EngineError, match=r"^fake: the fake engine gives no log-probabilities to rank by$"):
        rank(build("logits", TalkingEngine(reverse, logprobs=lambda *_: None), **CAPS), 4)


def test_probabilities_of_twenty_identifiers_are_the_models(tmp_path, monkeypatch):
    """A tiny random model: each score is the product of the model's own softmax over the digits that can follow."""
    monkeypatch.setattr(logits, "VERDICT", Sampling(max_tokens=1, logprobs=49_152))  # all of them
    model = str(save_tiny_llama(tmp_path, max_position_embeddings=1024, initializer_range=0.5))
    with open_engine("transformers", model, dtype="float32", device="cpu") as engine:
        reranker = build("logits", engine, **CAPS | {"max_length": 1000})
        result = rank(reranker, 20)
        prompt = reranker.prompt.encode("q", list(texts(20).values()))
        digits = [engine.tokenizer.convert_tokens_to_ids(text) for text in "0123456789]"]

        def shares_after(begun):
            ids = prompt + engine.tokenizer.encode(f"<think> </think> <answer> [{begun}")
            with torch.inference_mode():
                return engine._model(torch.tensor([ids])).logits[0, -1].float()[digits]

        first = shares_after("")[1:10].log_softmax(0)
        one, two = shares_after("1").log_softmax(0), shares_after("2")[[10, 0]].log_softmax(0)
        scores = {number: first[number - 1].item() for number in range(3, 10)}
        scores |= {1: first[0] + one[10], 2: first[1] + two[0], 20: first[1] + two[1]}
        scores |= {10 + digit: first[0] + one[digit] for digit in range(10)}
    best_first = sorted(scores, key=lambda number: -scores[number])
    assert result.docids == [f"d{number - 1}" for number in best_first] != docs(20)
    assert (result.windows[0].status, result.windows[0].output_tokens) == ("ok", 3)
