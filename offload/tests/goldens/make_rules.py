"""Writes rules.json: what PyTorch, transformers and bitsandbytes make of three updates of the same small tensors.

In:    nothing; parameters and gradients come from the generator that tests/goldens.rs has too.
Out:   rules.json next to this file: f32 values as their bit patterns (unsigned integers).
Never: uses a GPU; the figures are those of the CPU code of each package.

Versions: Python 3.11, torch 2.15.0, transformers 5.23.0, bitsandbytes 0.50.2, numpy 2.4.6 (the rest in tests/peers/requirements.txt).
Run:      python make_rules.py
"""

import json
from pathlib import Path

import bitsandbytes.functional as functional
import numpy
import torch
from transformers.optimization import Adafactor

ROWS, COLUMNS, STEPS, LEARNING_RATE, DECAY = 16, 48, 3, 1e-2, 0.1


def values(count, state):
    """`count` values in -1 to 1."""
    out = numpy.empty(count, dtype=numpy.float32)
    for i in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        out[i] = numpy.float32(state >> 40) / numpy.float32(2**23) - numpy.float32(1)
    return torch.from_numpy(out)


def bits(tensor):
    """The bit patterns of an f32 tensor."""
    return tensor.detach().contiguous().numpy().view(numpy.uint32).reshape(-1).tolist()


def train(make, shape):
    """Parameters after the steps of the optimizer that `make` returns."""
    parameter = torch.nn.Parameter(values(ROWS * COLUMNS, 1).reshape(shape))
    optimizer = make([parameter])
    for step in range(1, STEPS + 1):
        parameter.grad = values(ROWS * COLUMNS, 100 + step).reshape(shape)
        optimizer.step()
    return bits(parameter)


def train_8bit():
    """Parameters, codes and magnitudes of bitsandbytes' block-wise 8-bit AdamW."""
    parameter, zero = values(ROWS * COLUMNS, 1), torch.zeros(ROWS * COLUMNS, dtype=torch.uint8)
    maps = [functional.create_dynamic_map(signed=True), functional.create_dynamic_map(signed=False)]
    states, magnitudes = [zero.clone(), zero.clone()], [torch.zeros(ROWS * COLUMNS // 256) for _ in range(2)]
    for step in range(1, STEPS + 1):
        gradient = values(ROWS * COLUMNS, 100 + step)
        functional.optimizer_update_8bit_blockwise(
            "adam", gradient, parameter, *states, 0.9, 0.95, 0.0, 0.0, 1e-8, step, LEARNING_RATE, *maps, *magnitudes, weight_decay=DECAY
        )
    return {
        "parameters": bits(parameter),
        "codes": [state.tolist() for state in states],
        "magnitudes": [bits(magnitude) for magnitude in magnitudes],
    }


def main():
    """Everything into one file."""
    adamw = {"lr": LEARNING_RATE, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": DECAY, "foreach": False}
    sgd = {"lr": LEARNING_RATE, "momentum": 0.9, "weight_decay": DECAY, "foreach": False}
    factored = {"lr": LEARNING_RATE, "scale_parameter": False, "relative_step": False, "weight_decay": DECAY}
    golden = {
        "signed_map": bits(functional.create_dynamic_map(signed=True)),
        "unsigned_map": bits(functional.create_dynamic_map(signed=False)),
        "adamw": train(lambda p: torch.optim.AdamW(p, **adamw), (ROWS, COLUMNS)),
        "sgd": train(lambda p: torch.optim.SGD(p, **sgd), (ROWS, COLUMNS)),
        "adafactor_matrix": train(lambda p: Adafactor(p, **factored), (ROWS, COLUMNS)),
        "adafactor_vector": train(lambda p: Adafactor(p, **factored), (ROWS * COLUMNS,)),
        "adamw_8bit": train_8bit(),
    }
    Path(__file__).with_name("rules.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
