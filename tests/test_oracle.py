"""Recorded completions replayed through parser, reward, windows, reranker and scores: the same to the digit.

`python tests/test_oracle.py` writes tests/data/oracle.json anew; that is a change of results, to be looked at.
"""

import hashlib
import json
import random
from pathlib import Path

from fakes.tokenizer import CharTokenizer
from reasonrank import answers, filtering, metrics, rewards
from reasonrank.engines import Completion, Engine, Sampling
from reasonrank.evaluation import evaluate
from reasonrank.rerank import strategies, windows

FILE = Path(__file__).parent / "data" / "oracle.json"


class Recorded(Engine):
    """Answers that depend on the prompt alone: a seeded permutation, at times damaged."""

    kind, name, tokenizer, max_model_len = "recorded", "recorded", CharTokenizer(), 100_000

    async def _generate(self, prompt: list[int], sampling: Sampling) -> Completion:
        text = "".join(map(chr, prompt))
        rng = random.Random(hashlib.sha256(text.encode()).hexdigest())
        n = max(i for i in range(1, 21) if f"[{i}] " in text)
        return Completion(completion(rng, n), (1, 2, 3), len(prompt), 3, "stop")

    def close(self):
        pass


def completion(rng: random.Random, n: int) -> str:
    """A completion for n passages as small models write them: right, repaired, truncated or malformed."""
    order = rng.sample(range(1, n + 1), n)
    kind = rng.randrange(10)
    if kind == 6:
        order = order[: n // 2] + order[:1] + [n + 3, 0]
    said = " > ".join(f"[{i}]" for i in order) if kind != 7 else ", ".join(map(str, order))
    chain = f"<think> [{rng.randint(1, n)}] names {rng.randint(1, 99)} facts. </think>"
    forms = {
        3: f"{chain} <answer> {said}",
        4: f"{chain[:-9]} <answer> {said} </answer>",
        5: said,
        8: f"Well. {chain} <answer> {said} </answer> Done.",
        9: f"{chain} <answer> none of these </answer>",
    }
    return forms.get(kind, f"{chain} <answer> {said} </answer>")


def made() -> dict:
    """All figures, as JSON holds them."""
    rng = random.Random(2508)
    cases = []
    for number in range(300):
        n = rng.choice([1, 2, 4, 10, 20])
        text, gold = completion(rng, n), rng.sample(range(1, n + 1), n)
        relevant = sorted(rng.sample(gold, min(n, rng.randint(0, 3))))
        answer = answers.parse(text, n, reasoning=number % 5 > 0)
        labels = {"gold_ranking": gold, "relevant": set(relevant), "num_passages": n}
        cases.append(
            {
                "text": text,
                "parsed": [answer.ranking, answer.status, answer.reasoning],
                "rewards": [
                    rewards.multi_view_reward(text, **labels, variant=variant, rbo_p=p)
                    for variant in ("released", "strict")
                    for p in (None, 0.7)
                ],
                "metrics": [
                    metrics.ndcg(answer.ranking, set(relevant)),
                    metrics.recall(answer.ranking, set(relevant), 5),
                    metrics.rbo(answer.ranking, gold),
                    metrics.rbo(answer.ranking, gold, 0.9),
                ],
            }
        )
    schedule = {
        f"{n}/{size}/{step}/{variant}": windows(n, size, step, variant)
        for n in (0, 1, 5, 10, 11, 20, 21, 30, 99, 100)
        for size, step in ((20, 10), (10, 5), (10, 10), (20, 7))
        for variant in ("ours", "released")
    }
    return {"cases": cases, "windows": schedule, **reranked(), **filtered()}


def reranked() -> dict:
    """Twelve queries of 35 candidates through every strategy that ranks windows, and their scores."""
    rng = random.Random(7050)
    run = {f"q{q}": [f"d{q}-{d}" for d in rng.sample(range(60), 35)] for q in range(12)}
    qrels = {q: {d: rng.choice([0, 1, 1, 2]) for d in rng.sample(ids, 6)} for q, ids in run.items()}
    queries = {q: f"question {q}" for q in run}
    texts = {d: f"passage {d}" for ids in run.values() for d in ids}
    found = {}
    for name in ("sliding", "single", "topdown", "direct"):
        caps = {"passage_tokens": 50, "query_tokens": 50, "max_length": 90_000}
        reranker = strategies.build(name, Recorded(), window=10, step=5, **caps)
        result = reranker.rerank_run_sync(run, queries, texts, top=30)
        scores = evaluate(result.run, qrels, ("nDCG@10", "R@20"))
        found[name] = {
            "run": result.run,
            "counts": dict(sorted(result.counts.items())),
            "calls": result.calls,
            "mean": scores.mean,
            "per_query": scores.per_query["nDCG@10"],
        }
    return {"reranked": found}


def filtered() -> dict:
    """The filter's scores of forty made-up examples."""
    rng = random.Random(415)
    examples = []
    for number in range(40):
        ids = [f"d{i}" for i in range(12)]
        examples.append(
            {
                "dataset": "made_up",
                "qid": f"q{number}",
                "initial_list": ids,
                "final_list": rng.sample(ids, 12),
                "relevant_docids": rng.sample(ids, rng.randint(1, 3)),
            }
        )
    result = filtering.self_consistency(examples, 0.4)
    return {"filtered": {"scores": result.scores, "kept": [e["qid"] for e in result.kept]}}


def test_recorded_completions_give_the_same_figures():
    expected = json.loads(FILE.read_text())
    found = json.loads(json.dumps(made()))
    assert found.keys() == expected.keys()
    for part in expected:
        assert found[part] == expected[part], part


if __name__ == "__main__":
    FILE.write_text(json.dumps(made(), separators=(",", ":")) + "\n")
