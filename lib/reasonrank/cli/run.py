"""Execute a notebook into a run's folder: this interpreter as kernel, known parameters only, a deadline."""

from __future__ import annotations

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
from ..stages import ROOT, write_text
from . import DEADLINE
from .errors import CommandError, UsageError
from .progress import ProgressLine, clock

START = 300  # seconds for a kernel to start: a cold disk and busy cores are slow
SECRET = re.compile(r"(?:^|_)(?:api)?(?:key|token)(?:_|$)|password|passwd|secret|credential", re.IGNORECASE)
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class ThisPython(AsyncKernelManager):
    """Starts kernels of the interpreter that runs this, whatever kernels the user has installed."""

    @default("kernel_spec_manager")
    def _without_installed_kernels(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[], parent=self)

    @default("transport_encryption")
    def _encrypted_where_possible(self) -> str:
        return "auto" if zmq.has("curve") else "disabled"


def run_notebook(
    notebook: str | Path,
    profile: str,
    run_dir: Path,
    parameters: Mapping[str, Any] | None = None,
    deadline: float = DEADLINE,
) -> Path:
    """Execute a notebook and return the executed copy, run_dir/notebooks/<name>.ipynb.

    `notebook`: a file, or a name in notebooks/. `parameters`: beside profile and run_dir, as the notebook's
    cell tagged `parameters` has them; a `seed` that the notebook has no parameter for goes into a copy of the
    profile, run_dir/seed.yaml. `deadline`: seconds for the whole notebook. Its stage, run_dir/<name>, must have
    a new manifest in the end. UsageError for a wrong call; CommandError for a failed notebook, of which
    run_dir/notebooks/<name>.failed.ipynb stays.
    """
    source = find_notebook(notebook)
    parameters, own = dict(parameters or {}), _own(profile, run_dir)
    for key in sorted(set(own) & set(parameters)):
        raise UsageError(f"-p {key}={parameters[key]}: give it as --{key.replace('_', '-')}")
    seed = None if "seed" in notebook_parameters(source) else parameters.pop("seed", None)
    parameters = {**own, **parameters}
    check_parameters(source, parameters)
    if not deadline > 0:
        raise UsageError(f"--deadline {deadline:g}: expected seconds, more than 0")
    if seed is not None:
        parameters["profile"] = str(changed_profile(profile, {"seed": _seed(seed)}, run_dir / "seed.yaml"))
    folder = run_dir / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    partial, failed = folder / f".{source.stem}.partial.ipynb", folder / f"{source.stem}.failed.ipynb"
    manifest = run_dir / source.stem / "manifest.json"
    before = _stamp(manifest)
    try:
        _execute(source, partial, parameters, deadline)
        if _stamp(manifest) in (None, before):
            raise CommandError(f"{source.stem} ran to its end, but wrote no {manifest}")
    except BaseException as error:
        kept = _keep(partial, failed)
        if isinstance(error, CommandError):
            raise CommandError(f"{error}{kept}") from error
        raise
    failed.unlink(missing_ok=True)
    os.replace(partial, folder / source.name)
    return folder / source.name


def changed_profile(profile: str, changes: Mapping[str, Any], to: Path) -> Path:
    """Write a copy of a profile with other settings, by dotted key, and return its whole path.

    The copy keeps the profile's name. UsageError for a profile that does not load, or a key that it lacks.
    """
    try:
        settings = profiles.load(profile, changes).model_dump(mode="json", exclude={"overrides"})
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(f"--profile: {error}") from None
    return write_text(to.resolve(), yaml.safe_dump(settings, sort_keys=False))


def _seed(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**32:
        raise UsageError(f"-p seed={value}: expected a whole number, 0 to {2**32 - 1}")
    return value


def find_notebook(notebook: str | Path) -> Path:
    """The file of a notebook given by path or by name; UsageError lists the names."""
    named = ROOT / "notebooks" / f"{notebook}.ipynb"
    for path in (Path(notebook), named):
        if path.suffix == ".ipynb" and path.is_file():
            return path.resolve()
    known = ", ".join(sorted(path.stem for path in named.parent.glob("*.ipynb")))
    raise UsageError(f"no notebook {str(notebook)!r}; expected a file *.ipynb, or one of {known}")


def check_parameters(notebook: Path, parameters: Mapping[str, Any]) -> None:
    """UsageError for a name that looks like a secret's, or that the notebook's parameters cell has not."""
    for name in parameters:
        if SECRET.search(name):
            raise UsageError(f"parameter {name!r} looks like a secret; it would be kept in the notebook")
    known = notebook_parameters(notebook)
    unknown = [name for name in parameters if name not in known]
    if unknown:
        have = ", ".join(known) or "none (it needs a cell tagged `parameters`)"
        raise UsageError(f"{notebook.name} has no parameter {', '.join(map(repr, unknown))}; it has: {have}")


def notebook_parameters(notebook: Path) -> list[str]:
    """Names in the cell tagged `parameters`; UsageError where the file is no Python notebook."""
    _quiet()
    try:
        return list(papermill.inspect_notebook(str(notebook)))
    except Exception as error:
        raise UsageError(f"{notebook.name}: not a notebook that can be run ({error})") from None


def _own(profile: str, run_dir: Path) -> dict[str, str]:
    """The two parameters that every notebook has. A profile that does not load is found out here."""
    try:
        profiles.load(profile)
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(f"--profile: {error}") from None
    known = profile in profiles.names()
    return {"profile": profile if known else str(Path(profile).resolve()), "run_dir": str(run_dir.resolve())}


def _execute(source: Path, target: Path, parameters: Mapping[str, Any], deadline: float) -> None:
    """Run papermill with its own noise off and our line instead; CommandError where the notebook fails."""
    code = [cell for cell in nbformat.read(source, as_version=4).cells if _runs(cell)]
    end = time.monotonic() + deadline
    with ProgressLine(source.stem, len(code) + 1) as line:  # one more, with the parameters
        try:
            papermill.execute_notebook(
                str(source),
                str(target).replace("{", "{{").replace("}", "}}"),  # papermill takes it for a format
                parameters=dict(parameters),
                kernel_name="python3",
                kernel_manager_class=ThisPython,
                extra_arguments=["--log-level=CRITICAL"],  # what matters is in the notebook
                cwd=str(source.parent),
                progress_bar=False,
                stderr_file=line,
                start_timeout=START,
                timeout_func=lambda cell: max(1, round(end - time.monotonic())),
                coalesce_streams=True,
                on_cell_start=lambda cell, cell_index: _runs(cell) and line.next_cell(),
            )
        except PapermillExecutionError as error:
            raise CommandError(_explain(source.stem, line, error)) from error
        except CellTimeoutError as error:
            late = f"not done by the deadline of {clock(deadline)}; --deadline SECONDS gives it more time"
            raise CommandError(f"{source.stem}, cell {line.cell} of {line.cells}: {late}") from error
        except RuntimeError as error:  # nbclient's DeadKernelError, and a kernel that does not start
            died = f"the kernel died ({error}); out of memory?"
            raise CommandError(f"{source.stem}, cell {line.cell} of {line.cells}: {died}") from error
        line.outcome = "ok"


def _runs(cell: nbformat.NotebookNode) -> bool:
    return cell.cell_type == "code" and bool(cell.source.strip())


def _explain(name: str, line: ProgressLine, error: PapermillExecutionError) -> str:
    """Where it failed, the end of the traceback, and the error."""
    trace = ANSI.sub("", "\n".join(error.traceback)).splitlines()[-20:]
    where = f"{name}, cell {line.cell} of {line.cells} (In [{error.exec_count}])"
    return "\n".join([*trace, f"{where}: {error.ename}: {error.evalue}".splitlines()[0]])


def _keep(partial: Path, failed: Path) -> str:
    if not partial.exists():
        return ""
    os.replace(partial, failed)
    return f"\nThe notebook as far as it came: {failed}"


def _stamp(path: Path) -> int | None:
    """Changes whenever the file is written anew; None where there is none."""
    return path.stat().st_mtime_ns if path.exists() else None


def _quiet() -> None:
    logging.getLogger("papermill").setLevel(logging.CRITICAL)
