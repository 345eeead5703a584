"""The switches between ours and the authors' released code at inference and evaluation, both sides."""

import pytest

from reasonrank import evaluation, released, runs

TRUNCATED = "<think> [3] fits best, then 12 and [2]"


def test_digits_of_the_reasoning_count_only_as_released():
    assert released.read_answer(TRUNCATED, 4) == [1, 2, 3, 4]
    assert released.read_answer(TRUNCATED, 4, "released") == [3, 2, 1, 4]


def test_both_read_an_answer_alike():
    text = "<think> [1] </think> <answer> [3] > [3] > [9] > [02] </answer>"
    assert released.read_answer(text, 3) == released.read_answer(text, 3, "released") == [3, 2, 1]


def test_ties_of_the_first_stage_undo_the_order_only_as_released():
    """The model puts b before c and d; the scores by position tie at places 2 and 3."""
    run, scores = {"q": ["b", "c", "d", "a"]}, {"q": [9.0, 5.0, 5.0, 1.0]}
    assert released.scored_order(run, scores) == run
    assert released.scored_order(run, scores, "released") == {"q": ["b", "d", "c", "a"]}
    qrels = {"q": {"c": 1}}
    ours, theirs = (released.scored_order(run, scores, v) for v in ("ours", "released"))
    assert evaluation.evaluate(ours, qrels).mean["nDCG@10"] == pytest.approx(0.6309, abs=1e-4)  # 1 / log2(3)
    assert evaluation.evaluate(theirs, qrels).mean["nDCG@10"] == 0.5  # 1 / log2(4)


def test_scores_that_are_equal_in_single_precision_tie():
    scores = {"q": [1.0 + 1e-9, 1.0]}
    assert released.scored_order({"q": ["a", "b"]}, scores, "released") == {"q": ["b", "a"]}
    assert released.tied_at(scores) == ["q"]


def test_scores_of_a_file_are_read_with_ids_that_hold_blanks(tmp_path):
    path = tmp_path / "a.run"
    path.write_text("q Q0 a b.txt 1 0.5 t\nq Q0 c 2 0.75 t\n\nr Q0 c 1 2 t\n")
    assert released.read_scores(path) == {"q": [0.75, 0.5], "r": [2.0]}
    path.write_text("q Q0 a 1 0.5 t\nq Q0 a one t\n")
    with pytest.raises(ValueError, match=r"a\.run, line 2: expected 'qid Q0 docid rank score tag'"):
        released.read_scores(path)


def test_ties_that_touch_the_first_places():
    scores = {"a": [3.0, 2.0, 2.0], "b": [3.0, 2.0, 1.0], "c": [], "d": [4.0, 3.0, 2.0, 2.0]}
    assert released.tied_at(scores, k=2) == ["a"]
    assert released.tied_at(scores, k=3) == ["a", "d"]


def test_published_runs_have_ties_that_matter(shared):
    folder = shared / "bright" / "stackoverflow"
    path = folder / "reasonir_gpt4cot_top100.run.gz"
    scores, run, qrels = (
        released.read_scores(path),
        runs.read_trec(path),
        runs.read_qrels(folder / "qrels.txt.gz"),
    )
    assert scores.keys() == run.keys() and released.tied_at(scores)
    again = released.scored_order(run, scores, "released")
    assert again == runs.read_trec(path, ties="trec_eval")
    ours, theirs = (evaluation.evaluate(r, qrels).mean["nDCG@10"] for r in (run, again))
    assert ours != theirs


def test_what_is_wrong_is_named():
    with pytest.raises(ValueError, match="query 'q': 2 documents, but 1 scores"):
        released.scored_order({"q": ["a", "b"]}, {"q": [1.0]}, "released")
    for call in (released.scored_order, released.read_answer):
        with pytest.raises(ValueError, match="variant is 'theirs'"):
            call({} if call is released.scored_order else "", {}, "theirs")
