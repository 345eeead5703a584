"""Training examples: files that say what is wrong with them, the data set for others, and the published sets."""

import json
from dataclasses import asdict

import pytest
from datasets import Dataset, load_dataset, load_from_disk

from reasonrank import answers, examples, runs
from reasonrank.examples import Example
from reasonrank.sources import published13k

EXAMPLES = [
    Example("leetcode", "coding", "q1", ["a", "b"], ["b", "a"], "since b", ["b"]),
    Example("biology", "complex QA", "q2", ["c", "a"], ["c", "a"], "since c", ["a"], ["c"]),
]
QUERIES = {"leetcode": {"q1": "sort", "q9": "unused"}, "biology": {"q2": "why"}}
TEXTS = {"leetcode": {"a": "A", "b": "B", "z": "unused"}, "biology": {"a": "a cell", "c": "C"}}
TABLE = examples.statistics(EXAMPLES, {"leetcode": 2, "biology": 1})


def write_set(folder, chosen=EXAMPLES):
    examples.save_dataset(folder, chosen, QUERIES, TEXTS, TABLE, "From tests.", "made-up")
    return folder


def as_published(example):
    """A row without the two fields that are ours."""
    return {key: v for key, v in asdict(example).items() if key not in ("scenario", "hard_negatives")}


def published(folder):
    """The three sets as on the hub, in small."""
    full, sft, rl = (folder / f"reasonrank_data_{subset}" for subset in ("13k", "sft", "rl"))
    write_set(full)
    runs.write_jsonl(full / "training_data_all.jsonl", map(as_published, EXAMPLES))
    output = answers.format_completion(EXAMPLES[1].reasoning, EXAMPLES[1].gold_ranking)
    sft.mkdir()
    entry = {"instruction": "Rank.", "output": output, "system": "You rank."}
    (sft / "reasonrank_sft-data.json").write_text(json.dumps([entry]))
    rl.mkdir()
    lists = {key: as_published(EXAMPLES[0])[key] for key in ("initial_list", "final_list", "relevant_docids")}
    row = {"data_source": "ranking", "prompt": [{"role": "user", "content": "Rank."}], "extra_info": lists}
    Dataset.from_list([row]).to_parquet(str(rl / "train.parquet"))
    return folder


def test_examples_survive_a_round_trip(tmp_path):
    path = tmp_path / "examples.jsonl"
    examples.save(path, EXAMPLES)
    assert examples.load(path) == EXAMPLES


def test_a_missing_text_is_named(tmp_path):
    with pytest.raises(KeyError, match="biology, query q2: no text for passage 'c'"):
        examples.passages_of(EXAMPLES[1], {"a": "x"})
    with pytest.raises(KeyError, match="q3"):
        write_set(tmp_path, [Example("biology", "complex QA", "q3", ["a"], ["a"], "r", ["a"])])


def test_an_example_as_a_person_reads_it():
    text = examples.describe(EXAMPLES[1], "why", TEXTS["biology"])
    assert text.splitlines()[2:4] == [" - [1] C", " + [2] a cell"]
    assert text.endswith("<think> since c </think>\n<answer> [1] > [2] </answer>")


def test_the_data_set_is_read_back_by_us_and_by_datasets(tmp_path):
    folder = write_set(tmp_path / "reasonrank_data_13k")
    found, queries, texts = published13k.load("13k", tmp_path)
    assert found == EXAMPLES
    assert queries == {"leetcode": {"q1": "sort"}, "biology": {"q2": "why"}}
    assert texts == {"leetcode": {"a": "A", "b": "B"}, "biology": {"a": "a cell", "c": "C"}}
    rows = list(map(asdict, EXAMPLES))
    assert load_from_disk(str(folder / "arrow")).to_list() == rows
    assert load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache")).to_list() == rows
    card = (folder / "README.md").read_text()
    assert "2 training examples" in card and "\n| coding | leetcode | 2 | 1 |" in card and "made-up" in card
    assert [row["reasoning_words_mean"] for row in TABLE] == [2, 2]
    assert "data_files: training_data_all.jsonl" in card.split("---")[1]


def test_the_same_examples_give_the_same_bytes(tmp_path):
    first, second = write_set(tmp_path / "1" / "x"), write_set(tmp_path / "2" / "x")
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) >= 8
    assert [(first / f).read_bytes() for f in files] == [(second / f).read_bytes() for f in files]


def test_faults_of_published_files_are_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"training_data_all\.jsonl: no such file; a folder as liuwenhan"
    ):
        published13k.load("13k", tmp_path)
    good = as_published(EXAMPLES[0])
    for change, message in (
        ({"final_list": ["a"]}, "line 2: .*final_list is no permutation"),
        ({"relevant_docids": ["z"]}, "line 2: .*relevant_docids names a passage"),
        ({"reasoning": None}, r"data_all\.jsonl, line 2: reasoning Input should be a valid string"),
        ({"initial_list": "ab"}, "line 2: initial_list Input should be a valid list"),
        ({"dataset": "chess"}, "line 2: data set 'chess' is none of Table 5"),
    ):
        runs.write_jsonl(tmp_path / "training_data_all.jsonl", [good, good | change])
        with pytest.raises(ValueError, match=message):
            published13k.read(tmp_path / "training_data_all.jsonl")
    folder = published(tmp_path / "more")
    (folder / "reasonrank_data_sft" / "reasonrank_sft-data.json").write_text(
        '[{"output": "<think> new </think>"}]'
    )
    with pytest.raises(ValueError, match=r"sft-data\.json, entry 1: is no example of the full set"):
        published13k.load("sft", folder)


def test_scenarios_and_whole_numbers_as_ids(tmp_path):
    lists = {"initial_list": [1, 2], "final_list": [2, 1], "relevant_docids": [1], "reasoning": "x"}
    names = ("math-qa", "math_theorem", "leetcode", "msmarco", "earth_science")
    path = tmp_path / "rows.jsonl"
    runs.write_jsonl(path, [{"dataset": name, "qid": 7, **lists} for name in names])
    found = examples.load(path)
    scenarios = [example.scenario for example in found]
    assert scenarios == ["math: problem", "math: theorem", "coding", "web search", "complex QA"]
    assert (found[0].qid, found[0].initial_list, found[0].relevant) == ("7", ["1", "2"], [1])
