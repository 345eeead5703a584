"""Synthesis: list assembly, labels, the funnel, and files that say what is wrong with them."""

import asyncio
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasonrank import synthesis
from reasonrank.sources import Collection, Passage, Query
from reasonrank.teachers import Ranked, TeacherFailure

IDS = [f"p{i}" for i in range(12)]


def collection(**more) -> Collection:
    queries = {q: Query(q, f"text of {q}", ("a secret solution step",)) for q in ("q1", "q2")}
    return Collection(
        name="made_up",
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

    name = "spy"

    def __init__(self, c):
        self.c, self.seen = c, []

    async def select_positives(self, query, passages):
        return [i for i, p in enumerate(passages, 1) if p.id in self.c.qrels[query.id]]

    async def select_hard_negatives(self, query, passages):
        return [i for i, p in enumerate(passages, 1) if p.id in self.c.hard_negatives.get(query.id, ())]

    async def rank(self, query, passages):
        self.seen.append([p.id for p in passages])
        return Ranked(list(range(len(passages), 0, -1)), "because")


def make(c, **more):
    teacher = Spy(c)
    settings = {"window": 5, "max_positives": 2, "max_hard_negatives": 1, "seed": 1} | more
    run = {"q1": IDS[:8], "q2": IDS[:8]}
    return teacher, asyncio.run(synthesis.synthesise(c, teacher, run, **settings))


def test_labels_fit_the_list_and_a_query_without_positives_is_counted_as_dropped():
    teacher, made = make(collection(), lists_per_query=3)
    assert list(made.funnel.items())[:4] == [
        ("queries", 2),
        ("answered", 2),
        ("with positives", 1),
        ("lists", 3),
    ]
    for example, seen in zip(made.examples, teacher.seen, strict=True):
        assert example.initial_list == seen and len(seen) == 5
        assert example.final_list == seen[::-1]
        assert example.gold_ranking == [5, 4, 3, 2, 1]
        assert {example.initial_list[i - 1] for i in example.relevant} == set(example.relevant_docids)
        assert set(example.relevant_docids) <= {"p3", "p11"} and example.relevant_docids


def test_the_same_seed_makes_the_same_lists_and_another_one_others():
    first, again, other = (make(collection(), lists_per_query=4, seed=s)[1].examples for s in (1, 1, 2))
    assert first == again != other


def test_hard_negatives_come_in_and_are_named():
    _, made = make(collection(hard_negatives={"q1": ["p9", "p10"]}))
    (example,) = made.examples
    assert len(example.hard_negatives) == 1 and example.hard_negatives[0] in example.initial_list


def test_a_window_without_room_for_a_negative_is_refused():
    with pytest.raises(ValueError, match="window 2 needs room"):
        make(collection(), window=2)


@given(st.integers(0, 10**6), st.integers(3, 10), st.integers(1, 2), st.integers(0, 3))
def test_assembly_keeps_first_stage_order_and_never_repeats(seed, window, positives, hard):
    marked = ["p9", "p10"]
    order, chosen, kept = synthesis.assemble(
        IDS[:9], ["p3", "p11"], marked, window, positives, hard, Random(seed)
    )
    assert len(order) == len(set(order)) <= window
    assert 1 <= len(chosen) <= positives and set(chosen) <= {"p3", "p11"}
    assert set(kept) <= set(marked) and len(kept) <= hard
    retrieved = [docid for docid in order if docid in IDS[:9]]
    assert retrieved == sorted(retrieved, key=IDS.index)
    assert not set(order) & ({"p3", "p11"} - set(chosen)), "a positive that was not chosen is no negative"


def test_examples_survive_a_round_trip_and_faults_are_named(tmp_path):
    _, made = make(collection())
    path = tmp_path / "examples.jsonl"
    synthesis.save(path, made.examples)
    assert synthesis.load(path) == made.examples
    line = path.read_text()
    path.write_text(line + line.replace('"reasoning"', '"reason"'))
    with pytest.raises(ValueError, match=r"examples\.jsonl, line 2: no field reasoning"):
        synthesis.load(path)
    path.write_text(line.replace(f'"{made.examples[0].final_list[0]}", ', "", 1))
    with pytest.raises(ValueError, match="line 1: final_list is no permutation"):
        synthesis.load(path)


def test_a_missing_passage_text_names_example_and_passage():
    _, made = make(collection())
    with pytest.raises(KeyError, match="made_up, query q1: no text for passage"):
        synthesis.passages_of(made.examples[0], {})


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
    assert "p2" not in made.examples[0].initial_list
    rows = synthesis.funnel_rows({"made_up": made}, kept={"made_up": 1})
    assert rows[0] == {"dataset": "made_up", "unit": "queries", "step": "queries", "count": 2}
    assert rows[-1] == {"dataset": "made_up", "unit": "queries", "step": "kept lists", "count": 1}


def test_passages_that_repeat_the_query_are_no_candidates():
    c = collection()
    asked = "why does the bread not rise at all in winter"
    c.queries["q1"] = Query("q1", asked, ("warm it",))
    c.passages["p3"] = Passage("p3", f"A copy: {asked}? Warm it.")
    _, made = make(c)
    assert made.funnel["candidates"] - made.funnel["without the query's text"] == 1
    assert made.examples[0].relevant_docids == ["p11"]


def test_a_query_to_which_the_teacher_fails_is_dropped_and_counted_by_kind():
    c = collection()

    class Failing(Spy):
        async def select_positives(self, query, passages):
            if query.id == "q2":
                raise TeacherFailure("empty")
            return await super().select_positives(query, passages)

    run = {"q1": IDS[:8], "q2": IDS[:8]}
    steps = []
    made = asyncio.run(
        synthesis.synthesise(
            c,
            Failing(c),
            run,
            window=5,
            max_positives=2,
            max_hard_negatives=1,
            progress=lambda: steps.append(1),
        )
    )
    assert made.failures == {"empty": 1} and made.funnel["answered"] == 1 and len(steps) == 2


def test_an_error_of_the_teacher_ends_the_synthesis_as_itself():
    c = collection()

    class Broken(Spy):
        async def rank(self, query, passages):
            raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"):
        asyncio.run(
            synthesis.synthesise(c, Broken(c), {"q1": IDS}, window=5, max_positives=2, max_hard_negatives=1)
        )


def test_statistics_count_words_without_a_tokenizer():
    _, made = make(collection())
    (row,) = synthesis.statistics_table(made.examples, {"made_up": 2})
    assert (row["queries"], row["examples"], row["reasoning_words_mean"]) == (2, 1, 1.0)


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
    with pytest.raises(ValueError, match="shuffled 2 is a share"):
        make(collection(), shuffled=2)
    with pytest.raises(ValueError, match="window 2 needs room"):
        make(collection(), smallest_window=2)
