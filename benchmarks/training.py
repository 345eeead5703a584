"""How fast our training is against TRL as it comes, on one machine and the same batches.

    python benchmarks/training.py [--quick] [--repeats 3] [--out data/records/training_benchmark.json]

- SFT: optimiser steps of `SFTTrainer`, and ours: the vocabulary head on label tokens only, LoRA in the weights, grouped
  attention. Rows are lists of complex QA; both see the same batches, so their losses can be compared.
- GRPO: the gradient of a micro-batch, one prompt with its answers, as `GRPOTrainer` computes it, with the shared
  prefix alone, and ours, which adds the three parts above; and the log-probabilities of the reference beside it. Tokens
  are random, answers have the same length.
- GRPO, a whole step from the released SFT adapter, by part: TRL as it comes, which writes answers by `generate`,
  and ours as notebook 04 trains, with an engine that is open; opening it is timed apart, since it comes once a
  training. Answers are sampled, so they differ.

Freed memory is kept for ours, as our trainings do, and given back for the others, as a process does by itself. Ways are
interleaved and take turns to be first. Prints the tables, then one JSON line, and writes a record.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from datasets import Dataset
from grpo_step import PARTS, one_step, shaped
from trl import GRPOConfig, GRPOTrainer

from reasonrank import adapters, profiles, retrieval, sources, stages, training
from reasonrank.examples import Example
from reasonrank.training import common, label_head, processor, shared_prefix
from reasonrank.training.shared_prefix import SharedPrefixGRPOTrainer, pack

OUT = stages.ROOT / "data" / "records" / "training_benchmark.json"


def windows(settings: profiles.Profile, count: int) -> list[dict[str, Any]]:
    """Training rows of complex QA: the first stage's lists, relevant passages first in the label, a chain that cites
    them; the same each time."""
    collection = sources.load("complex_qa")
    ids = collection.ids("train", count)
    queries, texts = {qid: collection.queries[qid].text for qid in ids}, collection.texts()
    lists = retrieval.first_stage("bm25", collection, queries, settings.synthesis.window)
    examples = []
    for qid, docids in lists.items():
        relevant = [docid for docid in docids if collection.qrels[qid].get(docid, 0) > 0]
        final = relevant + [docid for docid in docids if docid not in relevant]
        chain = " ".join(" ".join(texts[docid].split()[:15]) for docid in final[:3])
        examples.append(
            Example(collection.name, "qa", qid, list(docids), final, chain, relevant or final[:1])
        )
    prompt = training.window_prompt(settings, settings.model.max_length)
    return training.windows_of(examples, prompt, {collection.name: queries}, {collection.name: texts})


def sft_steps(
    settings: profiles.Profile, rows: list[dict[str, Any]], ours: bool, steps: int, folder: Path
) -> dict[str, Any]:
    """Seconds, tokens and losses of `steps` optimiser steps from the same start."""
    torch.manual_seed(settings.seed)
    own = settings.sft.model_copy(update={"max_steps": steps})  # the seed draws the same batches for both
    plain = (label_head, "use_label_head"), (processor, "write_lora"), (common, "keep_memory")
    with ExitStack() as stack:
        if not ours:  # ours without these is TRL's own trainer
            for module, name in plain:
                stack.enter_context(patch.object(module, name, lambda *_, **__: None))
            stack.enter_context(patch.object(processor, "GROUPED", "sdpa"))
        trainer = training.sft_trainer(rows, settings.model_copy(update={"sft": own}), folder)
    begin = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - begin
    log = [row for row in trainer.state.log_history if "loss" in row]
    tokens = log[-1]["num_tokens"]
    return {"seconds": seconds, "tokens_per_second": tokens / seconds, "losses": [r["loss"] for r in log]}


def grpo_trainers(settings: profiles.Profile, group: int, folder: Path) -> dict[str, GRPOTrainer]:
    """TRL's trainer as it comes, ours with TRL's head, ours; all on the same weights and a new adapter."""
    config = GRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=group,
        num_generations=group,
        beta=settings.rl.kl_coefficient,
        delta=settings.rl.dual_clip,
        loss_type=settings.rl.loss_type,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        report_to="none",
    )

    def one(kind: type[GRPOTrainer], attention: str = "sdpa") -> GRPOTrainer:
        torch.manual_seed(settings.seed)
        made = kind(
            args=config,
            train_dataset=Dataset.from_list([{"prompt": "none"}]),
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            **common.policy(settings.model.name, settings, settings.rl.lora, attention),
        )
        made.current_gradient_accumulation_steps = 1  # `train` sets it otherwise
        made.model.train()
        return made

    nothing = lambda *_, **__: None  # noqa: E731
    with patch.multiple(shared_prefix, use_label_head=nothing, write_lora=nothing):
        packed = one(SharedPrefixGRPOTrainer)
    return {
        "TRL": one(GRPOTrainer),
        "shared prefix": packed,
        "ours": one(SharedPrefixGRPOTrainer, processor.GROUPED),
    }


def group_batch(prompt: int, answer: int, group: int, vocabulary: int, seed: int) -> dict[str, torch.Tensor]:
    """A prompt with `group` answers of random tokens, as the trainer holds it."""
    generator = torch.Generator().manual_seed(seed)
    tokens = lambda *shape: torch.randint(10, vocabulary, shape, generator=generator)  # noqa: E731
    answers = torch.ones(group, answer, dtype=torch.long)
    return {
        "prompt_ids": tokens(1, prompt).expand(group, prompt).contiguous(),
        "prompt_mask": torch.ones(group, prompt, dtype=torch.long),
        "completion_ids": tokens(group, answer),
        "completion_mask": answers,
        "advantages": torch.randn(group, generator=generator),
        "ref_per_token_logps": torch.full((group, answer), -10.0),
        "num_items_in_batch": answers.sum(),
    }


def grpo_step(trainer: GRPOTrainer, batch: dict[str, torch.Tensor]) -> dict[str, float]:
    """Seconds of the reference's log-probabilities and of the gradient, and the loss."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    begin = time.perf_counter()
    with torch.no_grad(), trainer.model.disable_adapter():
        width = batch["completion_ids"].size(1)
        trainer._get_per_token_logps_and_entropies(trainer.model, ids, torch.ones_like(ids), width)
    reference = time.perf_counter() - begin
    loss = trainer.compute_loss(trainer.model, dict(batch))
    loss.backward()
    trainer.model.zero_grad()
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "reference_seconds": reference, "loss": loss.item()}


def give_memory_back() -> None:
    """Undo `processor.keep_memory`: the limit is what a process with larger arrays comes to by itself."""
    trim = -1  # malloc.h
    with suppress(AttributeError, OSError):
        allocator = ctypes.CDLL(None)
        allocator.mallopt(trim, 2**26)
        allocator.malloc_trim(0)


def interleave(ways: dict[str, Callable[[], dict]], repeats: int) -> dict[str, list[dict[str, Any]]]:
    """Each way `repeats` times, taking turns to be first."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(repeats):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            (processor.keep_memory if name == "ours" else give_memory_back)()
            found[name].append(ways[name]())
            print(f"  {number + 1}/{repeats} {name}: {found[name][-1]['seconds']:.1f} s", flush=True)
    return found


def table(found: dict[str, list[dict[str, Any]]], base: str) -> list[dict[str, Any]]:
    """Median seconds of each way, and how many times faster than `base`: median, least and most of the repeats."""
    rows = []
    for name, runs in found.items():
        ratios = [b["seconds"] / r["seconds"] for b, r in zip(found[base], runs, strict=True)]
        row = {"way": name, "seconds": median(r["seconds"] for r in runs), "ratio": median(ratios)}
        rows.append({**row, "least": min(ratios), "most": max(ratios), "n": len(runs)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small shapes, once; no record unless --out")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    repeats = 1 if options.quick else options.repeats
    steps, answer, group = (1, 16, 2) if options.quick else (3, 128, 8)
    settings = profiles.load("default")
    common.on_cpu()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = windows(settings, max(4, steps * settings.sft.batch_size))
        sft_steps(settings, rows, True, 1, folder)  # warm-up
        print("SFT, optimiser steps:", steps)
        ways = {
            "TRL": lambda: sft_steps(settings, rows, False, steps, folder),
            "ours": lambda: sft_steps(settings, rows, True, steps, folder),
        }
        tuned = interleave(ways, repeats)
        trainers = grpo_trainers(settings, group, folder)
        vocabulary = trainers["TRL"].model.config.vocab_size
        batch = group_batch(4 * answer, answer, group, vocabulary, settings.seed)
        for trainer in trainers.values():
            grpo_step(trainer, group_batch(16, 4, group, vocabulary, 0))  # warm-up, and the self-check
        print(f"GRPO, prompt of {4 * answer} tokens, {group} answers of {answer}")
        stepped = interleave({n: lambda t=t: grpo_step(t, batch) for n, t in trainers.items()}, repeats)
        del trainers
        adapters.adopt("full/sft", settings.model, folder / "sft")
        whole = shaped(settings, 2, group, answer)
        step = lambda ours: one_step(whole, rows, folder / "sft" / "model", ours, folder)  # noqa: E731
        step(True)  # warm-up
        print(f"GRPO, a whole step of 2 prompts with {group} answers each")
        wholly = interleave({"TRL": lambda: step(False), "ours": lambda: step(True)}, repeats)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    packed = pack(ids, torch.ones_like(ids), answer)
    result = {
        "sft": {"rows": table(tuned, "TRL"), "runs": tuned, "steps": steps},
        "grpo": {
            "rows": table(stepped, "TRL"),
            "runs": stepped,
            "shape": {"prompt": 4 * answer, "answer": answer, "group": group},
            "tokens": {"plain": ids.numel(), "packed": packed.tokens},
        },
        "grpo_step": {
            "rows": table(wholly, "TRL"),
            "runs": wholly,
            "shape": {"prompts": 2, "group": group, "longest": answer},
        },
    }
    for part in ("sft", "grpo", "grpo_step"):
        print(f"\n{part:28s}{'seconds':>9s}{'times as fast':>15s}   spread")
        for row in result[part]["rows"]:
            spread = f"{row['least']:.2f} to {row['most']:.2f}, n = {row['n']}"
            print(f"{row['way']:28s}{row['seconds']:9.2f}{row['ratio']:15.2f}   {spread}")
    for way, runs in wholly.items():
        print(f"{way}, seconds by part:", {k: round(median(r["parts"][k] for r in runs), 1) for k in PARTS})
    print("tokens computed:", result["grpo"]["tokens"])
    if options.out or not options.quick:
        config = {"repeats": repeats, "sft": settings.sft.model_dump(), "rl": settings.rl.model_dump()}
        record = {"stage": "training_benchmark", **stages.provenance(config, settings.seed)}
        stages.write_json(options.out or OUT, record | {"result": result})
    print(json.dumps(result))


if __name__ == "__main__":
    main()
