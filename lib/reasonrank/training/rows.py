"""Training rows: an example as prompt and label, as text and as token ids, tokenised once for both stages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from ..answers import NONE, after_chain, format_answer
from ..examples import Example, passages_of
from ..models import load_tokenizer
from ..prompts import DirectPrompt, ListwisePrompt, PointwisePrompt, Prompt
from ..recovery import RecoveredPrompt, template_of
from ..settings import Profile
from ..stages import read_json, stage_file


def window_rows(
    run: Path, examples: Sequence[Example], profile: Profile, max_length: int | None = None
) -> list[dict[str, Any]]:
    """Examples of a run as rows (see `windows_of`), with the texts that stage 01 has written.

    `max_length`: tokens of a prompt, for RL `rl.max_prompt_tokens`. Raises FileNotFoundError without stage 01.
    """
    queries, texts = (
        read_json(stage_file(run, "01_synthesis", name)) for name in ("id_query.json", "id_doc.json")
    )
    return windows_of(examples, window_prompt(profile, max_length), queries, texts)


def window_prompt(profile: Profile, max_length: int | None = None) -> Prompt:
    """The prompt that a profile trains with: its caps, and reasoning or none (`prompting.reasoning`); of one passage
    where it evaluates with the strategy "pointwise". `max_length`: in tokens, None: what an answer there leaves.
    """
    pointwise = profile.evaluation.strategy == "pointwise"
    template = template_of(profile) if profile.prompting.reasoning and not pointwise else None
    kind = RecoveredPrompt if template else ListwisePrompt if profile.prompting.reasoning else DirectPrompt
    kind = PointwisePrompt if pointwise else kind
    room = profile.model.max_length - profile.evaluation.max_tokens
    caps = profile.prompting.model_dump(exclude={"reasoning", "template"}) | {"template": template}
    return kind(load_tokenizer(profile.model.name), **caps, max_length=max_length or room)


def windows_of(
    examples: Sequence[Example],
    prompt: Prompt,
    queries: Mapping[str, Mapping[str, str]],
    texts: Mapping[str, Mapping[str, str]],
) -> list[dict[str, Any]]:
    """Examples as training rows.

    `queries`, `texts`: dataset -> id -> text. A row has `prompt` and `completion` (text), `prompt_ids` and
    `completion_ids` (tokens, the label's with the end token), `gold_ranking` and `relevant` (the labels as 1-based
    positions), `num_passages`, and `begun` of the prompt: what makes an answer whole. The label has a chain where the
    prompt asks for one; what the chat template opens or closes itself is no part of it. For a PointwisePrompt an
    example gives a row for each passage of `judgements`. Raises ValueError for a prompt longer than
    `prompt.max_length`.
    """
    rows, pointwise = [], isinstance(prompt, PointwisePrompt)
    if pointwise:
        examples = [one for example in examples for one in judgements(example)]
    for example in examples:
        query = queries[example.dataset][example.qid]
        passages = passages_of(example, texts[example.dataset])
        label = example.gold_ranking
        answer = ("true" if example.relevant else "false") if pointwise else format_answer(label)
        chain = after_chain(example.reasoning, answer).removeprefix(prompt.begun).lstrip()
        completion = chain if prompt.chain else answer
        ids = prompt.tokenizer(completion, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        rows.append(
            {
                "prompt": prompt.text(query, passages),
                "completion": completion,
                "prompt_ids": prompt.encode(query, passages),
                "completion_ids": [*ids, prompt.tokenizer.eos_token_id],
                "gold_ranking": label,
                "relevant": example.relevant,
                "num_passages": len(example.initial_list),
                "begun": prompt.begun,
            }
        )
    return rows


def judgements(example: Example) -> list[Example]:
    """What a list says of single passages, an example of one passage each, to train a pointwise reasoner.

    Its relevant passages and two others, of which the first is a hard one where there is any. The chain is that
    of the list, with [1] for the passage: sentences that name others are left out, and where it is not relevant the
    chain ends in NONE.
    """
    rng = Random(f"{example.dataset}/{example.qid}/{' '.join(example.initial_list)}")
    others = [docid for docid in example.initial_list if docid not in example.relevant_docids]
    rng.shuffle(others)
    hard = [docid for docid in others if docid in example.hard_negatives][:1]
    chosen = [*example.relevant_docids, *dict.fromkeys([*hard, *others])]
    return [_alone(example, docid) for docid in chosen[: len(example.relevant_docids) + 2]]


def _alone(example: Example, docid: str) -> Example:
    own, said = f"[{example.initial_list.index(docid) + 1}]", []
    for sentence in re.split(r"(?<=[.!?\]]) +(?=[A-Z(])", example.reasoning):
        if own in sentence:
            said.append(re.sub(r" ?\[\d+\]", "", sentence.replace(own, "\0")).replace("\0", "[1]"))
        elif not re.search(r"\[\d+\]", sentence):
            said.append(sentence)
    relevant = [docid] if docid in example.relevant_docids else []
    if not relevant and said[-1:] != [NONE]:
        said.append(NONE)
    one = {"initial_list": [docid], "final_list": [docid], "relevant_docids": relevant, "hard_negatives": []}
    return replace(example, reasoning=" ".join(said), **one)
