"""What is kept of a run for committing, and what is not."""

import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import publish as tool
from tools import results
from tools.clean import clean, machine_path

WIDGET = "application/vnd.jupyter.widget-view+json"


def executed(*outputs, source: str = "x"):
    """An executed notebook as papermill leaves it: parameters, injected parameters, one cell."""
    timed = {"papermill": {"duration": 1.5}, "execution": {"iopub.execute_input": "now"}, "tags": []}
    cells = [
        new_markdown_cell("# Title", id="a", metadata={"papermill": {"duration": 0.1}}),
        new_code_cell("p = 1", id="b", metadata={"tags": ["parameters"]}, execution_count=1),
        new_code_cell("p = 2", id="c", metadata={"tags": ["injected-parameters"]}, execution_count=2),
        new_code_cell(source, id="d", metadata=timed, execution_count=3, outputs=list(outputs)),
    ]
    kernel = {"name": "conda-env", "display_name": "conda", "language": "python"}
    return new_notebook(cells=cells, metadata={"papermill": {}, "widgets": {}, "kernelspec": kernel})


def text_of(*outputs, folders=()) -> str:
    (output,) = clean(executed(*outputs), folders).cells[-1].outputs
    return output.text if output.output_type == "stream" else output.data["text/plain"]


def stream(text: str, name: str = "stdout"):
    return new_output("stream", name=name, text=text)


def test_metadata_and_injected_parameters_go():
    notebook = clean(executed(new_output("execute_result", data={"text/plain": "1"}, execution_count=3)))
    assert [cell.id for cell in notebook.cells] == ["a", "b", "d"]
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.cells[1].metadata == {"tags": ["parameters"]}
    assert not any("papermill" in cell.metadata for cell in notebook.cells)
    assert notebook.cells[2].metadata == {}
    assert notebook.cells[2].execution_count == notebook.cells[2].outputs[0].execution_count == 2


def test_paths_become_an_ellipsis():
    folder = Path("/data/runs/7")
    assert text_of(stream("see /data/runs/7/03_sft/x, /data/runs/70"), folders=[folder]) == (
        "see …/03_sft/x, /data/runs/70"
    )
    assert text_of(stream("in /home/jane/x.py and /Users/joe")) == "in …/x.py and …"
    assert text_of(stream(f"at {Path.home()}/y")) == "at …/y"
    assert text_of(stream("file:///home/jane/x")) == "file://…/x"
    html = new_output("display_data", data={"text/plain": "'/tmp/a.png'"})
    assert text_of(html) == "'…/a.png'"


def test_addresses_and_images_stay():
    other = "https://host.org/home/jane and src/tmp/x"
    assert text_of(stream(other)) == other
    image = new_output("display_data", data={"image/png": "aa/tmp/bb", "text/plain": "<Figure>"})
    assert clean(executed(image)).cells[-1].outputs[0].data["image/png"] == "aa/tmp/bb"


def test_progress_bars_go():
    bars = "\rsft:   0%|          | 0/8 [00:00<?, ?it/s]\rsft: 100%|██████████| 8/8 [00:02<00:00,  3.8it/s]\n"
    assert clean(executed(stream(bars, "stderr"))).cells[-1].outputs == []
    assert text_of(stream("before\n" + bars + "after 100% sure\n", "stderr")) == "before\nafter 100% sure\n"
    assert text_of(stream("a line\rthat was overwritten\n")) == "that was overwritten\n"
    widget = new_output("display_data", data={WIDGET: {"model_id": "1"}, "text/plain": "  0%| | 0/8"})
    assert clean(executed(widget)).cells[-1].outputs == []


def test_an_error_is_refused():
    error = new_output("error", ename="NameError", evalue="name 'x' is not defined", traceback=[])
    with pytest.raises(ValueError, match="cell 2 ended in NameError: name 'x' is not defined"):
        clean(executed(error))


def test_machine_paths_are_told_from_other_text():
    assert all(map(machine_path, ["/root/x", "(/tmp/x)", '"/home/jane"']))
    assert not any(map(machine_path, ["https://a.b/home/c", "runs/default/tmp/x", "/rooted", "either/or"]))


@pytest.fixture
def made_run(tmp_path) -> Path:
    """A run with one executed notebook, one record and one figure."""
    folder = tmp_path / "run"
    for name in ("notebooks", "03_sft", "07_figures"):
        (folder / name).mkdir(parents=True)
    (folder / "profile.yaml").write_text("name: made-up\n")
    nbformat.write(executed(stream("hello")), folder / "notebooks" / "03_sft.ipynb")
    (folder / "03_sft" / "record.json").write_text('{"result": {}}')
    (folder / "07_figures" / "curve.png").write_bytes(b"a picture")
    return folder


def test_publish(made_run):
    beside = made_run.parent
    assert len(tool.publish(made_run, beside)) == 3
    assert nbformat.read(beside / "notebooks" / "03_sft.ipynb", 4).cells[-1].outputs[0].text == "hello"
    assert json.loads((beside / "data/records/made-up/03_sft.json").read_text()) == {"result": {}}
    assert (beside / "figures" / "curve.png").read_bytes() == b"a picture"
    assert tool.publish(made_run, beside)  # what it wrote is the same notebook still


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "notebooks/03_sft.ipynb",
            nbformat.writes(executed(stream("x" * 1_000_001))),
            "1.0 MB; expected 1 MB at most",
        ),
        ("notebooks/04_rl.failed.ipynb", "", "04_rl.failed.ipynb"),
        ("03_sft/record.json", '{"model": "/home/jane/model"}', "names /home/jane, a path of this machine"),
        (
            "../notebooks/03_sft.ipynb",
            nbformat.writes(clean(executed(source="y"))),
            "was changed since the run",
        ),
    ],
)
def test_what_is_not_fit_for_committing_is_refused(made_run, file, text, message):
    (made_run.parent / "notebooks").mkdir()
    (made_run / file).write_text(text)
    with pytest.raises(ValueError, match=message):
        tool.publish(made_run, made_run.parent)
    assert not (made_run.parent / "data").exists()


def test_publish_needs_a_run(tmp_path):
    with pytest.raises(SystemExit, match=r"error: .*not the folder of a run"):
        tool.main(tmp_path / "nowhere", tmp_path)


@pytest.mark.parametrize("page", ["README.md", "docs/RESULTS.md"])
def test_the_tables_are_what_the_records_say(root, page):
    text = (root / page).read_text(encoding="utf-8")
    assert results.fill(text, root / "data" / "records") == text


@pytest.mark.parametrize("text", ["<!-- result -->\n<!-- /result -->", "<!-- results -->\n"])
def test_a_block_that_is_unknown_or_open_is_named(root, text):
    with pytest.raises(ValueError, match=r"block <!-- results? -->: expected one of results, latency"):
        results.fill(text, root / "data" / "records")
