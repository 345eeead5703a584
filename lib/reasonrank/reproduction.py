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
            found |= {f"{table} / {system} / {column}": figure for column, figure in own.items()}
            columns = paper.tables()[table].columns
            if own:
                partial = "" if len(own) == len(columns) else f"{len(own)} of {len(columns)} sets"
                partial = next((one.partial for one in own.values() if one.partial), partial)
                value, n = fmean(one.value for one in own.values()), sum(one.n or 0 for one in own.values())
                found[f"{table} / {system} / avg"] = Measured(value=value, n=n, partial=partial)
    return found


def page(outcomes: Mapping[str, Any], records: Path) -> str:
    """The tables that a run is about as text: printed figures, those of others, ours, verdicts, seconds and tokens.

    `outcomes`: of `verify.Report.figures`, by id. "" where the run is about none.
    """
    record, parts = _record(records), []
    for family, table in TABLES.items() if record else ():
        frame = _frame(outcomes, record, table)
        if frame["ours"][:-2].ne("-").any():
            reason = next(iter(filter(None, frame.pop("missing"))), "")
            title = f"{paper.tables()[table].source}, {family}: printed figures and ours, NDCG@10 in %"
            about = [f"others: {paper.facts().reproduction.source}"] if "others" in frame else []
            about += [f"model: {record['result']['model']}; template: {_template(record)}"]
            about += [f"not run: {reason}"] if reason else []
            text = frame.to_markdown(index=False, disable_numparse=True)
            parts.append("\n".join([title, "", text, "", *about]))
    return "\n\n".join(parts)


def _frame(outcomes: Mapping[str, Any], record: dict[str, Any], table: str) -> pd.DataFrame:
    """A line a set, the average, seconds and tokens; with what is missing, which a page takes out."""
    retriever, own = _systems(record, table).values()
    same = (table, own) == ("table1", "ReasonRank (7B)")
    theirs = paper.tables()["reproduction"].rows[0] if same else None
    columns, rows = paper.tables()[table].columns, []
    values = dict(zip(columns, theirs.values, strict=True)) | {"avg": theirs.avg} if theirs else {}
    for column in (*columns, "avg"):
        first, o = (outcomes[f"{table} / {system} / {column}"] for system in (retriever, own))
        cells = {
            key: f"{v:.2f}" if v is not None else "-" for key, v in (("first", first.ours), ("own", o.ours))
        }
        row = {"set": column, f"{retriever}: paper": f"{first.paper:.2f}", " ours": cells["first"]}
        row |= {" verdict": first.verdict, f"{own}: paper": f"{o.paper:.2f}"}
        row |= {"others": f"{values[column]:.2f}"} if values else {}
        gap = "-" if o.difference is None else f"{o.difference:+.2f}"
        rows.append(
            row | {"ours": cells["own"], "difference": gap, "verdict": o.verdict, "missing": o.missing}
        )
    cost = record["result"]["cost"][-1]
    tokens, known = cost["prompt_tokens"] + cost["output_tokens"], vars(paper.facts().reproduction)
    for what, value in (("seconds", f"{cost['seconds']:.1f}"), ("tokens", f"{tokens:,}")):
        others = {"others": f"{known[what]:,}"} if "others" in rows[0] else {}
        rows.append({"set": what, "ours": value} | others)
    return pd.DataFrame(rows).fillna("")


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
        digest = next(
            (d for file, d in row["inputs"].items() if file.endswith(f"/{row['first_stage']}")), None
        )
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


def _template(record: dict[str, Any]) -> str:
    own = record["result"]["template"]
    return (
        f"{own['source']}, {own['known_as'] or 'none of the known ones'}"
        if "known_as" in own
        else own["source"]
    )
