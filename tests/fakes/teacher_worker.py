"""A synthesis with a remote teacher, in a process of its own that a test can kill: URL FOLDER [replay]."""

import asyncio
import sys
from pathlib import Path

from reasonrank import examples, profiles, synthesis
from reasonrank.sources import Collection, Passage, Query
from reasonrank.teachers import Asker, RemoteTeacher

sys.path.insert(0, str(Path(__file__).parents[1]))
from fakes.teacher_server import settings


def collection(queries=20, passages=12, scenario="complex QA"):
    ids = [f"p{i}" for i in range(passages)]
    asked = {
        f"q{i}": Query(f"q{i}", f"What is number {i}?", (f"It is the secret of {i}.",))
        for i in range(queries)
    }
    return Collection(
        name="made_up",
        scenario=scenario,
        source="tests",
        queries=asked,
        passages={docid: Passage(docid, f"{docid} tells of {docid * 3}") for docid in ids},
        qrels={},
        splits=dict.fromkeys(asked, "train"),
    )


async def make(c, chosen, path, replay=False):
    run = {qid: list(c.passages) for qid in c.queries}
    async with Asker(chosen, path, replay=replay) as asker:
        teacher = RemoteTeacher(asker, c.scenario, c.qrels)
        wanted = profiles.load("default").synthesis.model_copy(
            update={"window": 6, "max_positives": 2, "max_hard_negatives": 1}
        )
        return await synthesis.synthesise(c, teacher, run, wanted, seed=3), asker


if __name__ == "__main__":
    url, folder = sys.argv[1], Path(sys.argv[2])
    chosen = settings(base_url=url, max_in_flight=2)
    made, _ = asyncio.run(make(collection(), chosen, folder / "teacher.sqlite", replay=len(sys.argv) > 3))
    examples.save(folder / "examples.jsonl", made.examples)
