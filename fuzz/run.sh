#!/bin/sh
# Fuzzes every reader for a bounded time: fuzz/run.sh SECONDS. Stable toolchain, no cargo-fuzz.
# Ends with an error at the first finding, and prints the file that repeats it.
set -eu
seconds=${1:?usage: fuzz/run.sh SECONDS}
cd "$(dirname "$0")"
targets="jsonl json csv tsv parquet arrow text compressed shapes template"
build=${CARGO_TARGET_DIR:-$PWD/target}
export CARGO_TARGET_DIR="$build"
host=$(rustc -vV | sed -n 's/^host: //p')
work="$build/fuzz-runs"
mkdir -p "$work/found"
# The coverage that libFuzzer steers by, as cargo-fuzz sets it; --target keeps build scripts without it.
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares" \
    cargo build --release --locked --target "$host" --bins
"$build/$host/release/seeds" "$work/seeds"
# Temporary files in memory, where there is such a folder.
if [ -d /dev/shm ]; then TMPDIR=/dev/shm; export TMPDIR; fi
count=$(echo "$targets" | wc -w)
each=$((seconds / count > 0 ? seconds / count : 1))
for target in $targets; do
    mkdir -p "$work/corpus/$target"
    log="$work/$target.log"
    if ! "$build/$host/release/$target" "$work/corpus/$target" "$work/seeds/$target" -max_total_time="$each" -timeout=20 \
        -rss_limit_mb=2048 -max_len=65536 -artifact_prefix="$work/found/$target-" >"$log" 2>&1; then
        tail -n 30 "$log"
        echo "fuzz: $target failed; repeat with $build/$host/release/$target FILE, where FILE is:"
        ls "$work/found/$target-"*
        exit 1
    fi
    echo "fuzz: $target: $(grep -o 'Done .*' "$log" | tail -n 1), $(grep -o 'cov: [0-9]*' "$log" | tail -n 1)"
done
