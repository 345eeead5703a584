#!/usr/bin/env bash
# One GPU, a few minutes at a time: train, evaluate and time a profile without vLLM, and keep what is small.
#
#   tools/gpu_run.sh [PROFILE [OUT [STEP...]]]
#
# PROFILE: a name or file (worked); OUT: a folder (runs/gpu); steps: lists, sft, rl, evaluate, latency, speed (all).
# A step takes over what the one before left in OUT/run, so that each can be a command of its own under a time limit.
# OUT gets the records, the figures, both adapters and the log. Needs Python with the packages of requirements/gpu.txt;
# vLLM may be missing: answers are written by transformers.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${1:-worked} out=$(realpath -m "${2:-runs/gpu}")
steps=("${@:3}")
[ ${#steps[@]} -gt 0 ] || steps=(lists sft rl evaluate latency speed)
export PYTHONPATH=$PWD/lib HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1} TOKENIZERS_PARALLELISM=false
mkdir -p "$out"

notebook() {
  python -m reasonrank run "notebooks/$1.ipynb" --profile "$profile" --run-dir "$out/run" \
    -p evaluation.engine=transformers -p rl.use_vllm=false
  mkdir -p "$out/records"
  cp "$out/run/$1/record.json" "$out/records/$1.json"
  for adapter in "$out/run/$1"/adapter*; do
    [ ! -d "$adapter" ] || cp -r "$adapter" "$out/$1-$(basename "$adapter")"
  done
}

lists() { notebook 01_synthesis && notebook 02_filtering; }
sft() { notebook 03_sft; }
rl() { notebook 04_rl; }
evaluate() { notebook 05_gpu_evaluation; }
latency() { notebook 06_latency_study; }
speed() { python benchmarks/training.py --out "$out/records/training_benchmark.json"; }

for step in "${steps[@]}"; do
  case $step in
    lists | sft | rl | evaluate | latency | speed) "$step" 2>&1 | tee -a "$out/log" ;;
    *) echo "error: $step: expected lists, sft, rl, evaluate, latency or speed" >&2; exit 2 ;;
  esac
done
