"""How large the fault suite is, and the record of what it found.

Small in `make test`; with REASONRANK_FAULTS=full, as `make faults` sets it, of the sizes in docs/RESULTS.md, and each
test adds its figures to data/records/faults.json.
"""

import os
import time

import pytest

from fakes.commands import MAKE, RERANK
from fakes.rerank_script import NumberEngine, write_inputs
from reasonrank import stages
from reasonrank.cli import rerank
from reasonrank.cli.main import main
from test_own_data import own_data

FULL = os.environ.get("REASONRANK_FAULTS") == "full"
HARDWARE = stages.hardware  # some tests put a quicker one in its place
RECORD = stages.ROOT / "data" / "records" / "faults.json"


@pytest.fixture
def size():
    """`size(full, small)`: the one that is run."""
    return lambda full, small: full if FULL else small


@pytest.fixture
def report():
    """`report(part, figure=value, ...)`: kept in the record of a full run."""
    started = time.monotonic()

    def keep(part, **figures):
        if FULL:
            kept = stages.read_json(RECORD)["result"] if RECORD.exists() else {}
            figures |= {"seconds": round(time.monotonic() - started), "commit": stages.commit()}
            source = stages.provenance({"sizes": "full"}, 0) | {"hardware": HARDWARE()}
            stages.write_json(RECORD, {"stage": "faults", **source, "result": kept | {part: figures}})

    return keep


@pytest.fixture(scope="session")
def good(tmp_path_factory):
    """Whole inputs of every kind."""
    at, patch = tmp_path_factory.mktemp("good"), pytest.MonkeyPatch()
    write_inputs(at)
    own_data(
        at / "mine", [{"query": "q-apple", "passage": "apple"}, {"query": "q-bread", "passage": "bread"}]
    )
    patch.setattr(stages, "hardware", dict)
    patch.setattr(rerank, "open_engine", lambda *_: NumberEngine())
    try:
        words = RERANK.replace("new.trec", "out.trec") + " --traces"
        assert main(words.format(at=at).split()) == 0
        assert main(MAKE.replace("own", "run").format(at=at).split()) == 0
    finally:
        patch.undo()
    return at
