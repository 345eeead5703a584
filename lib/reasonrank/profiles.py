"""Profiles: where the settings of a run come from. A file may extend another; wrong keys are errors that name them."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from .settings import Profile, checked, read_yaml
from .stages import ROOT, write_text

FOLDER = ROOT / "profiles"


def names() -> list[str]:
    """Profiles of the project."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(profile: str, overrides: Mapping[str, Any] | None = None) -> Profile:
    """Read a profile by name or path and change single settings.

    A file may say `extends: NAME` (of a profile, or of a file beside it) and list what differs alone.
    `overrides`: {"filtering.alpha": 0.3}; entries that are None leave the profile's value. Raises
    FileNotFoundError for an unknown profile, ValueError naming file and key for a wrong or unknown setting.
    """
    path, raw = _read(profile)
    changed = {key: value for key, value in (overrides or {}).items() if value is not None}
    return checked(_merged(raw, nested(changed)) | {"overrides": changed}, Profile, path.name)


def nested(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted settings in their sections: {"sft.epochs": 2} -> {"sft": {"epochs": 2}}."""
    found: dict[str, Any] = {}
    for key, value in changes.items():
        for part in reversed(key.split(".")):
            value = {part: value}
        found = _merged(found, value)
    return found


def _read(profile: str, folder=Path(), children: tuple[Path, ...] = ()) -> tuple[Path, dict[str, Any]]:
    """The file of a profile, and its settings with those of what it extends, not checked yet."""
    known = names()
    path = FOLDER / f"{profile}.yaml" if profile in known else folder / profile
    if not path.is_file():
        raise FileNotFoundError(f"no profile {profile!r}; known are {', '.join(known)}, or give a YAML file")
    if path.resolve() in children:
        raise ValueError(f"{children[-1].name}: extends: {profile!r} extends this profile in its turn")
    raw = read_yaml(path)
    if not isinstance(raw, dict) or not isinstance(raw.get("extends", ""), str):
        raise ValueError(f"{path.name}: expected a mapping of settings, `extends` the name of a profile")
    base = raw.pop("extends", "")
    return path, _merged(_read(base, path.parent, (*children, path.resolve()))[1], raw) if base else raw


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `changes`, section by section."""
    both = {key for key in base if isinstance(base[key], dict) and isinstance(changes.get(key), dict)}
    return base | changes | {key: _merged(base[key], changes[key]) for key in both}


def start(
    profile: str = "",
    run_dir: str = "",
    seed: int | None = None,
    model: str | None = None,
    collections: list[str] | None = None,
    **overrides: Any,
) -> tuple[Profile, Path]:
    """What a notebook calls first: its profile and its run folder; one seed for everything.

    `profile`: a name or a file; "" takes $REASONRANK_PROFILE, else "default". `run_dir`: "" takes
    $REASONRANK_RUN_DIR, else runs/<profile>. `model`: the backbone. `collections`: the latency study takes those of
    its own that are among them, else all. `overrides`: other settings by keyword, dotted, or with a double underscore
    for the dot (`filtering__alpha=0.3`). None leaves the profile's value.
    """
    profile = profile or os.environ.get("REASONRANK_PROFILE", "") or "default"
    plain = load(profile)
    changes = {"seed": seed, "model.name": model}
    changes |= {key.replace("__", "."): value for key, value in overrides.items()}
    if collections is not None:
        timed = [name for name in plain.latency.collections if name in collections] or collections
        changes = {"collections": collections, "latency.collections": timed} | changes
    settings = load(profile, changes)
    folder = run_dir or os.environ.get("REASONRANK_RUN_DIR", "") or ROOT / "runs" / settings.name
    run = Path(folder).absolute()
    run.mkdir(parents=True, exist_ok=True)
    write_text(run / "profile.yaml", yaml.safe_dump(plain.model_dump(mode="json"), sort_keys=False))
    seed_everything(settings.seed)
    return settings, run


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, where it is loaded; engines and trainers are given the seed too."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries still read the global state
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)
