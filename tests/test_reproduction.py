"""Table 1 beside a run of a checkpoint: figures of a record, verdicts, and what is no test of a printed figure."""

import json

import pytest

from reasonrank import evaluation, paper, profiles, reproduction, verify
from reasonrank.checks import Inputs
from reasonrank.cli.main import main
from reasonrank.stages import ROOT

FIVE = {"biology": 43.49, "stackoverflow": 30.96, "leetcode": 31.68, "aops": 7.37}
FIVE |= {"theoremqa_questions": 33.93}


def put(folder, label, values, first_stage="reasonir_gpt4cot_top100.txt", **changes):
    """A record of notebook 05: `values` in percent by set of BRIGHT, of the retriever and of `label`."""
    known = paper.load(paper.DATA / "inputs.yaml", dict[str, dict])
    systems, scores, sets = ["retriever", label], [], []
    for name, pair in values.items():
        collection, found = f"bright/{name}", dict(zip(systems, pair, strict=True))
        scores += [{"collection": collection, "system": s, "ndcg": v / 100 + 0.01} for s, v in found.items()]
        digest = next(iter(known[name]["files"].values()), "0" * 64)
        row = {"collection": collection, "first_stage": first_stage, "queries": known[name]["queries"]}
        row |= {"judged": row["queries"], "inputs": {f"{collection}/reasonir_gpt4cot_top100.txt": digest}}
        sets.append(row | {"released": {s: v / 100 for s, v in found.items()}})
    own = reproduction.PROTOCOL | {"systems": ["checkpoint"]} | changes
    config = {"name": "released-7b", "evaluation": own}
    cost = [{"system": label, "seconds": 12.5, "prompt_tokens": 1000, "output_tokens": 234}]
    result = {"systems": systems, "scores": scores, "sets": sets, "cost": cost, "model": f"x/{label}"}
    result["template"] = {"source": "recovered", "known_as": None}
    path = folder / reproduction.RECORD
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"config": config, "result": result}))
    return folder


def put_latency(folder):
    ratio = {"value": 2.4, "low": 2.1, "high": 2.8}
    path = folder / "06_latency_study" / "record.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"result": {"ratio": ratio, "rows": []}}))


def figures(folder):
    outcomes = verify.verify(Inputs(folder)).figures
    return {o.id.removeprefix("table1 / "): o for o in outcomes if o.ours is not None}


def whole(change=0.0):
    table = paper.tables()["table1"]
    rows = [table.row(system).values for system in ("ReasonIR (8B)", "ReasonRank (7B)")]
    return {name: (first, own + change) for name, first, own in zip(table.columns, *rows, strict=True)}


def test_the_released_checkpoint_gets_a_verdict_on_each_figure(tmp_path, capsys):
    found = figures(put(tmp_path, "reasonrank-7B", whole(0.3)))
    assert len(found) == 26 and {o.verdict for o in found.values()} == {"OK", "OKish"}
    one = found["ReasonRank (7B) / biology"]
    assert (round(one.ours, 2), one.n, one.verdict) == (57.0, 103, "OKish")
    assert "as we evaluate: 58.00" in one.note
    assert found["ReasonIR (8B) / avg"].verdict == "OK" and found["ReasonRank (7B) / avg"].n == 1384
    assert figures(put(tmp_path, "reasonrank-7B", whole(3)))["ReasonRank (7B) / pony"].verdict == "FAIL"
    put(tmp_path, "reasonrank-7B", whole())
    put_latency(tmp_path)
    assert main(["verify", "--brief", "--records", str(tmp_path), "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in next(x for x in lines if "| avg" in x).split("|")[1:-1]] == [
        *("avg", "30.59", "30.59", "OK", "35.74", "35.26", "35.74", "+0.00", "OK")
    ]
    assert any("80,864,264" in x and "1,234" in x for x in lines) and any("IRONICBo" in x for x in lines)


@pytest.mark.parametrize(
    ("label", "changes", "missing"),
    [
        ("smollm2-135m-instruct", {}, "weights of smollm2-135m-instruct"),
        ("reasonrank-32B", {}, ""),
        ("reasonrank-7B", {"window": 10}, "window 10"),
        ("reasonrank-7B", {"first_stage": "bm25"}, "the first stage is bm25"),
    ],
)
def test_what_is_no_test_of_the_printed_figure_gets_no_verdict(tmp_path, label, changes, missing):
    found = figures(put(tmp_path, label, whole(5), **changes))
    system = "ReasonRank (32B)" if "32B" in label else "ReasonRank (7B)"
    own = found[f"{system} / avg"]
    assert (own.verdict == "not run", own.missing) == (bool(missing), missing)


def test_an_average_needs_all_sets(tmp_path):
    few = figures(put(tmp_path, "reasonrank-7B", {"biology": (43.49, 56.7)}))
    assert few["ReasonRank (7B) / avg"].missing == "1 of 12 sets"
    assert few["ReasonRank (7B) / biology"].verdict == "OK"


def test_a_record_of_our_own_collections_gives_no_figure(tmp_path):
    assert reproduction.measured(ROOT / "data" / "records") == {}
    path = tmp_path / reproduction.RECORD
    path.parent.mkdir()
    path.write_text(json.dumps({"config": {}, "result": {}}))
    assert reproduction.measured(tmp_path) == {} and reproduction.page({}, tmp_path) == ""


def with_passages(shared, folder):
    """The shared sets of BRIGHT in a folder, with a made-up text for each passage that a run names."""
    from reasonrank import runs

    for name in FIVE:
        place = folder / "bright" / name
        place.mkdir(parents=True)
        for file in (shared / "bright" / name).iterdir():
            (place / file.name).symlink_to(file)
        run = runs.read_trec(place / "reasonir_gpt4cot_top100.run.gz")
        docids = dict.fromkeys(docid for ranking in run.values() for docid in ranking)
        runs.write_jsonl(place / "corpus.jsonl.gz", [{"id": d, "text": f"passage {d}"} for d in docids])
    return folder


def test_the_retriever_row_of_table_1_from_the_test_sets_of_a_profile(shared, tmp_path):
    """lenient_ids=False, ties as trec_eval, the mean over the run's queries; the texts are made up."""
    folder = with_passages(shared, tmp_path)
    changes = {"data.folder": str(folder), "evaluation.first_stage.bright": "bright"}
    settings = profiles.load("released-7b", changes)
    tests = evaluation.test_sets(settings, [f"bright/{name}" for name in FIVE])
    for name, printed in FIVE.items():
        test = tests[f"bright/{name}"]
        values = test.ndcg(test.retriever)
        assert 100 * sum(values.values()) / len(values) == pytest.approx(printed, abs=0.005)
        assert 100 * test.released(test.run) == pytest.approx(printed, abs=0.005)
