"""Training rows: an example as prompt and label, as text and as token ids, tokenised once for both stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..answers import format_answer, format_completion
from ..examples import Example, passages_of
from ..models import load_tokenizer
from ..prompts import DirectPrompt, ListwisePrompt, Prompt
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
    return windows_of(examples, window_prompt(profile, profile.model.name, max_length), queries, texts)


def window_prompt(profile: Profile, weights: str, max_length: int | None = None) -> Prompt:
    """The prompt that a profile trains with: its caps, and reasoning or none (`prompting.reasoning`).

    `weights`: whose tokenizer counts; `max_length`: tokens of a prompt, None: what an answer of evaluation leaves.
    """
    template = template_of(profile) if profile.prompting.reasoning else None
    kind = RecoveredPrompt if template else ListwisePrompt if profile.prompting.reasoning else DirectPrompt
    room = profile.model.max_length - profile.evaluation.max_tokens
    caps = profile.prompting.model_dump(exclude={"reasoning", "template"}) | {"template": template}
    return kind(load_tokenizer(weights), **caps, max_length=max_length or room)


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
    prompt asks for one; what the chat template opens or closes itself is no part of it. Raises
    ValueError for a prompt longer than `prompt.max_length`.
    """
    rows = []
    for example in examples:
        query = queries[example.dataset][example.qid]
        passages = passages_of(example, texts[example.dataset])
        label = example.gold_ranking
        chain = format_completion(example.reasoning, label).removeprefix(prompt.begun).lstrip()
        completion = chain if prompt.chain else format_answer(label)
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
