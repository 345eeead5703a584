"""JSON lines with their places, for sources whose faults are to be named by file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def numbered_jsonl(path: Path | str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file, each with its place, "FILE, line N"; blank lines are passed over, and counted.

    Raises ValueError with the place for a line that is not UTF-8, not JSON or no object.
    """
    with open(path, "rb") as file:
        for number, raw in enumerate(file, start=1):
            place = f"{path}, line {number}"
            if not raw.strip():
                continue
            try:
                row = json.loads(raw.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise ValueError(f"{place}: not valid UTF-8 ({error.reason})") from None
            except json.JSONDecodeError as error:
                raise ValueError(f"{place}: not valid JSON ({error.msg})") from None
            if not isinstance(row, dict):
                raise ValueError(f"{place}: expected a JSON object, got {type(row).__name__}")
            yield place, row
