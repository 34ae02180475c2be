"""Times an AdamW update in memory: this project's kernel, DeepSpeed's CPUAdam and torch's fused AdamW, in turns.

In:    the program `tune` (--tune PATH); packages of adam-requirements.txt. DeepSpeed compiles its kernel at the first
       use, which takes a C++ compiler, ninja and a minute; if it cannot, it is left out and the reason printed.
Out:   stdout: a Markdown table (medians over all turns) and one JSON object.
Never: runs two at once; counts the first step of a turn.

Run:   cargo build --release
       python tests/peers/adam.py --tune target/release/tune --elements 67108864 --turns 5
"""

import argparse
import json
import os
import statistics
import subprocess
import time

import torch

RATE, BETAS, EPSILON, DECAY = 1e-5, (0.9, 0.999), 1e-8, 0.01


def parse():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tune", required=True, help="the program")
    parser.add_argument("--elements", type=int, default=64 << 20)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="counted steps a turn")
    return parser.parse_args()


def parameter(elements):
    """One flat f32 tensor with a gradient."""
    values = torch.arange(elements, dtype=torch.int64).remainder_(1009).float().mul_(1e-3).sub_(0.5)
    made = torch.nn.Parameter(values)
    made.grad = values.clone()
    return made


def deepspeed_adam(elements):
    """DeepSpeed's optimizer, or None and why."""
    try:
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        return DeepSpeedCPUAdam([parameter(elements)], lr=RATE, betas=BETAS, eps=EPSILON, weight_decay=DECAY, adamw_mode=True), None
    except Exception as error:  # whatever its build raises
        return None, f"{type(error).__name__}: {error}".splitlines()[0]


def turn(optimizer, steps):
    """Seconds of each counted step."""
    seconds = []
    for _ in range(steps + 1):
        started = time.perf_counter()
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


def ours(program, elements, steps):
    """The report of `tune bench adam`."""
    command = [program, "bench", "adam", "--parameters", str(elements), "--steps", str(steps), "--json"]
    output = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(output.stdout)


def main():
    """Turns, then the table."""
    arguments = parse()
    torch.set_num_threads(os.cpu_count())
    torch_fused = torch.optim.AdamW([parameter(arguments.elements)], lr=RATE, betas=BETAS, eps=EPSILON, weight_decay=DECAY, fused=True)
    deepspeed, reason = deepspeed_adam(arguments.elements)
    seconds = {"tune": [], "torch fused": [], "DeepSpeed CPUAdam": []}
    triads = []
    for _ in range(arguments.turns):
        report = ours(arguments.tune, arguments.elements, arguments.steps)
        seconds["tune"].append(report["seconds"])
        triads.append(report["triad_bytes_per_second"])
        seconds["torch fused"] += turn(torch_fused, arguments.steps)
        if deepspeed:
            seconds["DeepSpeed CPUAdam"] += turn(deepspeed, arguments.steps)
    medians = {name: statistics.median(all_seconds) for name, all_seconds in seconds.items() if all_seconds}
    triad = statistics.median(triads)
    print(f"{arguments.elements} parameters, {os.cpu_count()} threads, triad {triad / 1e9:.1f} GB/s, torch {torch.__version__}\n")
    print("| update | ms | GB/s (28 bytes a parameter) | of triad | times ours |\n|---|---|---|---|---|")
    for name, median in medians.items():
        rate = 28 * arguments.elements / median
        print(f"| {name} | {median * 1e3:.1f} | {rate / 1e9:.1f} | {rate / triad:.2f} | {median / medians['tune']:.2f} |")
    if reason:
        print(f"\nDeepSpeed could not be built: {reason}")
    print(json.dumps({"elements": arguments.elements, "seconds": medians, "triad_bytes_per_second": triad, "deepspeed_missing": reason}))


if __name__ == "__main__":
    main()
