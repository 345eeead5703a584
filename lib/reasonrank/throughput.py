"""What a scheduling benchmark measured: rows, ratios within a repeat, goals, and the README's table of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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


@dataclass(frozen=True)
class Measured:
    """One scheduler, once.

    `seconds`: wall clock; `busy_seconds`: the part inside the engine's step; `own_cpu_seconds`: processor time
    of the thread that builds prompts and reads answers. `steps` of the engine.
    """

    scheduler: str
    queries: int
    windows: int
    prompt_tokens: int
    output_tokens: int
    most_in_flight: int
    steps: int
    seconds: float
    busy_seconds: float
    own_cpu_seconds: float

    def row(self) -> dict[str, Any]:
        """All fields, and the rates that follow from them."""
        return asdict(self) | {
            "queries_per_second": self.queries / self.seconds,
            "windows_per_second": self.windows / self.seconds,
            "output_tokens_per_second": self.output_tokens / self.seconds,
            "tokens_per_step": self.output_tokens / self.steps,
            "overhead": 1 - self.busy_seconds / self.seconds,
            "own_cpu_ms_per_window": 1000 * self.own_cpu_seconds / self.windows,
        }


def summarise(repeats: Sequence[Mapping[str, Measured]]) -> dict[str, Any]:
    """Rows of all repeats, ratios of ours to each other scheduler, overhead, and whether goals were met.

    `repeats`: scheduler to its measurement; ratios are of queries per second within a repeat, and their median
    is held against the goal.
    """
    rows = [{"repeat": n, **one.row()} for n, repeat in enumerate(repeats, 1) for one in repeat.values()]
    ratios = []
    for other, goal in GOALS.items():
        values = [repeat[other].seconds / repeat[OURS].seconds for repeat in repeats]
        middle = median(values)
        met = middle > goal if goal == 1 else middle >= goal
        ratios.append({"to": other, "values": values, "median": middle, "goal": goal, "met": met})
    overhead = median(row["overhead"] for row in rows if row["scheduler"] == OURS)
    own = {"median": overhead, "goal": OVERHEAD_GOAL, "met": overhead <= OVERHEAD_GOAL}
    return {"rows": rows, "ratios": ratios, "overhead": own}


def markdown(record: Mapping[str, Any]) -> str:
    """The benchmark's record as README tables: schedulers, then growth with the candidates."""
    result, setting = record["result"], record["config"]["compared"]
    parts = [
        f"{setting['queries']} queries of {setting['candidates']} candidates, windows "
        f"{setting['window']}/{setting['step']}, {record['config']['engine']['max_num_seqs']} sequences in the "
        f"engine at a time, outputs of {setting['mean_tokens']} tokens on average with a long tail; median of "
        f"{len(result['ratios'][0]['values'])} interleaved repeats, lowest to highest in brackets.",
        _schedulers(result),
        _growth(result["growth"], record["config"]["growth"]),
    ]
    return "\n\n".join(parts)


def _schedulers(result: Mapping[str, Any]) -> str:
    ratios = {ratio["to"]: ratio for ratio in result["ratios"]}
    lines = [
        "| scheduler | queries/s | output tokens/s | ours is faster by | goal | outside the engine | own CPU |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, about in ABOUT.items():
        rows = [row for row in result["rows"] if row["scheduler"] == name]
        ratio = ratios.get(name)
        cells = [
            f"{name}: {about}",
            _spread([row["queries_per_second"] for row in rows], "{:.2f}"),
            _spread([row["output_tokens_per_second"] for row in rows], "{:.0f}"),
            _spread(ratio["values"], "{:.2f}") + " times" if ratio else "",
            _goal(ratio) if ratio else "",
            f"{100 * median(row['overhead'] for row in rows):.1f} %",
            f"{median(row['own_cpu_ms_per_window'] for row in rows):.1f} ms a window",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    own = result["overhead"]
    met = "met" if own["met"] else "missed"
    lines += ["", f"Goal for the time outside the engine: at most {100 * own['goal']:.0f} %, {met}."]
    return "\n".join(lines)


def _goal(ratio: Mapping[str, Any]) -> str:
    word = "over" if ratio["goal"] == 1 else "at least"
    return f"{word} {ratio['goal']:g}: {'met' if ratio['met'] else 'missed'}"


def _spread(values: Sequence[float], form: str) -> str:
    middle, low, high = (form.format(value) for value in (median(values), min(values), max(values)))
    return middle if low == high else f"{middle} [{low}, {high}]"


def _growth(rows: Sequence[Mapping[str, Any]], setting: Mapping[str, Any]) -> str:
    lines = [
        f"Ours with longer lists ({setting['queries']} queries, windows {setting['window']}/{setting['step']}, "
        f"{setting['mean_tokens']} output tokens on average):",
        "",
        "| candidates | windows a query | seconds | windows/s | outside the engine | own CPU |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['candidates']} | {row['windows'] // row['queries']} | {row['seconds']:.1f} "
            f"| {row['windows_per_second']:.2f} | {100 * row['overhead']:.1f} % "
            f"| {row['own_cpu_ms_per_window']:.1f} ms a window |"
        )
    return "\n".join(lines)
