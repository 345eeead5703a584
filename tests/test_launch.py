"""Training from the command line: accelerate's configs, which process writes what, the files of the notebooks.

No model is loaded: trainers and engines are stand-ins. DeepSpeed itself is not needed to read its settings.
"""

import ast
import importlib
import json
import sys
from contextlib import contextmanager
from dataclasses import asdict
from types import SimpleNamespace

import accelerate
import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DeepSpeedPlugin
from accelerate.utils.launch import prepare_deepspeed_cmd_env

from fakes.tokenizer import CharTokenizer
from reasonrank import profiles, stages, synthesis
from reasonrank.cli import inputs
from reasonrank.training import Trained, common, processes

launch = importlib.import_module("reasonrank.training.__main__")
FOLDER = profiles.FOLDER / "accelerate"
LOG = [{"step": 1, "loss": 2.0, "lr": 0.1}, {"step": 2, "loss": 1.5}, {"step": 2, "kl": float("nan")}]
LAUNCHED = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
EXAMPLE = synthesis.Example("made_up", "coding", "q1", ["a", "b"], ["b", "a"], "b helps", ["b"])


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run with the stages that training reads, and with stand-ins for what loads a model."""
    monkeypatch.setattr(stages, "commit", lambda: "0" * 12)
    monkeypatch.setattr(common, "load_tokenizer", lambda name: CharTokenizer())
    monkeypatch.setattr(launch.evaluation, "open_reranker", open_reranker)
    monkeypatch.setattr(launch.evaluation, "test_set", made_up_set)
    folder = tmp_path / "run"
    first = stages.Stage(folder, "01_synthesis", {}, seed=0)
    stages.write_json(first.path("id_query.json"), {"made_up": {"q1": "which?"}})
    stages.write_json(first.path("id_doc.json"), {"made_up": {"a": "first", "b": "second"}})
    first.finish()
    filtering = stages.Stage(folder, "02_filtering", {}, seed=0)
    filtering.path("kept.jsonl").write_text(json.dumps(asdict(EXAMPLE)) + "\n")
    filtering.finish()
    return folder


@pytest.fixture
def profile(tmp_path):
    """A profile whose prompts have room where each character is a token."""
    raw = profiles.load("smoke").model_dump(mode="json")
    raw["model"]["max_length"] = raw["rl"]["max_prompt_tokens"] = 10_000
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def made_up_set(settings, name, split, queries):
    assert split == "dev"
    return SimpleNamespace(run=name, queries={}, collection=SimpleNamespace(texts=dict))


@contextmanager
def open_reranker(settings, weights, strategy):
    """Trained weights give valid answers, the backbone does not."""
    state = "ok" if str(weights).endswith("/model") else "malformed"

    def rerank(run, queries, texts, top):
        return SimpleNamespace(counts={state: 2}, traces={"q": [SimpleNamespace(text=f"{state} {run}")]})

    yield SimpleNamespace(rerank_run_sync=rerank)


@pytest.fixture
def trained(monkeypatch):
    """Stand-ins for both trainers and for the new process; returns the calls that were made."""
    calls = []

    def save(rows, output, checkpoints, **more):
        calls.append({"rows": rows, "checkpoints": checkpoints, **more})
        if processes.is_main():
            for name in ("model/model.safetensors", "adapter/adapter_model.safetensors", "scratch/left"):
                (output / name).parent.mkdir(parents=True)
                (output / name).write_text(f"{name} {len(calls)}")
        parts = [{"step": 1, "total": 0.5}]
        return Trained(2, 50.04, LOG, parts=parts, tokens={"packed": 1, "plain": 2})

    def sft(rows, settings, output, dev=None, checkpoints=None):
        return save(rows, output, checkpoints)

    def rl(rows, settings, start_from, output, dev=None, checkpoints=None):
        return save(rows, output, checkpoints, start=start_from)

    monkeypatch.setattr(launch, "train_sft", sft)
    monkeypatch.setattr(launch, "train_grpo", rl)
    monkeypatch.setattr(launch, "start_anew", launch.main)
    return calls


def call(which, profile, run, *more):
    return launch.main([which, "--profile", str(profile), "--run-dir", str(run), *more])


def recorded(root, notebook):
    """Keys of the result that a notebook records, from its code."""
    tree = ast.parse(inputs.notebook_code(root / "notebooks" / f"{notebook}.ipynb"))
    (found,) = [
        node.args[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "record"
    ]
    return {key.value for key in found.keys}


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# accelerate's configs


def launched(name):
    """Arguments of `accelerate launch` with one of our files, as accelerate completes them."""
    words = ["--config_file", str(FOLDER / f"{name}.yaml"), "-m", "reasonrank.training", "sft"]
    args, defaults, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    args.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
    return args


@pytest.mark.parametrize(
    ("name", "kind", "processes"), [("single", "NO", 1), ("zero2", "DEEPSPEED", 8), ("zero3", "DEEPSPEED", 8)]
)
def test_accelerate_reads_our_files(name, kind, processes):
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    assert (config.distributed_type.value, config.num_processes) == (kind, processes)
    assert config.mixed_precision == "bf16" and not config.use_cpu
    args = launched(name)
    assert args.use_deepspeed is (kind == "DEEPSPEED") and not args.multi_gpu
    assert (args.mixed_precision, int(args.num_processes)) == ("bf16", processes)
    assert args.gpu_ids == ("0" if processes == 1 else "all")  # one process sees one GPU


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_gets_its_settings_by_way_of_the_launcher(stage, monkeypatch):
    _, environment = prepare_deepspeed_cmd_env(launched(f"zero{stage}"))
    for name, value in environment.items():
        if name.startswith("ACCELERATE_"):
            monkeypatch.setenv(name, value)
    plugin = DeepSpeedPlugin()
    plugin.set_mixed_precision("bf16")
    config = plugin.deepspeed_config
    filled = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    assert {config[key] for key in (*filled, "gradient_clipping")} == {"auto"}
    zero = config["zero_optimization"]
    assert (zero["stage"], plugin.zero3_init_flag) == (stage, stage == 3)
    assert zero["stage3_gather_16bit_weights_on_model_save"] is (stage == 3)
    assert zero["offload_optimizer"]["device"] == zero["offload_param"]["device"] == "none"
    assert config["bf16"]["enabled"] is True and config["fp16"]["enabled"] is False


def test_the_folder_of_configs_is_no_profile():
    assert not {"accelerate", *(path.stem for path in FOLDER.iterdir())} & set(profiles.names())


# the two phases


def test_sft_writes_what_its_notebook_writes(run, profile, trained, root):
    assert call("sft", profile, run) == 0
    (row,) = trained[0]["rows"]
    assert "which?" in row["prompt"] and row["gold_ranking"] == [2, 1] and row["relevant"] == [2]
    assert trained[0]["checkpoints"] == run / ".checkpoints" / "03_sft"
    stage = run / "03_sft"
    own = {"model/model.safetensors", "adapter/adapter_model.safetensors"}
    assert files(stage) == own | {"samples.json", "record.json", "manifest.json"}
    result = stages.read_json(stage / "record.json")["result"]
    assert set(result) == recorded(root, "03_sft")
    assert result["loss"] == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}]
    assert (result["examples"], result["steps"], result["seconds"]) == (1, 2, 50.0)
    none = dict.fromkeys(("repaired", "truncated"), 0)
    assert result["validity"] == {  # two answers for each of five collections
        "before": {"ok": 0, "malformed": 10, "n": 10} | none,
        "after": {"ok": 10, "malformed": 0, "n": 10} | none,
    }
    samples = {"before": "malformed math_problem", "after": "ok math_problem"}
    assert stages.read_json(stage / "samples.json") == samples
    assert not (run / ".trained" / "03_sft").exists() and not (run / ".03_sft.partial").exists()


def test_the_manifest_names_inputs_and_the_time_of_training(run, profile, trained):
    call("sft", profile, run)
    call("rl", profile, run)
    kept, weights = "02_filtering/kept.jsonl", "03_sft/model/model.safetensors"
    for stage, expected in {"03_sft": {kept}, "04_rl": {kept, weights}}.items():
        manifest = stages.read_json(run / stage / "manifest.json")
        assert set(manifest["inputs"]) == expected
        assert manifest["seconds"] >= 50.0
        assert manifest["config"] == profiles.load(str(profile)).model_dump(mode="json")


def test_rl_writes_what_its_notebook_writes(run, profile, trained, root):
    assert call("sft", profile, run) == call("rl", profile, run) == 0
    assert trained[1]["start"] == str(run / "03_sft" / "model")
    result = stages.read_json(run / "04_rl" / "record.json")["result"]
    assert set(result) == recorded(root, "04_rl")
    assert (result["steps"], result["optimiser_steps"]) == (1, 2)
    settings = profiles.load(str(profile)).rl
    assert result["rollouts_per_step"] == settings.prompts_per_step * settings.rollouts
    assert {system: row["ok"] for system, row in result["validity"].items()} == {"SFT": 10, "SFT + RL": 10}
    assert (run / "04_rl" / "model" / "model.safetensors").read_text() == "model/model.safetensors 2"


def test_only_the_main_process_writes(run, profile, trained, monkeypatch):
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(launch, "start_anew", lambda words: pytest.fail("this process is not the main one"))
    before = files(run)
    assert call("sft", profile, run) == 0
    assert len(trained) == 1 and files(run) == before


def test_what_is_trained_outlives_a_failure_of_the_rest(run, profile, trained, monkeypatch):
    monkeypatch.setattr(launch, "start_anew", lambda words: None)
    assert call("sft", profile, run) == 0
    assert not (run / "03_sft").exists()
    assert call("sft", profile, run, "--trained") == 0
    assert len(trained) == 1 and (run / "03_sft" / "manifest.json").is_file()


def test_an_adapter_alone_is_merged(run, profile, trained, monkeypatch):
    monkeypatch.setattr(launch, "start_anew", lambda words: None)
    call("sft", profile, run)
    whole = run / ".trained" / "03_sft" / "model"
    (whole / "model.safetensors").unlink()
    whole.rmdir()

    def merge(work):
        whole.mkdir()
        (whole / "model.safetensors").write_text(f"merged into {work.start}")

    monkeypatch.setattr(launch, "_merge", merge)
    assert call("sft", profile, run, "--trained") == 0
    expected = f"merged into {profiles.load(str(profile)).model.name}"
    assert (run / "03_sft" / "model" / "model.safetensors").read_text() == expected


def test_the_new_process_knows_of_no_launcher(monkeypatch):
    started = []
    monkeypatch.setattr(launch.os, "execve", lambda *arguments: started.append(arguments))
    more = {
        "ACCELERATE_USE_DEEPSPEED": "true",
        "TORCHELASTIC_RUN_ID": "x",
        "MASTER_PORT": "1",
        "MINE": "kept",
    }
    for name, value in {**LAUNCHED, **more}.items():
        monkeypatch.setenv(name, value)
    launch.start_anew(["sft", "--trained"])
    ((program, command, environment),) = started
    assert program == sys.executable and command[1:] == ["-m", "reasonrank.training", "sft", "--trained"]
    assert environment["MINE"] == "kept" and "PATH" in environment
    assert not {*LAUNCHED, *more} - {"MINE"} & set(environment)


# calls that cannot go well


def test_arguments(capsys):
    for words in (
        [],
        ["sft"],
        ["dpo", "--profile", "smoke", "--run-dir", "x"],
        ["sft", "--profile", "smoke"],
    ):
        with pytest.raises(SystemExit) as stopped:
            launch.main(words)
        assert stopped.value.code == 2
    assert "invalid choice: 'dpo'" in capsys.readouterr().err


def test_a_run_without_examples_is_an_error_that_writes_nothing(tmp_path, capsys):
    assert call("sft", "smoke", tmp_path / "typo") == 1
    assert "run notebooks/02_filtering.ipynb first" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()


def test_rl_wants_the_weights_of_sft(run, profile, capsys):
    assert call("rl", profile, run) == 1
    assert "run notebooks/03_sft.ipynb first" in capsys.readouterr().err


def test_nothing_trained_to_finish(run, profile, capsys, monkeypatch):
    assert call("sft", profile, run, "--trained") == 1
    assert "nothing trained is waiting" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert call("sft", profile, run, "--trained") == 1
    assert "without a launcher" in capsys.readouterr().err


def test_dev_scores_are_refused_with_several_processes(run, profile, trained, capsys, monkeypatch):
    raw = yaml.safe_load(profile.read_text())
    raw["sft"]["evaluate_every"] = 2
    profile.write_text(yaml.safe_dump(raw))
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert call("sft", profile, run) == 1
    assert "sft.evaluate_every" in capsys.readouterr().err and not trained


# several processes


def test_one_process_is_alone():
    assert (processes.count(), processes.is_main()) == (1, True)
    assert processes.gather([1, 2]) == [1, 2] and processes.main_decides(False) is False
    processes.leave()


@pytest.mark.parametrize(("rank", "order"), [("0", ["block", "wait"]), ("1", ["wait", "block"])])
def test_the_main_process_goes_first(rank, order, monkeypatch):
    seen = []
    state = SimpleNamespace(wait_for_everyone=lambda: seen.append("wait"))
    monkeypatch.setattr(accelerate, "PartialState", lambda: state)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    with processes.main_first():
        seen.append("block")
    assert seen == order


def test_with_several_processes_accelerate_is_asked(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(accelerate.utils, "gather_object", lambda items: [*items, "other"])
    monkeypatch.setattr(accelerate.utils, "broadcast_object_list", lambda values: ["of the main one"])
    assert processes.gather(["own"]) == ["own", "other"]
    assert processes.main_decides("own") == "of the main one"
