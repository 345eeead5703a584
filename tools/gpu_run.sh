#!/usr/bin/env bash
# One GPU, a few minutes at a time: train, evaluate and time a profile without vLLM, and keep what is small.
#
#   tools/gpu_run.sh [PROFILE [OUT [STEP...]]]
#
# PROFILE: a name or file (worked-gpu); OUT: a folder (runs/gpu). Steps, without any: lists, sft, rl, evaluate, latency,
# speed. Two more take a run of the ablations, OUT/run/sweep: ablate makes its points for the seeds 1 to 3, as many at
# once as there are cores; more goes on from its whole recipe of seed 1: other rates and more steps of RL (its points
# are in OUT/run/sweep too), and for each seed the held-out wordings, in OUT/reworded.
# A step takes over what the one before left in OUT/run, so that each can be a command of its own under a time limit.
# OUT/records gets the records, OUT the adapters and the log. Needs Python with the packages of requirements/gpu.txt;
# vLLM may be missing: answers are written by transformers. Several at once share a GPU better under NVIDIA's MPS
# (`nvidia-cuda-mps-control -d`): 12 trainings of the small model did 52 steps a second together on an H200, 32 without.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${1:-worked-gpu} out=$(realpath -m "${2:-runs/gpu}")
steps=("${@:3}")
[ ${#steps[@]} -gt 0 ] || steps=(lists sft rl evaluate latency speed)
export PYTHONPATH=$PWD/lib${PYTHONPATH:+:$PYTHONPATH} HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1} TOKENIZERS_PARALLELISM=false
own=(-p evaluation.engine=transformers -p rl.use_vllm=false)
mkdir -p "$out/records"

# run FOLDER NOTEBOOK OPTION...: a notebook into the folder of a run
run() {
  python -m reasonrank run "notebooks/$2.ipynb" --profile "$profile" --run-dir "$1" "${own[@]}" "${@:3}"
}

# notebook NAME: into OUT/run, its record and adapters into OUT
notebook() {
  run "$out/run" "$1"
  cp "$out/run/$1/record.json" "$out/records/$1.json"
  for adapter in "$out/run/$1"/adapter*; do
    [ ! -d "$adapter" ] || cp -r "$adapter" "$out/$1-$(basename "$adapter")"
  done
}

# whole SEED FOLDER STAGE...: stages of the ablations' whole recipe, taken over into a folder
whole() {
  local point="$out/run/sweep/variant=whole_recipe,seed=$1"
  mkdir -p "$2"
  for stage in "${@:3}"; do
    [ -f "$point/$stage/manifest.json" ] || { echo "error: $point: has no $stage; run the step ablate first" >&2; return 1; }
    cp -al "$point/$stage" "$2"
  done
}

lists() { notebook 01_synthesis && notebook 02_filtering; }
sft() { notebook 03_sft; }
rl() { notebook 04_rl; }
evaluate() { notebook 05_gpu_evaluation; }
latency() { notebook 06_latency_study; }
speed() { python benchmarks/training.py --out "$out/records/training_benchmark.json"; }

ablate() {
  python -m snakemake --cores all --nolock --quiet all --keep-going --rerun-triggers mtime --scheduler greedy \
    --config profile="$profile" run="$out/run" together="$(getconf _NPROCESSORS_ONLN)" sweep="{variant: all, seed: [1, 2, 3]}"
}

further() { # SETTING=VALUE: RL anew from the SFT weights of seed 1
  local at="$out/run/sweep/variant=whole_recipe,seed=1,$1" options=(-p seed=1 -p "$1")
  whole 1 "$at" 01_synthesis 02_filtering 03_sft
  run "$at" 04_rl "${options[@]}"
  run "$at" 05_gpu_evaluation "${options[@]}" -p 'evaluation.systems=[SFT + RL]'
}

reworded() { # SEED: held-out wordings, with the weights of the whole recipe
  local at="$out/reworded/seed=$1"
  whole "$1" "$at" 03_sft 04_rl
  run "$at" 05_gpu_evaluation -p seed="$1" \
    -p 'collections=[worked_complex_reworded, worked_coding_reworded, worked_math_reworded, worked_web_reworded]'
}

more() {
  local jobs=()
  for setting in rl.learning_rate=0.0002 rl.learning_rate=0.001 rl.steps=80; do further "$setting" & jobs+=($!); done
  for seed in 1 2 3; do reworded "$seed" & jobs+=($!); done
  for job in "${jobs[@]}"; do wait "$job"; done
}

for step in "${steps[@]}"; do
  case $step in
    lists | sft | rl | evaluate | latency | speed | ablate | more) "$step" 2>&1 | tee -a "$out/log" ;;
    *) echo "error: $step: expected lists, sft, rl, evaluate, latency, speed, ablate or more" >&2; exit 2 ;;
  esac
done
