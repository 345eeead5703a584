"""The Slurm profile: what each notebook's job asks for, and a sweep through the executor with made-up Slurm commands.

The executor is no part of the lock, so the second test is skipped where it is not installed (docs/BATCHES.md).
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from test_cli import write_notebook

HEAD = "from pathlib import Path\nstage = Path(run_dir) / '{0}'\nstage.mkdir(exist_ok=True)\n"
BODY = HEAD + "(stage / 'manifest.json').write_text('{{}}')\n"
GPU = {"gpu": 1, "cpus_per_task": 8, "mem_mb": 64000, "runtime": 300}
CPU = {"cpus_per_task": 4, "mem_mb": 16000, "runtime": 60}

# One program for all commands of Slurm: sbatch runs its job at once and keeps the call, sacct has all jobs done.
STUB = """#!{python}
import os, subprocess, sys
from pathlib import Path
name, log, words = Path(sys.argv[0]).name, Path(sys.argv[0]).with_name("log"), sys.argv[1:]
log.mkdir(exist_ok=True)
if name == "sbatch":
    number = len(list(log.iterdir())) + 1
    (log / str(number)).write_text("\\n".join(words))
    (job,) = [word.partition("=")[2] for word in words if word.startswith("--wrap=")]
    done = subprocess.run(job, shell=True, env=os.environ | {{"SLURM_JOB_ID": str(number)}}, capture_output=True)
    state = "FAILED" if done.returncode else "COMPLETED"
    (log / str(number)).write_text("\\n".join(words + [done.stdout.decode() + done.stderr.decode(), state]))
    print(number)
elif name == "srun":
    while words[0].startswith("-"):
        words.pop(0)
    os.execvp(words[0], words)
elif name == "sacct" and "--format=JobIdRaw,State" in words:
    for path in log.iterdir():
        print(path.name + "|" + path.read_text().rpartition("\\n")[2])
"""


@pytest.fixture
def project(tmp_path) -> Path:
    """Two tiny notebooks, of which the second reads the first and has a parameter to sweep."""
    write_notebook(tmp_path / "notebooks", BODY.format("01_synthesis"), name="01_synthesis")
    sft = "earlier = '01_synthesis'\nprint(epochs)\n" + BODY.format("03_sft")
    path = write_notebook(tmp_path / "notebooks", sft, name="03_sft")
    path.write_text(path.read_text().replace("alpha = 0.4", "epochs = 1"))
    return tmp_path


def snakemake(project: Path, root: Path, *words: str, path: str = "", sweep: str = "{epochs: [1, 2]}") -> str:
    command = [sys.executable, "-m", "snakemake", "-s", str(root / "Snakefile"), *words]
    command += ["--profile", str(root / "profiles" / "slurm")]
    command += ["--config", "profile=smoke", "run=mine", f"sweep={sweep}"]
    environment = os.environ | {"PATH": f"{path}{os.pathsep}{os.environ['PATH']}", "USER": "somebody"}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def asked(text: str) -> dict[str, dict[str, int]]:
    """Resources by rule, from what a dry run prints."""
    found = {}
    for name, line in re.findall(
        r"^(?:local)?rule (\w+):.*?resources: (.*?)$", text, re.MULTILINE | re.DOTALL
    ):
        pairs = dict(pair.split("=") for pair in line.split(", "))
        found[name] = {key: int(pairs[key]) for key in GPU if key in pairs}
    return found


def test_each_notebook_asks_for_what_the_profile_says(project, root):
    found = asked(snakemake(project, root, "--executor", "local", "--cores", "2", "--dry-run"))
    assert found["sft"] == GPU and found["synthesis"] == CPU


def test_a_stage_for_which_points_do_not_differ_is_run_once(project, root):
    dry = ("--executor", "local", "--cores", "2", "--dry-run")
    shown = snakemake(project, root, *dry, sweep="alpha: [0.3, 0.4], epochs: [1, 2], sft.cutoff: [512]")
    counts = dict(re.findall(r"^(\w+) +(\d+)$", shown, re.MULTILINE))
    assert (counts["synthesis"], counts["share"], counts["sft"]) == ("2", "2", "4")
    assert "alpha=0.4,epochs=2,sft.cutoff=512/03_sft" in shown


def test_a_shared_stage_waits_for_those_before_it(project, root):
    """Notebook 03 names 02 alone, but reads what 01 left too."""
    body = "earlier = '01_synthesis'\n" + BODY.format("02_filtering")
    write_notebook(project / "notebooks", body, name="02_filtering")
    sft = project / "notebooks" / "03_sft.ipynb"
    sft.write_text(sft.read_text().replace("earlier = '01_synthesis'", "earlier = '02_filtering'"))
    shown = snakemake(project, root, "--executor", "local", "--cores", "2", "--dry-run")
    ours, other = ("mine/sweep/epochs=2/{}/manifest.json".format, "mine/{}/manifest.json".format)
    needs = f"{other('02_filtering')}, {ours('01_synthesis')}"
    assert f"input: {needs}\n    output: {ours('02_filtering')}" in shown


def test_a_gpu_for_the_notebooks_that_load_a_model(root):
    profile = yaml.safe_load((root / "profiles" / "slurm" / "config.yaml").read_text())
    names = {path.stem.partition("_")[2]: path.stem[:2] for path in (root / "notebooks").glob("[0-9]*.ipynb")}
    with_gpu = {names[rule] for rule, asks in profile["set-resources"].items() if asks.get("gpu")}
    assert with_gpu == {"03", "04", "05", "06"}


@pytest.mark.slow
def test_a_sweep_through_the_executor(project, root):
    commands = project / "bin"
    commands.mkdir()
    for name in ("sbatch", "srun", "sacct", "sacctmgr", "sshare", "sinfo", "scontrol", "scancel"):
        (commands / name).write_text(STUB.format(python=sys.executable))
        (commands / name).chmod(0o755)
    quick = ("--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "5")
    snakemake(project, root, *quick, path=str(commands))
    calls = [(commands / "log" / str(n)).read_text().splitlines() for n in (1, 2, 3)]
    assert len(list((commands / "log").iterdir())) == 3  # sharing a stage is no job
    for call in calls[1:]:
        assert "--gpus=1" in call and "--cpus-per-task=8" in call
        assert call[call.index("--mem") + 1] == "64000" and call[call.index("-t") + 1] == "300"
    assert not [word for word in calls[0] if word.startswith("--gpus")]
    assert {call[-1] for call in calls} == {"COMPLETED"}
    for epochs in (1, 2):
        text = (project / f"mine/sweep/epochs={epochs}/notebooks/03_sft.ipynb").read_text()
        assert f'"{epochs}\\n"' in text
    again = snakemake(project, root, *quick, path=str(commands))
    assert "Nothing to be done" in again
