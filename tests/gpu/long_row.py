"""Trains on one row of 32,768 tokens, half and a quarter of it: memory must grow with the tokens, not with their square, and stay within the plan.

In:    the program, a device.
Out:   a line a length: planned and measured peak, and what a token added; exit 1 if a peak is 5 % beyond its plan, if the plan does not grow
       with the tokens, or if a token takes more than 1.3 times what the plan gives it. Scores of all pairs would be 4 GB a head.
Never: a model larger than it needs: one block of width 64.

Run:   python3 long_row.py --tune target/release/tune --device cpu
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import random_model

ROOT = Path(__file__).resolve().parent.parent.parent
OVER_PLAN, OVER_TOKEN, OVER_LINEAR = 1.05, 1.3, 1.05
RECIPE = """name = "long-row"
model = {{ source = "{model}", precision = "{precision}" }}
method = {{ kind = "lora", rank = 8, alpha = 8 }}
data = {{ sequence_length = {length}, too_long = "truncate", allow = ["truncated-answer"], sources = [{{ path = "{rows}" }}] }}
train = {{ steps = 2, tokens_per_step = {length}, micro_batch = 1 }}
optimizer = {{ kind = "adamw", learning_rate = 1e-4 }}
schedule = {{ kind = "constant" }}
log = {{ tensorboard = false }}
hardware = {{ device = "{device}" }}
"""


def peak(arguments, work, length):
    """Planned and measured peak of one step on one row."""
    text = RECIPE.format(model=work / "model", rows=work / "rows.jsonl", length=length, device=arguments.device, precision=arguments.precision)
    (work / "recipe.toml").write_text(text)
    run = work / str(length)
    result = subprocess.run([arguments.tune, "run", work / "recipe.toml", "--output", run], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{length} tokens: exit {result.returncode}: {result.stderr.strip().splitlines()[-1]}")
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [step for step in steps if "loss" in step]
    # The document's last part is shorter, and may come first.
    if all(step["tokens"] != length for step in steps):
        sys.exit(f"no step has {length} tokens: {[step['tokens'] for step in steps]}")
    step = steps[-1]
    own = arguments.device.startswith("cuda")
    return json.loads((run / "plan.json").read_text())["memory"]["peak_bytes"], step["pool_reserved_bytes" if own else "peak_rss_bytes"]


def main():
    """A quarter, a half and the whole row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tune", type=Path, default=ROOT / "target" / "release" / "tune")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--length", type=int, default=32768)
    arguments = parser.parse_args()
    arguments.tune = arguments.tune.resolve()
    work = Path(tempfile.mkdtemp(prefix="long-row-"))
    try:
        random_model.write(work / "model", "tiny")
        words = " ".join(f"{at} bytes" for at in range(arguments.length))
        (work / "rows.jsonl").write_text(json.dumps({"text": words}) + "\n")
        lengths = [arguments.length // 4, arguments.length // 2, arguments.length]
        found = [peak(arguments, work, length) for length in lengths]
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for length, (planned, measured) in zip(lengths, found):
        print(f"{length} tokens: planned {planned / 1e6:.0f} MB, measured {measured / 1e6:.0f} MB, {measured / planned:.3f}")
    quarter, half, whole = found
    planned, measured = (whole[at] - quarter[at] for at in (0, 1))
    linear = (whole[0] - half[0]) / (half[0] - quarter[0]) / 2
    print(f"a token takes {measured / planned:.2f} times its plan; in the plan one of the second half {linear:.2f} times one of the second quarter")
    within = all(measured <= OVER_PLAN * planned for planned, measured in found)
    sys.exit(0 if within and measured <= OVER_TOKEN * planned and linear <= OVER_LINEAR else 1)


if __name__ == "__main__":
    main()
