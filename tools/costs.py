"""Tables of time and tokens, each from a committed record: the study of latency, the benchmarks, the faults."""

from __future__ import annotations

from statistics import fmean, median
from typing import Any

import pandas as pd

Record = dict[str, Any]


def latency_study(record: Record) -> str:
    """What each reranker took in the latency study at the paper's size, and pointwise by listwise."""
    result, own = record["result"], record["config"]["latency"]
    rows = [
        _cost(row)
        | {
            "answers that end": f"{100 * row['finished']:.0f} %",
            "alone, median seconds, n": f"{row['p50']:.0f}, {own['alone_queries']}",
        }
        for row in result["rows"]
    ]
    return "\n\n".join([
        f"Reranking {result['candidates']} candidates, all {own['queries']} queries of a collection together, 95 % "
        "bootstrap intervals over queries; calls and tokens are means of a query, and cached prompt tokens count:",
        table(rows),
        _pointwise_by_listwise(result),
    ])  # fmt: skip


def latency_in_short(record: Record) -> str:
    """Seconds and tokens of the two rerankers in the latency study at the paper's size, and their ratio."""
    result = record["result"]
    rows = [_cost(row) for row in result["rows"] if row["method"] in ("listwise", "pointwise")]
    about = (
        f"Reranking {result['candidates']} candidates, all queries of a collection together; 95 % intervals."
    )
    return f"{table(rows)}\n\n{about} {_pointwise_by_listwise(result)}"


def latency_ratios(record: Record) -> str:
    """Each reranker by listwise, for every number of candidates and kind of lengths."""
    rows = [
        {"reranker": row["method"], "lengths": row["lengths"], "candidates": row["top"]}
        | {"times as long as listwise": _interval(row, "ratio"), "n": row["n"]}
        | {"same ranking": f"{100 * row['same']:.0f} %" if "prefetch" in row["method"] else ""}
        for row in record["result"]["ratios"]
    ]
    scale = record["config"]["latency"]["length_scale"]
    about = f"Declared lengths are those of `data/paper/lengths.yaml` times {scale:g}:"
    return f"{about}\n\n{table(rows)}"


def _pointwise_by_listwise(result: dict[str, Any]) -> str:
    """The ratio of the two rerankers' times by kind of lengths, in a sentence."""
    rows = {
        row["lengths"]: f"{row['ratio']:.2f} times ({row['low']:.2f} to {row['high']:.2f}, n = {row['n']})"
        for row in result["ratios"]
        if (row["method"], row["top"]) == ("pointwise", result["candidates"])
    }
    declared = f"; with declared lengths, {rows['declared']}" if "declared" in rows else ""
    return f"Pointwise takes {rows['own']} as long as listwise{declared}."


def _cost(row: dict[str, Any]) -> dict[str, str]:
    """What a reranker took for a query of a collection: a row of a table."""
    names = ("calls", "prompt tokens", "output tokens")
    named = {"reranker": row["method"], "collection": f"{row['collection']} (n = {row['n']})"}
    counts = {name: f"{row[name.replace(' ', '_')]:,.0f}" for name in names}
    return named | {"seconds a query": _interval(row, "seconds")} | counts


def _interval(row: dict[str, Any], name: str) -> str:
    return f"{row[name]:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def timing(record: Record) -> str:
    """How long the two commands took."""
    rows = [
        {"from a fresh clone, in this order": row["what"], "minutes": f"{row['seconds'] / 60:.1f}"}
        for row in record["result"]["rows"]
    ]
    return table(rows)


def training_benchmark(record: Record) -> str:
    """Our training beside TRL's: seconds, and for a whole GRPO step the medians of its parts."""
    sft, grpo, step = (record["result"][part] for part in ("sft", "grpo", "grpo_step"))
    shape, tokens, whole = grpo["shape"], grpo["tokens"], step["shape"]
    about = {
        f"SFT, {sft['steps']} optimiser steps": sft,
        f"GRPO, gradient of {shape['group']} answers of {shape['answer']} tokens to {shape['prompt']}": grpo,
        f"GRPO, a whole step of {whole['prompts']} prompts, {whole['group']} answers each": step,
    }
    rows = [
        {
            "": name,
            "way": row["way"],
            "seconds": f"{row['seconds']:.1f}",
            "times as fast as TRL": f"{row['ratio']:.2f}",
            "least to most, n": f"{row['least']:.2f} to {row['most']:.2f}, {row['n']}",
        }
        for name, part in about.items()
        for row in part["rows"]
    ]
    counted = f"Tokens computed for the GRPO gradient: {tokens['packed']} in place of {tokens['plain']}."
    where = "Where the time of the whole step goes, in seconds (medians):"
    return "\n\n".join([table(rows), counted, where, table(parts_of_a_step(step["runs"]))])


def parts_of_a_step(runs: dict[str, list[dict[str, Any]]]) -> list[dict[str, str]]:
    """Median seconds of each part of a step, by way, and the mean tokens of an answer."""
    return [
        {"way": way}
        | {name: f"{median(run['parts'][name] for run in own):.1f}" for name in own[0]["parts"]}
        | {"tokens of an answer, n": f"{fmean(run['answer_tokens'] for run in own):.0f}, {len(own)}"}
        for way, own in runs.items()
    ]


def faults(record: Record) -> str:
    """What the fault suite did, and what it found."""
    said = {
        part: [f"{name} {value}" for name, value in figures.items() if value != record["commit"]]
        for part, figures in record["result"].items()
    }
    rows = [{"fault": part, "figures": ", ".join(figures)} for part, figures in said.items()]
    return table(rows)


def table(rows: list[dict[str, str]]) -> str:
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)
