#!/usr/bin/env bash
# The NVMe tier against fio, in turns on the same directories: sequential, 1 MiB, depth 32, direct, io_uring.
#
# Usage: tests/peers/io.sh TUNE ROUNDS SIZE_GIB DIR [DIR]
# With 64 or more huge pages reserved (vm.nr_hugepages) fio also runs with buffers in them: this machine's virtual disk moves more than
# twice as much from such buffers, and tune's own are transparent huge pages.
# Needs: fio (apt-get install fio), python3. Leaves nothing behind. Prints medians in MiB/s and their ratio.
# fio gets one job per directory; its files are written once before they count, as `tune bench io`'s second write is.
set -euo pipefail
tune=$1 rounds=$2 gib=$3
shift 3
work=$(mktemp)
trap 'rm -f "$work"; for d in "${dirs[@]}"; do rm -rf "$d/fio-peer"; done' EXIT
dirs=("$@")
for d in "${dirs[@]}"; do mkdir -p "$d/fio-peer"; done

huge=()
if [ "$(cat /proc/sys/vm/nr_hugepages)" -ge 64 ]; then huge=(--mem=shmhuge --hugepage-size=2M); fi

fio_run() { # read|write [options]
  local rw=$1 jobs=() each=$((gib * 1024 / ${#dirs[@]}))
  for d in "${dirs[@]}"; do jobs+=(--name="job-${d//\//-}" --directory="$d/fio-peer" --filename=data); done
  shift
  fio --rw="$rw" "$@" --bs=1M --iodepth=32 --direct=1 --ioengine=io_uring --size="${each}M" --group_reporting \
    --output-format=json "${jobs[@]}" |
    python3 -c "import json,sys; print(json.load(sys.stdin)['jobs'][0]['$rw']['bw_bytes'] / 2**20)"
}

fio_run write >/dev/null
for ((round = 0; round < rounds; round++)); do
  w=$(fio_run write) r=$(fio_run read) wh=0 rh=0
  if [ ${#huge[@]} -gt 0 ]; then wh=$(fio_run write "${huge[@]}") rh=$(fio_run read "${huge[@]}"); fi
  "$tune" bench io --path "${dirs[@]}" --size "${gib}GiB" --engine io-uring --json 2>/dev/null |
    python3 -c "
import json, sys
ours = json.load(sys.stdin)
print('$w', '$r', '$wh', '$rh', ours['write_bytes_per_second'] / 2**20, ours['read_bytes_per_second'] / 2**20)" >>"$work"
done
python3 - "$work" "${#dirs[@]}" <<'PY'
import statistics
import sys

rows = [[float(x) for x in line.split()] for line in open(sys.argv[1])]
fio_w, fio_r, huge_w, huge_r, our_w, our_r = (statistics.median(column) for column in zip(*rows))
low_high = [f"{min(c):.0f}-{max(c):.0f}" for c in zip(*rows)]
print(f"paths {sys.argv[2]}, {len(rows)} rounds, medians in MiB/s (lowest-highest)")
print(f"write: fio {fio_w:.0f} ({low_high[0]}), tune {our_w:.0f} ({low_high[4]}), ratio {our_w / fio_w:.2f}")
print(f"read:  fio {fio_r:.0f} ({low_high[1]}), tune {our_r:.0f} ({low_high[5]}), ratio {our_r / fio_r:.2f}")
if huge_w:
    print(f"write: fio in huge pages {huge_w:.0f} ({low_high[2]}), ratio {our_w / huge_w:.2f}")
    print(f"read:  fio in huge pages {huge_r:.0f} ({low_high[3]}), ratio {our_r / huge_r:.2f}")
PY
