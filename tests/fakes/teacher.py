"""A synthesis with a remote teacher over a made-up collection."""

from reasonrank import profiles, synthesis
from reasonrank.sources import Collection, Passage, Query
from reasonrank.teachers import Asker, RemoteTeacher


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
        teacher = RemoteTeacher(asker, c)
        wanted = profiles.load("default").synthesis.model_copy(
            update={"window": 6, "max_positives": 2, "max_hard_negatives": 1}
        )
        return await synthesis.synthesise(c, teacher, run, wanted, seed=3), asker
