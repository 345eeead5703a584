"""Generated collections: what is relevant follows from the text, and splits share no problem and no fact."""

import asyncio
import re

import pytest

from reasonrank import metrics, models, retrieval, sources
from reasonrank.sources import worked
from reasonrank.teachers.offline import WorkedTeacher, worked_chain

NAMES, SPLITS = [*worked.KINDS], ("train", "dev", "test")


@pytest.fixture(scope="module")
def made():
    return {(name, steps): worked.load(name, steps, train=100) for name in NAMES for steps in (1, 2, 3)}


def key(working):
    return " ".join(working.steps + working.answer)


def place(collection, qid):
    """The passages of a query's place."""
    return [p for p in collection.passages.values() if p.id.startswith(qid.rpartition("-")[0] + "/")]


def test_sizes_places_and_one_relevant_passage_that_states_the_answer(made):
    for c in made.values():
        assert [len(c.ids(split)) for split in SPLITS] == [100, 200, 300]
        for qid in c.ids("test", 40):
            passages, right = place(c, qid), c.workings[qid]
            town = c.queries[qid].text.partition(".")[0]
            assert len({p.text for p in passages if town in p.text}) == len(passages) == 22
            assert c.qrels[qid] == {right.docid: 1} and c.queries[qid].solution == right.steps
            states = [re.compile(rf"(?<![\w-]){part}(?![\w-])").search for part in right.answer]
            stated = [p.id for p in passages if all(state(p.text) for state in states)]
            assert stated == [right.docid]


def test_steps_are_true_and_as_many_as_the_difficulty_says(made):
    for (name, difficulty), c in made.items():
        counts = {len(working.steps) for working in c.workings.values()}
        taken_apart = name in ("coding", "math")  # loops and products take more steps
        assert min(counts) == difficulty and (counts == {difficulty} or taken_apart)
        for step in [step for working in c.workings.values() for step in working.steps]:
            if result := re.fullmatch(r"(\d+ (?:[-+*x%]|//) \d+) = (\d+)(?: \w+)?", step):
                assert eval(result[1].replace("x", "*")) == int(result[2]), step


def test_twenty_thousand_problems_and_splits_share_none_whatever_the_seed():
    found = set()
    for name in ("complex", "coding", "math"):
        first, other = worked.load(name, train=10_000), worked.load(name, seed=1, train=1000)
        train, dev, test = ({key(first.workings[qid]) for qid in first.ids(split)} for split in SPLITS)
        elsewhere = {key(other.workings[qid]) for qid in other.ids("train")}
        assert not train & dev and not test & (train | dev | elsewhere)
        found |= train | dev | test
    assert len(found) > 20_000


def test_facts_are_in_one_split_and_in_other_words_than_asked_for():
    facts = worked._read("facts")
    needs = [need for known in facts.values() for line in known.values() for need in line.split(", ")]
    trades = {does: line for known in facts.values() for does, line in known.items()}
    assert len(needs) == len(set(needs)) >= 300 and len(trades) == sum(map(len, facts.values()))
    for does, line in trades.items():
        assert not set(re.findall(r"\w{3,}", does)) & set(re.findall(r"\w{3,}", line)) - {"the"}, does


def test_passages_have_at_most_16_tokens(made):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models.resolve("smollm2-135m-instruct"))
    for name in NAMES:
        other = worked.load(name, 3, train=0, wordings="held_out")
        for passage in [*made[name, 3].passages.values(), *other.passages.values()][::2]:
            assert len(tokenizer(f" {passage.full}").input_ids) <= 16, passage


def test_the_first_stage_finds_the_place_and_cannot_order_it(made):
    for name in NAMES:
        c = made[name, 2]
        run = retrieval.bm25(c, {qid: c.queries[qid].text for qid in c.ids("test")}, 20)
        found = sum(metrics.recall(run[qid], c.qrels[qid], 20) for qid in run) / 300
        assert found >= 0.8 and found - sum(metrics.ndcg(run[qid], c.qrels[qid]) for qid in run) / 300 > 0.3


def test_a_passage_alone_does_not_give_the_answer_away(made):
    c, total = made["math", 2], 0.0  # most neighbours first: the answer is not the middle of them
    for qid in c.ids("test"):
        value = {p.id: int(re.search(r"\d+", p.text)[0]) for p in place(c, qid)}
        blind = sorted(value, key=lambda d: -sum(abs(value[d] - v) in (1, 2, 10) for v in value.values()))
        total += metrics.ndcg(blind, c.qrels[qid]) / 300
    assert total < 0.35


def test_held_out_wordings_are_the_same_problems_in_other_words():
    for name in NAMES:
        usual, other = worked.load(name, train=0), worked.load(name, train=0, wordings="held_out")
        assert usual.ids("test") == other.ids("test") and set(other.splits.values()) == {"test"}
        assert all(usual.workings[qid].answer == other.workings[qid].answer for qid in other.queries)
        assert not {p.text for p in usual.passages.values()} & {p.text for p in other.passages.values()}


def test_the_teacher_is_wrong_at_the_declared_rate_and_carries_its_slip_through(made):
    c = made["math", 2]
    right, slips, wrong = WorkedTeacher(c, slips=0.0), WorkedTeacher(c, slips=1.0), 0
    for qid in c.queries:
        query, passages = c.queries[qid], place(c, qid)
        ranked, slipped = (asyncio.run(teacher.rank(query, passages)) for teacher in (right, slips))
        first, other = c.workings[qid].docid, c.slips[qid].docid
        assert (ranked.docids[0], slipped.docids[0]) == (first, other) and first != other
        at = [p.id for p in passages].index(first)
        quote = ranked.reasoning.rpartition(" So ")[2].removesuffix(f" [{at + 1}]")
        assert quote.startswith(c.workings[qid].answer[0]) and passages[at].full.endswith(quote)
        assert c.slips[qid].steps[-1].endswith(f" {c.slips[qid].answer[0]}")
        assert asyncio.run(slips.select_positives(query, passages)) == [first]
        wrong += asyncio.run(WorkedTeacher(c).rank(query, passages)).docids[0] == other
    assert 0.15 < wrong / len(c.queries) < 0.25
    rest = [passage for passage in passages if passage.id != first]
    assert worked_chain(c.workings[qid], rest).endswith("None of these.")
    assert asyncio.run(right.rank(query, rest)).docids == [passage.id for passage in rest]


def test_what_is_not_there_is_refused():
    with pytest.raises(ValueError, match="difficulty 4, usual: expected 1, 2 or 3"):
        worked.load("math", 4)
    with pytest.raises(ValueError, match="names for 10764"):
        worked.load("math", train=10**6)
    assert sources.load("worked_web_reworded").name == "worked_web_reworded"
