"""What a notebook's result depends on: its code, the profile, modules, data, and earlier stages."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat

from .. import profiles
from ..stages import ROOT

PACKAGE = Path(__file__).resolve().parents[1]
DATA = {  # what a module reads of data/: a folder, or a file
    "reasonrank.ablations": "records/ablations.json",
    "reasonrank.adapters": "adapters",
    "reasonrank.examples": "cards",
    "reasonrank.paper": "paper",
    "reasonrank.recovery": "prompt_hashes.json",
    "reasonrank.sources.authored": "authored",
    "reasonrank.sources.worked": "worked",
    "reasonrank.teachers.remote": "teacher",
}


def fingerprint(notebook: Path, profile: str) -> str:
    """A digest that changes with the notebook's code (not its outputs), the settings, and what it imports."""
    code, settings = notebook_code(notebook), profiles.load(profile)
    used = modules(code)
    places = [ROOT / "data" / name for module, name in DATA.items() if module in used]
    if not settings.evaluation.adapters:  # a run that adapters are made from does not depend on them
        places = [place for place in places if place.name != "adapters"]
    data = [path for place in places for path in (place, *place.rglob("*")) if path.is_file()]
    parts = [code.encode(), settings.model_dump_json().encode()]
    parts += [path.read_bytes() for path in sorted([*used.values(), *data])]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def stages(notebook: Path) -> list[str]:
    """Earlier stages that a notebook reads: those which its code names, as "03_sft"."""
    named = re.findall(r"[\"'](\d\d_\w+)[\"'/]", notebook_code(notebook))
    return sorted({name for name in named if name < notebook.stem})


def notebook_code(notebook: Path) -> str:
    """The code cells of a notebook, one text."""
    cells = nbformat.read(notebook, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "code")


def modules(code: str) -> dict[str, Path]:
    """Modules of this package that a code imports, directly or through one another, with their files."""
    found: dict[str, Path] = {}
    waiting = list(_imports(code, "reasonrank"))
    while waiting:
        name = waiting.pop()
        top, *rest = name.split(".")
        if top != PACKAGE.name or name in found:
            continue
        place = PACKAGE.joinpath(*rest)
        for path in (place / "__init__.py", place.with_suffix(".py")):
            if path.is_file():
                found[name] = path
                package = name if path.stem == "__init__" else name.rpartition(".")[0]
                waiting += [package, *_imports(path.read_text(encoding="utf-8"), package)]
                break
    return found


def _imports(code: str, package: str) -> Iterator[str]:
    """Names that may be modules of ours; `package` is where relative imports start. Magics are no Python."""
    plain = "\n".join(line for line in code.splitlines() if not line.startswith(("%", "!")))
    for node in ast.walk(ast.parse(plain)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(part for part in (above, node.module) if part)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
