"""The paper's benchmark tables beside a run of its checkpoints: figures from the record of notebook 05.

Where a run is no test of the printed figure (other weights, queries left out, another first stage or window), its
figure is shown, and what is missing in place of a verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from . import paper
from .checks import Measured
from .stages import read_json

TABLES = {"bright": "table1", "r2med": "table2", "beir": "table4_7"}
SYSTEMS = {"reasonrank-7b": "ReasonRank (7B)", "reasonrank-32b": "ReasonRank (32B)"}
PROTOCOL = {"top": 100, "strategy": "sliding", "window": 20, "step": 10}
RECORD = "05_gpu_evaluation/record.json"


def measured(records: Path) -> dict[str, Measured]:
    """Figures in percent of a run on the benchmarks, by the id of the printed one; {} where the folder holds none.

    Those of the retriever and of the checkpoint (`evaluation.systems: [checkpoint]`), as the authors' code evaluates
    them where the profile asks for that, with ours in the note. ValueError naming the record where it is malformed.
    """
    record, found = _record(records), {}
    for family, table in TABLES.items() if record else ():
        for kind, system in _systems(record, table).items():
            own = dict(_figures(record, family, kind, system))
            if own:
                columns = len(paper.tables()[table].columns)
                partial = "" if len(own) == columns else f"{len(own)} of {columns} sets"
                partial = next((one.partial for one in own.values() if one.partial), partial)
                value, n = fmean(one.value for one in own.values()), sum(one.n for one in own.values())
                own["avg"] = Measured(value=value, n=n, partial=partial)
            found |= {f"{table} / {system} / {column}": figure for column, figure in own.items()}
    return found


def page(outcomes: Mapping[str, Any], records: Path) -> str:
    """The tables that a run is about as text: printed figures, those of others, ours, verdicts, seconds and tokens.

    `outcomes`: of `verify.Report.figures`, by id. "" where the run is about none.
    """
    record, parts = _record(records), []
    for family, table in TABLES.items() if record else ():
        first, own = _systems(record, table).values()
        columns = [*paper.tables()[table].columns, "avg"]
        retriever, mine = (
            pd.DataFrame([outcomes[f"{table} / {system} / {c}"] for c in columns]) for system in (first, own)
        )
        if mine["ours"].isna().all():
            continue
        result, known = record["result"], paper.facts().reproduction
        cost, template = result["cost"][-1], result["template"]
        took = f"{cost['seconds']:.1f} s, {cost['prompt_tokens'] + cost['output_tokens']:,} tokens"
        kind = f", {template['known_as'] or 'none of the known ones'}" if "known_as" in template else ""
        shown = {"set": columns, f"{first}: paper": retriever["paper"], " ours": retriever["ours"]}
        shown |= {" verdict": retriever["verdict"], f"{own}: paper": mine["paper"]}
        if (table, own) == ("table1", SYSTEMS["reasonrank-7b"]):
            shown["others"] = paper.tables()["reproduction"].frame().loc[own].reindex(columns).to_numpy()
            took += f"; others: {known.seconds} s, {known.tokens:,} tokens, {known.source}"
        frame = pd.DataFrame(shown | {name: mine[name] for name in ("ours", "difference", "verdict")})
        forms = ["+.2f" if name == "difference" else ".2f" for name in frame]
        frame = frame.astype(object).where(frame.notna(), None)
        title = f"{paper.tables()[table].source}, {family}: printed figures and ours, NDCG@10 in %"
        text = frame.to_markdown(index=False, floatfmt=forms, missingval="-")
        about = [took, f"model: {result['model']}; template: {template['source']}{kind}"]
        about += [f"not run: {reason}" for reason in filter(None, mine["missing"])][:1]
        parts.append("\n".join([title, "", text, "", *about]))
    return "\n\n".join(parts)


def _record(records: Path) -> dict[str, Any] | None:
    """The record of notebook 05 in a run, where it is about a checkpoint on benchmarks."""
    path = records / RECORD
    record = read_json(path) if path.is_file() else {}
    try:
        about = "checkpoint" in record["config"]["evaluation"]["systems"] and record["result"]["sets"]
        return record if about else None
    except (KeyError, TypeError):
        return None  # of an earlier form, which knew no checkpoint


def _systems(record: dict[str, Any], table: str) -> dict[str, str]:
    """The rows of a printed table that a run is about: the retriever's, and the checkpoint's."""
    label, name = record["result"]["systems"][-1], record["config"]["name"]
    large = "32b" in f"{label} {name}".lower()
    first = next(row.system for row in paper.tables()[table].rows if row.kind == "retriever")
    return {"retriever": first, label: SYSTEMS["reasonrank-32b" if large else "reasonrank-7b"]}


def _figures(record: dict[str, Any], family: str, label: str, system: str) -> Iterator[tuple[str, Measured]]:
    """Column and figure of a run's system on each set of a benchmark."""
    result, settings = record["result"], record["config"]["evaluation"]
    ndcg = {row["collection"]: row["ndcg"] for row in result["scores"] if row["system"] == label}
    known = paper.load(paper.DATA / "inputs.yaml", dict[str, dict[str, Any]]) if family == "bright" else {}
    odd = [f"{key} {settings[key]}" for key, value in PROTOCOL.items() if settings[key] != value]
    for row in (row for row in result["sets"] if row["collection"].startswith(f"{family}/")):
        column, n = row["collection"].partition("/")[2], row["queries"]
        expected = known.get(column, {"queries": row["judged"], "files": {}})
        digests = {file.rpartition("/")[2]: digest for file, digest in row["inputs"].items()}
        digest = digests.get(row["first_stage"])
        reasons = {
            f"weights of {label}": label != "retriever" and SYSTEMS.get(label.lower()) != system,
            f"{n} of {expected['queries']} queries": n != expected["queries"],
            f"the first stage is {row['first_stage']}": digest is None,
            "not the published run": digest not in (None, *expected["files"].values()) and expected["files"],
            ", ".join(odd): label != "retriever" and odd,
        }
        ours, theirs = 100 * ndcg[row["collection"]], row.get("released", {}).get(label)
        note = f"as we evaluate: {ours:.2f}" if theirs is not None and label != "retriever" else ""
        value = ours if theirs is None else 100 * theirs
        partial = ", ".join(reason for reason, holds in reasons.items() if holds)
        yield column, Measured(value=value, n=n, note=note, partial=partial)
