"""From one's own data, and from the published sets, to trained weights; and notebook 01 with a key set."""

import pytest
import yaml

from fakes.teacher_server import serving, settings
from fakes.tiny import save_tiny_llama
from reasonrank import profiles, stages
from reasonrank.cli.main import main
from test_export import own_data, published
from test_folder import write

pytestmark = pytest.mark.slow
KEY = "a-key-that-nobody-may-see"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"), max_position_embeddings=2048)


def profile_file(folder, changes):
    """The smoke profile with changes, as a file that commands and notebooks take."""
    path = folder / "small.yaml"
    made = profiles.load("smoke", changes).model_dump(mode="json", exclude={"overrides"})
    path.write_text(yaml.safe_dump(made, sort_keys=False))
    return str(path)


@pytest.mark.parametrize("origin", ["own data", "published"])
def test_three_commands_lead_to_trained_weights(origin, tiny, tmp_path):
    changes = {"model.name": str(tiny), "model.dtype": "float32", "evaluation.engine": "transformers"}
    profile = profile_file(tmp_path, changes | {"synthesis.window": 5})
    common = ["--profile", profile, "--out", str(tmp_path / "run")]
    if origin == "published":
        sets = published(tmp_path)
        assert main(["published", "--subset", "13k", f"--data-13k={sets / '13k'}", *common]) == 0
    else:
        mine = own_data(tmp_path / "mine")
        labels = [{"query": f"q-{word}", "passage": word} for word in ("apple", "bread", "cloud", "dust")]
        write(mine, None, None, labels)
        ask = ["synthesise", "--data", str(mine), "--teacher", "offline", "--first-stage", "bm25"]
        assert main([*ask, *common]) == 0
    assert main(["filter", "--alpha", "0", *common]) == 0
    assert main(["run", "03_sft", "--profile", profile, "--run-dir", str(tmp_path / "run")]) == 0
    assert stages.stage_file(tmp_path / "run", "03_sft", "model/model.safetensors").stat().st_size > 0


def test_notebook_01_asks_a_real_teacher_where_there_is_a_key(tmp_path, monkeypatch):
    monkeypatch.setenv("REASONRANK_TEACHER_KEY", KEY)
    with serving() as server:
        remote = settings(server, key_variable="REASONRANK_TEACHER_KEY")
        changes = {f"synthesis.remote.{key}": value for key, value in remote.model_dump().items()}
        profile = profile_file(tmp_path, changes)
        assert main(["run", "01_synthesis", "--profile", profile, "--run-dir", str(tmp_path / "run")]) == 0
        assert server.keys == {f"Bearer {KEY}"} and len(server.seen) == 9  # three questions for each of three
    text = (tmp_path / "run" / "notebooks" / "01_synthesis.ipynb").read_text(encoding="utf-8")
    assert "it starts with" in text and KEY not in text
    assert KEY not in (tmp_path / "run" / "teacher.jsonl").read_text(encoding="utf-8")
