"""`rerank`: a first-stage run, queries and passages in, a reranked TREC run out.

Finished queries are kept in a store, and answers in another one until all queries are finished, so that a run that
was stopped goes on where it was.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import typer
from tqdm import tqdm

from .. import engines, runs, stages
from .. import traces as tracing
from ..engines import KINDS, PRESETS, Engine, EngineError
from ..engines.openai import endpoint
from ..recovery import read_template
from ..rerank.run import Reranked, work
from ..rerank.strategies import STRATEGIES, build
from ..store import Store
from .parameters import CommandError, UsageError, reading
from .rerank_inputs import Inputs, digest, form, identity, read_inputs

# What the answers depend on. Concurrency and addresses are not among it.
SETTINGS = (
    *("strategy", "top", "window", "step", "max_tokens", "passage_tokens", "query_tokens"),
    *("max_model_len", "overlong", "retry", "constrained", "seed"),
)
PROMPT = ("passage_tokens", "query_tokens", "overlong", "window", "step", "retry", "constrained", "prefetch")


def _file(about: str, metavar: str = "FILE") -> Any:
    return typer.Option(metavar=metavar, help=about)


def _count(about: str) -> Any:
    return typer.Option(metavar="N", min=1, help=about)


def _flag(name: str, about: str) -> Any:
    return typer.Option(f"--{name}", help=about)


def rerank(
    run: Annotated[Path, _file("the first stage's TREC run")],
    model: Annotated[str, _file("a folder, the embedded smollm2-135m-instruct, or a server's name", "NAME")],
    out: Annotated[Path, _file("the reranked TREC run")],
    queries: Annotated[Path | None, _file("id TAB text, or JSON lines with _id and text")] = None,
    corpus: Annotated[Path | None, _file("JSON lines with _id, title, text; or a folder", "PATH")] = None,
    data: Annotated[Path | None, _file("BEIR's or BRIGHT's form, for both of the above", "FOLDER")] = None,
    subset: Annotated[str | None, _file("of a --data folder with several, as biology", "NAME")] = None,
    journal: Annotated[Path | None, _file("of finished queries (OUT.journal)")] = None,
    tag: Annotated[str, typer.Option(help="last column of the run")] = "reasonrank",
    adapter: Annotated[Path | None, _file("a LoRA adapter", "FOLDER")] = None,
    engine: Annotated[Literal["auto", *KINDS], typer.Option()] = "auto",
    base_url: Annotated[str, _file("of a server, with its /v1; its key is in OPENAI_API_KEY", "URL")] = "",
    tokenizer: Annotated[str, _file("of a server's model, where MODEL is no name of one", "NAME")] = "",
    text_prompts: Annotated[bool, _flag("text-prompts", "for servers other than vLLM: text, no ids")] = False,
    dtype: Annotated[str, typer.Option(help="number format of the weights")] = "auto",
    max_model_len: Annotated[int | None, _count("context in tokens (the model's)")] = None,
    max_in_flight: Annotated[int, _count("requests computed at a time")] = 64,
    strategy: Annotated[Literal[*STRATEGIES], typer.Option()] = "sliding",
    top: Annotated[int, _count("candidates that are reranked; the others stay behind them")] = 100,
    window: Annotated[int, _count("candidates of one prompt")] = 20,
    step: Annotated[int, _count("candidates by which the window moves")] = 10,
    max_tokens: Annotated[int, _count("tokens of an answer, reasoning included")] = 3172,
    passage_tokens: Annotated[int, _count("tokens of a passage")] = 512,
    query_tokens: Annotated[int, _count("tokens of a query")] = 4096,
    overlong: Annotated[
        Literal["shorten", "error"], _flag("overlong", "a prompt that does not fit")
    ] = "shorten",
    sampling: Annotated[Literal[*PRESETS], typer.Option()] = "greedy",
    seed: Annotated[int, typer.Option()] = 0,
    traces: Annotated[bool, _flag("traces", "keep all answers, in OUT.traces.jsonl, for `trace`")] = False,
    retry: Annotated[bool, _flag("retry", "ask once more for an unfinished answer")] = False,
    constrained: Annotated[bool, _flag("constrained", "hold answers to their form, on vLLM")] = False,
    prefetch: Annotated[bool, _flag("prefetch", "read on while an answer is decoded, on vLLM")] = False,
    template: Annotated[Path | None, _file("a Jinja file with the blocks system and user")] = None,
) -> None:
    """Rerank a TREC run of your own. What is finished is kept: the same command goes on after a kill."""
    options = SimpleNamespace(**locals())
    options.journal = journal or out.with_name(out.name + ".journal")
    options.answers = options.journal.with_name(options.journal.name + ".answers")  # of unfinished queries
    kind = _check(options)
    with reading("--template "):
        options.template = read_template(template) if template else None
    inputs = read_inputs(run, top, queries, corpus, data, subset)
    header = {
        "inputs": {name: digest(getattr(inputs, name)) for name in ("run", "queries", "passages")},
        "model": identity(options, kind),
        "settings": {name: getattr(options, name) for name in SETTINGS},
        "sampling": sampling,
    }
    header |= {"traces": True} if traces else {}  # a journal holds the answers of all its queries, or of none
    header |= {"template": digest(asdict(options.template))} if template else {}
    with reading("journal "):
        if not options.journal.exists():  # a new start
            options.answers.unlink(missing_ok=True)
        store = Store(options.journal, header)
    with store:
        todo = [qid for qid in inputs.run if qid not in store.done]
        if store.done:
            rest = "" if todo else "; nothing to do"
            done = f"{len(store.done)} of {len(inputs.run)} queries"
            print(f"{done} are in {store.path}{rest}", file=sys.stderr)
        took = _work(options, kind, inputs, header, todo, store) if todo else {}
        _finish(options, inputs, header, store.done, todo, took)


def _check(options: Any) -> str:
    """The engine that is meant; UsageError for what can be seen to be wrong before anything is read."""
    for path in (options.out, options.journal):
        _refuse(not path.absolute().parent.is_dir(), f"{path}: its folder does not exist")
        read = [given.absolute() for given in (options.run, options.queries, options.corpus) if given]
        taken = path.is_dir() or path.absolute() in read
        _refuse(taken, f"{path}: expected the name of a file that is not read")
    with reading():
        STRATEGIES[options.strategy].calls(0, options.window, options.step)
        if options.base_url:
            endpoint(options.base_url)
    served = bool(options.base_url)
    kind = "openai" if served and options.engine == "auto" else engines.choose(options.engine)
    local, texts = kind == "transformers", options.tokenizer or options.text_prompts
    same = options.journal.absolute() == options.out.absolute()
    _refuse(same, f"--journal {options.journal}: expected another file than --out")
    _refuse(len(options.tag.split()) != 1, f"--tag {options.tag!r}: expected a word without blanks")
    _check_room(options.max_tokens, options.max_model_len or math.inf)
    _refuse(served != (kind == "openai"), "--engine openai and --base-url URL go together")
    loads = "a server loads adapters itself; give its name for it as --model"
    _refuse(served and options.adapter, f"--adapter: {loads}")
    _refuse(not served and texts, "--tokenizer and --text-prompts are for --engine openai")
    own = f"--strategy {options.strategy} has a prompt of its own"
    own_prompt = options.strategy in ("direct", "pointwise")
    _refuse(options.template and own_prompt, f"--template goes with reasoning over windows; {own}")
    can = "only vLLM can, in this process or as a server without --text-prompts"
    _refuse(options.constrained and (local or options.text_prompts), f"--constrained: {can}")
    _refuse(options.prefetch and local, "--prefetch: the transformers engine keeps no prefixes")
    return kind


def _check_room(max_tokens: int, context: float) -> None:
    _refuse(context <= max_tokens, f"--max-tokens {max_tokens}: the context has {context} tokens")


def _refuse(holds: Any, message: str) -> None:
    if holds:
        raise UsageError(message)


def _work(
    options: Any, kind: str, inputs: Inputs, header: dict, todo: list[str], store: Store
) -> dict[str, Any]:
    """Rerank the queries that are left, each in the store as soon as it is done; what it took, for the record."""
    total, shown_every = len(inputs.run), 0.5 if sys.stderr.isatty() else 60  # seconds
    left = {qid: inputs.run[qid][: options.top] for qid in todo}
    calls = STRATEGIES[options.strategy].calls
    needed = sum(calls(len(docids), options.window, options.step)[0] for docids in left.values())
    with (
        Store(options.answers, header) as answers,
        open_engine(options, kind) as engine,
        tqdm(total=needed, unit=" answers", mininterval=shown_every) as bar,
    ):
        engine.kept = answers
        limit = options.max_tokens
        _check_room(limit, engine.max_model_len)
        reranker = build(
            options.strategy,
            engine,
            max_length=engine.max_model_len - limit,
            sampling=replace(PRESETS[options.sampling], max_tokens=limit, seed=options.seed),
            # two prompts more than the engine computes at a time, so that it is never short of one
            max_in_flight=options.max_in_flight + 2,
            template=options.template,
            **{name: getattr(options, name) for name in PROMPT},
            **form(options.adapter),
        )

        def finished(qid: str, result: Reranked) -> None:
            row = {"docids": result.docids, "statuses": [answer.status for answer in result.windows]}
            row |= work([result.windows])
            row |= {"windows": list(map(tracing.window, result.windows))} if options.traces else {}
            store.append(qid, row)
            bar.set_postfix_str(f"{len(store.done)}/{total} queries", refresh=False)

        texts = inputs.queries, inputs.passages
        try:
            result = reranker.rerank_run_sync(left, *texts, answered=bar.update, finished=finished)
        except EngineError as error:
            kept = f"{len(store.done)} of {total} queries are in the journal"
            raise CommandError(f"{error}\n{kept}; the same command goes on from there") from error
        now = engine.stats
        rate = round(now["output_tokens"] / result.seconds, 1) if result.seconds else None
        broken = now["control_tokens"]
        took = {"seconds": round(result.seconds, 3), "output_tokens_per_second": rate}
        return took | ({"control_tokens_broken_up": broken} if broken else {})


def open_engine(options: Any, kind: str) -> Engine:
    """Open the engine; CommandError with the reason where it does not start."""
    settings = {name: getattr(options, name) for name in ("dtype", "max_model_len", "seed")}
    settings["max_num_seqs"] = options.max_in_flight
    if kind == "openai":
        settings |= {"base_url": options.base_url, "tokenizer": options.tokenizer or None}
        settings["token_ids"] = not options.text_prompts
    else:
        settings["adapter"] = options.adapter
    try:
        return engines.open_engine(kind, options.model, **settings)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        where = "" if kind == "openai" else f"the {kind} engine did not start: "
        raise CommandError(where + " ".join(f"{error}".split())) from error


def _finish(
    options: Any, inputs: Inputs, header: dict, done: Mapping[str, Any], todo: list[str], took: dict[str, Any]
) -> None:
    """Write the run in the order of the first stage, then its record; the record of an earlier finish stays."""
    run, statuses = {}, Counter()
    for qid, docids in inputs.run.items():
        head = done[qid]["docids"]
        if sorted(head) != sorted(docids[: options.top]):
            raise CommandError(f"{options.journal}: query {qid!r} has other documents than the run")
        run[qid] = [*head, *docids[len(head) :]]
        statuses.update(done[qid]["statuses"])
    runs.write_trec(options.out, run, options.tag)
    if options.traces:
        rows = (
            tracing.row(qid, inputs.queries[qid], docids, run[qid], done[qid]["windows"], inputs.passages)
            for qid, docids in inputs.run.items()
        )
        runs.write_jsonl(options.out.with_name(options.out.name + tracing.ENDING), rows)
    made = {name: sum(done[qid].get(name, 0) for qid in run) for name in work([])}
    record = options.out.with_name(options.out.name + ".json")
    if todo or not record.exists():
        config = header | {"sampling": asdict(PRESETS[options.sampling]), "digest": digest(header)}
        body = {"command": "rerank", **stages.provenance(config, options.seed), "files": inputs.files}
        result = {"queries": len(run), "queries_now": len(todo), "statuses": dict(statuses)}
        stages.write_json(record, body | {"result": result | made | took | inputs.left_out})
    options.answers.unlink(missing_ok=True)
    counts = {**made, **statuses, **took, **inputs.left_out}
    shown = "".join(f", {n} {name.replace('_', ' ')}" for name, n in counts.items() if n)
    print(f"{len(run)} queries ({len(todo)} now){shown} -> {options.out}")
