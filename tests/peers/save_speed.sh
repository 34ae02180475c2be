#!/usr/bin/env bash
# Saves of SmolLM2's full state (weights and two moments in f32, 1.6 GB) against plain writes of as many bytes, in turns on one disk.
#
# Usage: tests/peers/save_speed.sh TUNE DIR [ROUNDS]
# Each round: dd with conv=fsync; a run that saves at its end only; a run that saves every third step. Prints the stall of a save in steps,
# its rate while nothing trains and while training goes on against dd's, and the memory that saving takes on top.
# Needs: python3, coreutils, 6 GB free in DIR, the model as recipes/smollm2-135m-full-nvme.toml fetches it. Leaves nothing behind.
set -euo pipefail
tune=$(realpath "$1") dir=$2 rounds=${3:-3}
recipes=$(realpath "$(dirname "$0")/../../recipes")
work=$(mktemp -d "$dir/save-speed-XXXXXX")
trap 'rm -rf "$work"' EXIT

run() { # name steps-between-saves
  local classes=()
  for class in weights gradients optimizer activations; do classes+=(--set "offload.$class=device"); done
  (cd "$recipes/.." && "$tune" run recipes/smollm2-135m-full-nvme.toml --output "$work/$1" "${classes[@]}" \
    --set train.steps=10 --set "checkpoint.every_steps=$2" --set checkpoint.keep_last=1 --set eval.max_rows=2 \
    --set eval.exact_match=false --set log.tensorboard=false >/dev/null 2>"$work/$1.log") || { cat "$work/$1.log" >&2; exit 1; }
}

for ((round = 0; round < rounds; round++)); do
  begun=$(date +%s.%N)
  dd if=/dev/zero of="$work/plain" bs=1M count=1540 conv=fsync status=none
  echo "$begun $(date +%s.%N) $((1540 << 20))" >>"$work/dd"
  rm "$work/plain"
  run "plain-$round" 1000
  run "saving-$round" 3
  for kind in plain saving; do
    cp "$work/$kind-$round/metrics.jsonl" "$work/$kind-$round.jsonl"
    rm -r "${work:?}/$kind-$round"
  done
done

python3 - "$work" "$rounds" <<'PY'
import json
import statistics
import sys

work, rounds = sys.argv[1], int(sys.argv[2])
median = statistics.median
dd = [bytes_ / (end - begun) / 1e6 for begun, end, bytes_ in (map(float, line.split()) for line in open(f"{work}/dd"))]
quiet, busy, waited, steps, slower, memory, size = [], [], [], [], [], [], 0
for at in range(rounds):
    lines = {kind: [json.loads(line) for line in open(f"{work}/{kind}-{at}.jsonl")] for kind in ("plain", "saving")}
    times = {kind: {l["step"]: l["step_ms"] for l in lines[kind] if "loss" in l} for kind in lines}
    peak = {kind: max(l["peak_rss_bytes"] for l in lines[kind] if "loss" in l) for kind in lines}
    memory.append((peak["saving"] - peak["plain"]) / 1e6)
    # The first step warms up. Steps 4, 7 and 10 are those during which a save is under way.
    alone = median(times["plain"][step] for step in range(2, 11))
    steps.append(alone)
    slower += [times["saving"][step] - alone for step in (4, 7, 10)]
    for kind in lines:
        for line in lines[kind]:
            save = line.get("checkpoint")
            if save and save["reason"] == "end":
                quiet.append(save["bytes"] / save["seconds"] / 1e6)
            elif save:
                size = save["bytes"]
                busy.append(save["bytes"] / save["seconds"] / 1e6)
                waited.append(save["waited_ms"])

span = lambda values: f"{median(values):.0f} ({min(values):.0f}-{max(values):.0f})"
print(f"{rounds} rounds, state of {size / 1e9:.2f} GB; medians (lowest-highest)")
print(f"plain write, dd with fsync       {span(dd)} MB/s")
print(f"save while nothing trains        {span(quiet)} MB/s, {median(quiet) / median(dd):.2f} of dd")
print(f"save while training goes on      {span(busy)} MB/s, {median(busy) / median(dd):.2f} of dd")
print(f"a step without a save            {span(steps)} ms")
print(f"updates waited for a save        {span(waited)} ms, {median(waited) / median(steps):.2f} steps")
print(f"a step with a save took longer   {span(slower)} ms, {median(slower) / median(steps):.2f} steps")
print(f"peak memory on top               {span(memory)} MB")
PY
