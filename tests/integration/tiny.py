"""A tiny random model with the embedded model's tokenizer, for tests of training and of engines."""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from reasonrank import models


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
