"""Rerank a TREC run of your own: a first-stage run, queries and passages in, a reranked TREC run out.

Finished queries are kept in a journal, so that a run that was stopped goes on where it was. The key for a server
is taken from the environment variable OPENAI_API_KEY alone.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from .. import runs, stages
from ..engines import PRESETS, Engine, EngineError
from ..journal import Journal, JournalError
from ..rerank.run import RerankedRun, Reranker, run_sync
from ..rerank.schedule import windows
from ..rerank.strategies import build
from .errors import CommandError, UsageError
from .rate import RateLine
from .rerank_engine import engine_kind, identity, open_engine
from .rerank_inputs import Inputs, digest, read_inputs

# What the answers depend on. Concurrency and addresses are not among it.
SETTINGS = (
    *("strategy", "top", "window", "step", "max_tokens", "passage_tokens", "query_tokens"),
    *("max_model_len", "overlong", "retry", "constrained", "seed"),
)
SUMS = (
    "calls",
    "prompt_tokens",
    "output_tokens",
    "retries",
    "shortened",
    "capped_passages",
    "capped_queries",
)


def command(options: argparse.Namespace) -> None:
    """`rerank`: read and check everything, ask for what the journal lacks, write the run and its record."""
    journal_path = options.journal or options.out.with_name(options.out.name + ".journal")
    _check(options, journal_path)
    kind = engine_kind(options)
    inputs = read_inputs(
        options.run, options.top, options.queries, options.corpus, options.data, options.subset
    )
    header = {
        "inputs": inputs.digests(),
        "model": identity(options, kind),
        "settings": {name: getattr(options, name) for name in SETTINGS},
        "sampling": options.sampling,
    }
    try:
        with _journal(journal_path, header) as journal:
            _tell(inputs, journal)
            todo = [qid for qid in inputs.run if qid not in journal.done]
            seconds = _work(options, kind, inputs, todo, journal) if todo else 0.0
            _finish(options, inputs, header, journal, todo, seconds)
    except OSError as error:  # a disk that is full, a folder that may not be written
        raise CommandError(str(error)) from error


def _check(options: argparse.Namespace, journal: Path) -> None:
    """UsageError for what can be seen to be wrong before anything is read."""
    for path in (options.out, journal):
        if not path.absolute().parent.is_dir():
            raise UsageError(f"{path}: its folder does not exist")
        read = [given.absolute() for given in (options.run, options.queries, options.corpus) if given]
        if path.is_dir() or path.absolute() in read:
            raise UsageError(f"{path}: expected the name of a file that is not read")
    if journal.absolute() == options.out.absolute():
        raise UsageError(f"--journal {journal}: expected another file than --out")
    if len(options.tag.split()) != 1:
        raise UsageError(f"--tag {options.tag!r}: expected a word without blanks")
    try:
        if options.strategy in ("sliding", "direct"):
            windows(0, options.window, options.step)
    except ValueError as error:
        raise UsageError(f"--window {options.window} --step {options.step}: {error}") from None


def _journal(path: Path, header: dict[str, Any]) -> Journal:
    try:
        return Journal(path, header)
    except (JournalError, OSError) as error:
        raise UsageError(f"journal {error}") from None


def _tell(inputs: Inputs, journal: Journal) -> None:
    """What is left out, and what is there already, on standard error."""
    done, total = sum(qid in journal.done for qid in inputs.run), len(inputs.run)
    notes = {
        f"queries that are not in the run, ignored: {inputs.ignored}": inputs.ignored,
        f"rows of excluded documents, dropped: {inputs.dropped}": inputs.dropped,
        f"{journal.path}: its last line was half-written and is dropped": journal.dropped,
        f"{done} of {total} queries are in the journal": 0 < done < total,
        f"nothing to do: all {total} queries are in {journal.path}": done == total,
    }
    for note in (note for note, holds in notes.items() if holds):
        print(note, file=sys.stderr)


def _work(options: argparse.Namespace, kind: str, inputs: Inputs, todo: list[str], journal: Journal) -> float:
    """Rerank the queries that are left; the seconds it took, without the start of the engine."""
    with open_engine(options, kind) as engine:
        reranker = _reranker(options, engine)
        answers = sum(reranker.answers_needed(len(inputs.run[qid][: options.top])) for qid in todo)
        line = RateLine(len(inputs.run), len(inputs.run) - len(todo), answers)
        begin = time.monotonic()
        try:
            run_sync(_queries(reranker, inputs, todo, options, journal, line))
        except EngineError as error:
            kept = f"{line.queries_done} of {line.queries} queries are in the journal"
            raise CommandError(f"{error}\n{kept}; the same command goes on from there") from error
        finally:
            line.close()
        return time.monotonic() - begin


def _reranker(options: argparse.Namespace, engine: Engine) -> Reranker:
    room = engine.max_model_len - options.max_tokens
    if room < 1:
        raise UsageError(f"--max-tokens {options.max_tokens}: the context has {engine.max_model_len} tokens")
    try:
        return build(
            options.strategy,
            engine,
            passage_tokens=options.passage_tokens,
            query_tokens=options.query_tokens,
            max_length=room,
            overlong=options.overlong,
            window=options.window,
            step=options.step,
            sampling=replace(PRESETS[options.sampling], max_tokens=options.max_tokens, seed=options.seed),
            max_in_flight=options.max_in_flight,
            retry=options.retry,
            constrained=options.constrained,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None


async def _queries(
    reranker: Reranker,
    inputs: Inputs,
    todo: Iterable[str],
    options: argparse.Namespace,
    journal: Journal,
    line: RateLine,
) -> None:
    """All queries that are left, each in the journal as soon as it is done; the first error ends them all.

    The engine computes `max_in_flight` requests at a time. Twice as many queries are begun: enough to keep it
    busy, few enough for queries to be finished, and kept, all along the run and not only at its end.
    """
    begun = asyncio.Semaphore(2 * options.max_in_flight)

    async def one(qid: str) -> None:
        async with begun:
            journal.append(qid, _entry(qid, await _query(qid, reranker, inputs, options.top, line)))
            line.query()

    try:
        async with asyncio.TaskGroup() as group:
            for qid in todo:
                group.create_task(one(qid))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def _query(qid: str, reranker: Reranker, inputs: Inputs, top: int, line: RateLine) -> RerankedRun:
    docids = inputs.run[qid][:top]
    seen, expected = 0, reranker.answers_needed(len(docids))

    def progress(done: int, total: int) -> None:
        nonlocal seen, expected
        line.answered(done - seen, expected - total)
        seen, expected = done, total

    try:
        return await reranker.rerank_run({qid: docids}, inputs.queries, inputs.texts, progress=progress)
    except ValueError as error:
        raise CommandError(f"query {qid!r}: {error}") from None


def _entry(qid: str, result: RerankedRun) -> dict[str, Any]:
    """What the journal keeps of a query; `seconds` is from its first request to its last answer."""
    statuses = [trace.status for trace in result.traces[qid]]
    sums = {name: getattr(result, name) for name in SUMS}
    return {"docids": result.run[qid], "statuses": statuses, **sums, "seconds": round(result.seconds, 3)}


def _finish(
    options: argparse.Namespace,
    inputs: Inputs,
    header: dict[str, Any],
    journal: Journal,
    todo: list[str],
    seconds: float,
) -> None:
    """Write the run in the order of the first stage, then its record; the record of an earlier finish stays."""
    head = {qid: journal.done[qid]["docids"] for qid in inputs.run}
    for qid, docids in head.items():
        if sorted(docids) != sorted(inputs.run[qid][: options.top]):
            raise CommandError(f"{journal.path}: query {qid!r} has other documents than the run")
    run = {qid: [*docids, *inputs.run[qid][len(docids) :]] for qid, docids in head.items()}
    runs.write_trec(options.out, run, options.tag)
    result = summary({qid: journal.done[qid] for qid in inputs.run}, todo, seconds)
    record = options.out.with_name(options.out.name + ".json")
    if todo or not record.exists():
        result |= {"excluded_rows": inputs.dropped, "ignored_queries": inputs.ignored}
        files = [{"file": file.name, "sha256": stages.sha256(file)} for file in inputs.files]
        config = header | {"sampling": asdict(PRESETS[options.sampling]), "digest": digest(header)}
        provenance = stages.provenance(config, options.seed)
        stages.write_json(record, {"command": "rerank", **provenance, "files": files, "result": result})
    print(f"{describe(result)} -> {options.out}")


def summary(entries: dict[str, dict[str, Any]], todo: list[str], seconds: float) -> dict[str, Any]:
    """Sums over all queries; `seconds` and tokens a second are those of the `todo`, the queries asked now."""
    now = sum(entries[qid]["output_tokens"] for qid in todo)
    return {
        "queries": len(entries),
        "queries_now": len(todo),
        **{name: sum(entry[name] for entry in entries.values()) for name in SUMS},
        "statuses": dict(Counter(status for entry in entries.values() for status in entry["statuses"])),
        "seconds": round(seconds, 3),
        "output_tokens_per_second": round(now / seconds, 1) if seconds else None,
    }


def describe(result: dict[str, Any]) -> str:
    """A summary in one line."""
    parts = [f"{result['queries']} queries ({result['queries_now']} now)", f"{result['calls']} calls"]
    parts += [f"{count} {status}" for status, count in sorted(result["statuses"].items())]
    parts += [f"{result['prompt_tokens']} + {result['output_tokens']} tokens"]
    parts += [f"{result[name]} {name}" for name in ("retries", "shortened") if result[name]]
    if result["seconds"]:
        parts += [f"{result['seconds']:.1f} s", f"{result['output_tokens_per_second']} output tokens/s"]
    return ", ".join(parts)
