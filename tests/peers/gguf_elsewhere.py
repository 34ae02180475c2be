"""GGUF models and adapters that `tune` writes, loaded by llama.cpp: logits, token ids, and quantisation beside ggml's own.

In:    pinned requirements.txt and gguf-requirements.txt; `cargo build --release -p trainer --example gguf` (its path is --tool).
       Tiny random Llama (with Llama 3.1's rotary scaling), Qwen2, Qwen3 and Gemma 3 models are made here with transformers, adapters with
       PEFT; --smollm2 names the GGUF file of SmolLM2-135M-Instruct that tests/smollm2.rs fetches.
Out:   a table: largest difference of logits between llama.cpp on the file and transformers (PEFT) on the folder, which must stay
       under 5e-3 in f16 (of the largest logit for SmolLM2, whose logits reach 40: with f16 weights llama.cpp rounds activations to f16
       too; in f32 the bound holds as it is, and the f16 file has the bytes of llama.cpp's own); token ids, which must be equal; for Q8_0 and Q4_K_M the error of logits and weights against those of
       llama_model_quantize on the same model, which must not be smaller by more than a percent. Exit code 1 where a bound is missed.
Never: downloads anything.

Run:   python tests/peers/gguf_elsewhere.py [--tool PATH] [--smollm2 FILE.gguf]
"""

import argparse
import io
import json
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import gguf
import llama_cpp
import numpy
import peft
import sentencepiece
import torch
import transformers

ROOT = Path(__file__).resolve().parents[2]
LOGITS_MAX = 5e-3
TEXT = "the model's 1234 bytes,  two spaces\n\tnaïve 東京 🦀 don't <|im_end|>\nand <end_of_turn> more"
SIZES = dict(
    hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=4, head_dim=32,
    max_position_embeddings=16384, initializer_range=0.04, tie_word_embeddings=True, bos_token_id=0, eos_token_id=2,
)
LLAMA3 = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=8192)
PLAIN = dict(rope_type="default", rope_theta=1000000.0)
GEMMA = dict(full_attention=dict(rope_type="linear", rope_theta=1000000.0, factor=8.0),
             sliding_attention=dict(rope_type="default", rope_theta=10000.0))
failures = []


def configs(vocabulary):
    """One configuration a family."""
    return {
        "llama": transformers.LlamaConfig(**SIZES, vocab_size=vocabulary, rope_parameters=LLAMA3),
        "qwen2": transformers.Qwen2Config(
            **{k: v for k, v in SIZES.items() if k != "head_dim"}, vocab_size=vocabulary, rope_parameters=PLAIN),
        "qwen3": transformers.Qwen3Config(**SIZES | {"tie_word_embeddings": False}, vocab_size=vocabulary, rope_parameters=PLAIN),
        "gemma3": transformers.Gemma3TextConfig(
            **SIZES | {"num_hidden_layers": 7, "bos_token_id": 2, "eos_token_id": 1}, vocab_size=vocabulary, query_pre_attn_scalar=32, sliding_window=8,
            layer_types=["sliding_attention"] * 5 + ["full_attention", "sliding_attention"], rope_parameters=GEMMA),
    }


def sentence_pieces(folder):
    """A tokenizer.json as Gemma's: BPE from a SentencePiece vocabulary, with byte fallback and two markers."""
    lines = [(ROOT / "tests/fixtures/smollm2-135m/text.txt").read_text().replace("\n", " ")] * 4
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, vocab_size=400, model_type="bpe", byte_fallback=True, pad_id=0,
        eos_id=1, bos_id=2, unk_id=3, normalization_rule_name="identity", remove_extra_whitespaces=False,
        add_dummy_prefix=False, control_symbols=["<start_of_turn>", "<end_of_turn>"], num_threads=1, minloglevel=2,
    )
    model = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
    pieces = [model.IdToPiece(i) for i in range(model.GetPieceSize())]
    ids = {piece: i for i, piece in enumerate(pieces)}
    plain = [i for i in range(len(pieces)) if not (model.IsControl(i) or model.IsByte(i) or model.IsUnknown(i))]
    merges = []
    for i in plain:
        piece = pieces[i]
        own = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
        own = [(a, b) for a, b in own if a in ids and b in ids]
        merges += [(model.GetScore(i), a, b) for a, b in sorted(own, key=lambda pair: (ids[pair[0]], ids[pair[1]]))]
    merges.sort(key=lambda merge: (merge[0], len(merge[1]), len(merge[2])), reverse=True)
    special = [i for i in range(len(pieces)) if model.IsControl(i) or model.IsUnknown(i)]
    added = [dict(id=i, content=pieces[i], single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
             for i in special]
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    back = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": space,
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
        "post_processor": None, "decoder": {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": ids, "merges": [[a, b] for _, a, b in merges]},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>",
                "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(pieces)


def make_models(work):
    """Folders with random weights; yields family and folder."""
    for family in ("llama", "qwen2", "qwen3", "gemma3"):
        folder = work / family
        folder.mkdir()
        vocabulary = 290
        if family == "gemma3":
            vocabulary = sentence_pieces(folder) + 2
        else:
            for name in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copy(ROOT / "tests/fixtures/llama" / name, folder)
        config = configs(vocabulary)[family]
        config._attn_implementation = "eager"
        torch.manual_seed(7)
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
        with torch.no_grad():  # norms and biases start as constants, which would hide a mistake
            for name, parameter in model.named_parameters():
                if parameter.dim() == 1:
                    parameter.add_(torch.randn_like(parameter) * 0.2)
        model.save_pretrained(folder)
        yield family, folder


def make_adapter(folder, rank_stabilised):
    """A PEFT adapter whose B is not zero; returns its folder and the adapted model."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    torch.manual_seed(11)
    config = peft.LoraConfig(r=8, lora_alpha=12, target_modules=targets, use_rslora=rank_stabilised, init_lora_weights=False,
                             task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(model, config).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.03)
    target = folder.parent / f"{folder.name}-adapter"
    adapted.save_pretrained(target)
    return target, adapted


def tool(path, *words):
    """Runs the example; its output."""
    done = subprocess.run([path, *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}: {done.stderr}")
    return done.stdout


def ids_of(vocabulary, seed=3, count=48):
    """Tokens that no tokenizer need give."""
    return numpy.random.default_rng(seed).integers(3, vocabulary - 4, count).tolist()


def llama_logits(path, tokens, lora=None):
    """llama.cpp's logits in f32 attention memory."""
    model = llama_cpp.Llama(
        str(path), n_ctx=256, n_batch=256, logits_all=True, lora_path=str(lora) if lora else None, verbose=False, n_threads=2,
        type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32, flash_attn=False,
    )
    model.eval(tokens)
    return model.scores[: len(tokens)].copy(), model


def torch_logits(model, tokens):
    """transformers' logits."""
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([tokens])).logits[0].float().numpy()


def verdict(name, value, bound, unit=""):
    """One line of the table."""
    good = value <= bound
    print(f"{name:58} {value:10.3g} {unit:4} at most {bound:8.3g}  {'ok' if good else 'MISSED'}", flush=True)
    if not good:
        failures.append(name)


def largest(a, b):
    return float(numpy.abs(a - b).max())


def root_mean_square(a, b):
    return float(numpy.sqrt(((a.astype(numpy.float64) - b) ** 2).mean()))


def compare_ids(name, llama, folder):
    """Token ids of a fixed text, markers included."""
    ours = llama.tokenize(TEXT.encode(), add_bos=False, special=True)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)(TEXT, add_special_tokens=False)["input_ids"]
    verdict(f"{name}: token ids that differ", sum(a != b for a, b in zip(ours, theirs)) + abs(len(ours) - len(theirs)), 0)


def weights_of(path):
    """Every tensor's values and type."""
    tensors = gguf.GGUFReader(path).tensors
    return {t.name: (t.tensor_type.name, gguf.quants.dequantize(t.data, t.tensor_type)) for t in tensors}


def quantised_by_llama(source, target, mix):
    """llama.cpp's own file of a mix; its path."""
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{mix.upper()}")
    parameters.nthread = 2
    status = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), parameters)
    assert status == 0, f"llama_model_quantize: {status}"
    return target


def compare_quantised(name, source, ours, mix, tokens, exact):
    """Our quantisation of a file beside llama.cpp's own of the same."""
    theirs = quantised_by_llama(source, ours.with_name(f"{ours.stem}-theirs.gguf"), mix)
    original, own, other = weights_of(source), weights_of(ours), weights_of(theirs)
    types = [n for n in original if own[n][0] != other[n][0]]
    verdict(f"{name} {mix}: tensors of another type than llama.cpp's", len(types), 0)
    ratios = []
    for n, (kind, values) in original.items():
        theirs_error = root_mean_square(other[n][1], values)
        if other[n][0] != kind and theirs_error > 0:
            ratios.append(root_mean_square(own[n][1], values) / theirs_error)
    verdict(f"{name} {mix}: largest weight error / llama.cpp's", max(ratios), 1.001)
    mine, their = (root_mean_square(llama_logits(p, tokens)[0], exact) for p in (ours, theirs))
    scale = float(numpy.sqrt((exact**2).mean()))
    verdict(f"{name} {mix}: rms of logit error / rms of logits", mine / scale, {"Q8_0": 0.05, "Q6_K": 0.15}.get(mix, 0.5))
    verdict(f"{name} {mix}: rms of logit error / llama.cpp's", mine / their, 1.10)


def check_tiny(binary, work):
    """The four families."""
    for family, folder in make_models(work):
        tokens = ids_of(json.loads((folder / "config.json").read_text())["vocab_size"])
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
        exact = torch_logits(model, tokens)
        files = {mix: work / f"{family}-{mix}.gguf" for mix in ("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q4_0", "Q4_K_M", "Q4_K_S")}
        for mix, path in files.items():
            tool(binary, "model", folder, path, mix)
        found, llama = llama_logits(files["F16"], tokens)
        print(f"{family}: logits reach {numpy.abs(exact).max():.2f}")
        verdict(f"{family} F16: largest logit difference", largest(found, exact), LOGITS_MAX)
        verdict(f"{family} F32: largest logit difference", largest(llama_logits(files["F32"], tokens)[0], exact), LOGITS_MAX)
        compare_ids(family, llama, folder)
        for mix in ("Q8_0", "Q6_K", "Q4_0", "Q4_K_S", "Q4_K_M"):
            compare_quantised(family, files["F32"], files[mix], mix, tokens, exact)
        for rank_stabilised in (False, True):
            adapter, adapted = make_adapter(folder, rank_stabilised)
            wanted = torch_logits(adapted, tokens)
            path = work / f"{family}-adapter.gguf"
            tool(binary, "adapter", folder, adapter, path, "F16")
            found = llama_logits(files["F16"], tokens, path)[0]
            kind = "rank-stabilised adapter" if rank_stabilised else "adapter"
            print(f"{family}: the {kind} moves logits by up to {largest(wanted, exact):.2f}")
            verdict(f"{family} {kind} F16: largest logit difference", largest(found, wanted), LOGITS_MAX)
            shutil.rmtree(adapter)


def check_smollm2(binary, work, source):
    """A real model, from its quantised file."""
    target = work / "smollm2-f16.gguf"
    print(tool(binary, "model", source, target, "F16").strip())
    text = (ROOT / "tests/fixtures/smollm2-135m/text.txt").read_text()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, attn_implementation="eager", dtype=torch.float32)
    _, llama = llama_logits(target, [1])
    tokens = llama.tokenize(text.encode(), add_bos=False, special=True)[:200]
    original = llama_cpp.Llama(str(source), vocab_only=True, verbose=False).tokenize(text.encode(), add_bos=False, special=True)
    verdict("smollm2: token ids that differ from the original's", sum(a != b for a, b in zip(tokens, original)), 0)
    exact = torch_logits(model, tokens)
    found = llama_logits(target, tokens)[0]
    print(f"smollm2: logits reach {numpy.abs(exact).max():.2f}")
    print(f"smollm2 F16: logits differ by up to {largest(found, exact):.4f}")
    verdict("smollm2 F16: largest difference / largest logit", largest(found, exact) / numpy.abs(exact).max(), LOGITS_MAX)
    full = work / "smollm2-f32.gguf"
    tool(binary, "model", source, full, "F32")
    theirs = quantised_by_llama(full, work / "smollm2-f16-theirs.gguf", "F16")
    own, other = ({t.name: t for t in gguf.GGUFReader(path).tensors} for path in (target, theirs))
    differ = [n for n in other if own[n].tensor_type != other[n].tensor_type or not numpy.array_equal(own[n].data, other[n].data)]
    verdict("smollm2 F16: tensors of other bytes than llama.cpp's", len(differ) + len(own) - len(other), 0)
    verdict("smollm2 F16: logits against those of llama.cpp's file", largest(found, llama_logits(theirs, tokens)[0]), 0)
    for at in numpy.flatnonzero(found.argmax(1) != exact.argmax(1)):
        first, second = numpy.sort(exact[at])[[-1, -2]]
        print(f"smollm2 F16: at position {at} the second-best token wins, {first - second:.4f} behind in f32")
    verdict("smollm2 F32: largest logit difference", largest(llama_logits(full, tokens)[0], exact), LOGITS_MAX)
    for mix in ("Q8_0", "Q4_K_M"):
        path = work / f"smollm2-{mix}.gguf"
        print(tool(binary, "model", source, path, mix).strip())
        compare_quantised("smollm2", full, path, mix, tokens, exact)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tool", default=str(ROOT / "target/release/examples/gguf"))
    parser.add_argument("--smollm2", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)
    print(f"llama-cpp-python {llama_cpp.__version__}, transformers {transformers.__version__}, peft {peft.__version__}")
    with tempfile.TemporaryDirectory() as work:
        check_tiny(arguments.tool, Path(work))
        if arguments.smollm2:
            check_smollm2(arguments.tool, Path(work), arguments.smollm2)
        else:
            print("SmolLM2: SKIPPED, no --smollm2")
    print(f"{len(failures)} bounds missed" if failures else "all bounds hold")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
