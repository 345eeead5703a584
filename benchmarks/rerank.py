"""How fast the asynchronous reranker is against other ways to schedule the same windows.

    python benchmarks/rerank.py [--quick] [--repeats 3] [--out data/records/rerank_benchmark.json]

One engine, one set of prompts and output lengths for all, four schedulers, interleaved, their order rotated:

- asynchronous: ours; each query goes on as soon as its window returns, requests in flight are bounded;
- stepwise: the i-th windows of all queries in one batch, then the next, as the authors' released code does;
- unbounded: one task per query, no bound, each prompt built anew, as RankLLM's asynchronous mode does
  (our own rendering of it: rank-llm 0.25.7, the newest, cannot be imported with transformers 5, of which it wants
  `find_pruneable_heads_and_indices`);
- independent: the same windows all at once, as if none waited for another; a bound, not a reranker.

Nine windows a query, as in the paper (100 candidates in windows of 20 by 10), at half the size; prompts are about
four times as long as outputs. The engine takes 16 of 28 queries at once: BRIGHT's twelve sets have 115 on average, and
our default bound is 64. The gain over stepwise grows with the spread of the lengths and falls where queries are many
times what the engine takes. Each repeat draws its own lengths. Growth with the number of
candidates follows, ours alone. Prints the tables, then one JSON line, and writes a record.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from _common import (
    AnewPrompt,
    Bounded,
    MeteredVllm,
    Noted,
    Request,
    Setting,
    Task,
    draw_task,
    plan,
    prompt_sizes,
)
from rerank_table import OURS, markdown, summarise

from reasonrank import stages
from reasonrank.answers import parse
from reasonrank.engines import GREEDY
from reasonrank.prompts import ListwisePrompt
from reasonrank.rerank.listwise import ListwiseReranker

MODEL = "smollm2-135m-instruct"
ENGINE = {"dtype": "bfloat16", "max_model_len": 2048, "max_num_seqs": 16, "kv_cache_gib": 1.0}
COMPARED = Setting(queries=28, candidates=50, window=10, step=5, passage_tokens=8, mean_tokens=50)
GROWTH = Setting(queries=2, candidates=20, window=20, step=10, passage_tokens=8, mean_tokens=8)
CANDIDATES = (20, 100, 300, 1000)
QUICK = replace(COMPARED, queries=6, candidates=20, mean_tokens=10)

Scheduler = Callable[[Bounded, Task, Noted, int], Awaitable[None]]


async def asynchronous(engine: Bounded, task: Task, prompt: Noted, bound: int) -> None:
    """Ours, at most `bound` requests in flight."""
    sizes = {"window": task.setting.window, "step": task.setting.step}
    reranker = ListwiseReranker(engine, prompt, max_in_flight=bound, **sizes)
    await reranker.rerank_run(task.run, task.queries, task.texts)


async def unbounded(engine: Bounded, task: Task, prompt: Noted, bound: int) -> None:
    """One task per query; the prompt that comes with it (`prompt_for`) builds everything anew."""
    await asynchronous(engine, task, prompt, len(task.run))


async def stepwise(engine: Bounded, task: Task, prompt: Noted, bound: int) -> None:
    """A batch for each place in the lists, and a barrier behind it."""
    orders = {qid: list(docids) for qid, docids in task.run.items()}
    for start, end in task.setting.places:
        batch = [
            prompt.render(task.queries[qid], [task.texts[d] for d in order[start:end]]).ids
            for qid, order in orders.items()
        ]
        done = await asyncio.gather(*(engine.generate(ids, GREEDY) for ids in batch))
        for order, completion in zip(orders.values(), done, strict=True):
            window = order[start:end]
            order[start:end] = [window[n - 1] for n in parse(completion.text, len(window)).ranking]


async def independent(engine: Bounded, task: Task, prompt: Noted, bound: int) -> None:
    """All windows of the plan at once; the engine has to be told beforehand whose they are."""
    requests = plan(task, prompt)
    await asyncio.gather(*(engine.generate(ids, GREEDY) for ids, _ in requests))


SCHEDULERS: dict[str, Scheduler] = {
    OURS: asynchronous,
    "stepwise": stepwise,
    "unbounded": unbounded,
    "independent": independent,
}


def prompt_for(scheduler: str, tokenizer: object, setting: Setting) -> Noted:
    """A prompt that has seen nothing yet."""
    kind = AnewPrompt if scheduler == "unbounded" else ListwisePrompt
    return Noted(kind(tokenizer, **prompt_sizes(setting)))


def measure(name: str, engine: MeteredVllm, task: Task, bound: int) -> tuple[dict[str, Any], list[Request]]:
    """Run one scheduler from an empty prefix cache; also the requests it made, sorted.

    `busy_seconds`: the part of `seconds` inside the engine's step, and `overhead` the share of the rest;
    `own_cpu_seconds`: processor time of the thread that builds prompts and reads answers.
    """
    engine.reset_prefix_cache()
    prompt = prompt_for(name, engine.tokenizer, task.setting)
    if name == "independent":
        plan(task, prompt)  # a bound does not wait for its prompts
    bounded = Bounded(engine, task, prompt)
    before, busy, steps = engine.stats, engine.busy, engine.steps
    cpu, begin = time.thread_time(), time.perf_counter()
    asyncio.run(SCHEDULERS[name](bounded, task, prompt, bound))
    seconds, own = time.perf_counter() - begin, time.thread_time() - cpu
    work, steps = engine.stats - before, engine.steps - steps
    return {
        "scheduler": name,
        "queries": len(task.run),
        "windows": work["requests"],
        "prompt_tokens": work["prompt_tokens"],
        "output_tokens": work["output_tokens"],
        "most_in_flight": bounded.most_in_flight,
        "steps": steps,
        "seconds": seconds,
        "busy_seconds": engine.busy - busy,
        "own_cpu_seconds": own,
        "queries_per_second": len(task.run) / seconds,
        "windows_per_second": work["requests"] / seconds,
        "output_tokens_per_second": work["output_tokens"] / seconds,
        "tokens_per_step": work["output_tokens"] / steps,
        "overhead": 1 - (engine.busy - busy) / seconds,
        "own_cpu_ms_per_window": 1000 * own / work["requests"],
    }, sorted(bounded.asked)


def compare(engine: MeteredVllm, setting: Setting, repeats: int, bound: int) -> list[dict[str, dict]]:
    """All schedulers, each repeat with lengths of its own and starting with another of them.

    Raises RuntimeError where a scheduler asked for other windows than the rest: the comparison would be void.
    """
    measure(OURS, engine, draw_task(replace(setting, candidates=setting.window, seed=-1)), bound)  # warm-up
    found = []
    for repeat in range(repeats):
        task = draw_task(replace(setting, seed=setting.seed + repeat))
        planned = sorted(plan(task, prompt_for(OURS, engine.tokenizer, setting)))
        names, row = list(SCHEDULERS), {}
        turn = repeat % len(names)
        for name in names[turn:] + names[:turn]:
            row[name], asked = measure(name, engine, task, bound)
            if asked != planned:
                raise RuntimeError(f"{name}: asked for other windows than planned")
            print(f"repeat {repeat + 1}  {name:14s}{row[name]['seconds']:8.1f} s", flush=True)
        found.append(row)
    return found


def grow(engine: MeteredVllm, setting: Setting, candidates: tuple[int, ...], bound: int) -> list[dict]:
    """Ours over lists of growing length."""
    rows = []
    for number in candidates:
        found, _ = measure(OURS, engine, draw_task(replace(setting, candidates=number)), bound)
        rows.append({"candidates": number, **found})
        print(f"{number:5d} candidates{found['seconds']:15.1f} s", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small task, once; no record unless --out")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bound", type=int, default=18, help="requests in flight of ours")
    parser.add_argument("--out", type=Path, help="default: data/records/rerank_benchmark.json")
    options = parser.parse_args()
    setting, candidates, repeats, out = COMPARED, CANDIDATES, options.repeats, options.out
    if options.quick:
        setting, candidates, repeats = QUICK, (20, 50), 1
    elif out is None:
        out = stages.ROOT / "data" / "records" / "rerank_benchmark.json"
    with MeteredVllm(MODEL, **ENGINE) as engine:
        result = summarise(compare(engine, setting, repeats, options.bound))
        result["growth"] = grow(engine, GROWTH, candidates, options.bound)
    config = {"model": MODEL, "engine": ENGINE, "bound": options.bound, "repeats": repeats}
    config |= {"compared": asdict(setting), "growth": asdict(GROWTH)}
    record = {"stage": "rerank_benchmark", **stages.provenance(config, setting.seed), "result": result}
    if out is not None:
        stages.write_json(out, record)
    print(markdown(record))
    print(json.dumps(result["ratios"] + [{"overhead": result["overhead"]}]))


if __name__ == "__main__":
    main()
