"""The project's own files: notebooks fit for committing, pins that agree, profiles that load."""

import re
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement

from reasonrank import stages
from reasonrank.cli import fingerprint as inputs
from tools.clean import machine_path

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
HOSTS = re.compile(r"files\.pythonhosted|pypi\.|simple/|artifactory|nexus[./]", re.IGNORECASE)
SECRETS = re.compile(r"\b(hf_[A-Za-z]{30,}|sk-[A-Za-z0-9]{20,}|gh[po]_[A-Za-z0-9]{30,})")


def test_there_are_eight_notebooks_and_each_reads_the_stages_before_it():
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{i:02d}" for i in range(8)]
    needs = {path.stem: inputs.stages(path) for path in NOTEBOOKS}
    assert needs["00_overview"] == needs["01_synthesis"] == []
    assert "01_synthesis" in needs["02_filtering"] and "02_filtering" in needs["03_sft"]
    assert {"04_rl", "05_gpu_evaluation", "06_latency_study"} <= set(needs["07_figures"])


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_fit_for_committing(notebook):
    content = nbformat.read(notebook, as_version=4)
    nbformat.validate(content)
    tagged = [cell for cell in content.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1 and tagged[0].source.startswith('profile = ""')
    assert content.metadata.kernelspec.name == "python3"
    assert set(content.metadata) <= {"kernelspec", "language_info"}
    assert len({cell.id for cell in content.cells}) == len(content.cells)
    for cell in content.cells:
        assert not {"papermill", "execution"} & set(cell.metadata)
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= 25, cell.source
            assert not [output for output in cell.outputs if output.output_type == "error"]
    assert notebook.stat().st_size < 10**6
    assert f'"{notebook.stem}"' in inputs.notebook_code(notebook)


def tracked() -> list[Path]:
    """Text files of the project; without git, those in its folders."""
    folders = ("lib", "tools", "tests", "notebooks", "profiles", "requirements", "data", ".ci")
    inside = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    kinds = {".py", ".ipynb", ".yaml", ".yml", ".txt", ".sh", ".md", ".json", ".jsonl", ".cfg", ".toml", ""}
    top = [path for path in ROOT.iterdir() if path.is_file() and path.name != ".git"]
    return [path for path in [*inside, *top] if path.suffix in kinds and "__pycache__" not in path.parts]


def test_no_path_host_or_secret():
    own = {Path(__file__), Path(__file__).with_name("test_publish.py")}  # they name what is looked for
    for path in set(tracked()) - own:
        text = path.read_text(encoding="utf-8")
        for found in (machine_path(text), HOSTS.search(text), SECRETS.search(text)):
            assert not found, f"{path.relative_to(ROOT)}: {found}"


def pins(lines: list[str]) -> dict[str, str]:
    """Package to the version after ==."""
    matches = (re.match(r"([\w.\-]+)==([\w.+]+)", line) for line in lines)
    return {match[1].lower(): match[2] for match in matches if match}


def locked(kind: str) -> dict[str, str]:
    return pins((ROOT / "requirements" / f"{kind}.txt").read_text().splitlines())


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize(("file", "kind"), [("environment.yml", "cpu"), ("environment-gpu.yml", "gpu")])
def test_conda_environments_have_the_pins_of_the_locks(file, kind):
    dependencies = yaml.safe_load((ROOT / file).read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in dependencies if isinstance(entry, dict)]
    extras = project()["optional-dependencies"]
    direct = [*project()["dependencies"], *extras[kind], *extras["dev"]]
    names = [Requirement(text).name.lower() for text in direct]
    assert pins(pip) == {name: locked(kind)[name] for name in names}
    assert pip[0] == f"-c requirements/{kind}.txt" and pip[-1] == "-e ."
    assert ("--extra-index-url https://download.pytorch.org/whl/cpu" in pip) == (kind == "cpu")


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_locks_hold_what_pyproject_asks_for_once(kind):
    lines = (ROOT / "requirements" / f"{kind}.txt").read_text().splitlines()
    assert len(lines) == len(set(lines))
    asked = [*project()["dependencies"], *project()["optional-dependencies"][kind]]
    for requirement in map(Requirement, asked):
        version = locked(kind)[requirement.name.lower()]
        assert requirement.specifier.contains(version), f"{requirement} in requirements/{kind}.txt: {version}"
    left_out = ("torchvision", "torchaudio", "torchcodec", "nvidia-", "llama-cpp-python")
    assert kind == "gpu" or not [name for name in locked(kind) if name.startswith(left_out)]


def test_fingerprint_sees_code_and_settings_but_no_outputs(tmp_path):
    code = "from reasonrank import metrics\nfrom reasonrank.rerank import listwise\nimport numpy"
    found = inputs.modules(code)
    assert found.keys() >= {
        "reasonrank",
        "reasonrank.metrics",
        "reasonrank.rerank",
        "reasonrank.rerank.listwise",
    }
    assert "reasonrank.training" not in found and "numpy" not in found
    assert found["reasonrank.metrics"] == ROOT / "lib" / "reasonrank" / "metrics.py"
    assert "reasonrank.stages" in inputs.modules("from reasonrank import profiles")  # by a relative import

    def fingerprint(source: str, output: str, profile: str = "smoke") -> str:
        text = nbformat.v4.new_output("stream", text=output)
        cell = nbformat.v4.new_code_cell(source, outputs=[text])
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "x.ipynb")
        return inputs.fingerprint(tmp_path / "x.ipynb", profile)

    assert fingerprint("a = 1", "out") == fingerprint("a = 1", "other")
    assert fingerprint("a = 1", "out") != fingerprint("a = 2", "out")
    assert fingerprint("a = 1", "out") != fingerprint("a = 1", "out", "default")
    assert fingerprint("a = 1", "out") != fingerprint("from reasonrank import metrics", "out")
    assert stages.ROOT == ROOT
