"""Synthesis: candidates, list assembly, labels, the funnel, and the stage that holds them."""

import asyncio
from random import Random

import pytest
from datasets import load_from_disk
from hypothesis import given
from hypothesis import strategies as st

from fakes.teacher_server import serving, settings
from reasonrank import examples, profiles, stages, synthesis
from reasonrank.sources import Collection, Passage, Query
from reasonrank.sources.base import split, with_parts
from reasonrank.synthesis import assemble, repeats, without_copies
from reasonrank.teachers import Ranked, TeacherFailure

IDS = [f"p{i}" for i in range(12)]
SIZES = {"window": 5, "max_positives": 2, "max_hard_negatives": 1}
DEFAULT = profiles.load("default").synthesis


def collection(name="made_up", **more) -> Collection:
    queries = {q: Query(q, f"text of {q}", ("a secret solution step",)) for q in ("q1", "q2")}
    return Collection(
        name=name,
        scenario="coding",
        source="tests",
        queries=queries,
        passages={docid: Passage(docid, f"passage {docid}") for docid in IDS},
        qrels={"q1": {"p3": 1, "p11": 1}, "q2": {}},
        splits=dict.fromkeys(queries, "train"),
        **more,
    )


class Spy:
    """A teacher that knows the judgements of q1, ranks in reverse, and notes what it is shown to rank."""

    def __init__(self, c):
        self.c, self.seen = c, []

    async def select_positives(self, query, passages):
        return [p.id for p in passages if p.id in self.c.qrels[query.id]]

    async def select_hard_negatives(self, query, passages):
        return [p.id for p in passages if p.id in self.c.hard_negatives.get(query.id, ())]

    async def rank(self, query, passages):
        self.seen.append([p.id for p in passages])
        return Ranked(self.seen[-1][::-1], "because")


def wanted(**changes):
    return DEFAULT.model_copy(update=SIZES | changes)


def make(c, teacher=None, seed=1, spent=str, **changes):
    teacher, run = teacher or Spy(c), {"q1": IDS[:8], "q2": IDS[:8]}
    return teacher, asyncio.run(synthesis.synthesise(c, teacher, run, wanted(**changes), seed, spent))


def test_labels_fit_the_list_and_a_query_without_positives_is_counted_as_dropped():
    teacher, made = make(collection(), lists_per_query=3)
    counts = {"queries": 2, "answered": 2, "with positives": 1, "lists": 3}
    assert dict(list(made.funnel.items())[:4]) == counts
    for example, seen in zip(made.examples, teacher.seen, strict=True):
        assert example.initial_list == seen and len(seen) == 5
        assert example.final_list == seen[::-1] and example.gold_ranking == [5, 4, 3, 2, 1]
        assert {example.initial_list[i - 1] for i in example.relevant} == set(example.relevant_docids)
        assert set(example.relevant_docids) <= {"p3", "p11"} and example.relevant_docids


def test_a_share_of_lists_holds_no_positive_and_is_ranked_all_the_same():
    teacher, made = make(collection(), lists_per_query=40, without_positives=0.25)
    empty = [e for e in made.examples if not e.relevant_docids]
    assert 3 <= len(empty) <= 20 and made.funnel["lists"] == len(made.examples) == 40
    for example in empty:
        assert not {"p3", "p11"} & set(example.initial_list) and example.final_list in [
            seen[::-1] for seen in teacher.seen
        ]


def test_the_same_seed_makes_the_same_lists_and_another_one_others():
    first, again, other = (make(collection(), lists_per_query=4, seed=s)[1].examples for s in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    "changes", [{"window": 3}, {"smallest_window": 3}, {"smallest_window": 11}, {"shuffled": 2}]
)
def test_a_window_without_room_and_a_share_that_is_none_are_refused(changes):
    """The profile's own: 3 positives at most, windows of 10."""
    with pytest.raises(ValueError, match=r"needs room for 3 positives|less than or equal to 1"):
        profiles.load("default", {f"synthesis.{key}": value for key, value in changes.items()})


@given(st.integers(0, 10**6), st.integers(3, 10), st.integers(1, 2), st.integers(0, 3))
def test_assembly_keeps_first_stage_order_and_never_repeats(seed, window, positives, hard):
    marked, sizes = ["p9", "p10"], {"window": window, "max_positives": positives, "max_hard_negatives": hard}
    order, chosen, kept = assemble(IDS[:9], ["p3", "p11"], marked, wanted(**sizes), Random(seed))
    assert len(order) == len(set(order)) <= window
    assert 1 <= len(chosen) <= positives and set(chosen) <= {"p3", "p11"}
    assert set(kept) <= set(marked) and len(kept) <= hard
    retrieved = [docid for docid in order if docid in IDS[:9]]
    assert retrieved == sorted(retrieved, key=IDS.index)
    assert not set(order) & ({"p3", "p11"} - set(chosen)), "a positive that was not chosen is no negative"


def test_lists_of_several_sizes_and_in_random_order():
    _, made = make(collection(), lists_per_query=60, smallest_window=3)
    assert {len(example.initial_list) for example in made.examples} == {3, 4, 5}
    rank = {docid: i for i, docid in enumerate(IDS[:8])}

    def in_order(example):
        places = [rank[docid] for docid in example.initial_list if docid in rank]
        return places == sorted(places)

    assert all(map(in_order, made.examples))
    _, mixed = make(collection(), lists_per_query=60, shuffled=0.5)
    assert 15 < sum(map(in_order, mixed.examples)) < 45


def test_the_funnel_counts_every_step_in_queries_and_passages():
    c = collection(hard_negatives={"q1": ["p9"]})
    c.passages["p2"] = Passage("p2", "Passage p3")  # a copy of p3: goes for q1, where p3 is linked; p3 for q2
    _, made = make(c, near_duplicate=0.99)
    assert made.funnel == {
        "queries": 2,
        "answered": 2,
        "with positives": 1,
        "lists": 1,
        "candidates": 18,  # 8 retrieved each, and p11 and p9 for q1
        "without the query's text": 18,
        "without copies": 16,
        "positives": 2,
        "hard negatives": 1,
    }
    (example,) = made.examples
    assert (
        "p2" not in example.initial_list and example.hard_negatives == ["p9"] and "p9" in example.initial_list
    )


def test_passages_that_repeat_the_query_are_no_candidates():
    c = collection()
    asked = "why does the bread not rise at all in winter"
    c.queries["q1"] = Query("q1", asked, ("warm it",))
    c.passages["p3"] = Passage("p3", f"A copy: {asked}? Warm it.")
    _, made = make(c)
    assert made.funnel["candidates"] - made.funnel["without the query's text"] == 1
    assert made.examples[0].relevant_docids == ["p11"]


def test_a_query_to_which_the_teacher_fails_is_dropped_and_counted_by_kind():
    class Failing(Spy):
        async def select_positives(self, query, passages):
            if query.id == "q2":
                raise TeacherFailure("empty")
            return await super().select_positives(query, passages)

    c, seen = collection(), []
    _, made = make(c, Failing(c), spent=lambda: seen.append("much") or seen[-1])
    assert made.failures == {"empty": 1} and made.funnel["answered"] == 1 and len(seen) == 2


def test_an_error_of_the_teacher_ends_the_synthesis_as_itself():
    class Broken(Spy):
        async def rank(self, query, passages):
            raise OSError("no disk")

    c = collection()
    with pytest.raises(OSError, match="no disk"):
        make(c, Broken(c))


def test_documents_are_cut_at_blank_lines_and_long_paragraphs_between_words():
    text = "one two\n\nthree\n \nfour five six seven eight"
    parts = split(Passage("d", text, "T"), 3)
    assert [part.text for part in parts] == ["one two\n\nthree", "four five six", "seven eight"]
    assert [part.id for part in parts] == ["d#1", "d#2", "d#3"] and {part.title for part in parts} == {"T"}
    whole = Passage("d", "one two")
    assert split(whole, 2) == [whole]


@given(st.lists(st.sampled_from(["a", "bb", "\n\n", "\n"]), max_size=40), st.integers(1, 6))
def test_no_word_is_lost_and_no_part_is_too_long(pieces, words):
    text = " ".join(pieces)
    parts = split(Passage("d", text), words)
    assert " ".join(part.text for part in parts).split() == text.split()
    assert all(len(part.text.split()) <= words for part in parts)


def test_copies_of_earlier_passages_go_and_signs_count():
    texts = {
        "a": "the sum of the squares of two numbers is never less than twice their product",
        "b": "The sum of the squares of two numbers is never less than twice their product!",
        "c": "a^2 + b^2 = c^2",
        "d": "a^2 - b^2 = c^2",
        "e": "",
        "f": "",
    }
    passages = [Passage(docid, text) for docid, text in texts.items()]
    # a and b: 13 shingles in common of 14
    assert [p.id for p in without_copies(passages, 0.9)] == ["a", "c", "d", "e"]
    assert [p.id for p in without_copies(passages, 0.95)] == ["a", "b", "c", "d", "e"]


def test_passages_that_repeat_a_long_query():
    asked = "Why does my bread not rise at all in winter?"
    assert repeats(Passage("p", f"Question: {asked.upper()} Answer: warm it."), asked)
    assert not repeats(Passage("p", "Bread does not rise at all in winter."), asked)
    short = "why are cobots so slow"
    assert not repeats(Passage("p", short), short), "too short to be a copy"


def test_judgements_hold_for_all_parts():
    c = Collection(
        name="x",
        scenario="coding",
        source="tests",
        queries={"q": Query("q", "text")},
        passages={"d": Passage("d", "one\n\ntwo"), "e": Passage("e", "three")},
        qrels={"q": {"d": 2}},
        splits={"q": "train"},
        excluded={"q": {"e"}},
        hard_negatives={"q": ["e"]},
    )
    parted = with_parts(c, 1)
    assert list(parted.passages) == ["d#1", "d#2", "e"]
    assert parted.qrels == {"q": {"d#1": 2, "d#2": 2}}
    assert (parted.excluded, parted.hard_negatives) == ({"q": {"e"}}, {"q": ["e"]})
    with pytest.raises(ValueError, match="an id such as 'x#1' is there already"):
        with_parts(Collection("x", "coding", "", {}, c.passages | {"d#1": Passage("d#1", "")}, {}, {}), 1)


@pytest.mark.parametrize("teacher", ["offline", "remote"])
def test_one_function_makes_the_stage_with_either_teacher(tmp_path, teacher):
    collections = {name: collection(name) for name in ("here", "there")}
    with serving() as server:
        changes = {
            "teacher": teacher,
            "first_stage": {"default": "bm25"},
            "remote": settings(server).model_dump(),
        }
        changes = {f"synthesis.{key}": value for key, value in (changes | SIZES).items()}
        profile = profiles.load("default", changes)
        stage = stages.Stage(tmp_path, "01_synthesis", profile, profile.seed)
        made = asyncio.run(synthesis.make(stage, profile, collections, tokens=len))
        asked = len(server.seen)
    folder, result = stage.finish(), stages.read_json(tmp_path / "01_synthesis" / "record.json")["result"]
    assert [(e.dataset, e.qid) for e in made.examples] == [("here", "q1"), ("there", "q1")]
    assert examples.load(folder / "examples.jsonl") == made.examples
    assert result["table5"] == made.table5 and result["failures"] == {"here": {}, "there": {}}
    assert {row["dataset"]: row["reasoning_tokens_mean"] for row in made.table5} == {
        e.dataset: len(e.reasoning) for e in made.examples
    }
    assert made.teacher == result["teacher"] == {"offline": "offline", "remote": "made-up"}[teacher]
    assert (
        asked == made.cost.get("requests", 0) == {"offline": 0, "remote": 3}[teacher]
    )  # one selection, since both ask the same, two rankings
    assert (folder / "dataset" / "README.md").read_text().count("| coding |") == 2
    assert [row["qid"] for row in load_from_disk(str(folder / "dataset" / "arrow"))] == ["q1", "q1"]
    assert (tmp_path / "teacher.sqlite").exists() == (teacher == "remote")
    rows = made.funnel_rows()
    assert (
        rows[0] == {"dataset": "here", "unit": "queries", "step": "queries", "count": 1} and len(rows) == 18
    )
