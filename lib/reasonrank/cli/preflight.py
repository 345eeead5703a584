"""Whether a profile fits its hardware and this machine, and how long it would run; refuses with the reason."""

from __future__ import annotations

import argparse
import json

from .. import profiles
from ..preflight import Preflight, preflight
from .errors import CommandError, UsageError

_HARDWARE = {"gpus": "gpus", "gpu_memory": "gpu_memory", "zero": "zero_stage"}


def command(options: argparse.Namespace) -> None:
    """`python -m reasonrank preflight --profile NAME [--dry-run] [--gpus N] [--gpu-memory GIB] [--zero STAGE]`."""
    changed = {f"hardware.{key}": getattr(options, name) for name, key in _HARDWARE.items()}
    try:
        found = preflight(profiles.load(options.profile, changed), options.dry_run, options.run_dir)
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(str(error)) from None
    print(json.dumps(found.as_json(), indent=1) if options.json else as_text(found))
    if found.refusals:
        raise CommandError("; ".join(found.refusals))


def as_text(found: Preflight) -> str:
    """The plan as a table, then a line for each check."""
    hardware = found.hardware
    device = (
        f"{hardware.gpus} x {hardware.gpu_memory:g} GiB, ZeRO {hardware.zero_stage}"
        if hardware.gpus
        else "CPU"
    )
    unit = "GPU-hours" if hardware.gpus else "hours"
    lines = [
        f"profile {found.profile}: {found.model}, {found.parameters:,} parameters (shape from {found.shape_from})",
        f"hardware: {device}; assumed speed of {found.rate}",
        "",
        f"{'stage':12}{'steps':>7}{'prompt':>8}{'answer':>8}{unit:>11}  what (tokens and hours: at most)",
    ]
    for work in found.work:
        steps = work.steps or "-"
        lines.append(
            f"{work.stage:12}{steps:>7}{work.prompt:>8}{work.answer:>8}{work.hours:>11.2f}  {work.items}"
        )
    lines += [f"{'all':35}{found.hours:>11.2f}", ""]
    return "\n".join([*lines, *(f"{check.status:8} {check.name}: {check.text}" for check in found.checks)])
