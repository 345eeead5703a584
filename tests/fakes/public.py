"""The public data in small, in exactly the published layouts: no text of theirs, every passage made up here."""

import json
import random

import pyarrow
from pyarrow import parquet

from reasonrank import prompts, runs
from reasonrank.sources import benchmarks

WORDS = ["amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "heath", "islet", "jetty", "kelp"]
SYSTEM = "You put {num} notes in order. Think first, then answer with all {num}."
USER = "{num} notes follow.\n{passages}Which of them help with this: {query}?\n"


def table(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def texts(name, count):
    rng = random.Random(name)
    return [" ".join(rng.choices(WORDS, k=12)) for _ in range(count)]


def bright(folder, name, queries=2, passages=110):
    """A set of BRIGHT as on the hub, with excluded ids, and a run beside it where the authors have theirs; an id with
    blanks in stackoverflow."""
    blank = 7 if name == "stackoverflow" else None
    corpus = [f"{name}/{'a page ' * (n == blank)}{n}.txt" for n in range(passages)]
    asked = [
        {
            "id": f"{name}-{q}",
            "query": f"{text}?",
            "reasoning": "",
            "excluded_ids": [corpus[-1]] if q else ["N/A"],
            "gold_ids": [corpus[5 + q], corpus[30 + q]],
            "gold_ids_long": ["N/A"],
            "gold_answer": "N/A",
        }
        for q, text in enumerate(texts(f"{name} queries", queries))
    ]
    documents = [{"id": d, "content": text} for d, text in zip(corpus, texts(name, passages), strict=True)]
    place = folder / "bright"
    table(place / "examples" / f"{name}-00000-of-00001.parquet", asked)
    rewritten = [row | {"query": f"{row['query']} In other words: {row['query']}"} for row in asked]
    table(place / "gpt4_reason" / f"{name}-00000-of-00001.parquet", rewritten)
    half = passages // 2
    table(place / "documents" / f"{name}-00000-of-00002.parquet", documents[:half])
    table(place / "documents" / f"{name}-00001-of-00002.parquet", documents[half:])
    run = folder / "runs" / name / "reasonir_gpt4cot_top100.txt"
    run.parent.mkdir(parents=True)
    rows = [
        f"{row['id']} Q0 {corpus[(n + q) % 105]} {n + 1} {round(0.9 - n // 2 / 100, 2)} reasonir\n"
        for q, row in enumerate(asked)
        for n in range(100)
    ]
    run.write_text("".join(rows))


def all_of_bright(folder):
    for name in benchmarks.BRIGHT:
        bright(folder, name)
    return folder


def r2med(folder, name="Biology"):
    place = folder / "r2med" / name
    corpus = [{"id": f"p{n}", "text": text} for n, text in enumerate(texts(name, 30))]
    runs.write_jsonl(place / "corpus.jsonl", corpus)
    runs.write_jsonl(
        place / "query.jsonl", [{"id": f"q{q}", "text": corpus[q]["text"][:40]} for q in range(3)]
    )
    judged = [{"q_id": f"q{q}", "p_id": f"p{q + 3 * k}", "score": 1} for q in range(3) for k in range(2)]
    runs.write_jsonl(place / "qrels.jsonl", judged)
    return folder


def beir(folder, name="trec-covid"):
    place = folder / "beir" / name
    corpus = [{"_id": f"p{n}", "title": f"T{n}", "text": text} for n, text in enumerate(texts(name, 30))]
    runs.write_jsonl(place / "corpus.jsonl", corpus)
    queries = [{"_id": f"q{q}", "text": corpus[q]["text"][:40]} for q in range(3)]
    runs.write_jsonl(place / "queries.jsonl", queries)
    grades = [f"q{q}\tp{q + 3 * k}\t{grade}\n" for q in range(3) for k, grade in enumerate((2, 1, -1, 0))]
    (place / "qrels").mkdir()
    (place / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(grades))
    return folder


def training(folder, count=3):
    """The authors' full and RL sets in small, each row of the latter rendered with the template above."""
    full, rl = folder / "reasonrank_data_13k", folder / "reasonrank_data_rl"
    examples, asked, said, rendered = [], {}, {}, []
    for number in range(count):
        ids, qid = [f"d{number}{n}" for n in range(4 + number)], f"math_{number}"
        asked[qid] = f"what of {WORDS[number]} and {WORDS[-number - 1]}"
        said |= dict(zip(ids, texts(qid, len(ids)), strict=True))
        lists = {"initial_list": ids, "final_list": ids[::-1], "relevant_docids": ids[-1:]}
        examples.append({"dataset": "math-qa", "qid": qid, "reasoning": f"since {qid}", **lists})
        shown = {"num": str(len(ids)), "query": asked[qid], "passages": prompts.block([said[d] for d in ids])}
        messages = [
            {"role": role, "content": prompts.fill(text, shown)}
            for role, text in (("system", SYSTEM), ("user", USER))
        ]
        rendered.append({"prompt": messages, "dataset": "math-qa", "extra_info": lists})
    runs.write_jsonl(full / "training_data_all.jsonl", examples)
    for part, content in (("id_query", asked), ("id_doc", said)):
        (full / part).mkdir()
        runs.write_bytes(full / part / "math-qa.json", json.dumps(content).encode())
    table(rl / "train.parquet", rendered)
    return folder
