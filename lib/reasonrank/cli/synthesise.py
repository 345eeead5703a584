"""From your own queries and passages to a filtered training set in a run's folder.

The folder is that of a run: what these commands write are its stages 01_synthesis and 02_filtering, so notebooks 02
to 04 go on from them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .. import examples, filtering, profiles, stages, synthesis
from ..sources import SCENARIOS, folder
from ..sources.base import with_parts
from ..teachers import TeacherError
from .parameters import CommandError, Parameters, ProfileName, read_parameters, reading

Out = Annotated[Path, typer.Option(metavar="DIR", help="the folder of the run")]
Data = Annotated[Path, typer.Option(metavar="FOLDER", help="queries.jsonl, passages.jsonl, labels.jsonl")]
Scenario = Annotated[Literal[SCENARIOS], typer.Option(help="what relevance means")]
Teacher = Annotated[Literal["offline", "remote"] | None, typer.Option(help="in place of the profile's")]
FirstStage = Annotated[Literal["dense", "bm25"] | None, typer.Option(help="in place of the profile's")]
Candidates = Annotated[int, typer.Option(min=2, metavar="K", help="passages of the first stage")]
Queries = Annotated[int | None, typer.Option(min=1, metavar="N", help="the first N; default: all")]
Words = Annotated[int, typer.Option(min=1, metavar="N", help="longer passages are split")]
Replay = Annotated[bool, typer.Option("--replay", help="answers from the run's store alone, no network")]
Alpha = Annotated[float | None, typer.Option(help="least NDCG@10, 0..1; default: the profile's")]


def synthesise(
    data: Data,
    out: Out,
    profile: ProfileName = "default",
    scenario: Scenario = SCENARIOS[0],
    teacher: Teacher = None,
    first_stage: FirstStage = None,
    candidates: Candidates = 40,
    queries: Queries = None,
    passage_words: Words = 300,
    replay: Replay = False,
    parameter: Parameters = [],  # noqa: B006 - typer makes a list of its own
) -> None:
    """Label your own data with a teacher; every answer is kept, so a rerun asks for what is missing."""
    options = {"synthesis.teacher": teacher, "synthesis.candidates": candidates}
    options |= {"synthesis.first_stage": first_stage and {"default": first_stage}}
    settings = _settings(profile, out, parameter, options)
    with reading():
        collection = with_parts(folder.read(data, scenario=scenario), passage_words)
    asked = {query.id: query.text for query in list(collection.queries.values())[:queries]}
    print(f"{len(asked)} queries, {len(collection.passages)} passages")
    stage = stages.Stage(out, "01_synthesis", settings, settings.seed)
    own = ({collection.name: collection}, {collection.name: asked})
    try:
        made = asyncio.run(synthesis.make(stage, settings, *own, replay=replay))
    except (TeacherError, OSError) as error:
        unnamed = isinstance(error, OSError) and str(out) not in str(error)  # from a library that writes
        raise CommandError(f"{out}: {error}" if unnamed else str(error)) from None
    print("\n".join(synthesis.report(made.collections, made.cost)))
    print(f"{len(made.examples)} examples: {stage.finish()}")
    synthesis.require_all(made, replay)


def filter_examples(
    out: Out,
    profile: ProfileName = "default",
    alpha: Alpha = None,
    parameter: Parameters = [],  # noqa: B006
) -> None:
    """Keep the examples whose two labels agree (self-consistency, section 4.1.5)."""
    settings = _settings(profile, out, parameter, {"filtering.alpha": alpha})
    with reading():
        source = examples.source(out, settings, "01_synthesis")
        found = examples.load(source)
    stage = stages.Stage(out, "02_filtering", settings, settings.seed, inputs=[source])
    kept = filtering.save(stage, found, settings.filtering).kept
    alpha = settings.filtering.alpha
    print(f"kept {len(kept)} of {len(found)} examples at alpha {alpha:g}: {stage.finish() / 'kept.jsonl'}")


def _settings(
    profile: str, out: Path, parameters: Sequence[str], options: Mapping[str, Any]
) -> profiles.Profile:
    """The profile, with a command's options and `-p`, which wins; written to the run's folder, as notebooks do."""
    changes = {**options, **read_parameters(parameters)}
    with reading():
        return profiles.start(profile, str(out), **changes)[0]
