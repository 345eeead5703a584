"""Collections: what is in them, and that no label leaks from one split into another."""

import pytest

from reasonrank import sources
from reasonrank.sources import Collection, Passage, Query, humaneval, split_of


@pytest.fixture(scope="module")
def collections():
    return sources.load_all(name for name in sources.COLLECTIONS if not name.startswith("worked"))


def test_every_collection_has_every_split_and_only_judged_queries_in_it(collections):
    for name, c in collections.items():
        ids = {split: c.ids(split) for split in ("train", "dev", "test")}
        assert min(map(len, ids.values())) >= 5, name
        assert all(c.qrels[qid] for found in ids.values() for qid in found)
        assert not set(ids["train"]) & set(ids["test"])
        assert all(judged.keys() <= c.passages.keys() for judged in c.qrels.values())
        assert c.ids("test", 5) == ids["test"][:5]  # a larger run contains a smaller one


def test_splits_do_not_depend_on_anything_but_the_id():
    assert [split_of(f"q{i}") for i in range(6)] == ["dev", "train", "train", "train", "train", "train"]
    shares = [split_of(str(i)) for i in range(4000)]
    assert 0.47 < shares.count("train") / 4000 < 0.53 and 0.32 < shares.count("test") / 4000 < 0.38


def test_champ_problems_leak_into_no_other_split(collections):
    theorem, problem = collections["math_theorem"], collections["math_problem"]
    assert {q: s for q, s in theorem.splits.items() if s != "extra"} == problem.splits
    assert all(problem.splits[docid] == "train" for docid in problem.passages)
    assert all(d not in problem.qrels[d] and d in problem.excluded[d] for d in problem.passages)
    extra = theorem.ids("extra")  # parts of training queries
    assert len(extra) > 300 and {theorem.splits[qid.partition("#")[0]] for qid in extra} == {"train"}
    assert not set(extra) & {qid for split in ("train", "dev", "test") for qid in theorem.ids(split)}


def test_the_written_collections_are_as_large_as_promised(collections):
    qa, web = collections["complex_qa"], collections["web_search"]
    assert len({qid.rsplit("-", 1)[0] for qid in qa.queries}) == 6
    assert len(qa.queries) >= 60 and len(web.queries) >= 40 and len(qa.passages) >= 300
    assert web.passages.keys() == qa.passages.keys()
    for c, train, test in ((qa, 1300, 100), (web, 600, 100), (collections["coding"], 500, 40)):
        assert len(c.ids("train")) >= train and len(c.ids("test")) >= test
    for c in (qa, web):
        for qid, hard in c.hard_negatives.items():
            assert set(hard) <= c.passages.keys() and not set(hard) & set(c.qrels[qid])


def test_relevant_to_a_program_is_what_it_calls_and_others_do_not(collections):
    source = "import math\nfrom itertools import chain as c\n"
    source += "def f(x):\n    return f(sorted(x)) or math.gcd(1, c(x).split())\n"
    assert humaneval._calls(source) == {"sorted", "math.gcd", "itertools.chain", ".split"}
    c = collections["coding"]
    found = {docid for qid, judged in c.qrels.items() if qid.startswith("HumanEval/") for docid in judged}
    assert not {"len", "range"} & found and len(found) > 20
    assert "str.join" in c.passages and "ValueError" not in c.passages


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"qrels": {"q": {"missing": 1}}}, "'missing', which is no passage"),
        ({"excluded": {"q": {"p"}}}, "both judged and excluded"),
        ({"qrels": {"r": {"p": 1}}}, "judgements for 'r', which is no query"),
        ({"scenario": "chess"}, "scenario 'chess' is none of"),
    ],
)
def test_collections_that_do_not_fit_are_refused(changes, message):
    parts = {"name": "c", "scenario": "coding", "source": "made up", "splits": {"q": "train"}}
    parts |= {
        "queries": {"q": Query("q", "x")},
        "passages": {"p": Passage("p", "y")},
        "qrels": {"q": {"p": 1}},
    }
    with pytest.raises(ValueError, match=message):
        Collection(**parts | changes)


@pytest.mark.parametrize(("name", "known"), [("brigth", "complex_qa"), ("bright", "bright/economics")])
def test_unknown_collections_are_named(name, known):
    with pytest.raises(ValueError, match=f"known are {known}"):
        sources.load(name)
