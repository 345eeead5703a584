"""`rerank` with a model that sorts by the numbers in the passages.

As a program, to be killed: `rerank` with a server that is quick to time out, and a tokenizer without a model.
"""

import asyncio
import contextlib
import json
import re
import sqlite3
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from fakes.tokenizer import CharTokenizer
from reasonrank import stages
from reasonrank.cli.main import main
from reasonrank.engines import Completion, Engine, openai


class NumberEngine(Engine):
    """Ranks the passages by the number each begins with, highest first; `fail(query)` may raise."""

    kind, name, tokenizer, max_model_len = "fake", "numbers", CharTokenizer(), 4000

    def __init__(self, fail=lambda query: None):
        super().__init__()
        self.fail = fail
        self.asked, self.in_flight, self.most_in_flight, self.closed = [], 0, 0, False

    async def _generate(self, prompt, sampling):
        text = "".join(map(chr, prompt))
        query = re.search(r"Question: (.*)", text)[1]
        numbers = [int(number) for number in re.findall(r"^\[\d+\] (?:.*: )?(\d+)", text, re.MULTILINE)]
        self.asked.append(query)
        self.fail(query)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(0)
        self.in_flight -= 1
        order = sorted(range(len(numbers)), key=lambda place: -numbers[place])
        answer = " > ".join(f"[{place + 1}]" for place in order)
        return Completion(f"<think> . </think> <answer> {answer} </answer>", (1,) * 7, len(prompt), 7, "stop")

    def close(self):
        self.closed = True


def weights(note: str) -> bytes:
    """A file of safetensors without a tensor."""
    header = f'{{"__metadata__": {{"note": "{note}"}}}}'.encode()
    return len(header).to_bytes(8, "little") + header


def write_inputs(folder: Path, queries: int = 4, candidates: int = 6) -> list[str]:
    """A run with blanks in its ids, queries, a corpus and a model folder; the arguments that name them."""
    run, texts, passages = [], [], []
    for q in range(queries):
        texts.append(f"q{q}\tquestion {q}\n")
        for d in range(candidates):
            docid = f"doc {q}/{d}"
            number = (7 * d + 3 * q) % candidates
            run.append(f"q{q} Q0 {docid} {d + 1} {candidates - d} first\n")
            passages.append(f'{{"_id": "{docid}", "title": "T{d}", "text": "{number} is its number"}}\n')
    for name, lines in {"first.trec": run, "queries.tsv": texts, "corpus.jsonl": passages}.items():
        (folder / name).write_text("".join(lines))
    model = folder / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(weights("first"))
    names = {
        "--run": "first.trec",
        "--queries": "queries.tsv",
        "--corpus": "corpus.jsonl",
        "--out": "out.trec",
    }
    paths = [text for option, name in names.items() for text in (option, str(folder / name))]
    return [*paths, "--model", str(model), *["--window", "4", "--step", "2", "--max-tokens", "100"]]


def stored(path):
    """What a store holds, by key."""
    if not path.exists():
        return {}
    with contextlib.closing(sqlite3.connect(path)) as store:
        return {key: json.loads(value) for key, value in store.execute("SELECT key, value FROM records")}


if __name__ == "__main__":
    stages.hardware, openai.load_tokenizer, openai.BACKOFF = dict, lambda name: CharTokenizer(), 0.01
    openai.OpenAIEngine = partial(openai.OpenAIEngine, timeout=1.0)
    sys.exit(main(["rerank", *sys.argv[1:]]))
