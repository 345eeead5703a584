"""The book: executed notebooks, the docs and the library as a static site. `make book` calls this.

python -m tools.book notebooks runs/default/book
"""

from __future__ import annotations

import ast
import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jupyter_server_mathjax
import nbformat
import typer

from reasonrank.stages import ROOT

from .clean import clean

LIBRARY = ROOT / "lib" / "reasonrank"
MORE = ("DATA", "EXPERIMENTS", "RESULTS", "BATCHES", "SCALE", "EXTENDING")
SPAN = r'<span class="n[nfcb]?">([\w.]+)</span>'
CHAIN = re.compile(rf'{SPAN}(?:<span class="o">\.</span>{SPAN})*')


def main(notebooks: Path, out: Path) -> None:
    """Build the book of the executed notebooks in a folder; what was at `out` before is replaced."""
    if not sorted(notebooks.glob("[0-9]*.ipynb")):
        sys.exit(f"error: {notebooks}: no executed notebook in it; run `make reproduce` first")
    with tempfile.TemporaryDirectory() as held:
        source, made = Path(held) / "source", Path(held) / "book"
        lay_out(notebooks, source)
        command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
        command += ["-c", str(ROOT / "docs"), str(source), str(made)]
        done = subprocess.run(command, cwd=ROOT, env=os.environ | {"BOOK_SOURCE": held})
        if done.returncode:
            sys.exit(f"error: the book of {notebooks} has warnings, see above")
        shutil.rmtree(made / ".doctrees", ignore_errors=True)
        (made / ".buildinfo").unlink(missing_ok=True)
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(made, out)
    print(f"the book: {out}/index.html")


def lay_out(notebooks: Path, source: Path) -> None:
    """Write the book's source: the folders of the project, so that their links hold, and a page for each module."""
    for folder in ("notebooks", "docs", "library"):
        (source / folder).mkdir(parents=True)
    shutil.copytree(ROOT / "figures", source / "figures")
    names = []
    for path in sorted(notebooks.glob("[0-9]*.ipynb")):
        content = clean(nbformat.read(path, as_version=4), [notebooks.parent])
        nbformat.write(content, source / "notebooks" / path.name)
        names.append(f"notebooks/{path.stem}")
    for name in MORE:
        shutil.copy(ROOT / "docs" / f"{name}.md", source / "docs")
    index = ["# The library", "", "Each module of `lib/reasonrank`, in full.", ""]
    for module, path in modules().items():
        (source / "library" / f"{module}.md").write_text("\n".join(_page(module, path)), encoding="utf-8")
        about = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]
        index.append(f"- [{module}]({module}.md): {about}")
    index += ["", _contents(list(modules()))]
    (source / "library" / "index.md").write_text("\n".join(index), encoding="utf-8")
    more = [*(f"docs/{name}" for name in MORE), "library/index"]
    contents = _contents(names, "Notebooks") + "\n" + _contents(more, "More")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (source / "index.md").write_text(f"{readme}\n{contents}", encoding="utf-8")


def mathjax(folder: Path) -> Path:
    """A folder that holds MathJax with its fonts, as a package brings it, but for an empty font that it asks the
    browser to load from about:blank, which browsers refuse."""
    place, source = folder / "mathjax", Path(jupyter_server_mathjax.__file__).parent / "static"
    left_out = shutil.ignore_patterns("localization")
    shutil.copytree(source, place / "MathJax", dirs_exist_ok=True, ignore=left_out)
    for file in (place / "MathJax" / "config").glob("*.js"):
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace("url('about:blank')", "local('MathJax_Blank')"), encoding="utf-8")
    return place


@cache
def modules() -> dict[str, Path]:
    """Module, without the package's name ("training.sft"), to its file; packages are named without __init__."""
    found = {}
    for path in sorted(LIBRARY.rglob("*.py")):
        parts = path.relative_to(LIBRARY).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        found[name or "reasonrank"] = path
    return dict(sorted(found.items()))


@cache
def places() -> dict[str, str]:
    """A name of the library ("answers.parse", "rerank.windows") to its page and anchor."""
    found = {module: f"library/{module}.html" for module in modules()}
    imported = {}
    for module, path in modules().items():
        package = module if path.stem == "__init__" else module.rpartition(".")[0]
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found[f"{module}.{node.name}"] = f"library/{module}.html#{_anchor(module, node.name)}"
            elif isinstance(node, ast.ImportFrom) and node.level and path.stem == "__init__":
                base = ".".join(part for part in (package, node.module) if part)
                imported |= {f"{module}.{n.asname or n.name}": f"{base}.{n.name}" for n in node.names}
    return found | {name: found[target] for name, target in imported.items() if target in found}


def link_names(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Link the library's names in a page: code such as `evaluation.evaluate`, and words set as `code`.

    In code, a name counts where the page imports it from the library; in text, where it is a module's or a
    module's with a function of it.
    """
    if doctree is None or page.startswith("library/"):
        return
    known = _imports(app.env.doc2path(page))
    up = "../" * page.count("/")

    def in_code(found: re.Match) -> str:
        words = html.unescape(re.sub("<[^>]*>", "", found[0])).split(".")
        full = words[1:] if words[0] == "reasonrank" else [*known.get(words[0], ["?"]), *words[1:]]
        return _linked(found[0], [".".join(full[:n]) for n in range(len(full), 0, -1)], up)

    def in_text(found: re.Match) -> str:
        return _linked(found[0], [found[1].removeprefix("reasonrank.")], up)

    blocks = re.compile(r'<div class="highlight-i?python3? .*?</pre>', re.DOTALL)
    body = blocks.sub(lambda found: CHAIN.sub(in_code, found[0]), context["body"])
    word = r'(?<!">)<code class="docutils literal notranslate"><span class="pre">([\w.]+)</span></code>'
    context["body"] = re.sub(word, in_text, body)


def _linked(text: str, names: list[str], up: str) -> str:
    place = next((places()[name] for name in names if name in places()), None)
    return f'<a class="place" href="{up}{place}">{text}</a>' if place else text


def _imports(path: Path | str) -> dict[str, list[str]]:
    """Names that the code of a notebook takes from the library, as written there, to their parts in it."""
    if Path(path).suffix != ".ipynb":
        return {}
    found = {}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            plain = "\n".join(line for line in cell.source.splitlines() if not line.startswith(("%", "!")))
            for node in ast.walk(ast.parse(plain)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "reasonrank":
                    base = node.module.split(".")[1:]
                    found |= {name.asname or name.name: [*base, name.name] for name in node.names}
    return found


def _page(module: str, path: Path) -> Iterator[str]:
    """A module's page: its code in full, a heading before each function and class that others may use."""
    text = path.read_text(encoding="utf-8")
    lines, begin = text.splitlines(), 1
    yield from (f"# {module}", "", f"`lib/reasonrank/{path.relative_to(LIBRARY).as_posix()}`", "")
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = min([node.lineno, *(mark.lineno for mark in node.decorator_list)])
            yield from _code(lines[begin - 1 : first - 1])
            heading = "" if node.name.startswith("_") else f"## `{node.name}`"
            yield from (f"({_anchor(module, node.name)})=", heading, "")
            yield from _code(lines[first - 1 : node.end_lineno])
            begin = node.end_lineno + 1
    yield from _code(lines[begin - 1 :])


def _code(lines: list[str]) -> list[str]:
    text = "\n".join(lines).strip("\n")
    return ["`````python", text, "`````", ""] if text.strip() else []


def _anchor(module: str, name: str) -> str:
    """Sphinx sees no case and no leading underscore: `Outcome`, `outcome` and `_outcome` are told apart by words."""
    kind = "own-" * name.startswith("_") + "class-" * (name != name.lower())
    return re.sub(r"[^a-z0-9]+", "-", f"{module}-{kind}{name}".lower()).strip("-")


def _contents(names: list[str], caption: str = "") -> str:
    """A table of contents that shows in the margin alone."""
    titled = [f":caption: {caption}"] if caption else []
    pages = (f"/{name}" if "/" in name else name for name in names)
    return "\n".join(["", "```{toctree}", ":hidden:", *titled, "", *pages, "```", ""])


if __name__ == "__main__":
    typer.run(main)
