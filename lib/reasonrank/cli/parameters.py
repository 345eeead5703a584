"""What several commands have in common: how a profile, a run's folder and `-p key=value` are given and read."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
import yaml

from .errors import UsageError

EXPONENT = re.compile(r"[-+]?\d+(?:\.\d*)?[eE][-+]?\d+")

ProfileName = Annotated[str, typer.Option("--profile", metavar="NAME", help="in profiles/, or a YAML file")]
RunFolder = Annotated[Path, typer.Option("--run-dir", metavar="DIR", help="the run's folder")]
Parameters = Annotated[
    list[str],
    typer.Option(
        "-p", "--parameter", metavar="KEY=VALUE", help="a value as in YAML; may be given several times"
    ),
]


class _NoDates(yaml.SafeLoader):
    """YAML in which 2024-01-01 is a text: parameters and records are JSON, which has no dates."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, form) for tag, form in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


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
            value = float(text) if EXPONENT.fullmatch(text) else yaml.load(text or '""', _NoDates)
            json.dumps(value, allow_nan=False)
        except (yaml.YAMLError, ValueError, TypeError) as error:
            raise UsageError(
                f"-p {pair}: expected a value as in YAML, text in quotes if need be ({str(error).splitlines()[0]})"
            ) from None
        parameters[key] = value
    return parameters
