"""Prompts with the embedded model's tokenizer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonrank.models import load_tokenizer
from reasonrank.prompts import DirectPrompt, ListwisePrompt, PointwisePrompt


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("smollm2-135m-instruct")


@pytest.fixture(scope="module")
def prompt(tokenizer):
    return ListwisePrompt(tokenizer, passage_tokens=12, query_tokens=20, max_length=600)


AWKWARD = [
    "plain words",
    "(starts with a bracket",
    "[3] > [1] and [12]",
    "two\nlines\n\nand a blank one",
    "{braces} %s {0}",
    "naïve Σ 東京 🙂",
    "   blanks   all   round   ",
    "<think> tags </think> <|im_end|>",
    "one, two. three; 'four'",
    "",
]


def test_ids_are_those_of_the_text(prompt, tokenizer):
    for query in AWKWARD:
        text = prompt.text(query, AWKWARD)
        assert prompt.encode(query, AWKWARD) == tokenizer(text, add_special_tokens=False)["input_ids"], query


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=4), st.text(max_size=80))
def test_every_passage_has_one_line_and_one_identifier(prompt, passages, query):
    text = prompt.text(query, passages)
    body = text[text.index("Here are ") :].split("\n")[1 : len(passages) + 1]
    assert [line.split(" ", 1)[0] for line in body] == [f"[{i}]" for i in range(1, len(passages) + 1)]


def test_identifiers_in_the_texts_are_rewritten(prompt):
    text = prompt.text("see [7]", ["as [12] says"])
    assert "(12)" in text and "(7)" in text and "[12]" not in text and "[7]" not in text


def test_texts_are_cut_to_their_number_of_tokens(prompt, tokenizer):
    text = prompt.text("word " * 100, ["word " * 100])
    assert text.count("word") == 12 + 20


def test_a_prompt_that_is_too_long_is_an_error_that_says_what_to_lower(tokenizer):
    short = ListwisePrompt(tokenizer, passage_tokens=50, query_tokens=50, max_length=100)
    with pytest.raises(ValueError, match="exceeds max_length 100"):
        short.encode("query", ["word " * 60] * 5)
    with pytest.raises(ValueError, match="at least 1"):
        ListwisePrompt(tokenizer, passage_tokens=0, query_tokens=5, max_length=5)


def test_a_passage_is_tokenised_once(tokenizer):
    calls = []

    class Counting:
        def __getattr__(self, name):
            return getattr(tokenizer, name)

        def __call__(self, text, **more):
            calls.append(text)
            return tokenizer(text, **more)

    prompt = ListwisePrompt(Counting(), passage_tokens=12, query_tokens=20, max_length=600)
    prompt.encode("a query", ["first passage", "second passage"])
    before = len(calls)
    prompt.encode("a query", ["second passage", "first passage"])
    assert calls[before:] == []


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=200), min_size=2, max_size=6), st.integers(180, 260))
def test_shortened_prompts_fit(tokenizer, passages, room):
    caps = {"passage_tokens": 40, "query_tokens": 20, "max_length": room}
    short = ListwisePrompt(tokenizer, **caps, overlong="shorten")
    rendered = short.render("a query", passages)
    assert len(rendered.ids) <= room and 1 <= rendered.cap <= 40
    full = ListwisePrompt(tokenizer, **caps | {"max_length": 10_000}).encode("a query", passages)
    assert rendered.shortened == (len(full) > room)


def test_the_other_prompts_ask_for_what_they_read(tokenizer):
    caps = {"passage_tokens": 12, "query_tokens": 20, "max_length": 600}
    assert "<think>" not in DirectPrompt(tokenizer, **caps).text("q", ["p"])
    assert "true" in PointwisePrompt(tokenizer, **caps).text("q", ["p"])
