"""The questions written for training and for the test: whole rows, known passages, and no near copies."""

import json
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from reasonrank.retrieval import embed
from reasonrank.sources import load

DATA = Path(__file__).parents[1] / "data" / "authored"
SUBJECTS = sorted(path.name for path in DATA.iterdir() if (path / "passages.jsonl").is_file())
RUN = 5  # words in a row that two questions may not share


def rows(path):
    return (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    )


def written(folder, names=("questions.jsonl", "web.jsonl")):
    return [row for name in names for row in rows(folder / name)]


def runs(row):
    words = re.findall(r"[a-z0-9']+", f"{row.get('title', '')} . {row['text']}".lower())
    return {tuple(words[i : i + RUN]) for i in range(len(words) - RUN + 1)}


@pytest.mark.parametrize("subject", SUBJECTS)
def test_rows_are_whole_and_name_passages_that_exist(subject):
    known = {row["id"] for row in rows(DATA / subject / "passages.jsonl")}
    seen = set()
    for split in ("train", "test"):
        for row in written(DATA / split / subject):
            assert row["id"] not in seen, row["id"]
            seen.add(row["id"])
            assert row["text"].strip() and row["answer"].strip(), row["id"]
            assert 1 <= len(row["positives"]) <= 3 and known.issuperset(row["positives"]), row["id"]
            assert split == "test" or 10 <= len(row["chain"].split()) <= 90, row["id"]


@pytest.mark.parametrize("subject", SUBJECTS)
def test_no_question_shares_five_words_in_a_row_with_another(subject):
    owners = defaultdict(set)
    groups = [DATA / "train" / subject, DATA / "test" / subject, DATA / subject]
    for row in (row for folder in groups for row in written(folder)):
        for run in runs(row):
            owners[run].add(row["id"])
    new = re.compile(rf"{subject}-[tx][qw]\d+")
    shared = {run: ids for run, ids in owners.items() if len(ids) > 1 and any(new.match(i) for i in ids)}
    assert not shared, {" ".join(run): sorted(ids) for run, ids in list(shared.items())[:5]}


@pytest.mark.slow
def test_no_new_question_says_what_another_says():
    """By MiniLM; questions about the same passage come up to 0.8 or so."""
    texts, new = {}, re.compile(r"\w+-[tx][qw]\d+")
    for folder in (
        path for group in ("train", "test", "") for path in map((DATA / group).joinpath, SUBJECTS)
    ):
        texts |= {row["id"]: f"{row.get('title', '')} {row['text']}".strip() for row in written(folder)}
    ids, vectors = list(texts), embed(list(texts.values()))
    close = np.triu(vectors @ vectors.T, 1) > 0.82
    pairs = [
        (ids[i], ids[j]) for i, j in np.argwhere(close) if new.fullmatch(ids[i]) or new.fullmatch(ids[j])
    ]
    assert len(ids) > 2000 and not pairs, [(texts[a], texts[b]) for a, b in pairs]


def test_tasks_and_problems_name_what_exists():
    concepts, functions = load("math_theorem").passages, load("coding").passages
    for row in rows(DATA / "train" / "math" / "problems.jsonl"):
        assert row["text"].strip() and row["solution"] and concepts.keys() >= set(row["concepts"]), row["id"]
    for row in rows(DATA / "train" / "coding" / "tasks.jsonl"):
        assert row["text"].strip() and row["solution"].strip(), row["id"]
        assert row["positives"] and functions.keys() >= set(row["positives"]), row["id"]
