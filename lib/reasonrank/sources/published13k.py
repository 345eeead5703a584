"""The authors' published training data: the full set (13k), and the parts of it that SFT and RL use.

Folders as on the hub, under liuwenhan: `reasonrank_data_13k` with `training_data_all.jsonl`, `id_query/` and
`id_doc/` (a JSON file per data set: id -> text); `reasonrank_data_sft` with `reasonrank_sft-data.json`
(instruction, output, system); `reasonrank_data_rl` with `train.parquet` (extra_info: initial_list, final_list,
relevant_docids). The last two are renderings of examples of the first, and are read as these.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from ..answers import parse
from ..runs import objects
from ..stages import read_json
from .benchmarks import fetch
from .folder import parquet

HUB = {subset: f"liuwenhan/reasonrank_data_{subset}" for subset in ("13k", "sft", "rl")}
FILES = {"13k": "training_data_all.jsonl", "sft": "reasonrank_sft-data.json", "rl": "train.parquet"}
SITES = ("biology", "earth_science", "economics", "robotics", "stackoverflow", "sustainable_living")
PARTS = dict.fromkeys(SITES, "complex QA") | {"theorem": "math: theorem", "math": "math: problem"}
PARTS |= {"leetcode": "coding", "marco": "web search"}  # of a data set's name -> its scenario
Texts = dict[str, dict[str, str]]


@dataclass(frozen=True, config=ConfigDict(coerce_numbers_to_str=True))
class Example:
    """A training example, in the fields of the published reasonrank_data_13k; its fields are checked.

    `initial_list`: passage ids as the model sees them; `final_list`: the listwise label, a permutation of it;
    `relevant_docids`: the pointwise label; `reasoning`: the teacher's chain.
    """

    dataset: str
    scenario: str
    qid: str
    initial_list: list[str]
    final_list: list[str]
    reasoning: str
    relevant_docids: list[str]
    hard_negatives: list[str] = field(default_factory=list)

    @model_validator(mode="after")
    def _fits(self) -> Example:
        if sorted(self.initial_list) != sorted(self.final_list):
            raise ValueError("final_list is no permutation of initial_list")
        if not set(self.relevant_docids) <= set(self.initial_list):
            raise ValueError("relevant_docids names a passage that is not in initial_list")
        return self

    @property
    def gold_ranking(self) -> list[int]:
        """The listwise label as 1-based positions in `initial_list`."""
        place = {docid: i for i, docid in enumerate(self.initial_list, start=1)}
        return [place[docid] for docid in self.final_list]

    @property
    def relevant(self) -> list[int]:
        """The pointwise label as 1-based positions in `initial_list`."""
        return [i for i, docid in enumerate(self.initial_list, start=1) if docid in self.relevant_docids]


def files(subset: Literal["13k", "sft", "rl"], data_dir: Path | None) -> dict[str, Path]:
    """The table of the full set, and of `subset`, in folders of `data_dir`, or fetched from the hub where that is None.

    Raises ConnectionError where the hub is needed and not there, FileNotFoundError for a file that is missing.
    """
    found = {}
    for name in ("13k", subset):
        repository = HUB[name]
        place = data_dir / repository.partition("/")[2] if data_dir else fetch(repository)
        found[name] = place / FILES[name]
        if not found[name].is_file():
            raise FileNotFoundError(
                f"{found[name]}: no such file; a folder as {repository} on the hub has it"
            )
    return found


def load(
    subset: Literal["13k", "sft", "rl"], data_dir: Path | None = None
) -> tuple[list[Example], Texts, Texts]:
    """The examples of a published set, and the queries and passages of the full set: data set -> id -> text.

    `data_dir` as for `files`. Raises its errors, and ValueError, with the place, for what does not fit, or is a
    rendering of no example of the full set.
    """
    paths = files(subset, data_dir)
    full = read(paths["13k"])
    queries, passages = (
        {path.stem: read_json(path) for path in sorted((paths["13k"].parent / name).glob("*.json"))}
        for name in ("id_query", "id_doc")
    )
    if not queries or not passages:
        raise FileNotFoundError(f"{paths['13k'].parent}: expected JSON files in id_query/ and id_doc/")
    return full if subset == "13k" else _rendered(subset, paths[subset], full), queries, passages


def prompts(data_dir: Path | None = None) -> Iterator[dict[str, Any]]:
    """Rows of the RL set as `recovery.recover` takes them: `messages`, `query`, `passages`; errors as for `load`."""
    found, queries, texts = load("rl", data_dir)
    for (place, row), example in zip(parquet(files("rl", data_dir)["rl"]), found, strict=True):
        name = example.dataset
        try:
            query, passages = queries[name][example.qid], [texts[name][d] for d in example.initial_list]
        except KeyError as error:
            raise ValueError(f"{place}: no text for {error} of {name} in id_query/ or id_doc/") from None
        yield {"messages": _field(row, "prompt", place), "query": query, "passages": passages}


def read(path: Path) -> list[Example]:
    """Examples of the full set, or of our own; ValueError names the file, the line and the field that does not fit."""
    found = []
    for place, row in objects(path):
        name = str(row.get("dataset")).lower().replace("-", "_")
        scenario = row.get("scenario") or next((kind for part, kind in PARTS.items() if part in name), None)
        if scenario is None:
            wrong = f"{place}: data set {row.get('dataset')!r} is none of Table 5"
            raise ValueError(f"{wrong}; expected a key scenario in the row")
        try:
            found.append(Example(**row | {"scenario": scenario}))
        except ValidationError as error:
            faults = (".".join(map(str, fault["loc"])) + f" {fault['msg']}" for fault in error.errors())
            raise ValueError(f"{place}: {'; '.join(faults)}") from None
    return found


def _rendered(subset: str, path: Path, full: list[Example]) -> list[Example]:
    """The examples whose renderings a set holds: of SFT told by their reasoning, of RL by their two lists."""
    if subset == "sft":
        known = {" ".join(example.reasoning.split()): example for example in full}
        entries = [(f"{path}, entry {number}", row) for number, row in enumerate(read_json(path), start=1)]
        said = [(place, parse(_field(row, "output", place), 0).reasoning) for place, row in entries]
        keys = [(place, " ".join(text.split())) for place, text in said]
    else:
        known = {str([example.initial_list, example.final_list]): example for example in full}
        infos = [(place, _field(row, "extra_info", place)) for place, row in parquet(path)]
        names = ("initial_list", "final_list")
        keys = [(place, str([list(map(str, _field(i, n, place))) for n in names])) for place, i in infos]
    if unknown := [(place, key) for place, key in keys if key not in known]:
        raise ValueError("{}: is no example of the full set: {!r:.80}".format(*unknown[0]))
    return [known[key] for _, key in keys]


def _field(row: Any, key: str, place: str) -> Any:
    if not isinstance(row, dict) or key not in row:
        raise ValueError(f"{place}: no {key}")
    return row[key]
