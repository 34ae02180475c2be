"""Writes NAME.bin (blocks) and NAME.f32 (their values) for every block type.

Run: python make.py   with gguf==0.19.0 and numpy in the environment. Blocks are random bytes with finite scales, so that every
bit pattern of the quants occurs; K types have no quantizer in the package, and need none here.
"""
import pathlib

import numpy as np
from gguf import GGMLQuantizationType, quants
from gguf.constants import GGML_QUANT_SIZES

HERE = pathlib.Path(__file__).parent
# Byte offsets of the float16 scales of each type.
SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
random = np.random.default_rng(20261121)


def blocks(name, count):
    kind = GGMLQuantizationType[name]
    _, size = GGML_QUANT_SIZES[kind]
    raw = random.integers(0, 256, (count, size), dtype=np.uint8)
    for at in SCALES.get(name, []):
        scale = random.uniform(-0.05, 0.05, count).astype(np.float16)
        raw[:, at:at + 2] = scale.view(np.uint8).reshape(count, 2)
    return raw


for name in [*SCALES, "F16", "BF16", "F32"]:
    kind = GGMLQuantizationType[name]
    if name in SCALES:
        raw = blocks(name, 4)
    elif name == "F16":
        raw = random.normal(size=(1, 64)).astype(np.float16).view(np.uint8)
    elif name == "F32":
        raw = random.normal(size=(1, 64)).astype(np.float32).view(np.uint8)
    else:
        raw = quants.quantize(random.normal(size=(1, 64)).astype(np.float32), kind)
    values = quants.dequantize(raw, kind)
    (HERE / f"{name}.bin").write_bytes(raw.tobytes())
    (HERE / f"{name}.f32").write_bytes(values.astype("<f4").tobytes())
