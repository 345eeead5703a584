"""Run the recipe with one part left out at a time, and compare each variant with the whole (Table 3 in small)."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import ablations, profiles, stages, synthesis
from ..ablations import STAGES, WHOLE, Variant
from . import DEADLINE
from .errors import CommandError, UsageError

RECORD = "ablations.json"


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = commands.add_parser("ablations", help="what each part of the recipe adds", description=__doc__)
    parser.add_argument("--profile", default="default", metavar="NAME", help="in profiles/, or a YAML file")
    parser.add_argument("--run-dir", required=True, type=Path, metavar="DIR", help="the batch's folder")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="default: the profile's")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="variants to run (default: all)")
    parser.add_argument(
        "--earlier", type=Path, metavar="FILE", help="record of a batch on other seeds, which are counted in"
    )
    parser.add_argument(
        "--deadline", type=float, default=DEADLINE, metavar="SECONDS", help="for one notebook (%(default).0f)"
    )
    parser.set_defaults(command=command)


def command(options: argparse.Namespace) -> None:
    """`ablations`: see `Batch`; prints a sentence on each variant that is done, and why others are not."""
    batch = Batch(options.profile, options.run_dir, options.seeds, options.deadline, options.earlier)
    chosen = _chosen(options.only)
    try:
        for seed in batch.seeds:
            batch.run_whole(seed)
            for variant in chosen:
                batch.run(variant, seed)
                batch.record()
        result = batch.record()
    except (FileNotFoundError, ValueError) as error:
        raise CommandError(str(error)) from None
    print("\n".join(ablations.lines(result)))


def _chosen(names: Sequence[str] | None) -> list[Variant]:
    known = {variant.variant: variant for variant in ablations.variants()}
    if unknown := [name for name in names or () if name not in known]:
        raise UsageError(f"--only {unknown[0]!r}: expected names of {', '.join(known)}")
    return [known[name] for name in names or known]


class Batch:
    """Runs of a profile with a part left out, each in DIR/<variant>/seed=<n>, beside DIR/whole_recipe/seed=<n>.

    A notebook is skipped where its stage is complete, was made with the same settings, and has inputs that
    are still the same. Stages before the first that differs are copied from the whole recipe's run.
    """

    def __init__(
        self,
        profile: str,
        folder: Path,
        seeds: Sequence[int] | None,
        deadline: float = DEADLINE,
        earlier: Path | None = None,
    ):
        try:
            self.base = profiles.load(profile)
        except (FileNotFoundError, ValueError) as error:
            raise UsageError(f"--profile: {error}") from None
        self.profile, self.folder, self.deadline = profile, folder.resolve(), deadline
        self.seeds = list(dict.fromkeys(seeds or [self.base.seed]))
        if wrong := [seed for seed in self.seeds if not 0 <= seed < 2**32]:
            raise UsageError(f"--seeds {wrong[0]}: expected whole numbers, 0 to {2**32 - 1}")
        try:
            self.earlier = ablations.earlier(earlier, self.base.model_dump(mode="json")) if earlier else {}
        except (FileNotFoundError, ValueError) as error:
            raise UsageError(f"--earlier: {error}") from None

    def place(self, variant: str, seed: int) -> Path:
        """The folder of a run."""
        return self.folder / variant.replace(", ", "_").replace(" ", "_") / f"seed={seed}"

    def run_whole(self, seed: int) -> None:
        """Run the whole recipe, stages 01 to 05. CommandError for a notebook that fails."""
        self._run(WHOLE, {"seed": seed}, STAGES)

    def run(self, variant: Variant, seed: int) -> None:
        """Run what a variant has of its own, after `run_whole`."""
        if variant.of:
            variant = next(other for other in ablations.variants() if other.variant == variant.of)
        if not variant.own_stages:
            return
        whole, own = self.place(WHOLE, seed), self.place(variant.variant, seed)
        if variant.datasets:
            restrict(whole, own, variant.datasets, self.base, seed)
        for stage in STAGES[1 if variant.datasets else 0 : STAGES.index(variant.own_stages[0])]:
            share(whole / stage, own / stage)
        self._run(variant.variant, self.changes(variant, seed), variant.own_stages)

    def changes(self, variant: Variant, seed: int) -> dict[str, Any]:
        """The settings of a variant: its own, the seed, and as many steps of SFT as the whole recipe took."""
        changes = {"seed": seed, **variant.changes}
        if "03_sft" in variant.own_stages:
            record = stages.stage_file(self.place(WHOLE, seed), "03_sft", "record.json")
            changes.setdefault("sft.max_steps", stages.read_json(record)["result"]["steps"])
        return changes

    def _run(self, name: str, changes: dict[str, Any], stages: Sequence[str]) -> None:
        from .run import changed_profile, run_notebook  # papermill takes seconds to import

        run_dir = self.place(name, changes["seed"])
        # no released adapters: "SFT + RL" is this run's own
        changes = {**changes, "evaluation.systems": ablations.systems(name), "evaluation.adapters": False}
        settings = changed_profile(self.profile, changes, run_dir.with_name(f"{run_dir.name}.yaml"))
        for stage in stages:
            if not finished(run_dir, stage, settings):
                run_notebook(stage, str(settings), run_dir, deadline=self.deadline)

    def record(self) -> dict[str, Any]:
        """Write DIR/ablations.json with what is done for the seeds of this batch and those of the earlier one, and
        return its result: comparisons, variants that were not run, and NDCG@10 of each query for later batches."""
        comparisons, missing = [], []
        whole = self._values(WHOLE, ablations.SYSTEM)
        values = {f"{WHOLE}: {ablations.SYSTEM}": whole}
        for variant in ablations.variants():
            other = values[f"{variant.run}: {variant.system}"] = self._values(variant.run, variant.system)
            if seeds := [seed for seed in whole if seed in other]:
                pair = ({seed: side[seed] for seed in seeds} for side in (whole, other))
                found = ablations.compare(*pair, self.base.seed, self.base.evaluation.bootstrap)
                comparisons.append({"variant": variant.variant, "paper": variant.published} | found)
            else:
                missing.append(ablations.not_run(variant))
        result = {
            "measure": "NDCG@10 in percentage points, whole recipe minus variant, average over collections",
            "comparisons": comparisons,
            "not_run": missing,
            "per_query": {name: by_seed for name, by_seed in values.items() if by_seed},
        }
        body = {"stage": "ablations", **stages.provenance(self.base, self.seeds[0]), "result": result}
        stages.write_json(self.folder / RECORD, body)
        return result

    def _values(self, run: str, system: str) -> ablations.BySeed:
        """NDCG@10 of each query by seed, of this batch and the earlier one."""
        found = dict(self.earlier.get(f"{run}: {system}", {}))
        for seed in self.seeds:
            place = self.place(run, seed)
            if finished(place, STAGES[-1], place.with_name(f"{place.name}.yaml")):
                found[seed] = ablations.per_query(place, system)
        return dict(sorted(found.items()))


def finished(run_dir: Path, stage: str, profile: Path) -> bool:
    """Whether a notebook has run to its end with this profile, on inputs that are still the same."""
    manifest = run_dir / stage / "manifest.json"
    if not all(path.is_file() for path in (manifest, run_dir / "notebooks" / f"{stage}.ipynb", profile)):
        return False
    body = stages.read_json(manifest)
    if body["config"] != profiles.load(str(profile)).model_dump(mode="json"):
        return False
    inputs = {run_dir / name: digest for name, digest in body["inputs"].items()}
    return all(path.is_file() and stages.sha256(path) == digest for path, digest in inputs.items())


def share(source: Path, target: Path) -> None:
    """Copy a complete stage of another run, whole or not at all, where it is not there already."""
    manifest, own = source / "manifest.json", target / "manifest.json"
    if own.is_file() and own.read_bytes() == manifest.read_bytes():
        return
    partial = target.with_name(f".{target.name}.partial")
    for old in (partial, target):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(source, partial)
    os.rename(partial, target)


def restrict(
    source: Path, run_dir: Path, datasets: Sequence[str], settings: profiles.Profile, seed: int
) -> None:
    """Make 01_synthesis of a run from another run's, with the examples of some collections alone.

    CommandError where none is left.
    """
    examples = stages.stage_file(source, STAGES[0], "examples.jsonl")
    made, wanted = run_dir / STAGES[0], {"datasets": list(datasets), "of": stages.sha256(examples)}
    if (made / "manifest.json").is_file():
        result = stages.read_json(made / "record.json")["result"]
        if wanted == {key: result.get(key) for key in wanted}:
            return
    kept = [example for example in synthesis.load(examples) if example.dataset in datasets]
    if not kept:
        raise CommandError(f"{examples}: no example of {', '.join(datasets)}; expected at least one")
    stage = stages.Stage(run_dir, STAGES[0], settings, seed, inputs=[examples])
    synthesis.save(stage.path(examples.name), kept)
    for name in ("id_query.json", "id_doc.json"):
        shutil.copyfile(examples.parent / name, stage.path(name))
    stage.record(wanted | {"examples": len(kept)})
    stage.finish()
