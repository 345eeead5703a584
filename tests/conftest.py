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


@pytest.fixture
def engines(monkeypatch):
    """The engines that `rerank` opened, which sort by number; `engines.make` makes the next one."""
    from fakes.rerank_script import NumberEngine
    from reasonrank import stages
    from reasonrank.cli import rerank

    class Opened(list):
        make = NumberEngine

    opened = Opened()

    def open_engine(options, kind):
        opened.append(opened.make())
        return opened[-1]

    monkeypatch.setattr(rerank, "open_engine", open_engine)
    monkeypatch.setattr(stages, "hardware", dict)
    return opened


@pytest.fixture
def records(tmp_path):
    """A folder of records with the one that must be there; listwise is faster in it."""
    from fakes.records import put, ratio

    folder = tmp_path / "records"
    put(folder / "latency" / "06_latency_study.json", ratio(2.4, 2.1, 2.8))
    return folder


@pytest.fixture(scope="session")
def tokenizers():
    """`models.load_tokenizer`, which loads each tokenizer once for all tests."""
    from functools import cache

    from reasonrank import models

    return cache(models.load_tokenizer)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The folder of a tiny random model, which no test changes."""
    from fakes.tiny import save_tiny_llama

    return save_tiny_llama(tmp_path_factory.mktemp("tiny"), num_attention_heads=4)


@pytest.fixture
def server(monkeypatch, tokenizers):
    """A server of completions: `answer` makes the reply to a body, `models` is its list, `seen` what it was asked."""
    from fakes import http_server
    from fakes.completion_server import Handler, completion
    from reasonrank.engines import openai

    monkeypatch.setattr(openai, "load_tokenizer", tokenizers)
    with http_server.listening(Handler) as server:
        server.seen, server.answer = [], lambda body: completion()
        server.models = 200, {"data": [{"id": "served-name", "max_model_len": 100}]}
        yield server
