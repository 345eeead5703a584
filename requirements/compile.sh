#!/usr/bin/env bash
# Pins every package of the two set-ups: requirements/cpu.txt and requirements/gpu.txt.
# The files name no index, so they install from whichever one your pip or uv is set to.
set -euo pipefail
cd "$(dirname "$0")/.."
links=${PIP_FIND_LINKS:+--find-links "$PIP_FIND_LINKS"}
never="; python_version < '3'"
for kind in cpu gpu; do
  overrides=$(mktemp)
  # uv reads overrides given by file in addition to those of pyproject.toml
  if [ "$kind" = cpu ]; then
    for package in cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cudnn-cu13 \
        nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvshmem-cu13; do
      echo "$package $never"
    done > "$overrides"
  fi
  python3 -m uv pip compile pyproject.toml --extra "$kind" --extra dev --universal --python-version 3.11 \
    $links --overrides "$overrides" --no-emit-index-url --no-emit-find-links --no-header --annotation-style line \
    --quiet "$@" -o "requirements/$kind.txt"
  # one line for torch: its CPU build carries a local version that other indexes do not know
  python3 - "requirements/$kind.txt" "$kind" <<'PY'
import sys
path, kind = sys.argv[1:]
lines = [line for line in open(path) if not line.startswith("torch==")]
lines.append("torch==2.13.0\n")
head = f"# Made by requirements/compile.sh from pyproject.toml, extras {kind} and dev. Install with `uv pip sync`.\n"
open(path, "w").writelines([head, *sorted(lines)])
PY
  rm -f "$overrides"
done
