"""First stages: who is a candidate, in which order, in any script."""

import numpy as np
import pytest

from reasonrank import evaluation, retrieval
from reasonrank.sources import Collection, Passage, Query


def made(passages, queries, excluded=None, rewritten=None):
    asked = {qid: Query(qid, text) for qid, text in queries.items()}
    texts = {docid: Passage(docid, text) for docid, text in passages.items()}
    more = {"excluded": excluded or {}, "rewritten": rewritten or {}}
    return Collection(
        "made", "web search", "made up", asked, texts, {}, dict.fromkeys(queries, "test"), **more
    )


BEES = {
    "d1": "Birds use the sun to find their way.",
    "d2": "Bees collect nectar, and bees dance.",
    "d3": "Some bees sting.",
    "d4": "Wolves eat deer.",
}


def test_passages_without_a_common_term_are_no_candidates():
    queries = {"bees": "What do bees collect?", "none": "zebra stripes", "stop words": "what is it of the"}
    found = retrieval.first_stage("bm25", made(BEES, queries), queries, 4)
    assert found == {"bees": ["d2", "d3"], "none": [], "stop words": []}
    judged = {"bees": {"d2": 1}, "none": {"d4": 1}}
    assert evaluation.evaluate(found, judged).per_query["nDCG@10"] == {"bees": 1.0, "none": 0.0}


def test_queries_without_candidates_are_counted_and_named(caplog):
    queries = {"q1": "bees"} | {f"lost{i}": "zebra" for i in range(12)}
    retrieval.bm25(made(BEES, queries), queries)
    (record,) = (found for found in caplog.records if found.name == retrieval.__name__)
    expected = "made, BM25: 12 of 13 queries share no term with a passage and have no candidate: lost0, lost1"
    assert record.getMessage().startswith(expected) and record.getMessage().endswith("lost9 and 2 more")
    caplog.clear()
    retrieval.bm25(made(BEES, queries), {"q1": "bees"})
    assert retrieval.__name__ not in {found.name for found in caplog.records}


@pytest.mark.parametrize(
    ("passages", "query", "best"),
    [
        (["鸟类利用太阳导航。", "蜜蜂采集花蜜。", "狼吃鹿。"], "蜜蜂收集什么？", ["p1"]),
        (
            ["鳥は太陽を使う。", "オオカミは鹿", "ミツバチは花の蜜を集める。"],
            "ミツバチは何を集めますか",
            ["p2"],
        ),
        (["새는 태양을 이용한다", "꿀벌은 꿀을 모은다", "늑대"], "꿀벌이 모으는 것", ["p1"]),
        (["นกใช้ดวงอาทิตย์", "ผึ้งเก็บน้ำหวาน", "หมาป่า"], "ผึ้งเก็บอะไร", ["p1"]),
        (["पक्षी सूरज", "मधुमक्खी पराग इकट्ठा करती है।", "भेड़िया"], "मधुमक्खी क्या", ["p1"]),
        (["пчёлы собирают нектар", "волки едят оленей", "птицы"], "что собирают пчёлы", ["p0"]),
        (["the 蜜", "GPU显卡 prices", "蜂"], "gpu 显卡", ["p1"]),
    ],
)
def test_other_scripts(passages, query, best):
    collection = made({f"p{i}": text for i, text in enumerate(passages)}, {"q": query})
    assert retrieval.bm25(collection, {"q": query})["q"][:1] == best


def test_terms_and_none():
    terms = [["3rd", "year", "bees"], ["蜜蜂", "蜂采", "花"], []]
    assert retrieval._terms(["The U.S. 3rd-year bees' x", "蜜蜂采 a花", ""]) == terms
    assert retrieval.bm25(made({"d1": "", "d2": "the of"}, {"q": "bees"}), {"q": "bees"}) == {"q": []}


def test_excluded_passages_make_room_for_the_next_ones(monkeypatch):
    queries = {"q": "bees", "r": "bees"}
    collection = made(BEES, queries, {"q": {"d2", "gone"}})
    assert retrieval.bm25(collection, queries, 1) == {"q": ["d3"], "r": ["d2"]}
    vectors = np.eye(4, dtype=np.float32)
    monkeypatch.setattr(retrieval, "embed", lambda texts: vectors[1:3] if len(texts) == 2 else vectors)
    found = retrieval.dense(collection, queries, 2)
    assert found == {"q": ["d1", "d3"], "r": ["d3", "d1"]}  # d1, d3 and d4 tie for q: the first of the file


def test_a_first_stage_searches_with_rewritten_queries_where_there_are_any():
    collection = made(BEES, {"q1": "x", "q2": "wolves"}, rewritten={"q1": "sting of bees"})
    asked = collection.searched(["q1", "q2"])
    assert retrieval.first_stage("bm25", collection, asked, 1) == {"q1": ["d3"], "q2": ["d4"]}
    with pytest.raises(ValueError, match="first stage 'sparse' is none of dense, bm25"):
        retrieval.first_stage("sparse", collection, asked, 1)
