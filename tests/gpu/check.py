"""Checks a device: kernels, losses, the tiers, memory against the plan, speed against the device's own products and against PEFT.

In:    the program, a device's name; tests/fixtures and recipes/data beside this file. Nothing from a network.
Out:   a table on stdout, check.json in --out; exit 1 if something that must hold does not.
Never: stops at the first failure; leaves models behind; compares figures of different machines.

Run:   tests/gpu/check.sh --tune target/release/tune --device cuda:0
Small: --blocks 2 --shape smollm2 --rows 1 --length 128 runs on a software device too.
"""

import argparse
import hashlib
import json
import math
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import random_model

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FIXTURES = HERE.parent / "fixtures"
FAMILIES = ["llama", "llama3", "mistral", "qwen2", "qwen3", "gemma3", "smollm2"]
ROWS = ROOT / "recipes" / "data" / "memory-arithmetic-train.jsonl"
# Losses may differ by what TF32 and bf16 round; from the same rows, relative.
LOSS = {"f32": 2e-3, "bf16": 2e-2}
PEAK_OVER_PLAN = (0.5, 1.10)
SECONDS = 600


def parse():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tune", type=Path, default=ROOT / "target" / "release" / "tune")
    parser.add_argument("--device", default="cuda:0", help="cuda:N, vulkan:N or cpu")
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), help="folder for check.json and the commands' output")
    parser.add_argument("--shape", choices=random_model.SHAPES, default="8b", help="what speed is measured on")
    parser.add_argument("--blocks", type=int, default=8, help="its blocks: as many as the time allows")
    parser.add_argument("--rows", type=int, default=4, help="rows of a micro-batch")
    parser.add_argument("--length", type=int, default=2048, help="tokens of a row")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--small-blocks", type=int, default=30, help="blocks of SmolLM2's shape where correctness is looked at")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="what runs then is ended, nothing new begins")
    return parser.parse_args()


class Check:
    """What was found so far."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.tune = arguments.tune.resolve()
        self.out = arguments.out.resolve()
        self.out.mkdir(parents=True, exist_ok=True)
        self.work = Path(tempfile.mkdtemp(prefix="gpu-check-", dir=self.out))
        self.begun = time.monotonic()
        self.found = []
        self.figures = {}

    def note(self, what, holds, figure, asked=""):
        """One line of the table; `holds` None is a figure without a bound."""
        self.found.append({"what": what, "holds": holds, "figure": figure, "asked": asked})
        word = {True: "ok", False: "WRONG", None: ""}[holds]
        print(f"{what:<58} {figure:<34} {asked:<22} {word}", flush=True)

    def out_of_time(self, what):
        """Whether nothing new may begin; says so once for each part."""
        late = time.monotonic() - self.begun > self.arguments.seconds
        if late:
            self.note(what, False, "not begun: out of time", f"{self.arguments.seconds} s in all")
        return late

    def limited(self, command):
        """Runs a command for as long as there is time; one that takes longer has failed, and says so."""
        left = max(1.0, self.arguments.seconds - (time.monotonic() - self.begun))
        try:
            return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=left)
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 124, "", f"ended after {left:.0f} s: {self.arguments.seconds} s in all")

    def run(self, name, *command):
        """Runs tune; its output is kept. Returns (ok, stdout)."""
        log = self.out / f"{name}.txt"
        result = self.limited([self.tune, *command])
        log.write_text(f"$ tune {' '.join(map(str, command))}\n{result.stdout}\n{result.stderr}")
        if result.returncode != 0:
            self.note(name, False, f"exit {result.returncode}: {last_line(result.stderr)[:200]}", "exit 0")
        return result.returncode == 0, result.stdout


def last_line(text):
    """The last line with something in it."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "nothing on stderr"


def recipe(model, method, arguments):
    """A recipe whose rows are packed full."""
    return f"""name = "check"
[model]
source = "{model}"
precision = "{arguments['precision']}"
[method]
kind = "{method}"
rank = 16
alpha = 32
dropout = 0.0
targets = "all-linear"
[data]
sequence_length = {arguments['length']}
packing = true
too_long = "truncate"
allow = ["truncated-answer"]
[[data.sources]]
path = "{ROWS}"
[train]
steps = {arguments['steps']}
tokens_per_step = {arguments['rows'] * arguments['length']}
micro_batch = {arguments['rows']}
seed = 42
[optimizer]
kind = "adamw"
learning_rate = 1e-4
betas = [0.9, 0.999]
epsilon = 1e-8
weight_decay = 0.0
max_grad_norm = 1.0
[schedule]
kind = "constant"
[checkpoint]
every_steps = 1000
[offload]
weights = "{arguments.get('weights', 'auto')}"
nvme = ["{arguments['nvme']}"]
[log]
tensorboard = false
[hardware]
device = "{arguments['device']}"
"""


class Run:
    """A finished run directory."""

    def __init__(self, folder):
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        self.steps = [line for line in lines if "loss" in line]
        self.plan = json.loads((folder / "plan.json").read_text())
        self.adapter = folder / "adapter"

    def losses(self):
        return [step["loss"] for step in self.steps]

    def tokens_per_second(self):
        """Median after the first two steps: those compile and tune."""
        later = self.steps[2:] or self.steps
        return statistics.median(step["tokens_per_second"] for step in later)

    def peak_bytes(self):
        """What the device's allocator took; on the CPU the process."""
        pools = [step["pool_reserved_bytes"] for step in self.steps if "pool_reserved_bytes" in step]
        return max(pools) if pools else self.steps[-1]["peak_rss_bytes"]

    def planned_bytes(self):
        """The plan's peak without what the process takes beside its tensors, where only tensors were measured."""
        runtime = 0
        if "pool_reserved_bytes" in self.steps[-1]:
            runtime = sum(term["bytes"] for term in self.plan["memory"]["terms"] if term["name"] == "runtime")
        return self.plan["memory"]["peak_bytes"] - runtime

    def adapter_hash(self):
        return hashlib.sha256((self.adapter / "adapter_model.safetensors").read_bytes()).hexdigest()


def train(check, name, model, method, **settings):
    """One run; None where it failed."""
    folder = check.work / name
    settings = {"nvme": check.work, "device": check.arguments.device, "precision": "bf16"} | settings
    path = check.work / f"{name}.toml"
    path.write_text(recipe(model, method, settings))
    ok, _ = check.run(name, "run", path, "--output", folder)
    return Run(folder) if ok else None


def kernels(check):
    """Every operation against its twin, and what products reach."""
    ok, text = check.run("kernels", "bench", "kernels", "--device", check.arguments.device, "--json")
    try:
        formats = json.loads(text)["formats"]
    except ValueError:
        return
    for one in formats:
        results = one["results"]
        wrong = [result for result in results if not result["holds"]]
        # What is not finite has no number.
        error = lambda result: math.inf if result["error"] is None else result["error"]
        worst = max(results, key=lambda result: error(result) / result["bound"])
        figure = f"{len(results) - len(wrong)} of {len(results)}; worst {error(worst):.1e}"
        check.note(f"kernels are their twins, {one['format']}", not wrong, figure, f"{worst['bound']:.1e}: {worst['operation']}"[:40])
        check.note(f"products, {one['format']}", None, f"{one['product_flops'] / 1e12:.3f} TFLOP/s at {one['product_side']}")
        check.figures[f"product_flops_{one['format']}"] = one["product_flops"]


def word_tokenizer(folder):
    """A tokenizer of whole words: the fixtures' models have as few as 48 ids."""
    letters = [chr(ord("a") + at) for at in range(26)]
    words = ["<unk>", "<s>", "</s>", *letters, "read", "write", "load", "plan", "card", "drive", "byte", "bit"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": at, "content": word} | flags for at, word in enumerate(words[:3])],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {word: at for at, word in enumerate(words)}, "unk_token": "<unk>"},
    }
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "model_max_length": 512}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"} | named))
    return words[3:]


def fixture(check, family):
    """A fixture's model and rows that its vocabulary holds."""
    folder, rows = check.work / family, check.work / "words.jsonl"
    if not folder.exists():
        shutil.copytree(FIXTURES / family, folder)
        words, source = word_tokenizer(folder), random.Random(3)
        text = lambda: " ".join(source.choice(words) for _ in range(100))
        rows.write_text("".join(json.dumps({"text": text()}) + "\n" for _ in range(20)))
    return folder, rows


def evaluated(check, name, family, device, precision):
    """Loss of a fixture's model."""
    folder, rows = fixture(check, family)
    command = ["eval", folder, "--data", rows, "--sequence-length", 512, "--device", device, "--precision", precision, "--json"]
    ok, text = check.run(name, *command)
    return find(json.loads(text), "loss") if ok else None


def find(value, key):
    """The first number under a key, however deep."""
    if isinstance(value, dict):
        if isinstance(value.get(key), (int, float)):
            return value[key]
        value = list(value.values())
    if isinstance(value, list):
        return next((found for found in (find(one, key) for one in value) if found is not None), None)
    return None


def families(check):
    """Losses of every family, here and on the processor."""
    for precision in check.precisions:
        worst, failed = 0.0, []
        for family in FAMILIES:
            there = evaluated(check, f"eval-{family}-{precision}-cpu", family, "cpu", "f32")
            here = evaluated(check, f"eval-{family}-{precision}", family, check.arguments.device, precision)
            if here is None or there is None:
                failed.append(family)
                continue
            worst = max(worst, abs(here - there) / there)
        holds = not failed and worst <= LOSS[precision]
        figure = f"largest difference {worst:.1e}" + (f"; failed: {' '.join(failed)}" if failed else "")
        check.note(f"losses of {len(FAMILIES)} families, {precision} beside the CPU's f32", holds, figure, f"{LOSS[precision]:.0e}")


def training(check):
    """SmolLM2's shape: the first losses beside the processor's, tiers to the bit, memory against the plan."""
    arguments = check.arguments
    model = check.work / "smollm2"
    random_model.write(model, "smollm2", arguments.small_blocks)
    small = {"rows": 1, "length": min(arguments.length, 256)}
    for method in ["lora", "qlora"]:
        if check.out_of_time(f"{method} of SmolLM2's shape"):
            return
        here = train(check, f"{method}-device", model, method, steps=4, weights="device", precision="f32", **small)
        there = train(check, f"{method}-cpu", model, method, steps=2, weights="auto", precision="f32", **small | {"device": "cpu"})
        if not here or not there:
            continue
        pairs = list(zip(here.losses(), there.losses()))
        worst = max(abs(a - b) / b for a, b in pairs)
        falls = here.losses()[-1] < here.losses()[0]
        check.note(f"{method}: first losses beside the CPU's", worst <= LOSS["f32"], f"difference {worst:.1e}", f"{LOSS['f32']:.0e}")
        check.note(f"{method}: the loss falls", falls, f"{here.losses()[0]:.4f} to {here.losses()[-1]:.4f}")
        for tier in ["dram", "nvme"]:
            paged = train(check, f"{method}-{tier}", model, method, steps=4, weights=tier, precision="f32", **small)
            if paged:
                same = paged.adapter_hash() == here.adapter_hash() and paged.losses() == here.losses()
                check.note(f"{method}: weights in {tier}, same bits", same, "same" if same else f"{paged.losses()} {here.losses()}")


def step_flops(sizes, tokens, length):
    """Arithmetic of a step with a frozen base: forward and the inputs' gradients, attention with half its scores masked."""
    products = 4.0 * tokens * (sizes["linear"] + sizes["head"])
    attention = sizes["layers"] * sizes["attention_width"] * tokens * length * (2.0 + 5.0)
    return products + attention


def speed(check):
    """A large shape with few blocks: tokens a second, share of the device's own products, memory, and PEFT beside it."""
    arguments = check.arguments
    if check.out_of_time("speed"):
        return
    model = check.work / arguments.shape
    sizes = random_model.write(model, arguments.shape, arguments.blocks)
    tokens = arguments.rows * arguments.length
    precision = check.precisions[-1]
    flops = step_flops(sizes, tokens, arguments.length)
    for method in ["lora", "qlora"]:
        if check.out_of_time(f"speed of {method}"):
            return
        name = f"{method}-{arguments.shape}"
        what = f"{method}, {arguments.shape} shape, {arguments.blocks} blocks, {arguments.rows} x {arguments.length}"
        run = train(check, name, model, method, steps=arguments.steps, rows=arguments.rows, length=arguments.length, precision=precision)
        if not run:
            continue
        rate = run.tokens_per_second()
        check.figures[f"{method}_tokens_per_second"] = rate
        check.note(what, None, f"{rate:.0f} tokens/s")
        peak = check.figures.get(f"product_flops_{precision}")
        if peak:
            share = flops * rate / tokens / peak
            check.figures[f"{method}_share_of_products"] = share
            check.note(f"{method}: share of the device's product rate", share >= 0.4, f"{share:.0%}", "at least 40 %")
        ratio = run.peak_bytes() / run.planned_bytes()
        low, high = PEAK_OVER_PLAN
        figure = f"{run.peak_bytes() / 1e9:.2f} of {run.planned_bytes() / 1e9:.2f} GB, {ratio:.2f}"
        check.note(f"{method}: peak memory against the plan", low <= ratio <= high, figure, f"{low} to {high}")
        check.figures[f"{method}_peak_bytes"] = run.peak_bytes()
        peers(check, method, model, run, precision)


def peers(check, method, model, run, precision):
    """PEFT with the same adapter's shape on rows of the same size."""
    arguments = check.arguments
    python = os.environ.get("PEERS_PYTHON", sys.executable)
    needed = "import torch, transformers, peft" + (", bitsandbytes" if method == "qlora" else "")
    there = subprocess.run([python, "-c", needed], capture_output=True)
    if there.returncode != 0:
        check.note(f"{method}: PEFT beside it", None, "not there", "torch, peft" + (", bitsandbytes" if method == "qlora" else ""))
        return
    if check.out_of_time(f"{method}: PEFT beside it"):
        return
    row = [(17 * at) % 250 + 3 for at in range(arguments.length)]
    rows = [{"tokens": row, "trained": [at > 0 for at in range(arguments.length)]}] * arguments.rows
    path = check.work / "rows.json"
    path.write_text(json.dumps({"rows": rows}))
    device = "cuda" if arguments.device.startswith("cuda") else "cpu"
    script = HERE.parent / "peers" / "peft_speed.py"
    command = [python, "-W", "ignore", script, "--model", model, "--adapter", run.adapter, "--rows", path, "--steps", arguments.steps]
    command += ["--precision", precision, "--device", device, *(["--base", "nf4"] if method == "qlora" else [])]
    result = check.limited(command)
    (check.out / f"peft-{method}.txt").write_text(result.stdout + result.stderr)
    if result.returncode != 0:
        check.note(f"{method}: PEFT beside it", None, f"failed: {last_line(result.stderr)[:120]}")
        return
    summary = json.loads(result.stdout.splitlines()[-1])
    ratio = run.tokens_per_second() / summary["tokens_per_second"]
    check.figures[f"{method}_over_peft"] = ratio
    check.note(f"{method}: tokens/s over PEFT's", ratio >= 1.0, f"{ratio:.2f} of {summary['tokens_per_second']:.0f}", "at least 1, aim 1.5")
    if summary.get("peak_device_bytes"):
        memory = run.peak_bytes() / summary["peak_device_bytes"]
        check.figures[f"{method}_memory_over_peft"] = memory
        check.note(f"{method}: memory over PEFT's", memory <= 0.8, f"{memory:.2f} of {summary['peak_device_bytes'] / 1e9:.2f} GB", "at most 0.8")


def main():
    """Every part, then the file."""
    arguments = parse()
    check = Check(arguments)
    try:
        kernels(check)
        check.precisions = [name for name in ["f32", "bf16"] if f"product_flops_{name}" in check.figures] or ["f32"]
        families(check)
        training(check)
        speed(check)
    finally:
        shutil.rmtree(check.work, ignore_errors=True)
    seconds = time.monotonic() - check.begun
    wrong = [one for one in check.found if one["holds"] is False]
    report = {
        "device": arguments.device,
        "machine": platform.machine(),
        "arguments": {name: str(value) for name, value in vars(arguments).items()},
        "seconds": seconds,
        "found": check.found,
        "figures": check.figures,
    }
    (check.out / "check.json").write_text(json.dumps(report, indent=1))
    print(f"\n{len(check.found) - len(wrong)} of {len(check.found)} lines hold or have no bound; {seconds:.0f} s; {check.out / 'check.json'}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
