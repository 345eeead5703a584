"""Verdicts on claims and figures: what is checked, what is not, and when the command fails."""

import json

import pytest

from fakes.records import outcomes, put, ratio
from reasonrank import paper, verify
from reasonrank.checks import WAYS, Inputs, Measured
from reasonrank.cli.main import main
from reasonrank.stages import ROOT

RECORDS = ROOT / "data" / "records"


def test_without_any_input_the_exact_checks_are_made_and_nothing_fails(records):
    report = verify.verify(Inputs(records))
    assert list(report.claims) == ["exact", *(f"C{n}" for n in range(1, 8))] and all(report.claims.values())
    exact = outcomes(report, "exact")
    assert [o.verdict for o in exact.values()] == ["not run", "OK", "OK", "OK"]
    assert exact["reward"].missing.startswith("golden data not given")
    assert exact["windows"].ours == 9 and exact["table5-total"].ours == 13517
    assert [(o.verdict, round(o.ours, 4)) for o in report.claims["C7"]] == [("OK", 0.6131), ("OK", 0.3618)]
    assert report.failures == []


def test_every_printed_value_has_a_verdict_and_what_it_takes(records):
    report = verify.verify(Inputs(records))
    tables = [table for name, table in paper.tables().items() if name != "reproduction"]
    printed = sum(len(r.values or ()) + (r.avg is not None) for table in tables for r in table.rows)
    assert len(report.figures) == printed == 601
    assert {o.verdict for o in report.figures} == {"not run"} and all(o.missing for o in report.figures)
    found = {check.id: check for check in paper.printed()}
    retriever = found["table1 / ReasonIR (8B) / biology"]
    assert (retriever.paper, retriever.tolerance, retriever.noise) == (43.49, 0.01, 0.0)
    assert str(retriever.needs).startswith("BRIGHT (12 sets)")  # neither model nor hardware
    large = found["table2 / ReasonRank (32B) / avg"]
    assert str(large.needs).startswith("ReasonRank (32B), 2 GPUs of 80 GB, R2MED") and large.noise == 0.48


VERDICTS = [
    (30.59, 0.01, 0.0, "OK"),
    (30.60, 0.01, 0.0, "OK"),  # 30.60 - 30.59 is 0.0100000000000016 in floating point
    (30.61, 0.01, 0.0, "FAIL"),
    (30.61, 0.01, 0.5, "OKish"),
    (30.08, 0.01, 0.5, "OKish"),
    (30.07, 0.01, 0.5, "FAIL"),
]


def check(**how):
    needs = {"data": "none", "hardware": "none"}
    return paper.Check(**{"id": "x", "text": "x", "unit": "x", "needs": needs, **how})


@pytest.mark.parametrize(("ours", "tolerance", "noise", "expected"), VERDICTS)
def test_verdict(ours, tolerance, noise, expected):
    made = check(paper=30.59, tolerance=tolerance, noise=noise)
    assert verify.verdict(Measured(value=ours), made) == expected


@pytest.mark.parametrize(
    ("low", "high", "scale", "expected"),
    [
        (0.1, 2.0, "small", "OK"),
        (-0.1, 2.0, "small", "OKish"),
        (-2.0, -0.1, "small", "not run"),  # a small run cannot refute the claim
        (-2.0, 0.5, "small", "not run"),  # nor does chance support it
        (-2.0, 0.5, "paper", "OKish"),
        (-2.0, -0.1, "paper", "FAIL"),
        (0.0, 0.0, "paper", "OKish"),
    ],
)
def test_directions(low, high, scale, expected):
    own = Measured(value=(low + high) / 2, low=low, high=high)
    assert verify.verdict(own, check(paper=0.0, kind="direction", scale=scale)) == expected


def test_latency_is_compared_where_answers_end_by_themselves_only(records):
    small = outcomes(verify.verify(Inputs(records)), "C4")["latency-small"]
    assert (small.verdict, small.ours, small.n) == ("OK", 2.4, 16)
    put(records / "latency" / "06_latency_study.json", ratio(0.3, 0.2, 0.4))
    small = outcomes(verify.verify(Inputs(records)), "C4")["latency-small"]
    assert small.verdict == "not run" and small.ours == 0.3 and "the other way" in small.missing
    put(records / "latency" / "06_latency_study.json", ratio(2.4, 2.1, 2.8, finished=0.4))
    cut = verify.verify(Inputs(records))
    small = outcomes(cut, "C4")["latency-small"]
    assert small.verdict == "not run"
    ended = "answers that end before their limit (at least 90%); 40 % of the pointwise answers did"
    assert small.missing.startswith(ended)
    assert cut.failures == []
    put(records / "latency" / "06_latency_study.json", ratio(2.4, 2.1, 2.8, candidates=20))
    few = outcomes(verify.verify(Inputs(records)), "C4")["latency-small"]
    assert (few.verdict, few.missing.partition(";")[0]) == ("not run", "16 queries of 100 candidates")
    put(records / "run" / "06_latency_study" / "record.json", ratio(1.1, 0.9, 1.3))  # as a run holds it
    small = outcomes(verify.verify(Inputs(records / "run")), "C4")["latency-small"]
    assert (small.verdict, small.low, small.high) == ("OKish", 0.9, 1.3)


ONLY_SFT = {"variant": "only SFT", "value": 2.0, "low": 0.5, "high": 3.5, "n": 150, "paper": 2.59}


def test_ablations_are_directions_beside_the_papers_difference(records):
    other = {"variant": "NDCG alone", "value": -3.0, "low": -5.0, "high": -1.0, "n": 150, "paper": 0.5}
    put(records / "ablations.json", {"comparisons": [ONLY_SFT, other]})
    found = outcomes(verify.verify(Inputs(records)), "C3")
    assert (found["ablation-reinforcement"].verdict, found["ablation-reinforcement"].n) == ("OK", 150)
    assert found["ablation-reinforcement"].note == "paper, 7B: +2.59"
    assert found["ablation-reward"].verdict == "not run" and found["ablation-reward"].ours == -3.0
    assert found["ablation-filter"].missing.startswith("ablations.json: no comparison with 'without filter'")


def figures(*values):
    row = {"table": "table1", "system": "ReasonRank (7B)"}
    return {"figures": [row | {"column": column, "value": value, "n": 103} for column, value in values]}


def test_a_run_at_the_papers_scale_gets_a_verdict_on_each_figure(records):
    put(records / "published" / "a.json", figures(("biology", 56.71), ("avg", 35.30), ("pony", 22.0)))
    report = verify.verify(Inputs(records))
    found = {o.text: o for o in report.claims["C2"]}
    assert found["table1: ReasonRank (7B), biology"].verdict == "OK"  # 56.70
    average = found["table1: ReasonRank (7B), avg"]  # 35.74; an independent run is 0.48 off
    assert average.verdict == "OKish" and "independent run" in average.note
    assert average.difference == pytest.approx(-0.44)
    assert found["table1: ReasonRank (7B), pony"].verdict == "FAIL"  # 24.95, 2.95 off, over 1.90
    assert report.failures == ["FAIL: table1 / ReasonRank (7B) / pony"]


@pytest.mark.parametrize(
    ("file", "result", "message"),
    [
        ("published/a", figures(("botany", 1.0)), "figure 1: .*botany is no printed figure"),
        ("published/a", figures(("pony", 1.0), ("pony", 1.0)), "figure 2: .*pony is there twice"),
        (
            "published/a",
            {"figures": [{"table": "table1"}]},
            "figure 1: table1 / None / None is no printed figure",
        ),
        ("published/a", figures(("pony", "high")), "figure 1: value: Input should be a valid number"),
        ("latency/06_latency_study", ratio(2.4, None, 2.8) | {"ratio": None}, "result.ratio: "),
        ("latency/06_latency_study", ratio(2.4, 2.1, 2.8) | {"rows": None}, "result.rows: "),
        ("latency/06_latency_study", ratio("fast", 2.1, 2.8), "result.ratio: value: "),
        (
            "ablations",
            {"comparisons": [ONLY_SFT | {"low": None}]},
            "comparison 'only SFT': low: Input should be",
        ),
    ],
)
def test_a_malformed_record_is_named(records, file, result, message):
    put(records / f"{file}.json", result)
    with pytest.raises(ValueError, match=rf"{file}\.json, {message}"):
        verify.verify(Inputs(records))


def test_tables_show_ours_beside_the_paper(records):
    put(records / "published" / "a.json", figures(("avg", 35.30)))
    report = verify.verify(Inputs(records))
    table = verify.beside_ours(report, "table1")
    own = table.loc["ReasonRank (7B)", ["avg", "ours", "verdict", "needs"]]
    assert own.tolist() == [35.74, "35.30", "OKish", ""]
    assert table.loc["ReasonRank (32B)", ["ours", "verdict"]].tolist() == ["-", "not run"]
    assert "2 GPUs of 80 GB" in table.loc["ReasonRank (32B)", "needs"]
    assert str(verify.beside_ours(report, "table5").loc["biology", "examples"]) == "1700", "a count"
    assert len(verify.claims_frame(report)) == sum(map(len, report.claims.values()))


def test_the_noise_between_two_runs_is_what_the_reproduction_shows():
    theirs = paper.tables()["reproduction"].rows[0]
    printed = paper.tables()["table1"].row("ReasonRank (7B)")
    noise = paper.noises()["independent_run"]
    gaps = [abs(a - b) for a, b in zip(theirs.values, printed.values, strict=True)]
    assert noise.value == pytest.approx(max(gaps)) and noise.avg == pytest.approx(printed.avg - theirs.avg)


def test_checks_and_claims_name_what_exists():
    known = {"exact", *(claim.id for claim in paper.claims())}
    assert len({check.id for check in paper.checks()}) == len(paper.checks())
    for check in paper.checks():
        assert check.claim in known and check.way in WAYS
        assert check.record or check.way not in ("record", "ablation", "latency")
    for table, system in (
        (t, s) for claim in paper.claims() for t, found in claim.rows.items() for s in found
    ):
        assert paper.tables()[table].row(system)


def test_the_command_prints_and_writes_the_same(records, tmp_path, capsys):
    assert main(["verify", "--records", str(records), "--out", str(tmp_path / "out")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "C7: The worked example" in printed and "601 in all: 601 not run." in printed
    assert "OK 2.40 [2.10, 2.80] > 1 +1.40 16 direction in a small run" in printed
    body = json.loads((tmp_path / "out" / "verify.json").read_text())
    assert body["failures"] == [] and len(body["figures"]) == 601 and body["claims"]["C7"][0]["paper"] == 0.61
    page = " ".join((tmp_path / "out" / "verify.md").read_text().split())
    assert "| OK | 0.61 | 0.61 | +3.1e-03 | 1 | relevant passages at ranks 1 and 11 of 20 | |" in page


def test_the_command_fails_on_fail_and_on_a_missing_record(records, tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    put(records / "published" / "a.json", figures(("pony", 1.0)))
    assert main(["verify", "--records", str(records), *out]) == 1
    assert "FAIL: table1 / ReasonRank (7B) / pony" in capsys.readouterr().err
    assert (tmp_path / "out" / "verify.json").is_file()
    (tmp_path / "empty").mkdir()
    assert main(["verify", "--records", str(tmp_path / "empty"), *out]) == 1
    said = capsys.readouterr().err
    assert "missing: record latency/06_latency_study.json; needs SmolLM2-135M, 2 CPU cores" in said


@pytest.mark.parametrize("option", ["--bright", "--records", "--golden"])
def test_the_command_names_a_place_that_is_not_there(option, tmp_path, capsys):
    assert main(["verify", option, str(tmp_path / "none"), "--out", str(tmp_path)]) == 2
    assert f"'{option}'" in (said := capsys.readouterr().err) and "does not exist" in said


def test_the_committed_records_pass(tmp_path):
    assert main(["verify", "--records", str(RECORDS), "--out", str(tmp_path)]) == 0
