"""An executed notebook made fit for committing: outputs stay; what belongs to one run or machine goes."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nbconvert.preprocessors import TagRemovePreprocessor
from nbformat import NotebookNode, from_dict

from reasonrank.cli.run import KERNEL
from reasonrank.stages import ROOT

WIDGET = "application/vnd.jupyter.widget-view+json"
BAR = re.compile(r"\d+%\|.*\| *\d+/\d+|\d+it \[")
# a path of somebody's machine; not the path of an address such as https://host/home/x
MACHINE = re.compile(r"(?<![\w.\-])/(?:(?:home|Users)/[\w.\-]+|(?:root|work|tmp|var/folders)(?=/))")


def clean(notebook: NotebookNode, folders: Sequence[Path] = ()) -> NotebookNode:
    """A notebook without cells tagged `injected-parameters`, metadata of runs, widgets and progress bars.

    Replaced by "…" in text outputs: `folders`, the project's and the interpreter's folders, and home and
    temporary folders. Execution counts start at 1; cell ids stay. ValueError where an output is an error.
    """
    notebook = from_dict(notebook)
    injected = TagRemovePreprocessor(remove_cell_tags={"injected-parameters"}, enabled=True)
    notebook, _ = injected.preprocess(notebook, {})
    notebook.metadata = from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    places = _places(folders)
    count = 0
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = from_dict({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            count += bool(cell.source.strip())
            _clean_outputs(cell, count if cell.source.strip() else None, places)
    return notebook


def machine_path(text: str) -> str | None:
    """The first path in a text that belongs to somebody's machine, or None."""
    found = MACHINE.search(text)
    return found.group() if found else None


def _clean_outputs(cell: NotebookNode, count: int | None, places: re.Pattern) -> None:
    cell.execution_count = count
    kept = []
    for output in cell.outputs:
        if output.output_type == "error":
            raise ValueError(f"cell {count} ended in {output.ename}: {output.evalue}")
        if output.output_type == "execute_result":
            output.execution_count = count
        if output.output_type == "stream":
            output.text = places.sub("…", _without_bars(output.text))
        else:
            for kind, content in output.data.items():
                if isinstance(content, str) and (not kind.startswith("image/") or "svg" in kind):
                    output.data[kind] = places.sub("…", content)
        empty = output.output_type == "stream" and not output.text.strip()
        if not empty and WIDGET not in output.get("data", {}):
            kept.append(output)
    cell.outputs = kept


def _without_bars(text: str) -> str:
    """A stream without the states of progress bars; what overwrites itself leaves its last state."""
    lines = []
    for line in text.split("\n"):
        states = [state for state in line.split("\r") if state.strip()]
        rest = [state for state in states if not BAR.search(state)]
        if rest or not states:
            lines.append(rest[-1] if rest else "")
    return "\n".join(lines)


def _places(folders: Sequence[Path]) -> re.Pattern:
    known = [*folders, ROOT, Path(sys.prefix), Path.home(), Path(tempfile.gettempdir())]
    paths = {str(form) for path in known for form in (path.absolute(), path.resolve())} - {"/"}
    longest_first = sorted(paths, key=len, reverse=True)
    exact = "|".join(rf"(?<![\w.\-]){re.escape(path)}(?![\w\-])" for path in longest_first)
    return re.compile(f"{exact}|{MACHINE.pattern}")
