"""An executed notebook made fit for committing: outputs stay; what belongs to one run or machine goes."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nbformat import NotebookNode, from_dict

from ..stages import ROOT

BAR = re.compile(r"\d+%\|.*\| *\d+/\d+|\d+it \[")

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
OF_A_RUN = ("papermill", "execution", "widgets", "trusted")  # metadata of cells
WIDGET = "application/vnd.jupyter.widget-view+json"
# a path of somebody's machine; not the path of an address such as https://host/home/x
MACHINE = re.compile(r"(?<![\w.\-])/(?:(?:home|Users)/[\w.\-]+|(?:root|work|tmp|var/folders)(?=/))")


def clean(notebook: NotebookNode, folders: Sequence[Path] = ()) -> NotebookNode:
    """Clean a notebook in place and return it. Cell ids stay.

    Removed: cells tagged `injected-parameters`, metadata of papermill, widgets and times, progress bars.
    Replaced by "…" in text outputs: `folders`, the project's and the interpreter's folders, and home and
    temporary folders. Execution counts start at 1. ValueError where an output is an error.
    """
    notebook.metadata = from_dict(METADATA)
    notebook.cells = [cell for cell in notebook.cells if "injected-parameters" not in _tags(cell)]
    places = _places(folders)
    count = 0
    for cell in notebook.cells:
        _clean_metadata(cell)
        if cell.cell_type == "code":
            count += bool(cell.source.strip())
            _clean_outputs(cell, count if cell.source.strip() else None, places)
    return notebook


def machine_path(text: str) -> str | None:
    """The first path in a text that belongs to somebody's machine, or None."""
    found = MACHINE.search(text)
    return found.group() if found else None


def _tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def _clean_metadata(cell: NotebookNode) -> None:
    for key in OF_A_RUN:
        cell.metadata.pop(key, None)
    if not _tags(cell):
        cell.metadata.pop("tags", None)


def _clean_outputs(cell: NotebookNode, count: int | None, places: re.Pattern) -> None:
    cell.execution_count = count
    kept = []
    for output in cell.outputs:
        if output.output_type == "error":
            raise ValueError(f"cell {count} ended in {output.ename}: {output.evalue}")
        if output.output_type == "stream":
            output.text = places.sub("…", _without_bars(output.text))
        elif WIDGET in output.data:
            continue
        else:
            _clean_data(output, places)
        if output.output_type == "execute_result":
            output.execution_count = count
        if output.output_type != "stream" or output.text.strip():
            kept.append(output)
    cell.outputs = kept


def _clean_data(output: NotebookNode, places: re.Pattern) -> None:
    for kind, content in output.data.items():
        if isinstance(content, str) and not (kind.startswith("image/") and "svg" not in kind):
            output.data[kind] = places.sub("…", content)


def _without_bars(text: str) -> str:
    """A stream without the states of progress bars; what overwrites itself leaves its last state."""
    lines = []
    for line in text.split("\n"):
        states = [state for state in line.split("\r") if state.strip()]
        if not any(BAR.search(state) for state in states):
            lines.append(states[-1] if states else "")
        elif rest := [state for state in states if not BAR.search(state)]:
            lines.append(rest[-1])
    return "\n".join(lines)


def _places(folders: Sequence[Path]) -> re.Pattern:
    known = [*folders, ROOT, Path(sys.prefix), Path.home(), Path(tempfile.gettempdir())]
    paths = {str(form) for path in known for form in (path.absolute(), path.resolve())} - {"/"}
    longest_first = sorted(paths, key=len, reverse=True)
    exact = "|".join(rf"(?<![\w.\-]){re.escape(path)}(?![\w\-])" for path in longest_first)
    return re.compile(f"{exact}|{MACHINE.pattern}")
