"""Prompts with a tokenizer of one token per character: caps, over-long prompts, what is computed once.

A cap counts the blank before a passage, as most vocabularies have it in the token of the first word; so here a
cap of 10 leaves 9 characters.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.tokenizer import CharTokenizer
from reasonrank.prompts import ListwisePrompt


def prompt(**changed):
    caps = {"passage_tokens": 10, "query_tokens": 12, "max_length": 2000}
    return ListwisePrompt(CharTokenizer(), **(caps | changed))


def length_without_passages(n):
    """Of a prompt whose n passages and query are empty."""
    return len(prompt().encode("", [""] * n))


def shown(rendered):
    text = "".join(map(chr, rendered.ids))
    return [line.partition(" ")[2] for line in text.split("\n") if line.startswith("[")]


def test_what_is_longer_than_its_cap_is_cut_and_named():
    rendered = prompt().render("a question of many words", ["short", "x" * 10, "y" * 9, "z" * 50])
    assert shown(rendered) == ["short", "x" * 9, "y" * 9, "z" * 9]
    assert (rendered.cap, rendered.shortened, rendered.cut, rendered.query_cut) == (10, False, (1, 3), True)
    assert prompt().render("brief", ["short"]).query_cut is False


def test_a_prompt_that_is_too_long_is_shortened_evenly():
    """Room for 12 tokens more than the empty prompt. " cc" takes 3, so the others have 9 for two: 4 each."""
    tight = prompt(max_length=length_without_passages(3) + 12, overlong="shorten")
    rendered = tight.render("", ["a" * 20, "b" * 6, "cc"])
    assert shown(rendered) == ["aaa", "bbb", "cc"]
    assert (rendered.cap, rendered.shortened, rendered.cut) == (4, True, (0, 1))
    assert tight.render("", ["a" * 4, "b" * 4]).shortened is False  # another window, its own cap


@settings(deadline=None, max_examples=200)
@given(st.lists(st.text("ab", max_size=15), min_size=1, max_size=5), st.integers(-5, 80))
def test_the_cap_is_the_highest_that_fits(passages, room):
    limit = length_without_passages(len(passages)) + room
    tight = prompt(max_length=limit, overlong="shorten")

    def tokens(cap):
        return sum(min(1 + len(passage), cap) for passage in passages if passage and cap > 1)

    if room < 0:
        with pytest.raises(ValueError, match=rf"passages of one token exceeds max_length {limit}"):
            tight.render("", passages)
        return
    rendered = tight.render("", passages)
    assert rendered.cap == max(cap for cap in range(1, 11) if tokens(cap) <= room)
    assert shown(rendered) == [passage[: rendered.cap - 1] for passage in passages]


def test_an_error_unless_told_to_shorten():
    with pytest.raises(ValueError, match=r"a prompt of \d+ tokens exceeds max_length 300; lower the window"):
        prompt(max_length=300).encode("", ["a" * 10] * 30)
    with pytest.raises(ValueError, match="overlong is 'cut'; expected 'error' or 'shorten'"):
        prompt(overlong="cut")


def test_a_query_that_leaves_no_room_is_an_error():
    with pytest.raises(ValueError, match="exceeds max_length"):
        prompt(max_length=length_without_passages(1) + 5, overlong="shorten").encode("long query", ["a"])


def test_ids_are_those_of_the_text():
    one = prompt()
    query, passages = "what\nis [3]?", ["plain", "", "[12] {braces}", "two\nlines"]
    assert "".join(map(chr, one.encode(query, passages))) == one.text(query, passages)
    assert "[3]?" not in one.text(query, passages)


def test_a_passage_is_tokenised_once_for_each_cap():
    one = prompt()
    one.encode("query", ["first", "second"])
    before = len(one.tokenizer.seen)
    one.encode("query", ["second", "first"])
    assert len(one.tokenizer.seen) == before
