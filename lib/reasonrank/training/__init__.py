"""Training: settings of a profile turned into TRL's trainers, and nothing more."""

from .common import Trained
from .grpo import grpo_config, train_grpo
from .rollouts import sample_group
from .rows import window_prompt, window_rows, windows_of
from .sft import sft_config, sft_trainer, train_sft

__all__ = [
    "Trained",
    "grpo_config",
    "sample_group",
    "sft_config",
    "sft_trainer",
    "train_grpo",
    "train_sft",
    "window_prompt",
    "window_rows",
    "windows_of",
]
