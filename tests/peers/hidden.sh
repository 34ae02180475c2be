#!/usr/bin/env bash
# What paging costs: the same full fine-tune with every class in memory and with every class on NVMe, in turns.
#
# Usage: tests/peers/hidden.sh TUNE RECIPE NVME_DIR ROUNDS STEPS [--set KEY=VALUE ...]
# Needs: python3. Each run's first step is left out. Prints medians of a step's time, waiting by cause, and the ratio.
set -euo pipefail
tune=$1 recipe=$2 nvme=$3 rounds=$4 steps=$5
shift 5
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
common=(--set "train.steps=$steps" --set eval.exact_match=false --set eval.max_rows=1 --set log.tensorboard=false
  --set train.keep=recompute --set "offload.nvme=[\"$nvme\"]" "$@")
for ((round = 0; round < rounds; round++)); do
  for tier in device nvme; do
    sets=()
    for class in weights gradients optimizer activations; do sets+=(--set "offload.$class=$tier"); done
    "$tune" run "$recipe" --output "$work/run" "${common[@]}" "${sets[@]}" >/dev/null 2>&1
    python3 - "$work/run/metrics.jsonl" "$tier" >>"$work/steps" <<'PY'
import json
import sys

for line in open(sys.argv[1]):
    step = json.loads(line)
    if step.get("step_ms") and step["step"] > 1:
        stalls = step["stalls"]
        moved = step["nvme_read_bytes"], step["nvme_write_bytes"]
        print(sys.argv[2], step["step"], step["loss"], step["step_ms"], *stalls.values(), *moved)
PY
    rm -rf "$work/run"
  done
done
python3 - "$work/steps" <<'PY'
import statistics
import sys

rows = {"device": [], "nvme": []}
for line in open(sys.argv[1]):
    tier, *numbers = line.split()
    rows[tier].append([float(x) for x in numbers])
assert {tuple(r[:2]) for r in rows["device"]} == {tuple(r[:2]) for r in rows["nvme"]}, "losses differ"
step = {tier: statistics.median(r[2] for r in rows[tier]) for tier in rows}
names = ["weights", "activations", "gradients", "optimizer"]
waits = {n: statistics.median(r[3 + i] for r in rows["nvme"]) for i, n in enumerate(names)}
read, written = (statistics.median(r[i] for r in rows["nvme"]) / 1e9 for i in (7, 8))
print(f"losses equal to the last digit over {len(rows['nvme'])} steps each")
print(f"step in memory {step['device']:.0f} ms, on NVMe {step['nvme']:.0f} ms, ratio {step['nvme'] / step['device']:.3f}")
print("waiting of a step on NVMe, ms: " + ", ".join(f"{n} {w:.0f}" for n, w in waits.items()))
print(f"NVMe traffic of a step: {read:.2f} GB read, {written:.2f} GB written")
PY
