"""What `rerank` reads, checked before any work: run, queries, passages; and which model it is that answers."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import models, stages
from ..runs import Run, read_trec
from ..sources import folder
from .parameters import reading

WEIGHTS, SETTINGS = (".safetensors", ".bin", ".pt", ".gguf"), (".json", ".model", ".jinja")
HASHED_WHOLE = 2 << 30  # bytes; larger weights are told apart by names, sizes and times


@dataclass(frozen=True)
class Inputs:
    """A run with all texts it needs.

    `run` is without excluded documents; `left_out` counts those that were in it, and the queries that are not in the
    run. `files`: name and hash of those that were read.
    """

    run: Run
    queries: dict[str, str]
    passages: dict[str, str]
    left_out: dict[str, int]
    files: list[dict[str, str]]


def read_inputs(
    run: Path, top: int, queries: Path | None, corpus: Path | None, data: Path | None, subset: str | None
) -> Inputs:
    """Read and check all inputs; UsageError with the file and line, or the query and document, at fault.

    `data` is a folder in a published layout; `queries` and `corpus` go before what it holds. `top`: documents
    of a query that need a text. Each file is read once, so that it may be a pipe.
    """
    given = {"run": run, "queries": queries, "corpus": corpus}
    with reading(), tempfile.TemporaryDirectory() as held:
        at = {name: _held(path, Path(held) / name) for name, path in given.items() if path}
        try:
            files = folder.parts(data, subset, ("queries", "passages", "excluded")) if data else {}
            files |= {"queries": [at["queries"]]} if queries else {}
            files |= {"passages": folder.tables(at["corpus"])} if corpus else {}
            for option, part in {"queries": "queries", "corpus": "passages"}.items():
                if part not in files:
                    lacking = f"; {data} holds none" if data else ""
                    raise ValueError(f"no {option}: give --{option} FILE{lacking}")
            return _read(at["run"], top, files)
        except ValueError as error:
            text = str(error)
            for name, place in at.items():  # the pipe in place of the file that holds it
                text = text.replace(str(place), str(given[name]))
            raise ValueError(text) from None


def _held(path: Path, place: Path) -> Path:
    """`path` itself, or where it is a pipe, a file at `place` with its content and an ending that tells its form."""
    if not path.is_fifo():
        return path
    content = path.read_bytes()
    packed, table = content.startswith(b"\x1f\x8b"), ".jsonl" if content.lstrip()[:1] == b"{" else ".tsv"
    held = place.with_name(place.name + table + (".gz" if packed else ""))
    held.write_bytes(content)
    return held


def _read(run: Path, top: int, files: dict[str, list[Path]]) -> Inputs:
    first = read_trec(run)
    if not first:
        raise ValueError(f"{run}: no row in it, nothing to do")
    wanted = {docid for docids in first.values() for docid in docids}
    found = folder.collection(files, str(run), wanted=wanted)
    if unknown := [qid for qid in first if qid not in found.queries]:
        more = f" (and {len(unknown) - 1} more queries)" if len(unknown) > 1 else ""
        raise ValueError(f"{run}: query {unknown[0]!r} has no text in {files['queries'][0]}{more}")
    barred = found.excluded
    kept = {qid: [d for d in docids if d not in barred.get(qid, ())] for qid, docids in first.items()}
    needed = {docid: qid for qid, docids in kept.items() for docid in docids[:top]}
    if missing := [docid for docid in needed if docid not in found.passages]:
        more = f" (and {len(missing) - 1} more documents)" if len(missing) > 1 else ""
        where = files["passages"][0] if len(files["passages"]) == 1 else files["passages"][0].parent
        lacks = f"no text for document {missing[0]!r} in {where}{more}"
        raise ValueError(f"query {needed[missing[0]]!r}: {lacks}")
    dropped = sum(map(len, first.values())) - sum(map(len, kept.values()))
    read = [run, *(path for paths in files.values() for path in paths)]
    return Inputs(
        run=kept,
        queries={qid: found.queries[qid].text for qid in kept},
        passages={docid: passage.full for docid, passage in found.passages.items() if docid in needed},
        left_out={"excluded_rows": dropped, "ignored_queries": len(found.queries) - len(kept)},
        files=[{"file": path.name, "sha256": stages.sha256(path)} for path in read],
    )


def digest(value: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def identity(options: Any, kind: str) -> dict[str, Any]:
    """What the answers depend on: engine, model, adapter, number format.

    Local weights are hashed (over 2 GiB: their names, sizes and times). A server is known by the name of its
    model alone, so that it may move to another address. UsageError for a folder that is no model.
    """
    found = {"engine": kind, "model": options.model, "dtype": options.dtype}
    served = kind == "openai"
    with reading("--model: "):
        name = models.resolve(options.tokenizer or options.model if served else options.model)
        found["tokenizer" if served else "weights"] = _folder_digest(name)
    if options.adapter:
        with reading("--adapter: "):
            models.adapter_settings(options.adapter)
            found["adapter"] = _folder_digest(str(options.adapter))
    return found


def form(adapter: Path | None) -> dict[str, bool]:
    """The form of prompts that a released adapter was trained with, by its record.json: `repeat` and `reasoning`, see
    `rerank.strategies.build`; empty where there is no such record."""
    record = adapter and adapter / "record.json"
    if not record or not record.is_file():
        return {}
    known = stages.read_json(record).get("config", {}).get("prompting", {})
    return {name: known[name] for name in ("repeat", "reasoning") if name in known}


def _folder_digest(name: str) -> str:
    """A digest of configuration and weights; for a repository of the hub its name."""
    if not Path(name).is_dir():
        return name
    files, total = sorted(Path(name).iterdir()), hashlib.sha256()
    whole = sum(file.stat().st_size for file in files if file.suffix in WEIGHTS) <= HASHED_WHOLE
    for file in (file for file in files if file.suffix in (*WEIGHTS, *SETTINGS)):
        total.update(file.name.encode())
        if whole or file.suffix in SETTINGS:
            total.update(bytes.fromhex(stages.sha256(file)))
        else:
            total.update(f"{file.stat().st_size} {file.stat().st_mtime_ns}".encode())
    return total.hexdigest()[:16]
