"""Exports of `tune` in PEFT and transformers: logits against tune's own, for tiny models of every family and for SmolLM2-135M.

In:    target/release/tune and target/release/examples/logits (`cargo build --release -p trainer --example logits`); tests/fixtures;
       SmolLM2-135M-Instruct's GGUF (--gguf FILE, or fetched with pip); a work folder.
Out:   one JSON line a case and export; exit 1 if a tensor is missing or unexpected, or logits differ by more than is allowed.
Never: compares two figures of tune with each other: one side is always the other program's.

Allowed: 1e-3 for the adapter in PEFT and for the merged folder in f32; for f16 and bf16 a share of the largest logit, since those weights are
rounded (1 % and 5 %, the bounds that the export itself states).

Run:   python tests/peers/loads_elsewhere.py --tune target/release/tune [--only NAME ...]
"""

import argparse
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import peft
import torch
import transformers
from safetensors.torch import load_file

from compare import find_gguf, prepare_model

HERE = Path(__file__).resolve().parent
FIXTURES = HERE.parent / "fixtures"
FAMILIES = ["llama", "llama3", "llama-sharded", "mistral", "qwen2", "qwen3", "gemma3", "smollm2"]
REAL = "smollm2-135m"
ABSOLUTE = 1e-3
SHARES = {"f32": None, "f16": 1e-2, "bf16": 5e-2}
TEXTS = ["Hello, world: 3.14159 and 1,000,000.", "  spaces\n\n\tand tabs", "Größe 你好 👩‍👩‍👧", "<|im_start|>user\nHi<|im_end|>\n"]
RECIPE = """name = "loads-elsewhere"
[model]
source = "{gguf}"
precision = "f32"
[method]
kind = "lora"
rank = 16
alpha = 32
[data]
sequence_length = 256
too_long = "truncate"
sources = [{{ path = "{rows}" }}]
[train]
steps = 4
tokens_per_step = 1024
micro_batch = 1
[optimizer]
kind = "adamw"
learning_rate = 1e-3
[schedule]
kind = "constant"
"""


def parse():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tune", required=True, type=Path)
    parser.add_argument("--work", type=Path, default=Path("/tmp/tune-peers/loads-elsewhere"))
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--only", nargs="*", default=[*FAMILIES, REAL])
    return parser.parse_args()


def call(*command):
    """Runs a program; its errors are this script's."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"failed: {command}")
    return done.stdout


def our_logits(arguments, subject, model, rows, output):
    """Base and adapter apart, f32, one row at a time."""
    call(arguments.tune.parent / "examples" / "logits", subject, model, rows, output)
    return load_file(output / "model.safetensors")


def load(folder):
    """A folder in transformers, f32, with what it did not find."""
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True, output_loading_info=True
    )
    wrong = {key: sorted(map(str, value)) for key, value in report.items() if value and key != "error_msgs"}
    return model.eval(), wrong


def difference(model, rows, ours):
    """Largest difference of any logit, and the largest logit."""
    most, largest = 0.0, 0.0
    for at, row in enumerate(rows):
        with torch.no_grad():
            theirs = model(input_ids=torch.tensor([row["tokens"]]), use_cache=False).logits[0].float()
        most = max(most, (theirs - ours[f"logits.{at}"]).abs().max().item())
        largest = max(largest, theirs.abs().max().item())
    return most, largest


def report(name, export, model, rows, ours, wrong, share=None):
    """Prints a line; whether it is good."""
    most, largest = difference(model, rows, ours)
    allowed = ABSOLUTE if share is None else share * largest
    good = most <= allowed and not wrong
    line = {"model": name, "export": export, "largest_difference": most, "allowed": allowed, "largest_logit": largest}
    print(json.dumps(line | {"wrong": wrong, "good": good}), flush=True)
    return good


def adapter_case(name, base, exported, rows, ours):
    """The adapter in PEFT, over the base in transformers."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = peft.PeftModel.from_pretrained(load(base)[0], exported).eval()
    missing = [str(one.message) for one in said if "adapter keys" in str(one.message)]
    with model.disable_adapter():
        bare = difference(model, rows, ours)[0]
    wrong = {"warnings": missing} if missing else {}
    if bare < 1e-2:
        wrong["adapter"] = f"it changes logits by {bare} only"
    return report(name, "peft", model, rows, ours, wrong)


def same_tokenizer(base, exported):
    """Texts that the exported tokenizer reads otherwise than the base's."""
    ours = transformers.AutoTokenizer.from_pretrained(exported, local_files_only=True)
    theirs = transformers.AutoTokenizer.from_pretrained(base, local_files_only=True)
    encode = lambda tokenizer, text: tokenizer.encode(text, add_special_tokens=False)
    wrong = [text for text in TEXTS if encode(ours, text) != encode(theirs, text)]
    turns = [{"role": "user", "content": "What is 1 GB?"}, {"role": "assistant", "content": "Much."}]
    if ours.apply_chat_template(turns, tokenize=False) != theirs.apply_chat_template(turns, tokenize=False):
        wrong.append("chat template")
    return {"tokenizer": wrong} if wrong else {}


def cases(arguments, name, subject, more, base, rows_file):
    """Every export of one trained model."""
    work = arguments.work / name
    rows = json.loads(rows_file.read_text())["rows"]
    # tune reads the model that it trained on, the other programs the folder that holds the same numbers.
    model = more[1] if more else arguments.gguf
    ours = our_logits(arguments, subject, model, rows_file, work / "logits")
    export = lambda *what: call(arguments.tune, "export", subject, *more, *what, "--force")
    export("--to", "peft", "--output", work / "peft")
    good = adapter_case(name, base, work / "peft", rows, ours)
    for precision, share in SHARES.items():
        folder = work / precision
        shards = ["--shard-size", "20KB" if name != REAL else "100MB"] if precision == "f32" else []
        export("--to", "safetensors", "--precision", precision, "--output", folder, *shards)
        loaded, wrong = load(folder)
        if (base / "tokenizer.json").exists():
            wrong |= same_tokenizer(base, folder)
        good = report(name, precision, loaded, rows, ours, wrong, share) and good
    return good


def real_case(arguments):
    """SmolLM2-135M, four steps of LoRA over its GGUF file."""
    work = arguments.work / REAL
    work.mkdir(parents=True, exist_ok=True)
    arguments.gguf = find_gguf(arguments)
    base, _ = prepare_model(arguments.work, arguments.gguf, 16)
    run = work / "run"
    if not (run / "adapter").exists():
        recipe = work / "recipe.toml"
        recipe.write_text(RECIPE.format(gguf=arguments.gguf, rows=FIXTURES / "data" / "train.jsonl"))
        call(arguments.tune, "run", recipe, "--output", run)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    texts = [
        "The capital of France is Paris, and that of Italy is",
        "<|im_start|>user\nHow many bytes are 3 kB?<|im_end|>\n<|im_start|>assistant\n3 kB is 3000",
    ]
    rows = work / "rows.json"
    rows.write_text(json.dumps({"rows": [{"tokens": tokenizer.encode(text, add_special_tokens=False)} for text in texts]}))
    return cases(arguments, REAL, run, [], base, rows)


def main():
    """All cases."""
    arguments = parse()
    arguments.work.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TUNE_CACHE", str(arguments.work / "cache"))
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    good = True
    for name in arguments.only:
        if name == REAL:
            good = real_case(arguments) and good
            continue
        (arguments.work / name).mkdir(exist_ok=True)
        folder = FIXTURES / name
        good = cases(arguments, name, folder / "adapter", ["--model", folder], folder, folder / "golden.json") and good
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
