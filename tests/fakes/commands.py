"""Commands that read from the folder {at}, for `main(words.format(at=...).split())`."""

RERANK = (
    "rerank --run {at}/first.trec --queries {at}/queries.tsv --corpus {at}/corpus.jsonl --out {at}/new.trec"
    " --model {at}/model --window 4 --step 2 --max-tokens 100"
)
MAKE = "synthesise --data {at}/mine --out {at}/own --profile smoke --first-stage bm25"
FILTER, TRACE = "filter --profile smoke --out {at}/run", "trace {at}/out.trec --out {at}/page.html"
