"""Recovery of a template from rows: awkward queries, checks by rendering, and the prompt made with it."""

import hashlib
import json

import pytest

from fakes import public
from reasonrank import profiles, recovery
from reasonrank.prompts import Template, block
from reasonrank.recovery import RecoveredPrompt, known_as, prepare, recover

SYSTEM = "You sort {num} notes. Write <answer> [2] > [1] </answer>; a brace {like} this stays."
USER = "Sort {num} notes for: {query}\n{passages}Again, the question is {query}. There are {num}, not 20.\n"

QUERIES = [
    "what is a fern",
    "why {num} and {query}, or {passages}?",
    "of [2] and (3)\nsecond line\n\n  third",
    "Grüße, 日本語 and 😀 · naïve",
    "fern",  # stands inside passages
    "notes",  # stands in the template itself
    "20",
    "{",
    "Sort 3 notes for: x",
]


def made(query: str, passages: list[str]) -> dict:
    """A row as the template above makes it, by plain replacement of its places."""
    texts = []
    for template in (SYSTEM, USER):
        parts = template.replace("{num}", "\0n").replace("{query}", "\0q").replace("{passages}", "\0p")
        pieces = parts.split("\0")
        values = {"n": str(len(passages)), "q": query, "p": block(passages)}
        texts.append(pieces[0] + "".join(values[piece[0]] + piece[1:] for piece in pieces[1:]))
    messages = [{"role": "system", "content": texts[0]}, {"role": "user", "content": texts[1]}]
    return {"messages": messages, "query": query, "passages": passages}


def texts(template: Template) -> tuple[str, str]:
    return template.system, template.user


def rows() -> list[dict]:
    return [made(q, [f"a fern {i}\nline {q}" for i in range(2 + n % 3)]) for n, q in enumerate(QUERIES)]


def test_a_template_is_learnt_from_rows_with_awkward_queries():
    template = recover(rows())
    assert texts(template) == (SYSTEM, USER)
    assert template.choices == 1


@pytest.mark.parametrize("query", QUERIES)
def test_each_awkward_query_can_be_the_base(query):
    """Two rows of different length; the other query is plain, so this one is the awkward part."""
    pair = [made(query, ["x", "y"]), made(f"{query} zzz", ["x", "y", "fern notes", "w"])]
    assert texts(recover(pair)) == (SYSTEM, USER)


def hashes(system: str, user: str) -> dict[str, str]:
    return {role: hashlib.sha256(t.encode()).hexdigest() for role, t in (("system", system), ("user", user))}


def test_a_template_is_known_by_its_hashes():
    own = hashes("a {num}", "{query} é")
    assert own["system"] == "b6fd3fced78afc9f415ab4029833c5befa111045fc9abbbb71b3f05764613f8d"
    known = {"what": "a note", "other": {"system": "0", "user": "0"}, "ours": {**own, "lengths": {}}}
    assert known_as(Template("a {num}", "{query} é"), known) == "ours"
    assert known_as(Template("a {num}.", "{query} é"), known) is None


def test_rows_of_one_length_leave_a_choice_which_known_hashes_settle():
    same = [made(query, ["x", "y"]) for query in ("first one", "second one")]
    open_choice = recover(same)
    assert open_choice.choices > 1
    assert "[{num}] > [1]" in open_choice.system  # the most placeholders, not what made them
    assert texts(recover(same, {"theirs": hashes(SYSTEM, USER)})) == (SYSTEM, USER)


def test_a_row_of_another_template_is_refused():
    odd = made("plain words", ["x", "y", "z", "u", "v"])
    odd["messages"][1]["content"] = odd["messages"][1]["content"].replace("Again", "Once more")
    with pytest.raises(ValueError, match="no template makes the user messages of all 4 rows"):
        recover([*rows(), odd])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"passages": ["other", "texts"]}, "its query, or its passages"),
        ({"query": "never asked"}, "its query, or its passages"),
        ({"query": ""}, "expected a query and passages"),
        ({"passages": []}, "expected a query and passages"),
        ({"messages": [{"role": "user", "content": "x"}]}, "expected a system and a user message"),
        ({"messages": None}, "expected a system and a user message"),
    ],
)
def test_a_row_that_cannot_be_used_is_passed_over_and_named_where_it_is_alone(monkeypatch, change, message):
    monkeypatch.setattr(recovery, "prepare", lambda text, *_: text)
    odd = {**rows()[3], **change}
    with pytest.raises(ValueError, match=f"row 1: {message}"):
        recover([odd])
    assert texts(recover([odd, *rows()])) == (SYSTEM, USER)


def test_no_rows_and_too_many_places_are_refused():
    with pytest.raises(ValueError, match="no rows"):
        recover([])
    crowded = made("a", ["x", "y"])
    crowded["messages"][1]["content"] += "a " * 11
    with pytest.raises(ValueError, match=r"stands at .* places"):
        recover([crowded])


class Words:
    """A tokenizer of words, with a chat template."""

    def __call__(self, text, add_special_tokens=False, **options):
        self.known = [*getattr(self, "known", []), *text.split(" ")]
        return {"input_ids": [self.known.index(word) for word in text.split(" ")]}

    def decode(self, ids, skip_special_tokens=True):
        return " ".join(self.known[i] for i in ids)

    def apply_chat_template(self, messages, **options):
        return "".join(f"<{m['role']}>{m['content']}" for m in messages) + "<assistant>"


def test_texts_are_fixed_then_cut_then_freed_of_identifiers():
    assert prepare(" see [12] and [x] ") == "see (12) and [x]"
    assert prepare("schÃ¶n") == "schön"
    assert prepare("one [2] three four", Words(), 3) == "one (2) three"
    assert prepare("one two", Words(), 2) == "one two"


def test_rows_whose_known_texts_were_prepared_are_matched():
    raw, query = ["the [1] cat sat down", "schÃ¶n"], "why [3]?"
    shown = [prepare(text, Words(), 3) for text in raw]
    row = {**made(prepare(query), shown), "query": query, "passages": raw}
    plain = made("plain words", ["x", "y", "z"])
    template = recover([row, plain], tokenizer=Words(), passage_tokens=3)
    assert texts(template) == (SYSTEM, USER)


def test_a_window_is_rendered_with_a_recovered_template():
    caps = {"passage_tokens": 2, "query_tokens": 100, "template": recover(rows())}
    prompt = RecoveredPrompt(Words(), **caps, max_length=60)
    text = prompt.text("what is [4]", ["one two three", "[9]"])
    assert text.startswith("<system>You sort 2 notes.")
    assert "for: what is (4)\n[1] one two\n[2] (9)\nAgain" in text
    assert text.endswith("<assistant>")
    rendered = prompt.render("what is [4]", ["one two three", "[9]"])
    assert (rendered.cut, rendered.query_cut) == ((0,), False) and len(rendered.ids) <= 60
    with pytest.raises(ValueError, match="exceeds max_length 60"):
        prompt.encode("w " * 60, ["a"])


SMOLLM2 = "smollm2-135m-instruct"


def test_the_template_of_a_profile_is_learnt_from_the_published_sets(tmp_path, monkeypatch):
    data = {"data.folder": str(public.training(tmp_path)), "prompting.template": "recovered"}
    profile = profiles.load("released-7b", data | {"model.name": SMOLLM2})
    found = recovery.template_of(profile)
    assert texts(found) == (public.SYSTEM, public.USER)
    own = {"source": "recovered", "known_as": None, "choices": 1}
    assert recovery.record(profile) == own | {"sha256": hashes(public.SYSTEM, public.USER)}
    assert recovery.record(profiles.load("smoke")) == {"source": "this project"}
    monkeypatch.setattr("reasonrank.models.load_tokenizer", lambda name: None)
    with pytest.raises(
        ValueError, match=r"is not the one of x/reasonrank-7B: its hashes are not in prompt_h"
    ):
        recovery.published(tmp_path, "x/reasonrank-7B")
    known = {"theirs": {**hashes(public.SYSTEM, public.USER), "used_by": ["reasonrank-7B"]}}
    monkeypatch.setattr(recovery, "read_json", lambda path: known)
    assert texts(recovery.published(tmp_path / "." / "", "y/reasonrank-7B")) == (public.SYSTEM, public.USER)
    for name in ("reasonrank_data_rl/train.parquet", "reasonrank_data_13k/training_data_all.jsonl"):
        (tmp_path / name).unlink()
        with pytest.raises(FileNotFoundError, match=f"{name}: no such file; a folder as liuwenhan"):
            recovery.published(tmp_path, f"without {name}")


def test_the_hashes_of_the_checkpoints_are_those_that_were_measured(shared):
    kept = json.loads(recovery.HASHES.read_text())
    assert kept == json.loads((shared / "golden" / "prompt_hashes.json").read_text())


JINJA = "{% block system %}Sort {{ num }}.{% endblock %}\n"
JINJA += "{% block user %}\n{{ passages }}For: {{ query }}{% endblock %}"


def test_a_template_from_a_jinja_file(tmp_path):
    path = tmp_path / "mine.jinja"
    path.write_text(JINJA)
    assert texts(recovery.read_template(path)) == ("Sort {num}.", "{passages}For: {query}")
    assert (
        texts(recovery.template_of(profiles.load("smoke", {"prompting.template": str(path)})))[0]
        == "Sort {num}."
    )
    for text, message in (
        (
            JINJA.replace("block user", "block asked"),
            "mine.jinja: no block 'user'; expected the blocks system",
        ),
        (JINJA.replace("{% endblock %}", "", 1), r"mine\.jinja, line \d: "),
        (JINJA.replace("num", "number"), "mine.jinja: 'number' is undefined"),
        (JINJA.replace("{{ passages }}", ""), r"expected \{\{ passages \}\} once in the block user"),
        (JINJA.replace("{{ query }}", ""), r"and \{\{ query \}\}"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            recovery.read_template(path)
    with pytest.raises(FileNotFoundError, match=r"none\.jinja: no such template; expected a Jinja file"):
        recovery.read_template(tmp_path / "none.jinja")
