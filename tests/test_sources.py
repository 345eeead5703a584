"""Collections: what is in them, and that no label leaks from one split into another."""

import pytest

from reasonrank import sources
from reasonrank.sources import Collection, Passage, Query, humaneval, split_of


@pytest.fixture(scope="module")
def collections():
    return sources.load_all(name for name in sources.COLLECTIONS if not name.startswith("worked"))


def test_every_collection_has_every_split_and_only_judged_queries_in_it(collections):
    for name, c in collections.items():
        for split in ("train", "dev", "test"):
            ids = c.ids(split)
            assert len(ids) >= 5, (name, split)
            assert all(c.qrels[qid] for qid in ids)
        assert not set(c.ids("train")) & set(c.ids("test"))
        assert all(judged.keys() <= c.passages.keys() for judged in c.qrels.values())


def test_splits_do_not_depend_on_anything_but_the_id():
    assert [split_of(f"q{i}") for i in range(6)] == ["dev", "train", "train", "train", "train", "train"]
    shares = [split_of(str(i)) for i in range(4000)]
    assert 0.47 < shares.count("train") / 4000 < 0.53
    assert 0.32 < shares.count("test") / 4000 < 0.38


def test_limit_takes_a_prefix_so_that_a_larger_run_contains_a_smaller_one(collections):
    c = collections["math_theorem"]
    assert c.ids("test", 5) == c.ids("test")[:5]


def test_champ_problems_are_in_the_same_split_in_both_collections(collections):
    own = {q: s for q, s in collections["math_theorem"].splits.items() if s != "extra"}
    assert own == collections["math_problem"].splits


def test_no_dev_or_test_problem_is_a_passage_of_math_problem(collections):
    c = collections["math_problem"]
    assert all(c.splits[docid] == "train" for docid in c.passages)
    assert all(docid not in c.qrels[docid] and docid in c.excluded[docid] for docid in c.passages)


def test_the_written_collections_are_as_large_as_promised(collections):
    qa, web = collections["complex_qa"], collections["web_search"]
    subjects = {qid.rsplit("-", 1)[0] for qid in qa.queries}
    assert len(qa.queries) >= 60 and len(subjects) == 6
    assert len(web.queries) >= 40 and len(qa.passages) >= 300
    assert web.passages.keys() == qa.passages.keys()
    for c in (qa, web):
        for qid, hard in c.hard_negatives.items():
            assert set(hard) <= c.passages.keys() and not set(hard) & set(c.qrels[qid])


def test_calls_are_read_off_the_syntax_tree():
    source = "import math\nfrom itertools import chain as c\n"
    source += "def f(x):\n    return f(sorted(x)) or math.gcd(1, c(x).split())\n"
    assert humaneval._calls(source) == {"sorted", "math.gcd", "itertools.chain", ".split"}


def test_calls_that_are_everywhere_are_not_relevant(collections):
    c = collections["coding"]
    assert not {"len", "range"} & {docid for judged in c.qrels.values() for docid in judged}
    assert "str.join" in c.passages and "ValueError" not in c.passages


def test_judgements_must_name_passages_that_exist():
    parts = {
        "queries": {"q": Query("q", "x")},
        "passages": {"p": Passage("p", "y")},
        "splits": {"q": "train"},
    }
    with pytest.raises(ValueError, match="'missing', which is no passage"):
        Collection("c", "coding", "made up", qrels={"q": {"missing": 1}}, **parts)
    with pytest.raises(ValueError, match="both judged and excluded"):
        Collection("c", "coding", "made up", qrels={"q": {"p": 1}}, excluded={"q": {"p"}}, **parts)
    with pytest.raises(KeyError, match="known are complex_qa"):
        sources.load("brigth")
    with pytest.raises(KeyError, match="known are bright/economics"):
        sources.load("bright")


def test_extra_queries_are_parts_of_training_queries_and_stay_out_of_the_splits(collections):
    theorem = collections["math_theorem"]
    extra = theorem.ids("extra")
    assert len(extra) > 300
    assert {theorem.splits[qid.partition("#")[0]] for qid in extra} == {"train"}
    assert not set(extra) & {qid for split in ("train", "dev", "test") for qid in theorem.ids(split)}
