"""What a notebook's result depends on: its code, the profile, modules, data, and earlier stages."""

from __future__ import annotations

import hashlib
import re
from ast import PyCF_ALLOW_TOP_LEVEL_AWAIT
from modulefinder import ModuleFinder
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


class _None(dict):
    """Nothing counts as sought in vain: no `statistics` on the path says nothing of that in a package."""

    def __contains__(self, name: object) -> bool:
        return False


def modules(code: str) -> dict[str, Path]:
    """Modules of this package that a code imports, directly or through one another, with their files."""
    plain = "\n".join(line for line in code.splitlines() if not line.startswith(("%", "!")))  # no magics
    finder = ModuleFinder(path=[str(PACKAGE.parent)])
    finder.badmodules = _None()
    compiled = compile(plain, "notebook", "exec", flags=PyCF_ALLOW_TOP_LEVEL_AWAIT)
    finder.scan_code(compiled, finder.add_module("__main__"))
    ours = [name for name in finder.modules if name.partition(".")[0] == PACKAGE.name]
    return {name: Path(finder.modules[name].__file__) for name in ours}
