# The notebooks as a graph. `make reproduce` calls this; by hand:
#   snakemake --cores all --config profile=default
#   snakemake --cores all --config profile=default sweep="{alpha: [0.3, 0.4], epochs: [1, 2]}"
# profile: a name in profiles/; its `stages` are the notebooks that are run. run: its folder, else runs/<profile>.
# data: the profile's data.folder. deadline: seconds for one notebook. together: notebooks at a time (1), for a GPU
# with room for several small models. sweep: lists of values, as YAML or as a YAML file, by parameter of a notebook or
# by dotted setting of a profile (sft.epochs).
# `variant` takes names of data/ablations.yaml, or `all`. Each combination is a point with a folder of its own,
# runs/<profile>/sweep/alpha=0.3,epochs=1. A stage for which two points do not differ yet is run once and copied.
#
# Each notebook is a rule of its own, named as the notebook without its number (sft, rl, gpu_evaluation), so that a
# cluster's resources can be set for each: see profiles/slurm and docs/BATCHES.md.
#
# A notebook is run again when its code, a parameter, the profile, a module it imports or an earlier stage has
# changed; its outputs and the files' dates do not count. To keep results although code has changed, add
# `--rerun-triggers mtime`.
import atexit
import json
import logging
import re
import shlex
import sys
from contextlib import nullcontext
from itertools import product
from pathlib import Path

import yaml

from reasonrank import ablations, profiles, stages, sweeps
from reasonrank.cli import DEADLINE, fingerprint, run
from reasonrank.cli.parameters import UsageError, read_parameters

if workflow.output_settings.quiet:  # the runner's lines say enough
    logger.addFilter(lambda entry: entry.levelno >= logging.WARNING or "Nothing to be done" in entry.getMessage())

PROFILE = config.get("profile", "default")
RUN = str(config.get("run") or f"runs/{profiles.load(PROFILE).name}")
# Snakemake's lock outlives a kill; with --nolock, as `make reproduce` has it, one takes its place that does not.
LOCK = stages.alone(Path(RUN, ".lock")) if workflow.is_main_process and "--nolock" in sys.argv else nullcontext()
LOCK.__enter__()
atexit.register(LOCK.__exit__, None, None, None)
ON_GPUS = profiles.load(PROFILE).hardware.gpus > 0  # whose models take longer than those for a laptop
SECONDS = config.get("deadline", DEADLINE * (24 if ON_GPUS else 1))
THREADS = max(1, (workflow.resource_settings.cores or 1) // int(config.get("together", 1)))  # of a notebook
WANTED = profiles.load(PROFILE).stages
KNOWN = sorted(path.stem for path in Path(workflow.basedir, "notebooks").glob("[0-9][0-9]_*.ipynb"))
if unknown := [name for name in WANTED if name not in KNOWN]:
    raise SystemExit(f"{PROFILE}: stages: no notebook {unknown[0]!r}; there are {', '.join(KNOWN)}")
FOUND = sorted(Path("notebooks").glob("[0-9][0-9]_*.ipynb"))
NOTEBOOKS = {path.stem: path for path in FOUND if path.stem in WANTED or path.stem not in KNOWN}
NEEDS = {name: [n for n in fingerprint.stages(path) if n in NOTEBOOKS] for name, path in NOTEBOOKS.items()}
PARAMETERS = {name: run.notebook_parameters(run.read_notebook(path)) for name, path in NOTEBOOKS.items()}
# the first stage that a setting acts on, by section; others act on all stages
FIRST = {"synthesis": "01", "filtering": "02", "prompting": "03", "model": "03", "sft": "03", "rl": "04"}
FIRST |= {"evaluation": "05", "latency": "06"}


def swept() -> dict[str, list]:
    """The lists of the sweep by parameter."""
    given = config.get("sweep") or {}
    if isinstance(given, str):
        is_file = given.endswith((".yaml", ".yml"))
        given = yaml.safe_load(Path(given).read_text() if is_file else f"{{{given.strip('{}')}}}")
    if isinstance(given, dict) and "variant" in given:
        given["variant"] = list(ablations.changes(given["variant"]))
    if not (isinstance(given, dict) and all(isinstance(values, list) for values in given.values())):
        raise ValueError(f"expected lists of values by parameter, as 'alpha: [0.3, 0.4]'; got {given!r}")
    known = sorted({key for have in PARAMETERS.values() for key in have} - {"profile", "run_dir"})
    if unknown := [key for key in given if key not in (*known, "variant") and "." not in key]:
        raise ValueError(f"no notebook has a parameter {unknown[0]!r}; they have {', '.join(known)}")
    return given


def overrides(values: dict) -> dict:
    """What a point changes: its values, with the settings of its variant in place of the variant's name."""
    found = {key: value for key, value in values.items() if key != "variant"}
    if "variant" in values:
        found |= ablations.changes([values["variant"]])[values["variant"]]
    profiles.load(PROFILE, read_parameters(arguments({key: found[key] for key in found if "." in key})))
    return found


def arguments(values: dict) -> list[str]:
    """Values as the words "key=value" of a command."""
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items()]


def acting(folder: str, stage: str) -> dict:
    """What a point changes by a stage, that one included."""
    having = {key: name for name in reversed(NOTEBOOKS) for key in PARAMETERS[name]}
    first = {key: FIRST.get(key.partition(".")[0], having.get(key, "")) for key in POINTS[folder]}
    return {key: value for key, value in POINTS[folder].items() if first[key] <= stage}


def owner(folder: str, stage: str) -> str:
    """The first point, or the profile's own run, that does not differ from a point by that stage."""
    return next(other for other in POINTS if acting(other, stage) == acting(folder, stage))


try:
    SWEEP = swept()
    SWEPT = [dict(zip(SWEEP, values)) for values in product(*SWEEP.values()) if SWEEP]
    POINTS = {RUN: {}} | {f"{RUN}/sweep/{sweeps.point_name(values)}": overrides(values) for values in SWEPT}
except (OSError, UsageError, ValueError, yaml.YAMLError) as error:
    raise SystemExit(f"sweep: {error}")
OWN = {name: [folder for folder in POINTS if owner(folder, name) == folder] for name in NOTEBOOKS}
STAGES = [(folder, name) for folder in POINTS for name in NOTEBOOKS]
SHARED = {f"{at}/{name}": f"{owner(at, name)}/{name}" for at, name in STAGES if at not in OWN[name]}
LAST = "05_gpu_evaluation" if "variant" in SWEEP else "99"  # comparisons of variants need no figures


def options(wildcards) -> str:
    """Parameters of a notebook at a point of the sweep, as arguments."""
    pairs = acting(wildcards.run, wildcards.stage).items()
    own = {key: value for key, value in pairs if "." in key or key in PARAMETERS[wildcards.stage]}
    own |= {"data.folder": str(Path(config["data"]).resolve())} if config.get("data") else {}
    return " ".join(f"-p {shlex.quote(word)}" for word in arguments(own))


rule all:
    input:
        [f"{at}/{name}/manifest.json" for at, name in STAGES if name <= LAST and (at != RUN or not SWEEP)],


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
            run="|".join(map(re.escape, OWN[NAME])),
            stage=NAME,
        params:
            notebook=lambda w: NOTEBOOKS[w.stage],
            fingerprint=lambda w: fingerprint.fingerprint(NOTEBOOKS[w.stage], PROFILE),
            options=options,
        threads: THREADS
        shell:
            "{sys.executable:q} -m reasonrank run {params.notebook:q} --profile {PROFILE:q} --run-dir {wildcards.run:q}"
            " --deadline {SECONDS} --fingerprint {params.fingerprint} {params.options}"


if SHARED:

    rule share:
        localrule: True
        input:
            lambda w: f"{SHARED[w.stage]}/manifest.json",
            # so that all earlier stages are there when the next one of this point begins
            lambda w: [f"{w.stage.rpartition('/')[0]}/{name}/manifest.json" for name in NEEDS[w.stage.rpartition("/")[2]]],
        output:
            "{stage}/manifest.json",
        wildcard_constraints:
            stage="|".join(map(re.escape, SHARED)),
        params:
            of=lambda w: SHARED[w.stage],
        shell:
            "rm -rf {wildcards.stage:q} && cp -Rp {params.of:q} {wildcards.stage:q}"
