"""Prompts: caps, shortening, chat templates; by a tokenizer of a token a character, and by the embedded model's.

A cap counts the blank before a passage, as most vocabularies have it in the token of the first word; so with a token
a character a cap of 10 leaves 9 characters.
"""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.tokenizer import CharTokenizer
from reasonrank.answers import EMPTY_CHAIN
from reasonrank.models import load_tokenizer
from reasonrank.prompts import DirectPrompt, ListwisePrompt, PointwisePrompt, frame

CAPS = {"passage_tokens": 10, "query_tokens": 12, "max_length": 2000}


def prompt(**changed):
    return ListwisePrompt(CharTokenizer(), **(CAPS | changed))


def empty(n):
    """Tokens of a prompt whose n passages and query are empty."""
    return len(prompt().encode("", [""] * n))


def shown(rendered):
    text = "".join(map(chr, rendered.ids))
    return [line.partition(" ")[2] for line in text.split("\n") if line.startswith("[")]


def asked(rendered):
    return "".join(map(chr, rendered.ids)).partition("Question: ")[2].strip()


def test_with_repeat_query_and_identifiers_stand_twice_and_caps_hold():
    rendered = prompt(repeat=True).render("2 + 1", ["Three", "", "x" * 10])
    text = "".join(map(chr, rendered.ids))
    lines = ["Question: 2 + 1", "[1] Three [1]", "[2] [2]", f"[3] {'x' * 9} [3]", "Question: 2 + 1"]
    assert "\n".join(lines) in text and rendered.cut == (2,)
    assert text.count("Question: ") == 2


def test_what_is_longer_than_its_cap_is_cut_and_named():
    rendered = prompt().render("a question of many words", ["short", "x" * 10, "y" * 9, "z" * 50])
    assert shown(rendered) == ["short", "x" * 9, "y" * 9, "z" * 9]
    assert (rendered.cap, rendered.shortened, rendered.cut, rendered.query_cut) == (10, False, (1, 3), True)
    assert prompt().render("brief", ["short"]).query_cut is False


def test_a_prompt_that_is_too_long_is_shortened_evenly():
    """Room for 12 tokens more than the empty prompt. " cc" takes 3, so the others have 9 for two: 4 each."""
    tight = prompt(max_length=empty(3) + 12, overlong="shorten")
    rendered = tight.render("", ["a" * 20, "b" * 6, "cc"])
    assert shown(rendered) == ["aaa", "bbb", "cc"]
    assert (rendered.cap, rendered.shortened, rendered.cut) == (4, True, (0, 1))
    assert tight.render("", ["a" * 4, "b" * 4]).shortened is False  # another window, its own cap


@settings(deadline=None, max_examples=200)
@given(st.lists(st.text("ab", max_size=15), min_size=1, max_size=5), st.integers(-5, 80))
def test_the_cap_is_the_highest_that_fits(passages, room):
    limit = empty(len(passages)) + room
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


@pytest.mark.parametrize(
    ("room", "query", "passages", "left"),
    [
        (100, 5000, [5], 94),  # all that the passage leaves
        (40, 5000, [9, 9, 9, 9], 21),  # half of 40, the query's blank and the ends of four lines
        (40, 15, [9, 9, 9, 9], 15),  # under half it stays whole
        (6, 5000, [1], 4),
        (1, 50, [9], 0),
    ],
)
def test_a_query_that_is_too_long_is_cut_and_counted(room, query, passages, left):
    tight = prompt(max_length=empty(len(passages)) + room, query_tokens=9000, overlong="shorten")
    rendered = tight.render("q" * query, ["x" * size for size in passages])
    assert len(rendered.ids) <= tight.max_length
    assert (asked(rendered), rendered.query_cut) == ("q" * left, query > left)


def test_an_error_unless_told_to_shorten():
    with pytest.raises(ValueError, match=r"a prompt of \d+ tokens exceeds max_length 300; lower the window"):
        prompt(max_length=300).encode("", ["a" * 10] * 30)
    with pytest.raises(ValueError, match="overlong is 'cut'; expected 'error' or 'shorten'"):
        prompt(overlong="cut")
    with pytest.raises(ValueError, match="at least 1"):
        prompt(passage_tokens=0)


def test_a_passage_is_tokenised_once_for_each_cap():
    one = prompt()
    one.encode("query", ["first", "second"])
    before = len(one.tokenizer.seen)
    one.encode("query", ["second", "first"])
    assert len(one.tokenizer.seen) == before


class Chat(CharTokenizer):
    """A chat template given as a function of the messages."""

    name_or_path = "some/model"

    def __init__(self, template):
        super().__init__()
        self.template = template

    def apply_chat_template(self, messages, **options):
        return self.template({message["role"]: message["content"] for message in messages})


def refusing(messages):
    if "system" in messages:
        raise ValueError("System role not supported")
    return f"<user>{messages['user']}<model>"


@pytest.mark.parametrize("template", [refusing, lambda messages: f"<user>{messages['user']}<model>"])
def test_a_system_text_that_the_template_does_not_take_begins_the_users_message(template):
    """One template raises, the other leaves it out without a word."""
    assert frame(Chat(template), "Be brief.") == ("<user>Be brief.\n\n", "<model>")
    text = ListwisePrompt(Chat(template), **CAPS).text("why", ["a"])
    assert text.startswith(f"<user>{ListwisePrompt.template.system}\n\nHere are 1") and text.endswith(
        "why<model>"
    )


def broken(messages):
    raise KeyError("tools")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (broken, "the chat template of some/model renders no user message: 'tools'"),
        (lambda messages: "fixed", "some/model shows the user's message 0 times, not once"),
        (lambda messages: f"{messages['user']} {messages['user']}", "shows the user's message 2 times"),
    ],
)
def test_other_faults_of_a_template_are_named(template, message):
    with pytest.raises(ValueError, match=message):
        DirectPrompt(Chat(template), **CAPS)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("smollm2-135m-instruct")


TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
TURNS += "<|im_start|>assistant{{ '\n' }}"
# in small: Qwen3's, which thinks unless it is told not to; one that opens <think>, unless it is told not to
CLOSED = "{{ '<think>\n\n</think>\n\n' }}"
SWITCHED = "{% if enable_thinking is defined and enable_thinking is false %}" + CLOSED + "{% endif %}"
OPENING = "{% if enable_thinking %}{{ '<think>\n' }}{% else %}" + CLOSED + "{% endif %}"


@pytest.mark.parametrize(
    ("tail", "listwise", "direct"),
    [
        (SWITCHED, (True, "", "assistant\n"), (False, EMPTY_CHAIN, "</think>\n\n")),
        (OPENING, (True, "<think>", "<think>\n"), (False, EMPTY_CHAIN, "</think>\n\n")),
        ("{{ '<think>\n' }}", (True, "<think>", "<think>\n"), (True, "<think>", "<think>\n")),
        ("", (True, "", "assistant\n"), (False, EMPTY_CHAIN, "assistant\n")),
        (CLOSED, (False, EMPTY_CHAIN, "</think>\n\n"), (False, EMPTY_CHAIN, "</think>\n\n")),
    ],
)
def test_templates_that_think_do_so_where_reasoning_is_asked_for(tail, listwise, direct):
    tokenizer = load_tokenizer("smollm2-135m-instruct")
    tokenizer.chat_template = TURNS + tail
    for kind, (chain, begun, end) in ((ListwisePrompt, listwise), (DirectPrompt, direct)):
        made = kind(tokenizer, **CAPS)
        assert (made.chain, made.begun) == (chain, begun)
        assert made.text("why", ["a"]).endswith(end)
        assert tokenizer.decode(made.encode("why", ["a"])) == made.text("why", ["a"])


AWKWARD = [
    "plain words",
    "(starts with a bracket",
    "[3] > [1] and [12]",
    "two\nlines\n\nand a blank one",
    "{braces} %s {0} {num}",
    "naïve Σ 東京 🙂",
    "   blanks   all   round   ",
    "<think> tags </think>",
    "one, two. three; 'four'",
    "",
]


@pytest.mark.parametrize("repeat", [False, True])
@pytest.mark.parametrize("kind", [ListwisePrompt, DirectPrompt, PointwisePrompt])
def test_ids_are_those_of_the_text(tokenizer, kind, repeat):
    made = kind(tokenizer, passage_tokens=12, query_tokens=20, max_length=600, repeat=repeat)
    for query in AWKWARD:
        text = made.text(query, AWKWARD)
        assert made.encode(query, AWKWARD) == tokenizer(text, add_special_tokens=False)["input_ids"], query
        assert "[12]" not in text and "(12)" in text
    assert made.text("word " * 100, ["word " * 100]).count("word") == 12 + 20 * (1 + repeat)


@pytest.mark.parametrize("control", ["<|im_end|>", "<|im_start|>system", "a<|endoftext|>b"])
def test_control_tokens_in_texts_are_plain_text(tokenizer, control):
    made = ListwisePrompt(tokenizer, passage_tokens=20, query_tokens=20, max_length=600)
    special = set(tokenizer.all_special_ids)
    ids, plain = made.encode(control, [control, "b"]), made.encode("q", ["a", "b"])
    assert [i for i in ids if i in special] == [i for i in plain if i in special]
    assert tokenizer.decode(ids).count(control) == 2 + tokenizer.decode(plain).count(control)


def test_a_lone_surrogate_does_not_stop_a_prompt(tokenizer):
    made = ListwisePrompt(tokenizer, passage_tokens=20, query_tokens=20, max_length=600)
    assert made.encode("a \ud83d b", ["\ude00"]) == made.encode("a \ufffd b", ["\ufffd"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=4), st.text(max_size=80))
def test_every_passage_has_one_line_and_one_identifier(tokenizer, passages, query):
    text = ListwisePrompt(tokenizer, passage_tokens=12, query_tokens=20, max_length=600).text(query, passages)
    body = text[text.index("Here are ") :].split("\n")[1 : len(passages) + 1]
    assert [line.split(" ", 1)[0] for line in body] == [f"[{i}]" for i in range(1, len(passages) + 1)]


def test_prompts_are_those_that_the_released_adapters_know(tokenizer):
    """A hash over the ids of each kind of prompt, as they were when the adapters were trained."""
    digest = hashlib.sha256()
    for kind in (ListwisePrompt, DirectPrompt, PointwisePrompt):
        made = kind(tokenizer, passage_tokens=12, query_tokens=20, max_length=600)
        for query in ("What does a bee collect?", "of [2]\nand {num}", "word " * 50):
            digest.update(
                repr(made.encode(query, ["Bees collect nectar.", "The\nsun", "", "ant " * 30])).encode()
            )
    assert digest.hexdigest() == "27c409d13b3c9dbc22edfc5a7d545a52eb5c2eb3f09c9e37e00f590b41d1e238"
