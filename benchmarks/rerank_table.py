"""What the scheduling benchmark measured, as ratios within a repeat, goals, and a table in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

OURS = "asynchronous"
GOALS = {"stepwise": 1.3, "unbounded": 1.0, "independent": 0.9}
"""Queries per second of ours over those of each other scheduler; more than 1.0, at least the others."""
OVERHEAD_GOAL = 0.03
ABOUT = {
    OURS: "ours: each query for itself, requests bounded",
    "stepwise": "a batch for each window number, then the next",
    "unbounded": "a task for each query, no bound, prompts built anew",
    "independent": "all windows at once (a bound, no reranker)",
}


def summarise(repeats: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Rows of all repeats, ratios of ours to each other scheduler, overhead, and whether goals were met.

    `repeats`: scheduler to its measurement; ratios are of queries per second within a repeat, and their median
    is held against the goal.
    """
    rows = [{"repeat": n, **row} for n, repeat in enumerate(repeats, 1) for row in repeat.values()]
    ratios = []
    for other, goal in GOALS.items():
        values = [repeat[other]["seconds"] / repeat[OURS]["seconds"] for repeat in repeats]
        middle = median(values)
        met = middle > goal if goal == 1 else middle >= goal
        ratios.append({"to": other, "values": values, "median": middle, "goal": goal, "met": met})
    overhead = median(row["overhead"] for row in rows if row["scheduler"] == OURS)
    own = {"median": overhead, "goal": OVERHEAD_GOAL, "met": overhead <= OVERHEAD_GOAL}
    return {"rows": rows, "ratios": ratios, "overhead": own}


def markdown(record: Mapping[str, Any]) -> str:
    """The benchmark's record as tables: schedulers, then growth with the candidates."""
    result, config = record["result"], record["config"]
    own, compared, grown = result["overhead"], config["compared"], config["growth"]
    return "\n".join(
        [
            f"{compared['queries']} queries of {compared['candidates']} candidates, windows {compared['window']}/"
            f"{compared['step']}, {config['engine']['max_num_seqs']} sequences in the engine at a time, outputs of "
            f"{compared['mean_tokens']} tokens on average with a long tail; median of "
            f"{len(result['ratios'][0]['values'])} interleaved repeats, lowest to highest in brackets.\n",
            "| scheduler | queries/s | output tokens/s | ours is faster by | goal | outside the engine | own CPU |",
            "|---|---|---|---|---|---|---|",
            *(_scheduler(name, result) for name in ABOUT),
            f"\nGoal for the time outside the engine: at most {100 * own['goal']:.0f} %, {_met(own)}.\n",
            f"Ours with longer lists ({grown['queries']} queries, windows {grown['window']}/{grown['step']}, "
            f"{grown['mean_tokens']} output tokens on average):\n",
            "| candidates | windows a query | seconds | windows/s | outside the engine | own CPU |",
            "|---|---|---|---|---|---|",
            *(
                f"| {row['candidates']} | {row['windows'] // row['queries']} | {row['seconds']:.1f} "
                f"| {row['windows_per_second']:.2f} | {100 * row['overhead']:.1f} % "
                f"| {row['own_cpu_ms_per_window']:.1f} ms a window |"
                for row in result["growth"]
            ),
        ]
    )


def _scheduler(name: str, result: Mapping[str, Any]) -> str:
    """A row of the first table."""
    rows = [row for row in result["rows"] if row["scheduler"] == name]
    ratio = next((ratio for ratio in result["ratios"] if ratio["to"] == name), None)
    cells = [
        f"{name}: {ABOUT[name]}",
        _spread([row["queries_per_second"] for row in rows], ".2f"),
        _spread([row["output_tokens_per_second"] for row in rows], ".0f"),
        f"{_spread(ratio['values'], '.2f')} times" if ratio else "",
        f"{'over' if ratio['goal'] == 1 else 'at least'} {ratio['goal']:g}: {_met(ratio)}" if ratio else "",
        f"{100 * median(row['overhead'] for row in rows):.1f} %",
        f"{median(row['own_cpu_ms_per_window'] for row in rows):.1f} ms a window",
    ]
    return f"| {' | '.join(cells)} |"


def _met(goal: Mapping[str, Any]) -> str:
    return "met" if goal["met"] else "missed"


def _spread(values: Sequence[float], form: str) -> str:
    middle, low, high = (format(value, form) for value in (median(values), min(values), max(values)))
    return middle if low == high else f"{middle} [{low}, {high}]"
