"""What this machine and its packages are, beside what the project was made with. No path and no host name."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import shutil
from pathlib import Path

import pandas as pd
from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version

from . import stages

PYTHONS = ("3.11", "3.12")
MEMORY_GIB = 8  # the default profile: one small model in training, or an engine with its cache
DISK_GIB = 5  # converted weights, and the artefacts of a few runs


def check(lock: Path | str | None = None) -> pd.DataFrame:
    """Python, hardware, engine, packages: `part` by `here`, `expected`, `status` ("ok" or "differs").

    `lock`: a requirements file of pins; by default the project's, for a GPU where the package `vllm` is
    installed, else for a CPU. Packages that the project names get a line each, all others one line together.
    ValueError names the line of the lock that is no pin.
    """
    gpu = _installed("vllm") is not None
    lock = Path(lock or stages.ROOT / "requirements" / ("gpu.txt" if gpu else "cpu.txt"))
    rows = [*_machine(), *_packages(_pins(lock))]
    return pd.DataFrame(rows, columns=["part", "here", "expected", "status"]).set_index("part")


def engine() -> str:
    """The engine that `auto` stands for here: "vllm" where it can be imported, else "transformers"."""
    return "vllm" if importlib.util.find_spec("vllm") else "transformers"


def _machine() -> list[tuple[str, str, str, str]]:
    hardware = stages.hardware()
    python = platform.python_version()
    memory, disk = hardware["memory_gib"], shutil.disk_usage(Path.cwd()).free // 2**30
    fits = ".".join(python.split(".")[:2]) in PYTHONS
    return [
        ("Python", python, " or ".join(PYTHONS), _status(fits)),
        ("system", f"{platform.system()} {platform.machine()}", "any", "ok"),
        ("cores", str(hardware["cores"]), "2 or more", _status(hardware["cores"] >= 2)),
        ("memory", f"{memory} GiB", f"{MEMORY_GIB} GiB or more", _status(memory >= MEMORY_GIB)),
        ("free disk", f"{disk} GiB", f"{DISK_GIB} GiB or more", _status(disk >= DISK_GIB)),
        ("GPU", ", ".join(hardware["gpus"]) or "none", "none needed", "ok"),
        ("engine", engine(), "vllm or transformers", "ok"),
    ]


def _packages(pins: dict[str, str]) -> list[tuple[str, str, str, str]]:
    """A line for every pin that the project itself names, then one for all others."""
    named = _named()
    rows, others = [], []
    for name, expected in pins.items():
        here = _installed(name)
        fits = here is not None and Version(here).public == Version(expected).public
        if name in named:
            rows.append((name, here or "missing", expected, _status(fits)))
        elif not fits:
            others.append(f"{name} {here or 'missing'}")
    count = len(pins) - len(rows)
    here = ", ".join(others) or f"{count} as pinned"
    return [*rows, ("other packages", here, f"{count} pins", _status(not others))]


def _status(fits: bool) -> str:
    return "ok" if fits else "differs"


def _pins(lock: Path) -> dict[str, str]:
    """Package to version for the pins whose markers hold here."""
    pins = {}
    for number, line in enumerate(lock.read_text(encoding="utf-8").splitlines(), start=1):
        text = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip()
        if not text or text.startswith("-"):
            continue
        try:
            pin = Requirement(text)
            (version,) = [s.version for s in pin.specifier if s.operator == "=="]
        except (InvalidRequirement, ValueError):
            raise ValueError(
                f"{lock.name}, line {number}: {text!r}, expected a pin such as name==1.0"
            ) from None
        if pin.marker is None or pin.marker.evaluate():
            pins[_canonical(pin.name)] = version
    return pins


def _named() -> set[str]:
    """Packages that the project itself asks for, extras included."""
    return {_canonical(Requirement(text).name) for text in importlib.metadata.requires("reasonrank") or ()}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
