"""A tiny random model with the embedded model's tokenizer, for tests of training and of engines."""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from reasonrank import models, profiles
from reasonrank.answers import format_completion
from reasonrank.rewards import RewardParts


def save_tiny_llama(folder: Path, **changes) -> Path:
    """A two-layer Llama of 32 dimensions in `folder`, with its tokenizer; the same weights each time."""
    tokenizer = models.load_tokenizer("smollm2-135m-instruct")
    settings = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
    }
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**settings | changes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def profile(folder, **changes):
    """The smoke profile on the tiny model in `folder`; `changes`: "__" stands for the point of a key."""
    own = {
        "model.name": str(folder),
        "model.dtype": "float32",
        "model.max_length": 512,
        "sft.learning_rate": 1e-2,
        "rl.learning_rate": 1e-2,
        "rl.max_completion_tokens": 8,
        "rl.max_prompt_tokens": 256,
        "evaluation.engine": "transformers",
    }
    return profiles.load("smoke", own | {key.replace("__", "."): value for key, value in changes.items()})


def rows(count=4):
    """Training rows as `training.windows_of` makes them, of three passages each."""
    tokenizer = models.load_tokenizer("smollm2-135m-instruct")
    made = []
    for i in range(count):
        prompt = f"<|im_start|>user\nRank these, query {i}.<|im_end|>\n<|im_start|>assistant\n"
        completion = format_completion(f"reason {i}", [2, 1, 3])
        row = {"prompt": prompt, "completion": completion, "gold_ranking": [2, 1, 3], "relevant": [2]}
        ids = {"prompt_ids": tokenizer(prompt)["input_ids"]}
        ids["completion_ids"] = tokenizer(completion)["input_ids"] + [tokenizer.eos_token_id]
        made.append(row | ids | {"num_passages": 3, "begun": ""})
    return made


def alternating_reward(self, log=None, prefix=""):
    """In place of `Reward.for_trl`: every second answer gets 1, the others 0, whatever they say."""

    def reward(completions, **columns):
        parts = [RewardParts(0.0, 0.0, 0.0, 1.0, float(i % 2)) for i, _ in enumerate(completions)]
        log(parts)
        return [part.total for part in parts]

    return reward
