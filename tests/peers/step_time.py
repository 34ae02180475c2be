#!/usr/bin/env python3
"""Step times that `tune plan` gives against those that `tune run` takes, over a grid of runs on this machine.

Usage: tests/peers/step_time.py --tune target/release/tune --work DIR [--only PATTERN] [--steps N] [--busy] [--fresh]
Needs: python 3 without packages, 4 GB free in DIR (a real disk: the nvme tier lies there), `tune doctor` before it (or
       `tune bench matmul --rates`), an otherwise idle machine, about 20 minutes. Rows already in DIR/results.jsonl are kept: a run that
       was stopped goes on; --fresh starts anew.
Prints a row for each run and the share of rows within 15 %. The measured time is the median step without the first. With --busy it is
the processor time of the process over the number of cores: on a machine that does other work as well, wall time says little.
"""

import argparse, fnmatch, json, os, re, statistics, struct, subprocess, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WITHIN = 0.15

# hidden, intermediate, layers, heads, key/value heads, vocabulary, tied head
MODELS = {
    "small": (256, 1024, 6, 4, 2, 4096, True),
    "middle": (512, 1536, 10, 8, 2, 16384, True),
    "wide": (1024, 2816, 5, 16, 4, 32000, False),
}


def grid():
    """Name, model and recipe overrides of every run."""
    rows = []

    def row(model, kind, rank, tokens, micro, keep, precision="f32", tier="device", accumulate=1, **more):
        name = f"{model}-{kind}{rank or ''}-{micro}x{tokens}-{keep}-{precision}-{tier}"
        name += f"-acc{accumulate}" if accumulate > 1 else ""
        name += "".join(f"-{key.split('.')[-1]}={value}" for key, value in more.items())
        rows.append((name, dict(model=model, kind=kind, rank=rank, tokens=tokens, micro=micro, keep=keep, precision=precision,
                                tier=tier, accumulate=accumulate, more=more)))

    for model in MODELS:
        row(model, "lora", 16, 512, 2, "retain")
        row(model, "lora", 16, 512, 2, "recompute")
        row(model, "full", 0, 512, 2, "retain")
        row(model, "full", 0, 512, 2, "recompute")
        row(model, "lora", 16, 128, 1, "retain")
        row(model, "full", 0, 128, 1, "retain")
        row(model, "lora", 16, 512, 2, "retain", "bf16")
        row(model, "full", 0, 512, 2, "recompute", "bf16")
    row("small", "lora", 8, 8192, 1, "retain")
    row("small", "full", 0, 8192, 1, "recompute")
    row("small", "lora", 64, 128, 8, "retain")
    row("small", "lora", 4, 1024, 4, "recompute")
    row("small", "lora", 16, 8192, 1, "recompute", "bf16")
    row("middle", "lora", 4, 1024, 2, "retain")
    row("middle", "lora", 64, 1024, 2, "retain")
    row("middle", "lora", 16, 4096, 1, "recompute")
    row("middle", "full", 0, 4096, 1, "recompute")
    row("middle", "lora", 16, 256, 8, "retain")
    row("middle", "full", 0, 256, 1, "retain", accumulate=4)
    row("middle", "lora", 16, 256, 1, "retain", accumulate=4)
    row("middle", "full", 0, 256, 4, "retain", **{"optimizer.kind": "adamw8bit"})
    row("middle", "full", 0, 256, 4, "retain", **{"optimizer.kind": "lion"})
    row("wide", "lora", 32, 2048, 1, "retain")
    row("wide", "full", 0, 256, 1, "retain", accumulate=2)
    row("wide", "lora", 16, 128, 4, "retain", "bf16")
    for tier in ("dram", "nvme"):
        row("middle", "lora", 16, 512, 2, "recompute", tier=tier)
        row("middle", "full", 0, 512, 2, "recompute", tier=tier)
        row("wide", "full", 0, 256, 2, "recompute", tier=tier)
        row("wide", "full", 0, 256, 2, "recompute", "bf16", tier=tier)
    row("middle", "full", 0, 256, 2, "recompute", tier="nvme", accumulate=2)
    row("middle", "full", 0, 512, 2, "recompute", tier="nvme", **{"optimizer.max_grad_norm": "none"})
    for keep, tokens in (("retain", 512), ("recompute", 512), ("retain", 128)):
        row("smollm2", "lora", 16, tokens, 2, keep)
    row("smollm2", "full", 0, 256, 2, "retain")
    row("smollm2", "full", 0, 256, 2, "recompute", tier="nvme", **{"optimizer.max_grad_norm": "none"})
    return rows


def write_model(folder, sizes):
    """A Llama with repeated small random weights, in bf16."""
    hidden, inner, layers, heads, kv_heads, vocabulary, tied = sizes
    folder.mkdir(parents=True, exist_ok=True)
    config = dict(architectures=["LlamaForCausalLM"], model_type="llama", torch_dtype="bfloat16", vocab_size=vocabulary,
                  hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
                  num_key_value_heads=kv_heads, max_position_embeddings=8192, rms_norm_eps=1e-5, hidden_act="silu",
                  rope_theta=10000.0, tie_word_embeddings=tied, attention_bias=False, mlp_bias=False, bos_token_id=0, eos_token_id=2)
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((ROOT / "tests/fixtures/llama" / name).read_bytes())
    kv = hidden // heads * kv_heads
    tensors = [("model.embed_tokens.weight", [vocabulary, hidden])]
    for layer in range(layers):
        base = f"model.layers.{layer}."
        for name, shape in (("self_attn.q_proj", [hidden, hidden]), ("self_attn.k_proj", [kv, hidden]),
                            ("self_attn.v_proj", [kv, hidden]), ("self_attn.o_proj", [hidden, hidden]),
                            ("mlp.gate_proj", [inner, hidden]), ("mlp.up_proj", [inner, hidden]), ("mlp.down_proj", [hidden, inner])):
            tensors.append((base + name + ".weight", shape))
        tensors += [(base + "input_layernorm.weight", [hidden]), (base + "post_attention_layernorm.weight", [hidden])]
    tensors.append(("model.norm.weight", [hidden]))
    if not tied:
        tensors.append(("lm_head.weight", [vocabulary, hidden]))
    header, at = {}, 0
    for name, shape in tensors:
        size = 2 * (shape[0] * (shape[1] if len(shape) > 1 else 1))
        header[name] = dict(dtype="BF16", shape=shape, data_offsets=[at, at + size])
        at += size
    state, numbers = 1, []
    for _ in range(65521):  # a prime, so that rows differ
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        value = ((state >> 40) / 2**24 - 0.5) * 0.07
        numbers.append(struct.pack("<f", value)[2:])
    block = b"".join(numbers)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in tensors:
            size = header[name]["data_offsets"][1] - header[name]["data_offsets"][0]
            if len(shape) == 1:
                file.write(struct.pack("<f", 1.0)[2:] * shape[0])
            else:
                file.write((block * (size // len(block) + 1))[:size])


def write_rows(path, row_count=64):
    """Rows longer than any sequence: truncated, each fills its own."""
    sentence = "the quick brown fox jumps over the lazy dog while seven wizards count 12345 coins and 67890 stones "
    with open(path, "w") as file:
        for number in range(row_count):
            file.write(json.dumps(dict(prompt=f"{number}:", completion=sentence * 450)) + "\n")


def recipe(work, run, steps):
    if run["model"] == "smollm2":
        shipped = (ROOT / "recipes/smollm2-135m-lora.toml").read_text()
        source = re.search(r"^source = .*$", shipped, re.M)[0] + "\n" + re.search(r"^sha256 = .*$", shipped, re.M)[0]
    else:
        source = f'source = "{work / "models" / run["model"]}"'
    method = 'kind = "full"' if run["kind"] == "full" else f'kind = "lora"\nrank = {run["rank"]}\nalpha = 32'
    if run["kind"] == "full":
        # Trained with a tied head, or neither.
        method += "\ntrain_embeddings = true\ntrain_head = true"
    optimizer = run["more"].get("optimizer.kind", "adamw")
    norm = '"none"' if run["more"].get("optimizer.max_grad_norm") == "none" else "1.0"
    tier = run["tier"]
    classes = "\n".join(f'{name} = "{tier}"' for name in ("weights", "gradients", "optimizer", "activations"))
    (work / "nvme").mkdir(exist_ok=True)
    return f"""name = "step-time"
[model]
{source}
precision = "{run['precision']}"
[method]
{method}
[data]
sequence_length = {run['tokens']}
packing = true
too_long = "truncate"
[[data.sources]]
path = "{work / 'rows.jsonl'}"
[train]
steps = {steps}
tokens_per_step = {run['tokens'] * run['micro'] * run['accumulate']}
micro_batch = {run['micro']}
keep = "{run['keep']}"
seed = 1
[optimizer]
kind = "{optimizer}"
learning_rate = 1e-5
max_grad_norm = {norm}
[schedule]
kind = "constant"
[offload]
{classes}
{f'nvme = ["{work / "nvme"}"]' if tier == "nvme" else ''}
[log]
tensorboard = false
[hardware]
device = "cpu"
"""


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_once(tune, path, output):
    """The steps' metrics, and the processor time of each step after the first."""
    subprocess.run(["rm", "-rf", str(output)], check=True)
    log = open(output.with_suffix(".log"), "w")
    process = subprocess.Popen([tune, "run", str(path), "--output", str(output)], stdout=log, stderr=log)
    metrics, marks, size = output / "metrics.jsonl", [], 0
    while process.poll() is None:
        now = metrics.stat().st_size if metrics.exists() else 0
        if now > size:
            size = now
            try:
                marks.append((metrics.read_text().count('"step_ms"'), cpu_seconds(process.pid)))
            except (FileNotFoundError, IndexError):
                pass
        time.sleep(0.01)
    if process.returncode != 0:
        raise RuntimeError(output.with_suffix(".log").read_text().strip().splitlines()[-1])
    steps = [json.loads(line) for line in metrics.read_text().splitlines() if "step_ms" in line]
    busy = [(b[1] - a[1]) / (b[0] - a[0]) / os.cpu_count() for a, b in zip(marks, marks[1:]) if b[0] > a[0]]
    return steps, busy


def measure(tune, work, run, steps):
    path = work / "recipe.toml"
    path.write_text(recipe(work, run, steps))
    steps_done, busy = run_once(tune, path, work / "run")
    planned = json.loads(subprocess.run([tune, "plan", str(path), "--json"], check=True, capture_output=True, text=True).stdout)
    planned = planned.get("plan", planned)
    subprocess.run(["rm", "-rf", str(work / "run")], check=True)
    time_plan = planned["time"]
    return dict(
        planned=time_plan["step_seconds"], origin=time_plan["origin"],
        phases={phase["phase"]: phase["seconds"] for phase in time_plan["phases"]},
        bottleneck=time_plan["bottleneck"],
        measured=statistics.median(step["step_ms"] for step in steps_done[1:]) / 1e3,
        fastest=min(step["step_ms"] for step in steps_done[1:]) / 1e3,
        busy=statistics.median(busy) if busy else None,
        stalls=statistics.median(step["stall_ms"] for step in steps_done[1:]) / 1e3,
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tune", default="target/release/tune")
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--only", default="*")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--replan", action="store_true", help="plan again for rows that were measured")
    arguments = parser.parse_args()
    work, tune = arguments.work.resolve(), str(Path(arguments.tune).resolve())
    work.mkdir(parents=True, exist_ok=True)
    results = work / "results.jsonl"
    if arguments.fresh:
        results.unlink(missing_ok=True)
    known = {}
    if results.exists():
        known = {row["name"]: row for row in map(json.loads, results.read_text().splitlines())}
    for name, sizes in MODELS.items():
        if not (work / "models" / name / "model.safetensors").exists():
            write_model(work / "models" / name, sizes)
    write_rows(work / "rows.jsonl")
    within = counted = 0
    print(f"{'run':<66} {'planned s':>9} {'measured':>9} {'ratio':>6}  load  bottleneck")
    for name, run in grid():
        if not fnmatch.fnmatch(name, arguments.only):
            continue
        row = known.get(name)
        if row is None:
            try:
                row = dict(name=name, load=os.getloadavg()[0], **measure(tune, work, run, arguments.steps))
            except (RuntimeError, subprocess.CalledProcessError) as error:
                print(f"{name:<66} failed: {error}")
                continue
            with open(results, "a") as file:
                file.write(json.dumps(row) + "\n")
        elif arguments.replan:
            (work / "recipe.toml").write_text(recipe(work, run, arguments.steps))
            planned = json.loads(subprocess.run([tune, "plan", str(work / "recipe.toml"), "--json"], check=True,
                                                capture_output=True, text=True).stdout)
            planned = planned.get("plan", planned)["time"]
            row.update(planned=planned["step_seconds"], bottleneck=planned["bottleneck"],
                       phases={phase["phase"]: phase["seconds"] for phase in planned["phases"]})
        measured = row["busy"] if arguments.busy else row["measured"]
        ratio = row["planned"] / measured
        counted += 1
        within += abs(ratio - 1) <= WITHIN
        mark = "" if abs(ratio - 1) <= WITHIN else " *"
        print(f"{name:<66} {row['planned']:>9.3f} {measured:>9.3f} {ratio:>6.2f} {row['load']:>5.1f}  {row['bottleneck']}{mark}", flush=True)
    if counted:
        print(f"{within} of {counted} within {WITHIN:.0%} ({within / counted:.0%})")
    return 0 if counted and within == counted else 1


if __name__ == "__main__":
    sys.exit(main())
