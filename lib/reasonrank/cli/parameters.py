"""What several commands have in common: the ways to end, and how a profile, a folder and `-p key=value` are given."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from typer.exceptions import TyperException

EXPONENT = re.compile(r"[-+]?\d+(?:\.\d*)?[eE][-+]?\d+")

ProfileName = Annotated[str, typer.Option("--profile", metavar="NAME", help="in profiles/, or a YAML file")]
RunFolder = Annotated[Path, typer.Option("--run-dir", metavar="DIR", help="the run's folder")]
ABOUT = "a value as in YAML; may be given several times"
Parameters = Annotated[list[str], typer.Option("-p", "--parameter", metavar="KEY=VALUE", help=ABOUT)]


class CommandError(TyperException):
    """A command that failed: exit code 1, the message on standard error."""


class UsageError(CommandError):
    """A command that was called wrongly, before anything was done: exit code 2."""

    exit_code = 2


@contextmanager
def reading(option: str = "") -> Iterator[None]:
    """While what a call names is read: an error there is a UsageError, which begins with `option`."""
    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        missing = isinstance(error, FileNotFoundError) and error.filename is not None
        raise UsageError(option + (f"{error.filename}: no such file" if missing else str(error))) from None


def read_parameters(pairs: Sequence[str]) -> dict[str, Any]:
    """Values of "key=value" words by key, read as YAML: `alpha=0.3`, or a dotted `synthesis.teacher=remote`.

    Dates stay text, 1e-4 is a number, and `key=` is an empty text. UsageError names the word that is malformed, or
    whose value cannot be kept in a notebook and in JSON.
    """
    parameters = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not (equals and key.partition(".")[0].isidentifier() and all(key.split("."))):
            raise UsageError(f"-p {pair}: expected KEY=VALUE, the key the name of a parameter or a setting")
        try:  # YAML 1.1 takes 1e-4 for a word
            value = float(text) if EXPONENT.fullmatch(text) else yaml.safe_load(text or '""')
            value = text if isinstance(value, date) else value
            json.dumps(value, allow_nan=False)
        except (yaml.YAMLError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            expected = f"expected a value as in YAML, text in quotes if need be ({reason})"
            raise UsageError(f"-p {pair}: {expected}") from None
        parameters[key] = value
    return parameters
