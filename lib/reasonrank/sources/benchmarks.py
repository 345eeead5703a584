"""The paper's benchmarks by one table: BRIGHT (Su et al. 2024), R2MED (Li et al. 2025), BEIR (Thakur et al. 2021).

Each set is read from a local folder in its published layout, or from the hub where no folder is given:

- BRIGHT: tables `examples`, `documents` and `gpt4_reason` with a part for every set, or a folder for each set as
  Anserini's tools write it (`topics.jsonl`, `qrels.txt`, `excluded.txt`, and a corpus). First stages search with the
  queries of `gpt4_reason`, rerankers read those of `examples` (section 5.1 of the paper). Excluded ids are documents
  that may be in no ranking of a query, since they give its answer away.
- R2MED: a folder for each set with `corpus`, `query` and `qrels`.
- BEIR: a folder for each set with `corpus`, `queries` and `qrels/test.tsv`. The texts of Signal-1M, Robust04 and
  TREC-News are licensed, and in no hub repository.
"""

from __future__ import annotations

from collections.abc import Collection as Container
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..runs import Run, read_trec
from . import folder
from .base import Collection

RUN = "reasonir_gpt4cot_top100.run"  # BRIGHT's first stage, as the authors published it
BRIGHT = dict.fromkeys(("economics", "earth_science", "robotics", "biology", "psychology"), "complex QA")
BRIGHT |= dict.fromkeys(("stackoverflow", "sustainable_living"), "complex QA")
BRIGHT |= {"leetcode": "coding", "pony": "coding", "aops": "math: problem"}
BRIGHT |= {"theoremqa_questions": "math: problem", "theoremqa_theorems": "math: theorem"}
R2MED = (
    *("Biology", "Bioinformatics", "Medical-Sciences", "MedXpertQA-Exam", "MedQA-Diag"),
    *("PMC-Treatment", "PMC-Clinical", "IIYi-Clinical"),
)
BEIR = {
    **{"covid": "trec-covid", "dbpedia": "dbpedia-entity", "scifact": "scifact", "nfcorpus": "nfcorpus"},
    **{"signal": "signal1m", "robust04": "robust04", "news": "trec-news"},
}


@dataclass(frozen=True)
class Family:
    """A benchmark: scenario of each set, hub repositories with the files to fetch (`{}`: the set's folder), the paper's
    cap on a passage in tokens, and folders of sets that are named otherwise."""

    source: str
    sets: Mapping[str, str]
    hub: Mapping[str, tuple[str, ...]]
    passage_tokens: int = 512
    folders: Mapping[str, str] = field(default_factory=dict)


_BRIGHT_HUB = {"xlangai/BRIGHT": ("examples/{}-*", "documents/{}-*", "gpt4_reason/{}-*")}
_R2MED_HUB = {"R2MED/{}": ("corpus*", "query*", "qrels*")}
_BEIR_HUB = {"BeIR/{}": ("corpus*", "queries*"), "BeIR/{}-qrels": ("test.tsv",)}
FAMILIES = {
    "bright": Family("BRIGHT", BRIGHT, _BRIGHT_HUB),
    "r2med": Family("R2MED", dict.fromkeys(R2MED, "complex QA"), _R2MED_HUB),
    "beir": Family("BEIR", dict.fromkeys(BEIR, "web search"), _BEIR_HUB, passage_tokens=100, folders=BEIR),
}


def names(family: str) -> list[str]:
    """The sets of a benchmark, as "bright/biology"."""
    return [f"{family}/{key}" for key in FAMILIES[family].sets]


def load(name: str, data_dir: Path | str | None = None, wanted: Container[str] | None = None) -> Collection:
    """A set such as "bright/biology", its judged queries all in the split "test".

    `data_dir`: the benchmark's folder, or one that holds it (`bright`, `r2med`, `beir`); None: the hub. `wanted`: ids
    of the passages that are kept, as those of a run; None: all, to search in; an empty one needs no corpus. Raises
    FileNotFoundError for what a folder lacks, ConnectionError where the hub is needed and not there, ValueError for an
    unknown set, a malformed row, or a query without its rewritten twin.
    """
    kind, _, key = name.partition("/")
    if kind not in FAMILIES or key not in FAMILIES[kind].sets:
        known = names(kind) if kind in FAMILIES else FAMILIES
        raise ValueError(f"unknown collection {name!r}; known are {', '.join(known)}")
    family, bright = FAMILIES[kind], kind == "bright"
    if data_dir is not None:
        roots = [_local(name, Path(data_dir))]
    else:
        place, hub = family.folders.get(key, key), family.hub.items()
        roots = [fetch(repo.format(place), [file.format(key) for file in files]) for repo, files in hub]
    subset = key if bright and roots[0].name != key else None
    needed = ["queries", "passages"] + ["rewritten"] * (bright and wanted is None)
    made = folder.read(roots, name, family.sets[key], family.source, "test", wanted, subset, needed)
    for qid in sorted(made.queries.keys() ^ made.rewritten.keys()) if made.rewritten else ():
        raise ValueError(f"{roots[0]}: query {qid!r} of {name} is in only one of examples and gpt4_reason")
    judged = {qid: query for qid, query in made.queries.items() if made.qrels.get(qid)}
    for qid in made.queries.keys() - judged.keys() if bright else ():
        raise ValueError(f"{roots[0]}: query {qid!r} of {name} has no judgement")
    made.queries, made.passage_tokens = judged, family.passage_tokens
    return made


def _local(name: str, data_dir: Path) -> Path:
    """The folder of a set, or that of all sets, where BRIGHT's tables lie."""
    kind, _, key = name.partition("/")
    root = next((path for path in (data_dir / kind, data_dir / kind.upper()) if path.is_dir()), data_dir)
    place = root / FAMILIES[kind].folders.get(key, key)
    if place.is_dir():
        return place
    if kind == "bright" and (root / "examples").is_dir():
        return root
    raise FileNotFoundError(f"{place}: no such folder; expected the published files of {name} in it")


def fetch(repository: str, patterns: list[str] | None = None) -> Path:
    """A dataset repository of the hub, or what `patterns` name of it, as a folder in the hub's cache; ConnectionError,
    with what to do instead, where the hub is switched off or cannot be reached."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, repo_type="dataset", allow_patterns=patterns))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = f"{repository}: the hub does not give it ({type(error).__name__})"
        raise ConnectionError(f"{reason}; unset HF_HUB_OFFLINE, or give a local folder instead") from None


def find_run(name: str, place: Path | str) -> Path:
    """The TREC run of a collection: a file, or one in a folder, as the authors' `runs` or as `<set>.run`, `<set>.trec`,
    `<set>/*.run`. FileNotFoundError where there is none, or more than one."""
    family, _, key = name.rpartition("/")
    path = Path(place)
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such TREC run, nor a folder of them; set evaluation.first_stage")
    files = [f"{key}.{end}" for end in ("run", "trec")]
    forms = [*files, f"{key}/*.run", f"{key}/*_top100.txt", f"{family}_{key}/*_top100.txt"]
    found = [file for form in forms for end in ("", ".gz") for file in sorted(path.glob(form + end))]
    if len(found) != 1:
        expected = f"expected one run of {name}, {' or '.join(forms)}"
        raise FileNotFoundError(f"{path}: {expected}; found {len(found)}")
    return found[0]


def read_run(collection: Collection, path: Path, top: int | None = None, **options: Any) -> Run:
    """A first-stage run from a TREC file, checked against a collection, `top` documents a query, none excluded.

    Each query must have `top` documents (None: any number), or all that may be retrieved. `options`: how the file is
    read after the check, as for `runs.read_trec`. Raises ValueError naming file and query for a query that is missing
    or foreign, a document that is no passage, or too few of them.
    """
    name, passages, excluded = collection.name, collection.passages, collection.excluded
    run = read_trec(path)
    judged = {qid for qid, grades in collection.qrels.items() if grades}
    for qid in sorted(judged - run.keys()):
        raise ValueError(
            f"{path}: query {qid!r} of {name} is not in the run; give a run of all judged queries"
        )
    for qid in sorted(run.keys() - collection.queries.keys()):
        raise ValueError(
            f"{path}: query {qid!r} is no judged query of {name}; give that query, or another run"
        )
    for qid, docids in run.items():
        for docid in (docid for docid in docids if passages and docid not in passages):
            raise ValueError(
                f"{path}: query {qid!r}: {docid!r} is no passage of {name}; is it another corpus?"
            )
        allowed = len(passages) - len(excluded.get(qid, set()) & passages.keys())
        expected = min(top, allowed) if top and passages else top
        if expected is not None and len(docids) < expected:
            wrong = f"query {qid!r} has {len(docids)} candidates of {expected}"
            raise ValueError(f"{path}: {wrong}; lower evaluation.top, or give a longer run")
    run = read_trec(path, **options) if options else run
    return {qid: [d for d in docids if d not in excluded.get(qid, ())][:top] for qid, docids in run.items()}
