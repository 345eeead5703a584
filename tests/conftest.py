"""Fixtures and settings shared by all tests. Nothing here reaches a network."""

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """A folder `shared` beside the repository with data that is not ours to publish."""
    folder = ROOT.parent / "shared"
    if not (folder / "bright").is_dir():
        pytest.skip("needs ../shared (BRIGHT runs and judgements, golden rewards), which is not here")
    return folder
