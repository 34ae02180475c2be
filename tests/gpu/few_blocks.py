"""Runs shipped recipes on a few blocks of their model's shape with random weights: two steps each, planned and measured.

In:    the program; recipes/8b-qlora.toml, 14b-qlora.toml, 70b-qlora.toml.
Out:   a line a recipe: losses, planned and measured peak; exit 1 if one fails, its loss is no number, or its peak is beyond the plan's by 10 %.
Never: downloads the models; leaves a folder behind.

Run:   python3 few_blocks.py --tune target/release/tune --device cpu
"""

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import random_model

ROOT = Path(__file__).resolve().parent.parent.parent
RECIPES = {"8b-qlora": ("8b", 2), "14b-qlora": ("14b", 2), "70b-qlora": ("70b", 1)}
OVER_PLAN = 1.10


def main():
    """Every recipe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tune", type=Path, default=ROOT / "target" / "release" / "tune")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--length", type=int, default=128, help="tokens of a row; a step is two of them")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--work", type=Path, default=None, help="where models are written: up to 6 GB")
    parser.add_argument("recipes", nargs="*", help="names; default: all")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.recipes if name not in RECIPES]
    if unknown:
        parser.error(f"no such recipe: {' '.join(unknown)}; there are {' '.join(RECIPES)}")
    failed = 0
    for name in arguments.recipes or RECIPES:
        shape, blocks = RECIPES[name]
        work = Path(tempfile.mkdtemp(prefix="few-blocks-", dir=arguments.work))
        try:
            failed += not run(arguments, name, shape, blocks, work)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    sys.exit(1 if failed else 0)


def run(arguments, name, shape, blocks, work):
    """One recipe; whether it holds."""
    random_model.write(work / "model", shape, blocks)
    keys = {
        "model.source": f'"{work / "model"}"',
        "model.precision": f'"{arguments.precision}"',
        "hardware.device": f'"{arguments.device}"',
        "data.sequence_length": arguments.length,
        "data.too_long": '"truncate"',
        "data.allow": '["truncated-answer"]',
        "eval.max_rows": 4,
        "train.tokens_per_step": 2 * arguments.length,
        "train.steps": 2,
    }
    command = [str(arguments.tune), "run", str(ROOT / "recipes" / f"{name}.toml"), "--output", str(work / "run")]
    command += [part for key, value in keys.items() for part in ["--set", f"{key}={value}"]]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        print(f"{name}: exit {result.returncode}: {result.stderr.strip().splitlines()[-1]}", flush=True)
        return False
    lines = [json.loads(line) for line in (work / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    plan = json.loads((work / "run" / "plan.json").read_text())["memory"]["peak_bytes"]
    pools = [step["pool_reserved_bytes"] for step in steps if "pool_reserved_bytes" in step]
    peak = max(pools) if pools and arguments.device.startswith("cuda") else steps[-1]["peak_rss_bytes"]
    losses = [step["loss"] for step in steps]
    holds = all(math.isfinite(loss) for loss in losses) and peak <= OVER_PLAN * plan
    shown = " ".join(f"{loss:.4f}" for loss in losses)
    print(
        f"{name}: {blocks} blocks, losses {shown}; planned {plan / 1e9:.2f} GB, measured {peak / 1e9:.2f} GB"
        f"{'' if holds else ': WRONG'}",
        flush=True,
    )
    return holds


if __name__ == "__main__":
    main()
