"""What encoders make of the same labels: MiniLM as it comes, as a bi-encoder and as a cross-encoder, fine-tuned.

    python benchmarks/encoders.py RUN [--profile worked] [--epochs 2] [--out data/records/worked/encoders.json]

They learn from the lists that the filter of the run RUN has kept, as notebook 03 does: the bi-encoder from each query
with a relevant and another passage, the cross-encoder from single passages (`training.rows.judgements`). They rerank
the same candidates of the same test queries as notebook 05. No reasoning is involved, and a passage takes one pass
through 22 million weights. Prints the table, and writes a record.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from sentence_transformers import CrossEncoder, SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments

from reasonrank import evaluation, models, profiles, stages
from reasonrank.examples import Example, load
from reasonrank.training.rows import judgements

Score = Callable[[str, Sequence[str]], np.ndarray]
"""A query and passages -> a score each."""


def pairs(
    examples: Sequence[Example], queries: Mapping[str, Mapping], texts: Mapping[str, Mapping]
) -> list[dict[str, Any]]:
    """Rows `query`, `passage`, `label` (1.0 for a relevant one) of the judgements of lists."""
    return [
        {
            "query": queries[one.dataset][one.qid],
            "passage": texts[one.dataset][one.initial_list[0]],
            "label": float(bool(one.relevant_docids)),
        }
        for example in examples
        for one in judgements(example)
    ]


def triples(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Rows `query`, `passage`, `other` from `pairs`: each relevant passage with the query's first that is not."""
    others = {row["query"]: row["passage"] for row in reversed(rows) if not row["label"]}
    found = [row for row in rows if row["label"] and row["query"] in others]
    return [{"query": r["query"], "passage": r["passage"], "other": others[r["query"]]} for r in found]


def bi_encoder(rows: Sequence[Mapping[str, Any]] = (), **options: Any) -> Score:
    """MiniLM, trained on `triples` of `rows` where there are any."""
    model = SentenceTransformer(models.resolve("minilm"), device="cpu")
    if rows:
        arguments = SentenceTransformerTrainingArguments(**options, learning_rate=1e-4)
        loss, data = MultipleNegativesRankingLoss(model), Dataset.from_list(triples(rows))
        SentenceTransformerTrainer(model, arguments, data, loss=loss).train()

    def score(query: str, passages: Sequence[str]) -> np.ndarray:
        vectors = model.encode([query, *passages], normalize_embeddings=True, show_progress_bar=False)
        return vectors[1:] @ vectors[0]

    return score


def cross_encoder(rows: Sequence[Mapping[str, Any]], **options: Any) -> Score:
    """A new head on MiniLM's weights, trained on `rows`."""
    model = CrossEncoder(models.resolve("minilm"), num_labels=1, device="cpu")
    arguments = CrossEncoderTrainingArguments(**options, learning_rate=1e-4)
    data = Dataset.from_list(list(rows))
    CrossEncoderTrainer(model, arguments, data, loss=BinaryCrossEntropyLoss(model)).train()
    return lambda query, passages: model.predict([(query, p) for p in passages], show_progress_bar=False)


def rerank(score: Score, tests: Mapping[str, evaluation.TestSet]) -> dict[str, dict[str, list[str]]]:
    """Collection -> query id -> candidates by falling score."""
    found = {}
    for name, test in tests.items():
        texts = test.collection.texts()
        found[name] = {
            qid: [
                ids[i] for i in np.argsort(-score(test.queries[qid], [texts[d] for d in ids]), kind="stable")
            ]
            for qid, ids in test.run.items()
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run with the stages 01 and 02")
    parser.add_argument("--profile", default="worked")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    settings = profiles.load(options.profile)
    profiles.seed_everything(settings.seed)
    names = ("id_query.json", "id_doc.json")
    queries, texts = (stages.read_json(stages.stage_file(options.run, "01_synthesis", n)) for n in names)
    rows = pairs(load(stages.stage_file(options.run, "02_filtering", "kept.jsonl")), queries, texts)
    own = settings.evaluation
    tests = evaluation.test_sets(settings, settings.collections, "test", own.queries)
    runs, seconds = {"retriever": {name: test.retriever for name, test in tests.items()}}, {}
    with tempfile.TemporaryDirectory() as folder:
        asked = {"output_dir": folder, "num_train_epochs": options.epochs, "warmup_steps": 0.1}
        asked |= {"per_device_train_batch_size": 32, "seed": settings.seed, "save_strategy": "no"}
        asked |= {"report_to": [], "logging_steps": 50, "use_cpu": True}
        ways = {
            "MiniLM as it comes": bi_encoder,
            "bi-encoder, fine-tuned": lambda: bi_encoder(rows, **asked),
            "cross-encoder, fine-tuned": lambda: cross_encoder(rows, **asked),
        }
        for name, make in ways.items():
            began = time.perf_counter()
            score = make()
            seconds[name] = time.perf_counter() - began
            runs[name] = rerank(score, tests)
    scores = evaluation.score_rows(runs, tests, seed=settings.seed, bootstrap=own.bootstrap)
    print(evaluation.score_frame(scores).T.to_string())
    print({row["system"]: row["p_value"] for row in scores if row["collection"] == "average"})
    if options.out:
        config = settings.model_dump(mode="json") | {"epochs": options.epochs, "pairs": len(rows)}
        record = {"stage": "encoders", **stages.provenance(config, settings.seed)}
        stages.write_json(options.out, record | {"result": {"scores": scores, "training_seconds": seconds}})


if __name__ == "__main__":
    main()
