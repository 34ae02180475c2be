"""Writes NAME.bin (blocks) and NAME.f32 (their values) for every block type; encode.f32 and encode.NAME.bin for the encoders.

Run: python make.py   with gguf==0.19.0, llama-cpp-python==0.3.36 and numpy in the environment. Blocks are random bytes with finite
scales, so that every bit pattern of the quants occurs. encode.NAME.bin is what the gguf package makes of encode.f32; it has no
quantizer for K types, so those come from ggml's own library inside llama-cpp-python.
"""
import ctypes
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


def numbers():
    """4096 normally distributed numbers as in weights, then eight awkward super-blocks."""
    normal = random.normal(scale=0.03, size=4096)
    heavy = random.standard_t(2, size=512) * 0.02
    ramp, shifted = np.arange(256) / 256 - 0.4, 5 + np.arange(256) / 64
    one = np.where(np.arange(256) == 77, -3.0, 0.0)
    halves = np.where(np.arange(256) % 2 == 0, 0.5, -0.5)
    tiny = random.normal(scale=1e-6, size=256)
    return np.concatenate([normal, heavy, ramp, shifted, one, halves, tiny, np.zeros(256)]).astype(np.float32)


def ggml_blocks(values, kind):
    """ggml's own quantizer, without importance matrix."""
    import llama_cpp

    folder = pathlib.Path(llama_cpp.__file__).parent / "lib"
    ggml = ctypes.CDLL(str(next(folder.glob("libggml-base.so*"))))
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_quantize_chunk.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
    ]
    elements, size = GGML_QUANT_SIZES[kind]
    out = np.zeros(len(values) // elements * size, dtype=np.uint8)
    written = ggml.ggml_quantize_chunk(int(kind), values.ctypes.data, out.ctypes.data, 0, 1, len(values), None)
    assert written == len(out), (written, len(out))
    return out


values = numbers()
(HERE / "encode.f32").write_bytes(values.astype("<f4").tobytes())
for name in ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"]:
    kind = GGMLQuantizationType[name]
    blocks_of = ggml_blocks(values, kind) if name.endswith("K") else quants.quantize(values.reshape(1, -1), kind)
    (HERE / f"encode.{name}.bin").write_bytes(np.ascontiguousarray(blocks_of).tobytes())
