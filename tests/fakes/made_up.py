"""Made-up results of a run, for tests of figures only: no value was measured."""

from typing import Any

import numpy as np

SCENARIOS = {
    "math-theorem": "math: theorem",
    "math-problem": "math: problem",
    "coding": "coding",
    "complex-qa": "complex QA",
    "web-search": "web search",
}
SYSTEMS = ("retriever", "zero-shot", "SFT", "SFT + RL")


def results(seed: int = 0) -> dict[str, dict[str, Any]]:
    """Stage name to the `result` of its record, with invented values of a plausible size."""
    rng = np.random.default_rng(seed)
    return {
        "02_filtering": _filtering(rng),
        "03_sft": {
            "loss": [
                {"step": s, "loss": float(2 * np.exp(-s / 15) + 0.8 + rng.normal(0, 0.05))}
                for s in range(1, 41)
            ],
        },
        "04_rl": {"parts": [_step(s, rng) for s in range(1, 21)]},
        "05_gpu_evaluation": _evaluation(rng),
        "06_latency_study": _latency(rng),
    }


def _filtering(rng: np.random.Generator) -> dict[str, Any]:
    scores = [
        {"scenario": scenario, "dataset": dataset, "qid": f"{dataset}-{i}", "score": float(rng.beta(1.5, 1))}
        for dataset, scenario in SCENARIOS.items()
        for i in range(40)
    ]
    values = np.array([row["score"] for row in scores])
    sweep = []
    for alpha in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7):
        kept = values[values >= alpha]
        counts = {"alpha": alpha, "kept": len(kept), "dropped": len(values) - len(kept)}
        sweep.append({**counts, "share": len(kept) / len(values), "mean_score": float(kept.mean())})
    return {"sweep": sweep, "scores": scores}


def _step(step: int, rng: np.random.Generator) -> dict[str, Any]:
    means = {"ndcg": 0.3, "recall": 0.5, "rbo": 0.35, "format": 0.4, "total": 0.45}
    row: dict[str, Any] = {"step": step}
    for part, value in means.items():
        row[part] = float(value + 0.01 * step + rng.normal(0, 0.05))
        row[f"{part}_std"] = 0.1
    return row


def _evaluation(rng: np.random.Generator) -> dict[str, Any]:
    scores, answers = [], []
    for place, system in enumerate(SYSTEMS):
        for collection, scenario in (*SCENARIOS.items(), ("average", "all")):
            value = float(0.25 + 0.03 * place + rng.uniform(-0.08, 0.15))
            row = {"collection": collection, "scenario": scenario, "system": system, "ndcg": value}
            row |= {"low": value - 0.05, "high": value + 0.06, "n": 60 if collection == "average" else 12}
            scores.append(row | {"difference": value - 0.25, "p_value": 0.2})
        if system != "retriever":
            ok = 20 * place
            answers.append(
                {"system": system, "ok": ok, "repaired": 70 - ok, "truncated": 20, "malformed": 10, "n": 100}
            )
    return {"scores": scores, "answers": answers}


def _latency(rng: np.random.Generator) -> dict[str, Any]:
    rows = []
    for collection in SCENARIOS:
        for method, scale in (("listwise", 1.0), ("pointwise", 2.4)):
            value = float(scale * rng.uniform(2.5, 3.5))
            row = {"collection": collection, "method": method, "n": 6, "seconds": value}
            rows.append(row | {"low": 0.85 * value, "high": 1.2 * value})
    ratio = {"value": 2.4, "low": 2.1, "high": 2.8}
    return {"rows": rows, "ratio": ratio, "engine": "vllm", "model": "SmolLM2-135M-Instruct"}
