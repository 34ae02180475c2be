"""Trains an adapter with torch, transformers and PEFT and prints what it took: one JSON object a step, then a summary.

In:    a Hugging Face folder, a PEFT adapter folder, rows.json ({"rows": [{"tokens", "trained"}]}, all of one length).
Out:   stdout: {"step", "loss", "seconds", "tokens_per_second"} a step; last {"summary": true, "tokens_per_second": median of
       the steps after the first, "peak_rss_bytes": VmHWM, "losses": [...], ...}.
Never: more than one configuration in one process, since the peak is the process's.

Run:   python peft_speed.py --model DIR --adapter DIR --rows FILE --precision bf16 --steps 4
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import peft
import torch
import transformers

IGNORED = -100


def parse():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--adapter", required=True, type=Path)
    parser.add_argument("--rows", required=True, type=Path)
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument(
        "--adapter-precision", choices=["f32", "base"], default="f32", help="f32 is PEFT's default; base follows the model"
    )
    parser.add_argument("--base", choices=["plain", "nf4"], default="plain", help="nf4: in 4 bits with bitsandbytes, scales quantised too")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--device", default="cpu", help="as torch names it: cpu, cuda")
    parser.add_argument("--save", type=Path, help="folder for the adapter after the last step")
    return parser.parse_args()


def load(arguments):
    """Base in the wanted precision, PyTorch's own attention, adapter trainable."""
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[arguments.precision]
    placed = {} if arguments.device == "cpu" else {"device_map": {"": arguments.device}}
    quantised = {}
    if arguments.base == "nf4":
        kind = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": dtype}
        quantised["quantization_config"] = transformers.BitsAndBytesConfig(load_in_4bit=True, **kind)
    base = transformers.AutoModelForCausalLM.from_pretrained(
        arguments.model, dtype=dtype, attn_implementation="sdpa", local_files_only=True, **placed, **quantised
    )
    base.config.use_cache = False
    model = peft.PeftModel.from_pretrained(
        base, arguments.adapter, is_trainable=True, autocast_adapter_dtype=arguments.adapter_precision == "f32"
    )
    return model.train()


def batch(path):
    """Ids and labels of all rows; they have one length, so nothing is padded and no mask is needed."""
    rows = json.loads(path.read_text())["rows"]
    ids = torch.tensor([row["tokens"] for row in rows])
    trained = torch.tensor([row["trained"] for row in rows])
    return ids, ids.masked_fill(~trained, IGNORED)


def step(model, optimizer, parameters, ids, labels):
    """Forward, backward, clip, update. Returns the loss before the update."""
    optimizer.zero_grad()
    loss = model(input_ids=ids, labels=labels).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    return loss.item()


def peak_rss_bytes():
    """VmHWM of this process."""
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def train(model, ids, labels, arguments):
    """Prints every step; returns losses and tokens per second."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=arguments.learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    losses, speeds = [], []
    for number in range(1, arguments.steps + 1):
        start = time.perf_counter()
        losses.append(step(model, optimizer, parameters, ids, labels))
        seconds = time.perf_counter() - start
        speeds.append(ids.numel() / seconds)
        line = {"step": number, "loss": losses[-1], "seconds": seconds, "tokens_per_second": speeds[-1]}
        print(json.dumps(line), flush=True)
    return losses, speeds


def main():
    """One configuration."""
    arguments = parse()
    transformers.utils.logging.disable_progress_bar()
    ids, labels = (values.to(arguments.device) for values in batch(arguments.rows))
    model = load(arguments)
    losses, speeds = train(model, ids, labels, arguments)
    if arguments.save:
        model.save_pretrained(arguments.save)
    summary = {
        "summary": True,
        "program": "peft",
        "precision": arguments.precision,
        "adapter_precision": arguments.adapter_precision,
        "rows": list(ids.shape),
        "threads": torch.get_num_threads(),
        "tokens_per_second": statistics.median(speeds[1:] or speeds),
        "peak_rss_bytes": peak_rss_bytes(),
        "peak_device_bytes": torch.cuda.max_memory_reserved() if arguments.device.startswith("cuda") else None,
        "losses": losses,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__},
    }
    print(json.dumps(summary), flush=True)


if __name__ == "__main__":
    main()
