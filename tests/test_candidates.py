"""Candidate passages: long ones in parts, no copies, none that repeats the query."""

from hypothesis import given
from hypothesis import strategies as st

from reasonrank.candidates import repeats, split, with_parts, without_copies
from reasonrank.sources import Collection, Passage, Query


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
    assert not repeats(Passage("p", "why are cobots so slow"), "why are cobots so slow"), (
        "too short to be a copy"
    )


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
