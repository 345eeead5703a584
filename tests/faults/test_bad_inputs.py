"""Bad inputs at the command line: one line each, that names the place."""

import gzip
import shutil

from fakes.commands import FILTER, MAKE, RERANK, TRACE
from fakes.teacher_server import serving
from fakes.tokenizer import CharTokenizer
from reasonrank import stages
from reasonrank.cli.main import main
from reasonrank.engines import openai

POINTER = b"version https://git-lfs.github.com/spec/v1\n"
FOLDER = object()  # a folder in place of the file
REMOTE = MAKE + " --teacher remote -p synthesis.remote.key_variable= -p synthesis.remote.attempts=2"
PROFILE = "filter --profile {at}/p.yaml --out {at}/run"
RUN = "run 02_filtering --profile smoke --run-dir {at}/run"
SERVED = RERANK + " --model made-up --base-url {url}"

CASES = [  # command, file of it that is damaged, what is in it (None: nothing is there), what the line names
    (PROFILE, "p.yaml", None, "p.yaml"),
    (PROFILE, "p.yaml", FOLDER, "p.yaml"),
    (PROFILE, "p.yaml", "- a list", "p.yaml: expected a mapping"),
    (PROFILE, "p.yaml", "", "p.yaml: expected a mapping"),
    (PROFILE, "p.yaml", "seed: [1\nname: x", "p.yaml: not valid YAML"),
    (PROFILE, "p.yaml", b"name: \xff", "p.yaml: not valid YAML"),
    (PROFILE, "p.yaml", "extends: smoke\nsft: {epoch: 1}", "p.yaml: sft.epoch"),
    (PROFILE, "p.yaml", "extends: smoke\nseed: many", "p.yaml: seed"),
    (PROFILE, "p.yaml", "extends: smoke\nfiltering: {alpha: .nan}", "p.yaml: filtering.alpha"),
    (PROFILE, "p.yaml", "extends: nothing", "nothing"),
    (PROFILE, "p.yaml", "extends: p.yaml", "p.yaml: extends"),
    (RERANK, "first.trec", None, "first.trec: no such file"),
    (RERANK, "first.trec", FOLDER, "first.trec"),
    (RERANK, "first.trec", "", "first.trec: no row"),
    (RERANK, "first.trec", "q0 Q0 doc\n", "first.trec, line 1"),
    (RERANK, "first.trec", "q0 Q0 doc 0/0 1 high t\n", "first.trec, line 1"),
    (RERANK, "first.trec", "q0 Q0 doc 0/0 1 2 t\n" * 2, "first.trec, line 2"),
    (RERANK, "first.trec", b"q0 Q0 \xff 1 2 t\n", "first.trec, line 1"),
    (RERANK, "first.trec", "q9 Q0 doc 0/0 1 2 t\n", "query 'q9'"),
    (RERANK, "first.trec", "q0 Q0 nowhere 1 2 t\n", "document 'nowhere'"),
    (RERANK.replace("first.trec", "x.gz"), "x.gz", gzip.compress(b"q0 Q0 d 1 2 t\n")[:-9], "x.gz"),
    (RERANK, "queries.tsv", "q0\ta\nq0\tb\n", "queries.tsv, line 2"),
    (RERANK, "queries.tsv", "q0 and no tab\n", "queries.tsv, line 1"),
    (RERANK, "queries.tsv", FOLDER, "queries.tsv"),
    (RERANK, "corpus.jsonl", '{"_id": "d", \n', "corpus.jsonl, line 1"),
    (RERANK, "corpus.jsonl", '{"_id": "doc 0/0"}\n', "corpus.jsonl, line 1"),
    (RERANK, "corpus.jsonl", '{"_id": ["d"], "text": "x"}\n', "corpus.jsonl, line 1"),
    (RERANK.replace("corpus.jsonl", "c.parquet"), "c.parquet", b"PAR1", "c.parquet"),
    (RERANK, "new.trec.journal", "no store at all, but a text", "new.trec.journal"),
    (RERANK, "new.trec.journal", FOLDER, "new.trec.journal"),
    (RERANK + " --template {at}/t.jinja", "t.jinja", "no block", "t.jinja"),
    (RERANK + " --template {at}/t.jinja", "t.jinja", None, "t.jinja"),
    (RERANK, "model", None, "model"),
    (RERANK, "model/config.json", None, "model"),
    (RERANK, "model/config.json", POINTER, "config.json: a Git LFS pointer"),
    (RERANK, "model/model.safetensors", b"\x10", "model.safetensors: no whole"),
    (RERANK, "model/model.safetensors", POINTER, "model.safetensors: a Git LFS pointer"),
    (RERANK, "model/config.json", "{", "model"),
    (RERANK, "model/config.json", '{"model_type": "nonesuch"}', "model"),
    (RERANK + " --adapter {at}/a", "a", None, "a: a LoRA adapter needs"),
    (RERANK + " --adapter {at}/a", "a/adapter_config.json", "{", "adapter_config.json, line 1"),
    (RERANK + " --adapter {at}/a", "a/adapter_config.json", POINTER, "adapter_config.json"),
    (TRACE, "out.trec.traces.jsonl", None, "out.trec: no traces"),
    (TRACE, "out.trec.traces.jsonl", '{"qid": 1}\n', "traces.jsonl, line 1"),
    (TRACE, "out.trec.traces.jsonl", '{"qid": "q", "query": 3, "before": 1, "after": {}, "windows": 0, '
     '"passages": []}\n', "traces.jsonl, line 1"),
    (TRACE + " --qrels {at}/q", "q", "q0 0 doc 0/0 good\n", "q, line 1"),
    (TRACE + " --qrels {at}/q", "q", "q0 0 doc 0/0 1\n" * 2, "q, line 2"),
    (TRACE + " --qrels {at}/q", "q", b"q0 0 \xff 1\n", "q, line 1"),
    (TRACE + " --qrels {at}/q", "q", None, "/q"),
    (TRACE + " --qrels {at}/q", "q", FOLDER, "/q"),
    (MAKE, "mine", None, "mine: no such folder"),
    (MAKE, "mine/passages.jsonl", None, "mine: no passages"),
    (MAKE, "mine/passages.jsonl", "", "passages.jsonl: no row"),
    (MAKE, "mine/queries.jsonl", '{"id": "q"}\n', "queries.jsonl, line 1"),
    (MAKE, "mine/queries.jsonl", '{"id": "q", "text": "x"}\n', "queries.jsonl, line 1: no answer"),
    (MAKE, "mine/queries.jsonl", '{"id": NaN, "text": "x", "answer": "y"}\n', "queries.jsonl, line 1"),
    (MAKE, "mine/queries.jsonl", FOLDER, "queries.jsonl"),
    (MAKE, "mine/labels.jsonl", '{"query": "q9", "passage": "apple"}\n', "labels.jsonl, line 1"),
    (MAKE, "own", "a file in place of the run's folder", "own"),
    (MAKE + " --teacher remote", "mine/labels.jsonl", None, "REASONRANK_TEACHER_KEY"),
    (REMOTE + " -p synthesis.remote.base_url=localhost:9", "own", None, "base URL 'localhost:9'"),
    (REMOTE + " -p synthesis.remote.base_url=http://127.0.0.1:9/v1", "own", None, "http://127.0.0.1:9/v1"),
    (REMOTE + " -p synthesis.remote.base_url={url}", "own", None, "{url} answered 401"),
    (FILTER, "run/01_synthesis/manifest.json", None, "01_synthesis: no manifest"),
    (FILTER, "run/01_synthesis/examples.jsonl", None, "01_synthesis/examples.jsonl"),
    (FILTER, "run/01_synthesis/examples.jsonl", '{"qid": "q"}\n', "examples.jsonl, line 1"),
    (FILTER, "run/01_synthesis/examples.jsonl", '{"qid": \n', "examples.jsonl, line 1"),
    (RUN.replace("02_filtering", "{at}/n.ipynb"), "n.ipynb", "{}", "n.ipynb: not a notebook"),
    (RUN.replace("02_filtering", "{at}/n.ipynb"), "n.ipynb", FOLDER, "n.ipynb"),
    (RUN + " -p alhpa=1", "p.yaml", None, "'alhpa'"),
    (RUN + " -p api_key=1", "p.yaml", None, "'api_key'"),
    ("summary {at}/run", "p.yaml", None, "05_gpu_evaluation: no manifest"),
    ("sweep {at}/t.json", "t.json", '{"result": {"points": [{"seed": 1}]}}', "t.json"),
    ("sweep {at}/t.json", "t.json", "{", "t.json, line 1"),
    ("verify --records {at} --out {at}/v", "latency/06_latency_study.json", "{", "06_latency_study.json, line 1"),
    ("verify --golden {at}/g --out {at}/v", "g", '{"completion": 1}\n', "g, line 1"),
    (SERVED, "new.trec", None, "{url} refused a request"),
    (SERVED.replace("{url}", "127.0.0.1:9/v1"), "new.trec", None, "base URL '127.0.0.1:9/v1'"),
    (SERVED.replace("{url}", "http://127.0.0.1:9/v1"), "new.trec", None, "http://127.0.0.1:9/v1"),
]  # fmt: skip


def damage(file, content):
    shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
    if content is FOLDER:
        file.mkdir()
    elif content is not None:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())


def test_each_is_a_line_that_names_the_place(good, tmp_path, monkeypatch, capsys, report):
    monkeypatch.delenv("REASONRANK_TEACHER_KEY", raising=False)
    monkeypatch.setattr(stages, "hardware", dict)
    monkeypatch.setattr(openai, "load_tokenizer", lambda name: CharTokenizer())
    monkeypatch.setattr(openai, "BACKOFF", 0.01)
    wrong = []
    with serving(status=401) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        for number, (command, file, content, place) in enumerate(CASES):
            at = tmp_path / str(number)
            shutil.copytree(good, at)
            damage(at / file, content)
            before = {path: path.read_bytes() for path in at.rglob("*.json*") if path.is_file()}
            capsys.readouterr()
            try:
                code = main(command.format(at=at, url=url).split())
            except Exception as error:
                code = repr(error)
            said = capsys.readouterr().err
            progress = ("answers/s", "in the journal; ")  # what was done before
            lines = [
                line for line in said.splitlines() if line and not any(word in line for word in progress)
            ]
            one = len(lines) == 1 and lines[0].startswith("error: ")
            kept = all(path.read_bytes() == text for path, text in before.items())
            if code not in (1, 2) or not one or place.format(url=url) not in said or not kept:
                wrong.append(
                    f"{number} {command.split()[0]} {file} {content!r:.60}: {code}\n    {said[-600:]}"
                )
            shutil.rmtree(at)
    assert not wrong, "\n".join(wrong)
    report("bad inputs", inputs=len(CASES), **{"without a line that names the place": 0})
