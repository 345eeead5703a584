"""Execute a notebook into a run's folder: this interpreter as kernel, known parameters only, a deadline."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import papermill
import yaml
import zmq
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient.exceptions import CellTimeoutError
from papermill.exceptions import PapermillExecutionError
from traitlets import default

from .. import profiles
from ..stages import ROOT, alone, read_json, write_json, write_text
from .fingerprint import stages as stages_of
from .parameters import CommandError, UsageError, reading

START = 300  # seconds for a kernel to start: a cold disk and busy cores are slow
SECRET = re.compile(r"(?:^|_)(?:api)?(?:key|token)(?:_|$)|password|passwd|secret|credential", re.IGNORECASE)
SAID = ("ValueError", "FileNotFoundError", "ConnectionError")  # what the library raises for bad input
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


class ThisPython(AsyncKernelManager):
    """Starts kernels of the interpreter that runs this, whatever kernels the user has installed; they keep `lock`, a
    descriptor, for as long as they live."""

    lock: int

    @default("kernel_spec_manager")
    def _without_installed_kernels(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[], parent=self)

    async def start_kernel(self, **options: Any) -> None:
        await super().start_kernel(pass_fds=(self.lock,), **options)

    @default("transport_encryption")
    def _encrypted_where_possible(self) -> str:
        return "auto" if zmq.has("curve") else "disabled"


def run_notebook(
    notebook: str | Path,
    profile: str,
    run_dir: Path,
    parameters: Mapping[str, Any],
    deadline: float,
    fingerprint: str = "",
) -> Path:
    """Execute a notebook and return the executed copy, run_dir/notebooks/<name>.ipynb.

    `notebook`: a file, or a name in notebooks/. `parameters`: beside profile and run_dir, as the notebook's
    cell tagged `parameters` has them; dotted ones (`sft.epochs`) are settings, which go into a profile that extends
    the given one, run_dir/overrides.yaml. `deadline`: seconds for the whole notebook. Its stage, run_dir/<name>,
    must have a new manifest in the end. `fingerprint`: of the code. Where the notebook has been run to its end with the
    same one, the same parameters and the same earlier stages, its results are put back and nothing is run: Snakemake,
    killed before it noted the end of a job, takes them away again. UsageError for a wrong call; CommandError for a
    failed notebook, of which run_dir/notebooks/<name>.failed.ipynb stays.
    """
    source = find_notebook(notebook)
    content = read_notebook(source)
    given = {key: value for key, value in parameters.items() if "." not in key}
    settings = {key: value for key, value in parameters.items() if "." in key}
    check_parameters(source.name, notebook_parameters(content), given)
    given["profile"], given["run_dir"] = _profile(profile, settings, run_dir), str(run_dir.resolve())
    manifest, executed = run_dir / source.stem / "manifest.json", run_dir / "notebooks" / source.name
    executed.parent.mkdir(parents=True, exist_ok=True)
    partial = executed.with_name(f".{source.stem}.partial.ipynb")
    failed, kept = executed.with_suffix(".failed.ipynb"), manifest.with_name(".done.json")
    with alone(run_dir / f".{source.stem}.lock") as lock:  # a kernel may outlive the process that started it
        earlier = [run_dir / name / "manifest.json" for name in stages_of(source)]
        times = [path.stat().st_mtime_ns for path in earlier if path.is_file()]  # as Snakemake looks at them
        mark = hashlib.sha256(f"{fingerprint} {given} {settings} {times}".encode()).hexdigest()
        if fingerprint and _put_back(kept, mark, manifest, executed):
            return executed
        kept.unlink(missing_ok=True)
        before = manifest.stat().st_mtime_ns if manifest.exists() else None
        try:
            _execute(source, content, partial, given, deadline, lock)
            if not manifest.exists() or manifest.stat().st_mtime_ns == before:
                raise CommandError(f"{source.stem} ran to its end, but wrote no {manifest}")
        except BaseException as error:
            if partial.exists():
                os.replace(partial, failed)
                if isinstance(error, CommandError):
                    raise CommandError(f"{error}\nThe notebook as far as it got: {failed}") from error
            raise
        failed.unlink(missing_ok=True)
        if fingerprint:
            files = [(path.read_text("utf-8"), path.stat().st_mtime_ns) for path in (manifest, partial)]
            write_json(kept, {"mark": mark, "files": files})
        os.replace(partial, executed)
    return executed


def _put_back(kept: Path, mark: str, *paths: Path) -> bool:
    """Write the files that were kept under this mark to where they were; false where there is none, or the stage is not
    whole."""
    found = read_json(kept) if kept.is_file() else {}
    if found.get("mark") != mark:
        return False
    listed = json.loads(found["files"][0][0]).get("files", {})
    if not all(kept.with_name(name).is_file() for name in listed):
        return False
    for path, (text, time_ns) in zip(paths, found["files"], strict=True):
        os.utime(write_text(path, text), ns=(time_ns, time_ns))
    return True


def _profile(profile: str, settings: Mapping[str, Any], run_dir: Path) -> str:
    """The profile as the notebook is given it: a name of the project's, or a whole path."""
    with reading("--profile: "):
        profiles.load(profile, settings)
    place = profile if profile in profiles.names() else str(Path(profile).resolve())
    if not settings:
        return place
    text = yaml.safe_dump({"extends": place} | profiles.nested(settings), sort_keys=False, allow_unicode=True)
    return str(write_text((run_dir / "overrides.yaml").resolve(), text))


def find_notebook(notebook: str | Path) -> Path:
    """The file of a notebook given by path or by name; UsageError lists the names."""
    named = ROOT / "notebooks" / f"{notebook}.ipynb"
    for path in (Path(notebook), named):
        if path.suffix == ".ipynb" and path.is_file():
            return path.resolve()
    known = ", ".join(sorted(path.stem for path in named.parent.glob("*.ipynb")))
    raise UsageError(f"no notebook {str(notebook)!r}; expected a file *.ipynb, or one of {known}")


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """A Python notebook, whatever kernel it names, or none: it runs on this interpreter. UsageError for others."""
    try:
        content = nbformat.read(path, as_version=4)
        language = content.metadata.get("kernelspec", {}).get("language", "python")
        content.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
        nbformat.validate(content)
    except Exception as error:  # nbformat raises what it likes for a file of another kind
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"{path.name}: not a notebook that can be run ({reason})") from None
    if language.lower() != "python":
        raise UsageError(f"{path.name}: a notebook in {language}; expected Python")
    return content


def notebook_parameters(content: nbformat.NotebookNode) -> list[str]:
    """The names in the cell tagged `parameters`."""
    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    return list(papermill.inspect_notebook(content))


def check_parameters(name: str, known: list[str], given: Mapping[str, Any]) -> None:
    """UsageError for a name that looks like a secret's, or that the parameters cell lacks."""
    for key in given:
        if key in ("profile", "run_dir"):
            raise UsageError(f"-p {key}={given[key]}: give it as --{key.replace('_', '-')}")
        if SECRET.search(key):
            raise UsageError(f"parameter {key!r} looks like a secret; it would be kept in the notebook")
    if unknown := [key for key in given if key not in known]:
        have = ", ".join(known) or "none (it needs a cell tagged `parameters`)"
        raise UsageError(f"{name} has no parameter {', '.join(map(repr, unknown))}; it has: {have}")


def _execute(
    source: Path, content: Any, target: Path, parameters: dict[str, Any], deadline: float, lock: int
) -> None:
    """Run papermill; CommandError where the notebook fails, with the cell as papermill counts them."""
    end, started = time.monotonic() + deadline, [0]
    try:
        papermill.execute_notebook(
            content,
            str(target).replace("{", "{{").replace("}", "}}"),  # papermill takes it for a format
            parameters=parameters,
            kernel_name="python3",
            kernel_manager_class=type("Locked", (ThisPython,), {"lock": lock}),
            extra_arguments=["--log-level=CRITICAL"],  # what matters is in the notebook
            cwd=str(source.parent),
            progress_bar={"desc": source.stem, "unit": "cell"},
            start_timeout=START,
            timeout_func=lambda cell: max(1, round(end - time.monotonic())),
            coalesce_streams=True,
            on_cell_start=lambda cell_index, **_: started.append(cell_index + 1),
        )
    except PapermillExecutionError as error:
        trace = "\n".join(error.traceback)
        places = re.findall(r"^(?:\x1b\[[0-9;]*m)*File .*", trace, re.MULTILINE)
        ours = str(Path(__file__).parents[1].relative_to(ROOT)) in (places or [""])[-1]
        trace = "" if ours and error.ename in SAID else str(error)  # our own say what is wrong in a line
        said = f"(In [{error.exec_count}]): {error.ename}: {error.evalue}".splitlines()[0]
        raise CommandError(f"{trace}{source.stem}, cell {started[-1]} {said}") from error
    except CellTimeoutError as error:
        late = f"not done by the deadline of {deadline:g} seconds; --deadline gives it more time"
        raise CommandError(f"{source.stem}, cell {started[-1]}: {late}") from error
    except RuntimeError as error:  # nbclient's DeadKernelError, and a kernel that does not start
        dead = f"the kernel died ({error}); out of memory?"
        raise CommandError(f"{source.stem}, cell {started[-1]}: {dead}") from error
