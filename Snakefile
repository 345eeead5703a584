# The notebooks as a graph. `make reproduce` calls this; by hand:
#   snakemake --cores all --config profile=default
#   snakemake --cores all --config profile=default sweep="{alpha: [0.3, 0.4], epochs: [1, 2]}"
# profile: a name in profiles/. run: its folder, else runs/<profile>. sweep: lists of values by parameter, as
# YAML or as a YAML file; each combination gets a folder of its own, runs/<profile>/sweep/alpha=0.3,epochs=1,
# which takes the stages before the first swept parameter from the profile's own run. `seed` is a parameter of
# every notebook: a sweep over it runs all of them anew. deadline: seconds for one notebook.
#
# Each notebook is a rule of its own, named as the notebook without its number (sft, rl, gpu_evaluation), so that a
# cluster's resources can be set for each: see profiles/slurm and docs/BATCHES.md.
#
# A notebook is run again when its code, a parameter, the profile, a module it imports or an earlier stage has
# changed; its outputs and the files' dates do not count. To keep results although code has changed, add
# `--rerun-triggers mtime`.
import json
import logging
import re
import shlex
import sys
from itertools import product
from pathlib import Path

import yaml

from reasonrank import profiles, sweeps
from reasonrank.cli import inputs, run

if workflow.output_settings.quiet:  # the runner's lines say enough
    logger.addFilter(lambda entry: entry.levelno >= logging.WARNING or "Nothing to be done" in entry.getMessage())

PROFILE = config.get("profile", "default")
RUN = str(config.get("run") or f"runs/{profiles.load(PROFILE).name}")
DEADLINE = config.get("deadline", run.DEADLINE)
NOTEBOOKS = {path.stem: path for path in sorted(Path("notebooks").glob("[0-9][0-9]_*.ipynb"))}
NEEDS = {name: inputs.stages(path) for name, path in NOTEBOOKS.items()}


def swept() -> dict[str, list]:
    """The lists of the sweep by parameter."""
    given = config.get("sweep") or {}
    if isinstance(given, str):
        given = yaml.safe_load(Path(given).read_text() if given.endswith((".yaml", ".yml")) else given)
    if not (isinstance(given, dict) and all(isinstance(values, list) for values in given.values())):
        raise SystemExit(f"sweep: expected lists of values by parameter, as 'alpha: [0.3, 0.4]'; got {given!r}")
    unknown = [key for key in given if not any(key in have for have in parameters.values())]
    if unknown:
        known = sorted({key for have in parameters.values() for key in have} - {"profile", "run_dir"})
        raise SystemExit(f"sweep: no notebook has a parameter {unknown[0]!r}; they have {', '.join(known)}")
    return given


parameters = {name: [*run.notebook_parameters(path), "seed"] for name, path in NOTEBOOKS.items()}
SWEEP = swept()
STARTS = [name for name in NOTEBOOKS if set(SWEEP) & set(parameters[name])]
OWN = [name for name in NOTEBOOKS if STARTS and name >= STARTS[0]]  # stages of a point; earlier ones are shared
SHARED = [name for name in NOTEBOOKS if STARTS and name < STARTS[0]]
POINTS = {
    f"{RUN}/sweep/{sweeps.point_name(dict(zip(SWEEP, values)))}": dict(zip(SWEEP, values))
    for values in product(*SWEEP.values())
    if SWEEP
}


def options(wildcards) -> str:
    """Parameters of a notebook at a point of the sweep, as arguments."""
    point = POINTS.get(wildcards.run, {}).items()
    pairs = [(key, value) for key, value in point if key in parameters[wildcards.stage]]
    texts = [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in pairs]
    return " ".join(f"-p {shlex.quote(text)}" for text in texts)


wildcard_constraints:
    stage="|".join(NOTEBOOKS),


rule all:
    input:
        [f"{folder}/notebooks/{name}.ipynb" for folder in POINTS for name in OWN]
        or [f"{RUN}/notebooks/{name}.ipynb" for name in NOTEBOOKS],


for NAME in NOTEBOOKS:

    rule:
        name:
            NAME.partition("_")[2]
        input:
            lambda w: [f"{w.run}/{name}/manifest.json" for name in NEEDS[w.stage]],
        output:
            "{run}/{stage}/manifest.json",
            "{run}/notebooks/{stage}.ipynb",
        wildcard_constraints:
            run="|".join(map(re.escape, [RUN] if NAME in SHARED else [RUN, *POINTS])),
            stage=NAME,
        params:
            notebook=lambda w: NOTEBOOKS[w.stage],
            fingerprint=lambda w: inputs.fingerprint(NOTEBOOKS[w.stage], PROFILE),
            options=options,
        threads: workflow.resource_settings.cores or 1  # one at a time: each uses the whole machine
        shell:
            "{sys.executable:q} -m reasonrank run {params.notebook:q} --profile {PROFILE:q} --run-dir {wildcards.run:q}"
            " --deadline {DEADLINE} {params.options}"


if SHARED:

    rule share:
        localrule: True
        input:
            RUN + "/{stage}/manifest.json",
        output:
            "{point}/{stage}/manifest.json",
        wildcard_constraints:
            point="|".join(map(re.escape, POINTS)),
            stage="|".join(SHARED),
        shell:
            "rm -rf {wildcards.point:q}/{wildcards.stage} && "
            "cp -Rp {RUN:q}/{wildcards.stage} {wildcards.point:q}/{wildcards.stage}"
