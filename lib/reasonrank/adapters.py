"""Released adapters: the LoRA weights of a run in bfloat16, small enough to lie in the repository.

SFT leaves an adapter on the base model; RL leaves one on SFT's result. `stack` puts both into one adapter on
the base model, exactly: the sum of two low-rank updates is one of the ranks' sum.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelCardData
from safetensors.torch import load_file, save_file

from . import stages
from .evaluation import this_run
from .models import adapter_settings, check_files, save_merged
from .settings import Model, Sft
from .training import Trained

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
LIMIT = 12_000_000  # bytes of an adapter in the repository
ADAPTERS = stages.ROOT / "data" / "adapters"
NAMES = {"sft": "SFT", "sft-rl": "SFT + RL"}  # folder -> system, as notebook 05 calls it
STAGES = {"SFT": "03_sft", "RL": "04_rl"}


def released(base: str, profile: str, folder: Path = ADAPTERS) -> dict[str, Path]:
    """System ("SFT", "SFT + RL") -> folder of its adapter that `profile` trained from the base model of that name.

    Empty for another base model. Raises ValueError for a profile of which none is released, and for an adapter whose
    weights are not those that its record names.
    """
    if not (folder / profile).is_dir():
        there = ", ".join(sorted(path.name for path in folder.glob("*")))
        raise ValueError(f"no adapters of {profile!r} in {folder.name}/; there are those of {there}")
    found = {}
    for record in sorted((folder / profile).glob("*/record.json")):
        result, path = stages.read_json(record)["result"], record.parent
        if path.name in NAMES and result["base"] == base:
            check_files(path)
            if stages.sha256(path / WEIGHTS) != result["sha256"]:
                wrong = f"{profile}/{path.name}/{WEIGHTS}"
                raise ValueError(f"{wrong}: its SHA-256 is not the one in record.json")
            found[NAMES[path.name]] = path
    return found


def curves(base: str, profile: str | None, folder: Path = ADAPTERS) -> dict[str, dict[str, Any]]:
    """Stage ("03_sft", "04_rl") -> how the training of the released adapters went: rows of `loss`, `parts` and `dev`
    by step; empty without a profile."""
    paths = released(base, profile, folder).values() if profile else []
    records = [stages.read_json(path / "record.json") for path in paths]
    return {stage: curve for record in records for stage, curve in record["result"]["curves"].items()}


def adopt(name: str, model: Model, out: Path, folder: Path = ADAPTERS) -> Trained:
    """Take a released adapter, as "full/sft", for what a training would have left: `out/adapter`, `out/model` (merged).

    Returns how its own training went; `seconds` is 0, as nothing is trained. Raises ValueError for another name, and
    where none is released for the model.
    """
    profile, _, kind = name.partition("/")
    path = released(model.name, profile, folder).get(NAMES["sft"])
    if kind != "sft" or path is None:
        raise ValueError(
            f"adapter {name!r}: expected as 'full/sft', released for {model.name} in {folder.name}/"
        )
    others = shutil.ignore_patterns("README.md", "record.json")
    shutil.copytree(path, out / "adapter", ignore=others, dirs_exist_ok=True)
    save_merged(model.name, path, model.dtype, out / "model")
    curve = stages.read_json(path / "record.json")["result"]["curves"][STAGES["SFT"]]
    return Trained(int(curve["loss"][-1]["step"]), 0.0, curve["loss"], dev=curve.get("dev", []))


def settings_of(name: str, folder: Path = ADAPTERS) -> Sft:
    """What a released adapter was trained with, by its record; FileNotFoundError where there is none."""
    return Sft.model_validate(stages.read_json(folder / name / "record.json")["config"]["sft"])


def stack(adapters: Sequence[Path]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Adapters, each trained on the result of the one before, as one: its weights (bfloat16) and its settings.

    Scales (alpha / rank) go into the B matrices, so the result has a scale of 1. Raises ValueError where the
    adapters do not change the same matrices.
    """
    weights = [load_file(path / WEIGHTS) for path in adapters]
    own = [adapter_settings(path) for path in adapters]
    for path, found in zip(adapters, weights, strict=True):
        if odd := found.keys() ^ weights[0].keys():
            raise ValueError(f"{path}: adapters change different matrices, such as {min(odd)}")
    scales, joined = [each["lora_alpha"] / each["r"] for each in own], {}
    for key in weights[0]:
        down = "lora_A" in key
        parts = [found[key].float() * (1 if down else s) for found, s in zip(weights, scales, strict=True)]
        joined[key] = torch.cat(parts, dim=0 if down else 1).to(torch.bfloat16).contiguous()
    rank = sum(each["r"] for each in own)
    return joined, own[0] | {"r": rank, "lora_alpha": rank, "base_model_name_or_path": None}


def write(out: Path, adapters: Sequence[Path], result: Mapping[str, Any], source: Mapping[str, Any]) -> Path:
    """Write one released adapter: weights, PEFT's settings, a card, and record.json last.

    `result`: what card and record say of it (base model, scores, training); `source`: the record of the run's
    evaluation, whose provenance is kept. Raises ValueError for weights of more than 12 MB.
    """
    weights, config = stack(adapters)
    if (size := sum(value.nbytes for value in weights.values())) > LIMIT:
        raise ValueError(f"{out.name}: {size / 1e6:.1f} MB, more than {LIMIT / 1e6:.0f}; lower the rank")
    out.mkdir(parents=True, exist_ok=True)
    (out / "record.json").unlink(missing_ok=True)
    save_file(weights, out / WEIGHTS, metadata={"format": "pt"})
    stages.write_json(out / CONFIG, dict(sorted(config.items())))
    kept = {key: source[key] for key in ("config", "seed", "versions", "commit", "hardware", "created")}
    record = {"stage": "release", **kept, "result": {**result, "sha256": stages.sha256(out / WEIGHTS)}}
    stages.write_text(out / "README.md", card(out.name, config["r"], record))
    stages.write_json(out / "record.json", record)
    return out


CARD = """\
---
{{ card_data }}
---
# {{ system }} adapter

A LoRA adapter (rank {{ rank }}, bfloat16, PEFT format) that makes {{ result.base }} a \
{% if config.evaluation.strategy == "pointwise" %}pointwise passage reranker: it reasons, then says whether a passage \
helps{% else %}listwise passage reranker: it reasons, then ranks a window of passages{% endif %}. Made with this \
repository's `{{ config.name }}` profile.

| NDCG@10 in percent, test queries | retriever | this adapter |
|---|---|---|
{%- for row in result.test %}
| {{ row.collection }} (n = {{ row.n }}){% for cell in (row.retriever, row.ours) %} | {{ "%.1f [%.1f, %.1f]" | \
format(100 * cell.ndcg, 100 * cell.low, 100 * cell.high) }}{% endfor %} |
{%- endfor %}

95 % intervals by bootstrap over queries. On average {{ "%+.1f" | format(result.difference) }} points, paired \
randomisation test p {{ "< 0.001" if result.p_value < 0.001 else "= %.3f" | format(result.p_value) }}.
{% for stage, said in result.training.items() %}
- {{ stage }}: {{ said }}
{%- endfor %}
- seed {{ seed }}, commit {{ commit }}, {{ created[:10] }}

Licence: Apache-2.0, as the base model. Limits: trained on {{ config.collections | join(", ") }} \
alone; passages are cut to {{ config.prompting.passage_tokens }} tokens. \
A study of the method in small, and no product.
"""


def card(name: str, rank: int, record: Mapping[str, Any]) -> str:
    """The model card (Markdown) of the adapter in the folder `name`, from its record.json."""
    data = ModelCardData(base_model=record["result"]["base"], library_name="peft", license="apache-2.0")
    made = ModelCard.from_template(data, template_str=CARD, system=NAMES.get(name, name), rank=rank, **record)
    return str(made).rstrip() + "\n"


def from_run(run: Path, out: Path | None = None) -> list[Path]:
    """Release the adapters that notebook 05 of a run has evaluated into `out`; None: data/adapters/<its profile>.

    "SFT" stays as it is where the run took it over (`adopt`); what is said of its training then comes from its own
    record. Raises FileNotFoundError where a stage is missing or was trained without LoRA, and ValueError where the
    adapter that the run took over is not the one in `out`, or notebook 05 has evaluated none that the run trained.
    """
    read = lambda stage: stages.read_json(stages.stage_file(run, stage, "record.json"))  # noqa: E731
    evaluated = read("05_gpu_evaluation")
    scores = evaluated["result"]["scores"]
    scored = {row["system"] for row in scores}
    kinds = {name: system.split(" + ") for name, system in NAMES.items() if this_run(system) in scored}
    if not kinds:
        raise ValueError(
            f"{run}: notebook 05 has evaluated {', '.join(sorted(scored))}; expected SFT (this run)"
        )
    made = {name: read(STAGES[name])["result"] for used in kinds.values() for name in used}
    places = [stages.stage_file(run, STAGES[name], "adapter") for name in made]
    out = out or ADAPTERS / evaluated["config"]["name"]
    lines, written = {name: _training(result) for name, result in made.items()}, []
    if made["SFT"].get("adopted") and kinds.pop("sft", None):
        earlier = stages.read_json(out / "sft" / "record.json")
        if earlier["result"]["sha256"] != stages.sha256(places[0] / WEIGHTS):
            raise ValueError(f"sft/{WEIGHTS}: not the weights that this run started from; expected the same")
        said = earlier["result"]["training"]["SFT"]
        lines["SFT"] = f"{said}; taken over from commit {earlier['commit']}"
    for name, used in kinds.items():
        kept = [{k: made[s][k] for k in ("loss", "parts", "dev") if made[s].get(k)} for s in used]
        result = {
            "base": evaluated["result"]["model"],
            **_scores(scores, this_run(NAMES[name])),
            "training": {stage: lines[stage] for stage in used},
            "curves": {STAGES[stage]: curve for stage, curve in zip(used, kept, strict=True)},
        }
        written.append(write(out / name, places[: len(used)], result, evaluated))
    return written


def _scores(scores: Sequence[Mapping[str, Any]], system: str) -> dict[str, Any]:
    """Test scores of a system and of the retriever, by collection."""
    ours, base = (
        {row["collection"]: row for row in scores if row["system"] == s} for s in (system, "retriever")
    )
    cells = lambda row: {key: row[key] for key in ("ndcg", "low", "high")}  # noqa: E731
    rows = [(name, row["n"], cells(row), cells(base[name])) for name, row in ours.items()]
    return {
        "system": system,
        "test": [dict(zip(("collection", "n", "ours", "retriever"), row, strict=True)) for row in rows],
        "difference": 100 * ours["average"]["difference"],
        "p_value": ours["average"]["p_value"],
    }


def _training(result: Mapping[str, Any]) -> str:
    """A stage's training in a line: how long it was, and its best score on dev queries."""
    said = f"{result['steps']} steps, {result['seconds'] / 60:.0f} minutes"
    if not result.get("dev"):
        return said
    best = max(result["dev"], key=lambda row: row["ndcg"])
    score = f"NDCG@10 {100 * best['ndcg']:.1f}, first window, n = {best['n']}"
    return f"{said}; best on dev at step {best['step']} ({score})"
