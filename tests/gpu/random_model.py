"""Writes a model folder of a known shape with random weights: config.json, model.safetensors in bf16, a small tokenizer.

In:    a shape's name, a number of blocks.
Out:   a folder that transformers and tune load. The tokenizer is tests/fixtures/llama's: rows are real text, ids stay small.
Never: needs more than python3; holds more than a few MB, whatever the model's size.

Run:   python3 random_model.py --shape 8b --layers 8 FOLDER
"""

import argparse
import json
import random
import shutil
import struct
from pathlib import Path

TOKENIZER = Path(__file__).resolve().parent.parent / "fixtures" / "llama"
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "rope_theta": 500000.0}
QWEN2 = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "rope_theta": 1000000.0}
# Family; width, feed-forward width, blocks, heads, key/value heads, vocabulary; whether the head is the embedding.
SHAPES = {
    "tiny": (LLAMA, (64, 128, 1, 4, 2, 288), False),
    "smollm2": (LLAMA, (576, 1536, 30, 9, 3, 49152), True),
    "8b": (LLAMA, (4096, 14336, 32, 32, 8, 128256), False),
    "14b": (QWEN2, (5120, 13824, 48, 40, 8, 152064), False),
    "70b": (LLAMA, (8192, 28672, 80, 64, 8, 128256), False),
}
BIASED = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
STD = 0.02
# Random numbers are repeated after so many: a prime, so that rows of no matrix are alike.
POOL = 1_000_003


def tensors(shape, layers):
    """Names and shapes, as transformers has them."""
    family, (width, inner, _, heads, kv_heads, vocabulary), tied = SHAPES[shape]
    head = width // heads
    yield "model.embed_tokens.weight", [vocabulary, width]
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        for name, outputs, inputs in [
            ("self_attn.q_proj", heads * head, width),
            ("self_attn.k_proj", kv_heads * head, width),
            ("self_attn.v_proj", kv_heads * head, width),
            ("self_attn.o_proj", width, heads * head),
            ("mlp.gate_proj", inner, width),
            ("mlp.up_proj", inner, width),
            ("mlp.down_proj", width, inner),
        ]:
            yield prefix + name + ".weight", [outputs, inputs]
            if family is QWEN2 and name in BIASED:
                yield prefix + name + ".bias", [outputs]
        yield prefix + "input_layernorm.weight", [width]
        yield prefix + "post_attention_layernorm.weight", [width]
    yield "model.norm.weight", [width]
    if not tied:
        yield "lm_head.weight", [vocabulary, width]


def bf16(value):
    """The upper half of an f32, rounded towards zero."""
    return struct.pack("<f", value)[2:]


def write(folder, shape, layers=None, seed=1):
    """Writes the folder and returns what a step's arithmetic depends on: parameters of linear layers and of the head, blocks, width."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    family, (width, inner, all_layers, heads, kv_heads, vocabulary), tied = SHAPES[shape]
    layers = layers or all_layers
    config = family | {
        "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "vocab_size": vocabulary, "tie_word_embeddings": tied, "rms_norm_eps": 1e-5,
        "hidden_act": "silu", "max_position_embeddings": 131072, "bos_token_id": 0, "eos_token_id": 2, "torch_dtype": "bfloat16",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    for name in ["tokenizer.json", "tokenizer_config.json"]:
        shutil.copy(TOKENIZER / name, folder / name)
    count = lambda dims: dims[0] * (dims[1] if len(dims) > 1 else 1)
    listed = list(tensors(shape, layers))
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, dims in listed:
        header[name] = {"dtype": "BF16", "shape": dims, "data_offsets": [at, at + 2 * count(dims)]}
        at += 2 * count(dims)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    generator = random.Random(seed)
    pool = b"".join(bf16(generator.gauss(0.0, STD)) for _ in range(POOL))
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        start = 0
        for name, dims in listed:
            numbers = count(dims)
            if "norm" in name:
                file.write(bf16(1.0) * numbers)
                continue
            while numbers:
                part = pool[2 * start : 2 * min(start + numbers, POOL)]
                file.write(part)
                numbers -= len(part) // 2
                start = (start + len(part) // 2) % POOL
    linear = sum(count(dims) for name, dims in listed if "proj.weight" in name)
    return {"linear": linear, "head": width * vocabulary, "layers": layers, "attention_width": width}


def main():
    """One folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--layers", type=int, help="blocks; default: all of the shape's")
    arguments = parser.parse_args()
    print(json.dumps(write(arguments.folder, arguments.shape, arguments.layers)))


if __name__ == "__main__":
    main()
