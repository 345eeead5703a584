"""Training: settings of a profile turned into TRL's trainers, and nothing more."""

from .common import Trained, window_prompt, windows_of
from .grpo import grpo_config, train_grpo
from .sft import sft_config, sft_trainer, train_sft

__all__ = [
    "Trained",
    "grpo_config",
    "sft_config",
    "sft_trainer",
    "train_grpo",
    "train_sft",
    "window_prompt",
    "windows_of",
]
