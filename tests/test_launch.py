"""Training from the command line: accelerate's configs, several processes, and a notebook that takes the weights.

DeepSpeed itself is not needed to read its settings.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DeepSpeedPlugin
from accelerate.utils.launch import prepare_deepspeed_cmd_env

from fakes.tiny import save_tiny_llama
from reasonrank import examples as training_examples
from reasonrank import profiles, stages, training
from reasonrank.training import __main__ as launch

FOLDER = profiles.FOLDER / "accelerate"


@pytest.fixture
def run(tmp_path):
    """A run with the stages that training reads, a tiny model as SFT would leave it, and a profile for it."""
    folder = tmp_path / "run"
    first = stages.Stage(folder, "01_synthesis", {}, seed=0)
    stages.write_json(first.path("id_query.json"), {"d": {f"q{i}": f"which {i}?" for i in range(4)}})
    stages.write_json(first.path("id_doc.json"), {"d": {"a": "first", "b": "second"}})
    first.finish()
    filtering = stages.Stage(folder, "02_filtering", {}, seed=0)
    made = training_examples.Example
    lists = [made("d", "s", f"q{i}", ["a", "b"], ["b", "a"], "b helps", ["b"]) for i in range(4)]
    filtering.path("kept.jsonl").write_text("".join(json.dumps(asdict(row)) + "\n" for row in lists))
    filtering.finish()
    sft = stages.Stage(folder, "03_sft", {}, seed=0)
    save_tiny_llama(sft.folder / "model")
    sft.finish()
    own = {
        "extends": "smoke",
        "name": "mine",
        "model": {"name": str(folder / "03_sft" / "model"), "dtype": "float32", "max_length": 512},
        "sft": {"max_steps": 2},
        "rl": {"steps": 1, "batch_size": 2, "max_completion_tokens": 8, "max_prompt_tokens": 256},
        "evaluation": {"engine": "transformers"},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(own))
    return folder


def words(which, run, profile=None):
    return [which, "--profile", str(profile or run.parent / "mine.yaml"), "--run-dir", str(run)]


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

    assert not {"accelerate", *(path.stem for path in FOLDER.iterdir())} & set(profiles.names())


# training


@pytest.mark.slow
def test_several_processes_train_and_a_notebook_takes_the_weights(run, tmp_path, caplog):
    """Two processes on the processor, started as accelerate starts them on GPUs."""
    start = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "reasonrank.training"]
    done = subprocess.run(
        [sys.executable, *start, *words("sft", run)],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("in 2 processes; notebooks/") == 1  # the main one speaks
    settings, _ = profiles.start(str(tmp_path / "mine.yaml"), str(run))  # as a notebook does after the launch
    rows = training.window_rows(run, training_examples.load(run / "02_filtering" / "kept.jsonl"), settings)
    found = training.train_sft(rows, settings, tmp_path / "out", run / ".checkpoints" / "03_sft")
    assert found.processes == 2 and "nothing trained here" in caplog.text
    assert (tmp_path / "out" / "model" / "model.safetensors").is_file()
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()


def test_wrong_arguments_and_what_is_missing_are_errors_that_write_nothing(run, tmp_path, capsys):
    wrong = ["dpo", "--profile", "smoke", "--run-dir", "x"]
    for given in ([], ["sft"], wrong, ["sft", "--profile", "smoke"]):
        with pytest.raises(SystemExit) as stopped:
            launch.main(given)
        assert stopped.value.code == 2
    assert "invalid choice: 'dpo'" in capsys.readouterr().err
    assert launch.main(words("sft", tmp_path / "typo", "smoke")) == 1
    assert "run notebooks/02_filtering.ipynb first" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()
    (run / "03_sft" / "manifest.json").unlink()
    assert launch.main(words("rl", run)) == 1
    assert "run notebooks/03_sft.ipynb first" in capsys.readouterr().err
    assert launch.main(words("sft", run, "no-such-profile")) == 1
    assert "no profile 'no-such-profile'" in capsys.readouterr().err


def test_dev_scores_are_refused_with_several_processes(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(launch, "PartialState", lambda: SimpleNamespace(num_processes=8))
    own = yaml.safe_load((tmp_path / "mine.yaml").read_text())
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(own | {"sft": {"evaluate_every": 2}}))
    assert launch.main(words("sft", run)) == 1
    assert "sft.evaluate_every" in capsys.readouterr().err
