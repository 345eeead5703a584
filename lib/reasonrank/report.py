"""What a run came to, in tables: scores with their intervals, and the paper's claims with our figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict

from .evaluation import score_frame
from .paper import Claim, Verdict, claims, facts, verdict


class Checked(BaseModel):
    """A claim with our figure beside it. `ours` is empty where nothing was measured."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    claim: Claim
    ours: str
    verdict: Verdict


def ablations_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """What each part of the recipe adds: `comparisons` of the record of `python -m reasonrank ablations`.

    NDCG@10 in percent and differences in percentage points, the whole recipe minus the variant.
    """
    frame = pd.DataFrame(
        {
            "variant": row["variant"],
            "n": row["n"],
            "whole recipe": f"{row['whole_ndcg']:.1f}",
            "this variant": f"{row['variant_ndcg']:.1f}",
            "difference": f"{row['value']:+.1f} [{row['low']:+.1f}, {row['high']:+.1f}]",
            "by seed": ", ".join(f"{value:+.1f}" for value in row["by_seed"]),
            "paper": f"{row['paper']:+.1f}",
        }
        for row in rows
    )
    return frame.set_index("variant") if len(frame) else frame


def check_claims(results: Mapping[str, Mapping[str, Any]]) -> list[Checked]:
    """C1 to C7 with what a small run can say. `results`: stage name to the `result` of its record.

    Only C7 needs no model and gets a verdict. A small run says something about C3 and C4, shown in `ours`,
    but it is not the paper's setting: these, and all others, stay "not run".
    """
    worked, status = _worked_example()
    ours = {
        "C3": _training(results.get("05_gpu_evaluation")),
        "C4": _speed(results.get("06_latency_study")),
        "C7": worked,
    }
    return [
        Checked(claim=c, ours=ours.get(c.id, ""), verdict=status if c.id == "C7" else "not run")
        for c in claims()
    ]


def claims_frame(checked: Sequence[Checked]) -> pd.DataFrame:
    """The claims as a table: claim, the paper's figure, ours, verdict, and what a full check needs."""
    rows = [
        {
            "id": item.claim.id,
            "claim": item.claim.text,
            "paper": item.claim.paper,
            "ours": item.ours or "-",
            "verdict": item.verdict,
            "needs": item.claim.needs,
        }
        for item in checked
    ]
    return pd.DataFrame(rows).set_index("id")


def _worked_example() -> tuple[str, Verdict]:
    """Our figures for section 4.2, and the worst verdict of the two."""
    example = facts().worked_example
    ours = [case.ndcg(example.window) for case in example.cases]
    found = [verdict(o, c.ndcg_at_10, tolerance=0.005) for o, c in zip(ours, example.cases, strict=True)]
    worst = max(found, key=("OK", "OKish", "FAIL").index)
    return "NDCG@10 " + " and ".join(f"{value:.2f}" for value in ours), worst


def _training(result: Mapping[str, Any] | None) -> str:
    if result is None:
        return ""
    average = [row for row in result["scores"] if row["collection"] == "average"]
    parts = [f"{row['system']} {100 * row['ndcg']:.1f}" for row in average]
    return f"small run, NDCG@10 in %: {', '.join(parts)}" if parts else ""


def _speed(result: Mapping[str, Any] | None) -> str:
    if result is None:
        return ""
    ratio = result["ratio"]
    return f"small run: {ratio['value']:.1f} times ({ratio['low']:.1f} to {ratio['high']:.1f}, 95 %)"


def results_markdown(
    profile: str, records: Mapping[str, Mapping[str, Any]], figures: Mapping[str, str] | None = None
) -> str:
    """A page with the scores, the claims, the figures and where the numbers are from.

    `records`: stage name to its whole record; 05 is needed. `figures`: file name beside the page to caption.
    """
    results = {stage: record["result"] for stage, record in records.items()}
    source = records["05_gpu_evaluation"]
    parts = [
        f"# Results of profile {profile}",
        "NDCG@10 in percent with 95 % intervals (bootstrap over queries); n = test queries.",
        score_frame(results["05_gpu_evaluation"]["scores"]).to_markdown(),
        "## Claims of the paper",
        claims_frame(check_claims(results)).to_markdown(),
        *(f"![{caption}]({name})" for name, caption in (figures or {}).items()),
        f"Commit {source['commit']}, seed {source['seed']}, {source['created']}.",
    ]
    return "\n\n".join(parts) + "\n"
