"""Times the README's two commands as a new user runs them: a fresh clone, a fresh environment, empty caches.

    python benchmarks/fresh_clone.py [--profiles smoke default] [--test] [--keep DIR] [--out data/records/timing.json]

Each `make reproduce` runs twice; the second has nothing to do. Writes a record with the hardware, prints the
table, then one JSON line. Nothing outside a temporary folder is written, but for the record.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def timed(command: list[str], folder: Path, environment: dict[str, str]) -> float:
    """Wall-clock seconds of a command; its failure ends the benchmark."""
    print("+", " ".join(command), flush=True)
    begin = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profiles", nargs="*", default=["default", "smoke"])
    parser.add_argument("--test", action="store_true", help="time `make test` too")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "records" / "timing.json")
    parser.add_argument("--keep", type=Path, help="a folder to copy the runs of the clone to")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "lib"))
    from reasonrank import stages

    config = {"profiles": options.profiles, "test": options.test}
    record = {"stage": "timing", **stages.provenance(config, 0)}  # before the runs: the commit that is cloned
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        empty = {"XDG_CACHE_HOME": f"{folder}/cache", "UV_CACHE_DIR": f"{folder}/uv"}
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"} | empty
        for number, profile in enumerate(options.profiles):
            command = ["make", "reproduce", f"PROFILE={profile}"]
            note = ", set-up included" if number == 0 else ""
            what = f"`{' '.join(command)}`{note}"
            rows.append({"what": what, "seconds": timed(command, clone, environment)})
            rows.append({"what": "the same again", "seconds": timed(command, clone, environment)})
            if options.keep:
                shutil.copytree(clone / "runs" / profile, options.keep / profile, dirs_exist_ok=True)
        if options.test:
            rows.append({"what": "`make test`", "seconds": timed(["make", "test"], clone, environment)})
    stages.write_json(options.out, record | {"result": {"rows": rows}})
    for row in rows:
        print(f"{row['what']:60s}{row['seconds']:8.1f} s")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
