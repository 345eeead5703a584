"""What ties, blanks and averaging change, on a run small enough to work out by hand."""

import pytest

from reasonrank import runs, variants

SECOND = 100 * 0.6309297535714575  # NDCG@10 in percent of one relevant document at rank 2: 1 / log2(3)


def by_what(rows):
    return {row["difference"]: row for row in rows}


def test_each_switch_changes_what_it_should(tmp_path):
    """Ids a, b, c: the third gets a blank. Query p: c is relevant, and first. q: a is relevant, second. r is lost."""
    run = {"p": ["c", "a", "b"], "q": ["b", "a"], "r": ["a"]}
    qrels = {"p": {"c": 1}, "q": {"a": 1}, "r": {"a": 1}}
    files = variants.published_form(run, qrels, tmp_path, lost={"r"})
    assert runs.read_trec(files.reranked) == {"p": ["c part", "a", "b"], "q": ["b", "a"]}
    rows = by_what(variants.compare(files))
    own = (100 + SECOND + 0) / 3
    assert all(row["ours"] == pytest.approx(own) for row in rows.values())
    assert rows[4]["released"] == pytest.approx(own) and rows[4]["queries"] == 0  # no tie in three places
    assert rows[5]["released"] == pytest.approx((0 + SECOND + 0) / 3) and rows[5]["queries"] == 1
    assert rows[7]["released"] == pytest.approx((100 + SECOND) / 2)
    assert (rows[7]["n"], rows[7]["queries"], rows[4]["n"]) == (2, 1, 3)


def test_a_tie_at_ranks_9_and_10_undoes_the_order(tmp_path):
    """Scores tie at 9 and 10 (0.50), where the tie goes to the later id: j, which the model put last, comes first."""
    docids = [*"abcdefgh", "i", "j"]
    files = variants.published_form({"q": docids}, {"q": {"i": 0, "j": 1}}, tmp_path)
    row = by_what(variants.compare(files))[4]
    assert row["ours"] == pytest.approx(100 / 3.4594316)  # 1 / log2(11)
    assert row["released"] == pytest.approx(100 / 3.3219281)  # 1 / log2(10)
    assert row["queries"] == 1


def test_a_lost_query_that_is_not_judged_is_named(tmp_path):
    with pytest.raises(ValueError, match="lost query 'x' is not judged"):
        variants.published_form({"q": ["a"]}, {"q": {"a": 1}}, tmp_path, lost={"x"})
