"""Loads an adapter that `tune` wrote into PEFT and compares: tensor names, then logits with and without it.

In:    a Hugging Face folder, an adapter folder, optionally logits that tune wrote (safetensors, `logits.<row>`) for rows.json.
Out:   one JSON object; exit 1 if PEFT ignored a tensor, the adapter changes nothing, or logits differ by more than --tolerance.
Never: accepts PEFT's silent failure (missing keys are only a warning there).

Run:   python parity_adapter.py --model DIR --adapter DIR --rows FILE [--logits FILE] [--tolerance 1e-4]
"""

import argparse
import json
import sys
from pathlib import Path

import peft
import torch
import transformers
from safetensors.torch import load_file


def parse():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--adapter", required=True, type=Path)
    parser.add_argument("--rows", required=True, type=Path, help='JSON with {"rows": [{"tokens": [...]}]}')
    parser.add_argument("--logits", type=Path)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    return parser.parse_args()


def load(arguments):
    """The adapted model in f32."""
    base = transformers.AutoModelForCausalLM.from_pretrained(
        arguments.model, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    )
    return peft.PeftModel.from_pretrained(base, arguments.adapter).eval()


def ignored_tensors(model, adapter):
    """Saved tensors that are not, value for value, in the model; and model tensors that were not saved."""
    saved = load_file(adapter / "adapter_model.safetensors")
    loaded = {n.replace(".default", ""): p for n, p in model.named_parameters() if "lora_" in n}
    wrong = [n for n, t in saved.items() if n not in loaded or not torch.equal(t.float(), loaded[n].float())]
    return sorted(wrong), sorted(loaded.keys() - saved.keys())


def row_logits(model, row):
    """One row by itself."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([row["tokens"]]), use_cache=False).logits[0]


def main():
    """Checks and reports."""
    arguments = parse()
    transformers.utils.logging.disable_progress_bar()
    rows = json.loads(arguments.rows.read_text())["rows"]
    model = load(arguments)
    ignored, missing = ignored_tensors(model, arguments.adapter)
    adapted = [row_logits(model, row) for row in rows]
    with model.disable_adapter():
        bare = [row_logits(model, row) for row in rows]
    report = {
        "ignored": ignored,
        "missing": missing,
        "adapter_changes_logits_by": max((a - b).abs().max().item() for a, b in zip(adapted, bare)),
    }
    good = not ignored and not missing and report["adapter_changes_logits_by"] > 0
    if arguments.logits:
        theirs = load_file(arguments.logits)
        pairs = [(theirs[f"logits.{i}"], logits) for i, logits in enumerate(adapted) if f"logits.{i}" in theirs]
        report["rows_compared"] = len(pairs)
        report["max_logit_difference"] = max((a - b).abs().max().item() for a, b in pairs)
        good = good and report["max_logit_difference"] <= arguments.tolerance
    print(json.dumps(report | {"good": good}))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
