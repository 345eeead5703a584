"""Release the adapters of a finished run: PEFT safetensors with model cards under data/adapters."""

from __future__ import annotations

import argparse

from .errors import CommandError


def command(options: argparse.Namespace) -> None:
    """`python -m reasonrank release RUN_DIR [--to DIR]`."""
    from .. import adapters  # torch takes seconds to import; other commands do without

    try:
        for folder in adapters.from_run(options.run_dir, options.to or adapters.ADAPTERS):
            size = (folder / adapters.WEIGHTS).stat().st_size / 1e6
            print(f"{folder}: {size:.1f} MB")
    except (FileNotFoundError, ValueError) as error:
        raise CommandError(str(error)) from None
