"""What `verify` is given: the authors' golden rewards and BRIGHT runs, and what is wrong with some."""

import gzip
import json
import shutil

import pytest

from fakes.records import outcomes
from reasonrank import verify
from reasonrank.checks import Inputs

CASE = {
    "completion": "<think> b </think> <answer> [2] > [1] </answer>",
    "gold_ranking": [2, 1],
    "relevant": [2],
    "num_passages": 2,
    "reward": 1.3,
}


def golden(folder, *cases):
    path = folder / "g.jsonl"
    path.write_text("".join(json.dumps(case) + "\n" for case in cases))
    return Inputs(folder / "records", golden=path)


def test_golden_cases_are_compared(records, tmp_path):
    good = outcomes(verify.verify(golden(tmp_path, CASE)), "exact")["reward"]
    assert (good.verdict, good.n, good.ours) == ("OK", 1, pytest.approx(0, abs=1e-12))
    report = verify.verify(golden(tmp_path, CASE, CASE | {"reward": 1.3 + 1e-6}))
    assert outcomes(report, "exact")["reward"].verdict == "FAIL" and report.failures == ["FAIL: reward"]


@pytest.mark.parametrize(
    ("cases", "message"),
    [
        ([CASE, CASE | {"reward": None}], "line 2: reward: Input should be a valid number"),
        ([CASE, CASE | {"reward": float("nan")}], "line 2: reward: Input should be a finite number"),
        ([CASE, CASE | {"num_passages": 0}], "line 2: num_passages: "),
        ([CASE, CASE | {"gold_ranking": [2, "x"]}], r"line 2: gold_ranking\.1: "),
        ([{key: CASE[key] for key in CASE if key != "relevant"}], "line 1: relevant: Field required"),
        ([CASE, []], "line 2: expected a JSON object"),
        ([], "holds no case"),
    ],
)
def test_a_malformed_golden_case_is_named_with_file_and_line(cases, message, records, tmp_path):
    with pytest.raises(ValueError, match=r"g\.jsonl[,:] " + message):
        verify.verify(golden(tmp_path, *cases))


def test_the_authors_golden_cases(shared, records):
    report = verify.verify(Inputs(records, golden=shared / "golden" / "reward_released.jsonl"))
    good = outcomes(report, "exact")["reward"]
    assert (good.verdict, good.n) == ("OK", 240) and good.ours <= 1e-9


def test_the_retriever_row_of_table_1(shared, records):
    report = verify.verify(Inputs(records, bright=shared / "bright"))
    row = {name.split(" / ")[2]: o for name, o in outcomes(report, "C1").items()}
    assert row.pop("avg").missing.endswith("5 given")
    ours = {name: round(o.ours, 2) for name, o in row.items()}
    expected = {"biology": 43.49, "stackoverflow": 30.96, "leetcode": 31.68, "aops": 7.37}
    assert ours == expected | {"theoremqa_questions": 33.93}
    assert {o.verdict for o in row.values()} == {"OK"} and row["aops"].n == 111
    assert {o.note for o in row.values()} == {""}  # all inputs are the pinned ones
    assert [o.verdict for o in report.figures].count("OK") == 10  # Tables 1 and 9 print the same row


def one_set(shared, tmp_path, change):
    """A BRIGHT folder with biology alone, the text of its run changed."""
    place = tmp_path / "bright" / "biology"
    shutil.copytree(shared / "bright" / "biology", place)
    (path,) = place.glob("*.run.gz")
    text = gzip.decompress(path.read_bytes()).decode()
    path.unlink()
    path.with_suffix("").write_text(change(text))
    return place.parent


def test_a_run_that_is_not_the_published_one_is_a_fail_that_says_so(shared, records, tmp_path):
    def turn(text):
        """The first query's ranking, the other way round."""
        rows = [line.split() for line in text.splitlines()]
        for row in rows:
            if row[0] == rows[0][0]:
                row[4] = str(-float(row[4]))
        return "".join(" ".join(row) + "\n" for row in rows)

    report = verify.verify(Inputs(records, bright=one_set(shared, tmp_path, turn)))
    outcome = outcomes(report, "C1")["table1 / ReasonIR (8B) / biology"]
    assert outcome.verdict == "FAIL" and outcome.ours < 43.4
    assert outcome.note == "not the published file: reasonir_gpt4cot_top100.run"
    assert report.failures[0] == "FAIL: table1 / ReasonIR (8B) / biology"


def test_a_run_with_another_number_of_candidates_is_refused(shared, records, tmp_path):
    folder = one_set(shared, tmp_path, lambda text: text[: text.rstrip().rindex("\n") + 1])
    with pytest.raises(
        ValueError, match=r"expected 103 judged queries of 100 candidates each.*\{100: 102, 99: 1\}"
    ):
        verify.verify(Inputs(records, bright=folder))


def test_an_excluded_document_in_a_run_is_refused(shared, records, tmp_path):
    folder = one_set(shared, tmp_path, str)
    (path,) = (folder / "biology").glob("*.run")
    qid, _, docid, *_ = path.read_text().splitlines()[5].split()
    (folder / "biology" / "excluded.txt").write_text(f"{qid} {docid}\n")
    with pytest.raises(ValueError, match="which is excluded"):
        verify.verify(Inputs(records, bright=folder))


def test_a_folder_without_any_set_is_an_error(records, tmp_path):
    with pytest.raises(ValueError, match="holds no set of BRIGHT"):
        verify.verify(Inputs(records, bright=tmp_path))
