"""From your own queries and passages, or from the published data, to a filtered training set in a run's folder.

The folder is that of a run: what these commands write are its stages 01_synthesis and 02_filtering, so notebooks 02
to 04 go on from them.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from .. import export, filtering, profiles, retrieval, stages, synthesis
from ..candidates import with_parts
from ..journal import JournalError
from ..sources import Collection, folder, published13k
from ..synthesis import Synthesised
from ..teachers import Asker, OfflineTeacher, RemoteTeacher, TeacherError
from ..teachers.asking import NOT_ASKED
from .errors import CommandError, UsageError

JOURNAL = "teacher.jsonl"


def command(options: argparse.Namespace) -> None:
    """`synthesise`: a teacher labels your own data; every answer is kept, so a rerun asks for what is missing."""
    settings = _settings(options)
    try:
        collection = with_parts(folder.read(options.data, options.scenario), options.passage_words)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from None
    kind = options.first_stage or settings.synthesis.first_stage["default"]
    chosen = list(collection.queries)[: options.queries]
    print(f"{len(chosen)} queries, {len(collection.passages)} passages; first stage {kind}")
    asked = {qid: collection.queries[qid].text for qid in chosen}
    run = retrieval.first_stage(kind, collection, asked, options.candidates)
    try:
        made, cost = asyncio.run(_label(collection, run, settings, options))
    except (TeacherError, JournalError, OSError) as error:
        raise CommandError(str(error)) from None
    _report(made, cost)
    _write(options.out, settings, collection, made, cost)
    if missing := made.failures.get(NOT_ASKED):
        raise CommandError(
            f"{missing} queries are not done: " + ("the journal has no answer for them" if options.replay else
            "the budget would be passed; raise synthesis.remote.money_budget or token_budget and run this again")
        )  # fmt: skip


def filter_command(options: argparse.Namespace) -> None:
    """`filter`: keep the examples whose two labels agree (self-consistency, section 4.1.5)."""
    settings = _settings(options)
    try:
        source = stages.stage_file(options.out, "01_synthesis", "examples.jsonl")
        examples = synthesis.load(source)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from None
    alpha = settings.filtering.alpha if options.alpha is None else options.alpha
    if not 0 <= alpha <= 1:
        raise UsageError(f"--alpha {alpha}: expected a number in 0..1")
    plain = [asdict(example) for example in examples]
    scores = filtering.self_consistency(plain, alpha).scores
    kept = [example for example, score in zip(examples, scores, strict=True) if score >= alpha]
    stage = stages.Stage(options.out, "02_filtering", settings, settings.seed, inputs=[source])
    synthesis.save(stage.path("kept.jsonl"), kept)
    names = [{"scenario": e.scenario, "dataset": e.dataset, "qid": e.qid} for e in examples]
    stage.record(
        {
            "alpha": alpha,
            "kept": len(kept),
            "dropped": len(examples) - len(kept),
            "sweep": filtering.alpha_sweep(plain, settings.filtering.alphas),
            "scores": [name | {"score": score} for name, score in zip(names, scores, strict=True)],
        }
    )
    print(f"kept {len(kept)} of {len(examples)} examples at alpha {alpha:g}: {stage.finish() / 'kept.jsonl'}")


def published_command(options: argparse.Namespace) -> None:
    """`published`: take the authors' training data over, from local folders or from the hub."""
    settings = _settings(options)
    subsets = ["13k"] if options.subset == "13k" else ["13k", options.subset]
    try:
        folders = {name: getattr(options, f"data_{name}") or published13k.download(name) for name in subsets}
        rows = published13k.rows(folders["13k"])
        if options.subset != "13k":
            choose = {"sft": published13k.sft_rows, "rl": published13k.rl_rows}[options.subset]
            rows = choose(folders[options.subset], rows)
        queries, texts = published13k.texts(folders["13k"])
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from None
    stage = stages.Stage(options.out, "01_synthesis", settings, settings.seed)
    examples = [synthesis.example_of(row) for row in rows]
    synthesis.save(stage.path("examples.jsonl"), examples)
    stages.write_json(stage.path("id_query.json"), queries)
    stages.write_json(stage.path("id_doc.json"), texts)
    counts = {name: sum(e.dataset == name for e in examples) for name in queries}
    table = synthesis.statistics_table(examples, counts)
    stage.record({"table5": table, "teacher": "DeepSeek-R1, published"})
    print(f"{len(examples)} examples of {published13k.HUB[options.subset]}: {stage.finish()}")


async def _label(
    collection: Collection, run: dict[str, list[str]], settings: profiles.Profile, options: argparse.Namespace
) -> tuple[Synthesised, dict[str, Any]]:
    """Ask the teacher for all labels; returns them and what they cost."""
    wanted = settings.synthesis
    if wanted.teacher == "offline":
        teacher = OfflineTeacher(collection, wanted.threshold, chain=wanted.chain, annotated=wanted.annotated)
        teacher.warm_up([collection.queries[qid] for qid in run])
        return await _synthesise(collection, teacher, run, settings), {"model": "offline"}
    async with Asker(wanted.remote, options.out / JOURNAL, replay=options.replay) as asker:
        if asker.journal.dropped:
            print(f"{JOURNAL}: its last line was half written and is dropped", file=sys.stderr)
        if asker.journal.done:
            print(f"{JOURNAL}: {len(asker.journal.done)} answers are there already", file=sys.stderr)
        teacher = RemoteTeacher(asker, collection.scenario, collection.qrels)
        made = await _synthesise(collection, teacher, run, settings, asker)
        return made, asker.summary()


async def _synthesise(
    collection: Collection, teacher: Any, run: dict, settings: profiles.Profile, asker: Asker | None = None
) -> Synthesised:
    """With a bar over queries: rate and time left, and what has been spent so far."""
    from tqdm import tqdm

    wanted = settings.synthesis
    with tqdm(total=len(run), desc=collection.name, unit="query", disable=None) as bar:

        def step() -> None:
            bar.set_postfix_str(asker.cost() if asker else "", refresh=False)
            bar.update()

        return await synthesis.synthesise(
            collection,
            teacher,
            run,
            seed=settings.seed,
            **synthesis.list_settings(wanted),
            progress=step,
        )


def _write(
    out: Path, settings: profiles.Profile, collection: Collection, made: Synthesised, cost: dict[str, Any]
) -> None:
    """The stage 01_synthesis, with the data set to publish inside."""
    if not made.examples:
        raise CommandError("no example was made; the table above says which step dropped the queries")
    stage = stages.Stage(out, "01_synthesis", settings, settings.seed)
    synthesis.save(stage.path("examples.jsonl"), made.examples)
    synthesis.save_texts(stage.folder, {collection.name: collection})
    table = synthesis.statistics_table(made.examples, {collection.name: made.funnel["queries"]})
    results = {"table5": table, "funnel": {collection.name: made.funnel}, "failures": made.failures}
    stages.write_json(stage.path("statistics.json"), results)
    export.write(
        stage.path("dataset"),
        made.examples,
        {collection.name: {query.id: query.text for query in collection.queries.values()}},
        {collection.name: collection.texts()},
        statistics=table,
        about=f"Queries and passages: {collection.name}.",
        teacher=cost["model"],
    )
    stage.record({**results, "teacher": cost["model"], "cost": cost})
    print(f"{len(made.examples)} examples: {stage.finish()}")


def _report(made: Synthesised, cost: dict[str, Any]) -> None:
    """The funnel, failures and costs, as lines."""
    for step, count in made.funnel.items():
        print(f"  {step:24s}{count:8d}")
    for kind, count in made.failures.items():
        print(f"  dropped, {kind + ':':15s}{count:8d} queries")
    if "requests" in cost:
        failed = ", ".join(f"{count} {kind}" for kind, count in cost["failures"].items()) or "none"
        print(f"  {cost['requests']} requests, failed: {failed}")
        tokens = cost["prompt_tokens"] + cost["output_tokens"]
        print(f"  {tokens} tokens and {cost['money']:.4f} of money, earlier runs included")


def _settings(options: argparse.Namespace) -> profiles.Profile:
    """The profile with `-p KEY=VALUE` and `--teacher`; written to the run's folder, as notebooks do."""
    changes: dict[str, Any] = {}
    for pair in options.parameters:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"-p {pair}: expected KEY=VALUE, the key as synthesis.remote.model")
        changes[key.replace(".", "__")] = yaml.safe_load(value) if value else ""
    if getattr(options, "teacher", None):
        changes["synthesis__teacher"] = options.teacher
    try:
        return profiles.start(options.profile, str(options.out), **changes)[0]
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(str(error)) from None
