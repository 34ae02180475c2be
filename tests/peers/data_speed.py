"""Prepares GSM8K, repeated to a given size, with Hugging Face datasets + tokenizers and with `tune data prepare`.

In:    GSM8K's train.jsonl (--source FILE, rows of question and answer); SmolLM2-135M-Instruct's GGUF (--gguf FILE), whose
       tokenizer and chat template both sides use; the program (--tune PATH; without it Hugging Face alone runs).
Out:   stdout: a Markdown table and one JSON object: wall time, processor time, peak memory of all processes, tokens.
Never: runs both at once; lets one find the other's or an earlier turn's cache.

Hugging Face's side is what a careful user writes: `load_dataset("json")`, then one batched `map` with two processes that
renders prompt and conversation with `apply_chat_template`, tokenises each text once with the fast tokenizer, and labels
the answer. `tune` reads the same file, does the same and more (gates, cleaning, packing), and writes its token cache.

Run:   python -m venv VENV && VENV/bin/pip install -r tests/peers/data-requirements.txt
       cargo build --release
       VENV/bin/python tests/peers/data_speed.py --source gsm8k/train.jsonl --gguf SmolLM2.gguf --megabytes 1000 \
           --tune target/release/tune
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

RECIPE = """name = "data-speed"

[model]
source = "{gguf}"
precision = "f32"

[method]
kind = "lora"
rank = 8
alpha = 16
dropout = 0.0
targets = "all-linear"

[data]
sequence_length = {length}

[[data.sources]]
path = "{rows}"
format = "question-answer"

[train]
epochs = 1
tokens_per_step = 8192
micro_batch = "auto"
seed = 42

[optimizer]
kind = "adamw"
learning_rate = 1e-4
betas = [0.9, 0.999]
epsilon = 1e-8
weight_decay = 0.0
max_grad_norm = 1.0

[schedule]
kind = "cosine"
warmup = 0.0

[checkpoint]
every_steps = 1000
keep_last = 1

[hardware]
device = "auto"
memory = "auto"
"""


def parse():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, help="GSM8K's train.jsonl")
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--tune", type=Path, help="the program")
    parser.add_argument("--recipe", type=Path, help="instead of the one written here; its data must be WORK/rows.jsonl")
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--sequence-length", type=int, default=1024)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("data-speed"), help="all files of this test; several times the size")
    parser.add_argument("--side", choices=["hugging-face"], help=argparse.SUPPRESS)
    return parser.parse_args()


def repeat(source, rows, megabytes):
    """The file over and over, whole rows only, up to the size."""
    lines, left = source.read_bytes().splitlines(keepends=True), megabytes * 1_000_000
    with open(rows, "wb") as out:
        while left >= len(lines[0]):
            for line in lines:
                if left < len(line):
                    left = 0
                    break
                left -= out.write(line)


def save_tokenizer(gguf, folder):
    """The GGUF's tokenizer as a folder, so that its conversion is not timed."""
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def prepare_batch(batch, tokenizer):
    """Ids and labels of a batch: the prompt is context, the rest is trained on."""
    asked = [[{"role": "user", "content": question}] for question in batch["question"]]
    whole = [chat + [{"role": "assistant", "content": answer}] for chat, answer in zip(asked, batch["answer"])]
    prompts = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    texts = tokenizer.apply_chat_template(whole, tokenize=False)
    answers = [text[len(prompt):] for prompt, text in zip(prompts, texts)]
    options = {"add_special_tokens": False, "return_attention_mask": False, "return_token_type_ids": False}
    contexts = tokenizer(prompts, **options)["input_ids"]
    trained = tokenizer(answers, **options)["input_ids"]
    return {
        "input_ids": [context + answer for context, answer in zip(contexts, trained)],
        "labels": [[-100] * len(context) + answer for context, answer in zip(contexts, trained)],
    }


def hugging_face(arguments):
    """In a process of its own: loads, maps, prints seconds and tokens."""
    import datasets
    from transformers import AutoTokenizer

    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(arguments.work / "tokenizer")
    start = time.monotonic()
    rows = datasets.load_dataset(
        "json", data_files=str(arguments.work / "rows.jsonl"), split="train", cache_dir=str(arguments.work / "hf")
    )
    loaded = time.monotonic()
    ready = rows.map(
        prepare_batch,
        batched=True,
        num_proc=arguments.processes,
        remove_columns=rows.column_names,
        fn_kwargs={"tokenizer": tokenizer},
    )
    done = time.monotonic()
    import pyarrow.compute as pc

    tokens = sum(pc.list_value_length(chunk).sum().as_py() for chunk in ready.data.column("input_ids").chunks)
    print(json.dumps({"load_s": loaded - start, "map_s": done - loaded, "rows": len(ready), "tokens": tokens}))


def tree(root):
    """The process and all its descendants."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path("/proc", entry, "stat").read_text().rsplit(")", 1)[1].split()
                parents.setdefault(int(fields[1]), []).append(int(entry))
            except OSError:
                continue
    found, waiting = [], [root]
    while waiting:
        found.append(waiting.pop())
        waiting.extend(parents.get(found[-1], []))
    return found


def memory(root):
    """Bytes in memory, summed over the processes: all resident pages, and those without the pages of mapped files."""
    resident = anonymous = 0
    for process in tree(root):
        try:
            for line in Path("/proc", str(process), "status").read_text().splitlines():
                resident += 1024 * int(line.split()[1]) if line.startswith("VmRSS") else 0
                anonymous += 1024 * int(line.split()[1]) if line.startswith("RssAnon") else 0
        except OSError:
            continue
    return resident, anonymous


def measured(command, environment):
    """Runs it; wall and processor seconds, peak bytes, its last line of output."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    child = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True)
    peaks, over = [0, 0], threading.Event()

    def watch():
        while not over.wait(0.1):
            peaks[:] = map(max, peaks, memory(child.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = child.communicate()
    wall = time.monotonic() - start
    over.set()
    watcher.join()
    if child.returncode != 0:
        sys.exit(f"{command[0]} failed with {child.returncode}: {output}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": wall, "processor_s": processor, "resident_bytes": peaks[0], "anonymous_bytes": peaks[1]}, output


def fresh(folder):
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def main():
    """Makes the rows, measures both sides, prints."""
    arguments = parse()
    arguments.work = arguments.work.resolve()
    if arguments.side:
        return hugging_face(arguments)
    arguments.work.mkdir(parents=True, exist_ok=True)
    rows = arguments.work / "rows.jsonl"
    repeat(arguments.source, rows, arguments.megabytes)
    save_tokenizer(arguments.gguf.resolve(), arguments.work / "tokenizer")
    results = {}
    for name in ["hf", "cache"]:
        fresh(arguments.work / name)
    command = [sys.executable, *sys.argv, "--side", "hugging-face"]
    figures, output = measured(command, {"HF_HOME": str(arguments.work / "hf"), "TOKENIZERS_PARALLELISM": "false"})
    own = json.loads(output.splitlines()[-1])
    # Imports and the tokenizer's loading are not the work that is compared.
    results["hugging face"] = figures | own | {"work_s": own["load_s"] + own["map_s"]}
    if arguments.tune:
        recipe = arguments.recipe or arguments.work / "recipe.toml"
        if not arguments.recipe:
            recipe.write_text(RECIPE.format(gguf=arguments.gguf.resolve(), rows=rows, length=arguments.sequence_length))
        command = [str(arguments.tune.resolve()), "data", "prepare", str(recipe)]
        figures, _ = measured(command, {"TUNE_CACHE": str(arguments.work / "cache")})
        results["tune"] = figures | {"work_s": figures["wall_s"]}
    report(results, rows.stat().st_size)


def report(results, size):
    """A table, the ratio, and everything as JSON."""
    print(f"GSM8K repeated to {size / 1e6:.0f} MB, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| | work s | MB/s | processor s | peak memory MB | of it anonymous MB |\n|---|---|---|---|---|---|")
    for name, figures in results.items():
        rate = size / 1e6 / figures["work_s"]
        bytes_ = f"{figures['resident_bytes'] / 1e6:.0f} | {figures['anonymous_bytes'] / 1e6:.0f}"
        print(f"| {name} | {figures['work_s']:.1f} | {rate:.1f} | {figures['processor_s']:.1f} | {bytes_} |")
    if "tune" in results:
        print(f"\nratio: {results['hugging face']['work_s'] / results['tune']['work_s']:.2f}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
