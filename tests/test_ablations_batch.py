"""The batch of ablations, with notebooks that are made up: what is run, skipped, recorded and counted in."""

import json
from pathlib import Path

import pytest
import yaml

from reasonrank import ablations, checks, profiles, runs, stages, synthesis
from reasonrank.ablations import STAGES, Variant
from reasonrank.cli import ablations as batch
from reasonrank.cli import run as notebooks
from reasonrank.cli.errors import CommandError, UsageError
from reasonrank.cli.main import main

SECOND = 0.6309297535714575  # NDCG@10 of one relevant passage at rank 2: 1 / log2(3)


@pytest.fixture(autouse=True)
def _no_look_at_the_machine(monkeypatch):
    monkeypatch.setattr(
        stages, "hardware", lambda: {"cpu": "made up", "cores": 2, "memory_gib": 8, "gpus": []}
    )


def evaluation(run_dir: Path, settings, place: int, n: int = 2, recorded: float | None = None) -> None:
    """Stage 05 of a run: `SFT` finds the relevant passage at rank 2, `SFT + RL` at `place`."""
    stage = stages.Stage(
        run_dir, "05_gpu_evaluation", settings, settings.seed, inputs=[run_dir / "04_rl" / "model"]
    )
    rows, qrels = [], {f"q{i}": {"rel": 1} for i in range(n)}
    runs.write_qrels(stage.path("runs/coding.qrels"), qrels)
    for system, tag, at in (
        ("SFT (this run)", "sft-this-run", 2),
        ("SFT + RL (this run)", "sft-rl-this-run", place),
    ):
        ranking = ["a", "b"]
        ranking.insert(at - 1, "rel")
        runs.write_trec(stage.path(f"runs/coding.{tag}.trec"), dict.fromkeys(qrels, ranking), tag)
        value = {1: 1.0, 2: SECOND, 3: 0.5}[at] if recorded is None else recorded
        rows += [
            {"collection": name, "system": system, "ndcg": value, "n": n} for name in ("coding", "average")
        ]
    stage.record({"scores": rows})
    stage.finish()


def test_values_by_query_are_those_of_the_record(tmp_path):
    settings = profiles.load("smoke")
    (tmp_path / "04_rl").mkdir()
    (tmp_path / "04_rl" / "model").write_text("weights")
    evaluation(tmp_path, settings, place=3)
    assert ablations.per_query(tmp_path) == {"coding": {"q0": 0.5, "q1": 0.5}}
    assert ablations.per_query(tmp_path, "SFT")["coding"]["q0"] == pytest.approx(SECOND)
    with pytest.raises(
        ValueError, match=r"no system 'RL \(this run\)'; it has \['SFT \(this run\)', 'SFT \+ RL"
    ):
        ablations.per_query(tmp_path, "RL")
    evaluation(tmp_path, settings, place=3, recorded=0.9)
    with pytest.raises(ValueError, match=r"NDCG@10 0\.500000, but the record has 0\.900000"):
        ablations.per_query(tmp_path)


def an_example(dataset: str):
    values = dict.fromkeys(("scenario", "qid", "reasoning"), "x") | {"dataset": dataset}
    lists = {key: ["d"] for key in ("initial_list", "final_list", "relevant_docids", "hard_negatives")}
    return synthesis.Example(**values, **lists)


class Notebooks:
    """Stands in for papermill: writes the stages that the batch reads, and remembers what was run."""

    def __init__(self, monkeypatch):
        self.ran, self.fail = [], ""
        monkeypatch.setattr(notebooks, "run_notebook", self.run)

    def run(self, stage: str, profile: str, run_dir: Path, deadline: float) -> None:
        settings = profiles.load(profile)
        self.ran.append(f"{run_dir.parent.name}/{stage}")
        if self.ran[-1] == self.fail:
            raise CommandError("made up to fail")
        if stage == "05_gpu_evaluation":
            evaluation(run_dir, settings, place=1 if settings.rl.reward.recall_weight else 3)
        else:
            self.write(stage, settings, run_dir)
        (run_dir / "notebooks").mkdir(exist_ok=True)
        (run_dir / "notebooks" / f"{stage}.ipynb").write_text("{}")

    def write(self, stage: str, settings, run_dir: Path) -> None:
        earlier = {
            "02_filtering": "01_synthesis/examples.jsonl",
            "03_sft": "02_filtering/model",
            "04_rl": "03_sft/model",
        }
        inputs = [run_dir / earlier[stage]] if stage in earlier else []
        made = stages.Stage(run_dir, stage, settings, settings.seed, inputs=inputs)
        if stage == "01_synthesis":
            synthesis.save(made.path("examples.jsonl"), [an_example("coding"), an_example("web_search")])
            for name in ("id_query.json", "id_doc.json"):
                made.path(name).write_text("{}")
        content = inputs[0].read_text() if inputs else ""
        made.path("model").write_text(f"{content}{stage}{settings.seed}{settings.sft.max_steps}")
        made.record({"steps": 7})
        made.finish()


@pytest.fixture
def fake(monkeypatch) -> Notebooks:
    return Notebooks(monkeypatch)


def call(folder: Path, *words: str) -> int:
    return main(["ablations", "--profile", "smoke", "--run-dir", str(folder), *words])


def test_the_batch_runs_each_variant_from_where_it_differs(tmp_path, fake, capsys):
    assert call(tmp_path, "--seeds", "1") == 0
    assert fake.ran[:5] == [f"whole_recipe/{stage}" for stage in STAGES]
    assert fake.ran[5:9] == [f"only_web_search/{stage}" for stage in STAGES[1:]]
    assert fake.ran[9:13] == [f"without_filter/{stage}" for stage in STAGES[1:]]
    assert fake.ran[13:16] == [f"only_RL/{stage}" for stage in STAGES[2:]]
    assert fake.ran[16:18] == [f"NDCG_alone/{stage}" for stage in STAGES[3:]]
    assert fake.ran[18:] == [f"without_reasoning/{stage}" for stage in STAGES[2:]]
    shown = capsys.readouterr().out
    assert (
        "Whole recipe against NDCG alone: +50.0 points (95 % interval +50.0 to +50.0; n = 2 queries, 1 seed)"
        in shown
    )
    result = json.loads((tmp_path / "ablations.json").read_text())["result"]
    values = {row["variant"]: row["value"] for row in result["comparisons"]}
    assert values["NDCG alone"] == pytest.approx(50) and values["only RL"] == 0
    assert values["only SFT"] == pytest.approx(100 * (1 - SECOND))  # a system of the whole recipe's own run
    assert values["without reasoning"] == 0
    assert values["without reasoning, only SFT"] == pytest.approx(100 * (1 - SECOND))
    assert result["not_run"] == []


def test_a_system_of_another_variants_run(tmp_path, fake):
    assert call(tmp_path, "--seeds", "1", "--only", "without reasoning, only SFT") == 0
    assert fake.ran[5:] == [f"without_reasoning/{stage}" for stage in STAGES[2:]]
    made = profiles.load(str(tmp_path / "without_reasoning" / "seed=1.yaml"))
    assert not made.prompting.reasoning and made.evaluation.systems == ["SFT", "SFT + RL"]
    whole = profiles.load(str(tmp_path / "whole_recipe" / "seed=1.yaml"))
    assert whole.prompting.reasoning and whole.evaluation.systems == ["SFT", "SFT + RL"]
    assert ablations.systems("only RL") == ["SFT + RL"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {variant: x, paper: y, of: z}", "a.yaml: x: of: 'z': expected one of "),
        ("- {variant: x, paper: y, of: z, changes: {rl.steps: 1}}", "of: a system of another variant's run"),
    ],
)
def test_a_system_of_no_run_is_refused(tmp_path, text, message):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        ablations.variants(tmp_path / "a.yaml")


def test_settings_of_the_variants(tmp_path, fake):
    assert call(tmp_path, "--seeds", "1", "2", "--only", "without filter", "only RL", "only web search") == 0
    made = {path.parent.name: profiles.load(str(path)) for path in tmp_path.glob("*/seed=2.yaml")}
    assert {settings.seed for settings in made.values()} == {2}
    assert made["without_filter"].filtering.alpha == 0 and made["without_filter"].sft.max_steps == 7
    assert made["only_RL"].sft.max_steps == 1 and made["only_RL"].sft.learning_rate == 1e-12
    assert made["only_web_search"].sft.max_steps == 7
    kept = synthesis.load(tmp_path / "only_web_search" / "seed=2" / "01_synthesis" / "examples.jsonl")
    assert [example.dataset for example in kept] == ["web_search"]
    for stage in STAGES[:2]:
        both = [tmp_path / name / "seed=2" / stage / "manifest.json" for name in ("whole_recipe", "only_RL")]
        assert both[0].read_bytes() == both[1].read_bytes()


def test_what_is_finished_is_skipped(tmp_path, fake):
    assert call(tmp_path, "--only", "without filter") == 0
    before = len(fake.ran)
    assert call(tmp_path, "--only", "without filter", "only SFT", "only web search") == 0
    assert [name.partition("/")[0] for name in fake.ran[before:]] == ["only_web_search"] * 4
    before = len(fake.ran)
    assert call(tmp_path, "--only", "without filter", "only web search") == 0
    assert len(fake.ran) == before


def test_a_batch_goes_on_where_it_failed(tmp_path, fake, capsys):
    fake.fail = "NDCG_alone/05_gpu_evaluation"
    assert call(tmp_path, "--only", "only RL", "NDCG alone") == 1
    assert "made up to fail" in capsys.readouterr().err
    result = json.loads((tmp_path / "ablations.json").read_text())["result"]
    assert [row["variant"] for row in result["comparisons"]] == ["only RL", "only SFT"]
    assert {"variant": "NDCG alone", "paper": 1.54, "reason": "not run yet"} in result["not_run"]
    fake.fail, before = "", len(fake.ran)
    assert call(tmp_path, "--only", "NDCG alone") == 0
    assert fake.ran[before:] == ["NDCG_alone/05_gpu_evaluation"]


def test_a_changed_input_or_setting_runs_what_depends_on_it(tmp_path, fake):
    assert call(tmp_path, "--only", "NDCG alone") == 0
    before = len(fake.ran)
    (tmp_path / "whole_recipe" / "seed=20250807" / "03_sft" / "model").write_text("other weights")
    assert call(tmp_path, "--only", "NDCG alone") == 0
    assert fake.ran[before:] == ["whole_recipe/04_rl", "whole_recipe/05_gpu_evaluation"]
    before = len(fake.ran)
    longer = notebooks.changed_profile("smoke", {"rl.steps": 3}, tmp_path / "longer.yaml")
    assert (
        main(["ablations", "--profile", str(longer), "--run-dir", str(tmp_path), "--only", "only SFT"]) == 0
    )
    assert fake.ran[before:] == [f"whole_recipe/{stage}" for stage in STAGES]


def test_a_record_is_read_by_verify(tmp_path, fake):
    assert call(tmp_path, "--only", "only SFT") == 0
    found = {check.part: check for check in checks.checks() if check.way == "ablation"}
    measured = checks.measure(found["only SFT"], checks.Inputs(records=tmp_path))
    assert measured.value == pytest.approx(100 * (1 - SECOND)) and measured.n == 2
    with pytest.raises(checks.Missing, match="no comparison with 'only RL'"):
        checks.measure(found["only RL"], checks.Inputs(records=tmp_path))


def test_a_batch_on_other_seeds_is_counted_in(tmp_path, fake, capsys):
    assert call(tmp_path / "a", "--seeds", "1", "--only", "NDCG alone") == 0
    first, before = tmp_path / "a" / "ablations.json", len(fake.ran)
    assert call(tmp_path / "b", "--seeds", "2", "--only", "only RL", "--earlier", str(first)) == 0
    assert not [name for name in fake.ran[before:] if name.startswith("NDCG")]
    found = json.loads((tmp_path / "b" / "ablations.json").read_text())["result"]
    seeds = {row["variant"]: row["seeds"] for row in found["comparisons"]}
    assert seeds == {"only SFT": [1, 2], "NDCG alone": [1], "only RL": [2]}
    assert found["per_query"]["NDCG alone: SFT + RL"] == {"1": {"coding": {"q0": 0.5, "q1": 0.5}}}
    words = ["--profile", "default", "--run-dir", str(tmp_path / "c"), "--earlier", str(first)]
    assert main(["ablations", *words]) == 2
    assert "config: name is another one; expected a batch with the same" in capsys.readouterr().err
    first.write_text(json.dumps(json.loads(first.read_text()) | {"result": {}}))
    assert call(tmp_path / "c", "--earlier", str(first)) == 2
    assert "no per_query; expected the record of a batch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--earlier", "none.json"], "--earlier: "),
        (["--only", "filter"], "--only 'filter': expected names of only web search, without filter"),
        (["--seeds", "-1"], "--seeds -1: expected whole numbers"),
        (["--profile", "huge"], "no profile 'huge'"),
    ],
)
def test_wrong_calls(tmp_path, fake, capsys, words, message):
    assert call(tmp_path / "x", *words) == 2
    assert message in capsys.readouterr().err
    assert fake.ran == [] and not (tmp_path / "x").exists()


def test_no_example_left(tmp_path, fake):
    one = batch.Batch("smoke", tmp_path, [1])
    one.run_whole(1)
    with pytest.raises(CommandError, match="no example of beir; expected at least one"):
        one.run(Variant(variant="x", paper="y", datasets=("beir",)), 1)


def test_a_profile_with_changes_is_whole(tmp_path):
    path = notebooks.changed_profile("smoke", {"seed": 4, "filtering.alpha": 0.0}, tmp_path / "a" / "b.yaml")
    assert set(yaml.safe_load(path.read_text())) == set(profiles.load("smoke").model_dump()) - {"overrides"}
    with pytest.raises(UsageError, match=r"rl\.rollout: Extra inputs"):
        notebooks.changed_profile("smoke", {"rl.rollout": 4}, tmp_path / "c.yaml")


def test_the_table_has_both_scores_the_interval_and_the_seeds(tmp_path, fake):
    assert call(tmp_path, "--seeds", "1", "2", "--only", "NDCG alone") == 0
    found = ablations.recorded(tmp_path / "ablations.json")
    row = ablations.frame(found["comparisons"]).loc["NDCG alone"]
    assert row.to_dict() == {
        "n": 2,
        "whole recipe": "100.0",
        "this variant": "50.0",
        "difference": "+50.0 [+50.0, +50.0]",
        "by seed": "+50.0, +50.0",
        "paper": "+1.5",
    }
