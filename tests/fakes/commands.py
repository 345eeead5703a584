"""Commands that read from the folder {at}, for `main(words.format(at=...).split())`, and keys that nobody may see."""

RERANK = (
    "rerank --run {at}/first.trec --queries {at}/queries.tsv --corpus {at}/corpus.jsonl --out {at}/new.trec"
    " --model {at}/model --window 4 --step 2 --max-tokens 100"
)
MAKE = "synthesise --data {at}/mine --out {at}/own --profile smoke --first-stage bm25"
FILTER, TRACE = "filter --profile smoke --out {at}/run", "trace {at}/out.trec --out {at}/page.html"

KEY = "sk-a-key-that-nobody-may-see"
KEYS = dict.fromkeys(("REASONRANK_TEACHER_KEY", "OPENAI_API_KEY", "HF_TOKEN"), KEY)


def without_key(folder):
    """How many files there are below `folder`, in none of which the key stands."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files and not [path for path in files if KEY.encode() in path.read_bytes()]
    return len(files)
