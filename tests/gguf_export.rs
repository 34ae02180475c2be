//! GGUF files that this program writes, read by the reader that opens anyone's: the same network, weights, logits and token ids.
//!
//! In:    tiny models of every family with random weights and the tokenizer of `tests/fixtures/llama`; PEFT's adapters.
//! Out:   facts about files on disk. What llama.cpp makes of them is `tests/peers/gguf_elsewhere.py`.
//! Never: compares a file with what its own writer says is in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use checkpoints::gguf::{BlockType, File, Mix};
use checkpoints::model_folder::{SideFile, write_model as write_folder};
use checkpoints::peft::{Adapter, read_adapter};
use checkpoints::stream::SourceError;
use checkpoints::tensors::NamedTensor;
use checkpoints::weights::{Weights, names};
use datasets::{Batch, ServedTemplate, Tokenizer};
use planner::architecture::{DecoderSpec, Family, RopeScaling};
use planner::config::{from_hf, to_hf};
use planner::plan::DataPlan;
use trainer::gguf::{
    AdapterFile, GgufExportError, ModelFile, OllamaFiles, check_adapter, check_model, modelfile, write_adapter,
    write_model,
};

use crate::parity::{FAMILIES, base, fixture, logits};

/// Numbers between -1 and 1 from a seed.
fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// The fixture's network with a vocabulary for the tokenizer of `llama`, as llama.cpp can compute it.
fn network(family: &str) -> DecoderSpec {
    let text = std::fs::read_to_string(fixture(family).join("config.json")).unwrap();
    let mut spec = from_hf(&text).unwrap();
    spec.vocabulary = 290;
    if spec.family == Family::Gemma3 {
        spec.attention_scale = (spec.head_dim as f64).powf(-0.5);
    }
    if let RopeScaling::Llama3 { original_max_positions, .. } = &mut spec.ropes[0].scaling {
        *original_max_positions = 8192.0;
        spec.ropes[0].theta = 500_000.0;
    }
    spec
}

/// A Hugging Face folder with random weights.
fn model_folder(target: &Path, spec: &DecoderSpec) -> PathBuf {
    let tensors: Vec<(String, Vec<usize>, Vec<f32>)> = spec
        .tensors()
        .into_iter()
        .enumerate()
        .map(|(number, (name, shape))| {
            let data = random(number as u64 + 1, shape.iter().product());
            (name, shape, data.into_iter().map(|value| value * 0.5).collect())
        })
        .collect();
    let tensors =
        tensors.iter().map(|(name, shape, data)| NamedTensor { name: name.clone(), shape: shape.clone(), data }.into());
    let read = |name: &str| std::fs::read(fixture("llama").join(name)).unwrap();
    let mut files: Vec<SideFile> = ["tokenizer.json", "tokenizer_config.json"]
        .map(|name| SideFile { name: name.to_string(), bytes: read(name) })
        .to_vec();
    files.push(SideFile { name: "config.json".into(), bytes: to_hf(spec, "float32").to_string().into_bytes() });
    write_folder(target, tensors.collect(), &files).unwrap();
    target.to_path_buf()
}

fn from(weights: &Weights) -> impl FnMut(&str) -> Result<Vec<f32>, SourceError> + '_ {
    |name| Ok(weights.read(name)?.data)
}

fn file<'a>(model: &'a Weights, mix: Mix) -> ModelFile<'a> {
    ModelFile { model, mix, name: "test", chat_template: None }
}

fn logits_of(model: &Path) -> Vec<f32> {
    let tokens: Vec<u32> = (0..14).map(|n| n * 17 % 288).collect();
    let batch = Batch { segments: vec![0, tokens.len() as u32], tokens, ..Batch::default() };
    logits(&base(model, "f32").engine, &batch)
}

#[test]
fn a_model_of_every_family_written_in_f32_is_the_same_network_with_the_same_logits() {
    let folder = tempfile::tempdir().unwrap();
    for family in FAMILIES {
        let spec = network(family);
        let model = model_folder(&folder.path().join(family), &spec);
        let weights = Weights::open(&model).unwrap();
        let path = folder.path().join(format!("{family}.gguf"));
        let written = write_model(&path, &file(&weights, Mix::F32), &mut from(&weights)).unwrap();
        let compared = check_model(&path, &file(&weights, Mix::F32), &mut from(&weights)).unwrap();
        assert_eq!(compared.tensors, written.tensors);
        assert_eq!(compared.errors, [(BlockType::F32, 0.0)]);
        let back = Weights::open(&path).unwrap();
        // GGUF holds f32 epsilons, and norms with Gemma's 1 added.
        assert!((back.spec().norm_epsilon - spec.norm_epsilon).abs() < 1e-9);
        let expected = DecoderSpec { norm_epsilon: back.spec().norm_epsilon, norm_offset: false, ..spec.clone() };
        assert_eq!(back.spec(), &expected, "{family}");
        let (ours, theirs) = (logits_of(&model), logits_of(&path));
        let difference = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let largest = ours.iter().copied().map(f32::abs).fold(0.0, f32::max);
        assert!(difference <= 1e-5 * largest, "{family}: {difference} of {largest}");
    }
}

#[test]
fn every_mix_is_read_back_within_the_error_of_its_formats() {
    let folder = tempfile::tempdir().unwrap();
    let (hidden, head_dim) = (256, 32);
    let attention_scale = (head_dim as f64).powf(-0.5);
    let sizes = DecoderSpec { hidden, head_dim, intermediate: 512, n_heads: 8, n_kv_heads: 4, ..network("qwen3") };
    let spec = DecoderSpec { attention_scale, ..sizes };
    let model = model_folder(&folder.path().join("model"), &spec);
    let weights = Weights::open(&model).unwrap();
    let mut sizes = BTreeMap::new();
    for mix in Mix::ALL {
        let path = folder.path().join(format!("{}.gguf", mix.name()));
        let written = write_model(&path, &file(&weights, mix), &mut from(&weights)).unwrap();
        let compared = check_model(&path, &file(&weights, mix), &mut from(&weights)).unwrap();
        assert!(written.notes.is_empty(), "{:?}", written.notes);
        let kinds: Vec<BlockType> = compared.errors.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds.contains(&BlockType::Q6_K), ["Q6_K", "Q4_0", "Q4_K_S", "Q4_K_M"].contains(&mix.name()));
        // Uniform numbers: a step is a 2^bits-th of the range, the error a 12th root of it.
        for (kind, error) in compared.errors {
            let bound = match kind {
                BlockType::F32 => 0.0,
                BlockType::F16 => 3e-4,
                BlockType::BF16 => 2.5e-3,
                BlockType::Q8_0 => 5e-3,
                BlockType::Q6_K => 0.02,
                BlockType::Q5_K => 0.04,
                _ => 0.08,
            };
            assert!(error <= bound, "{mix:?}: {kind:?} is {error} off");
        }
        sizes.insert(mix.name(), written.bytes);
        assert_eq!(written.bytes, std::fs::metadata(&path).unwrap().len());
    }
    let ordered = Mix::ALL.map(|mix| sizes[mix.name()]);
    assert!(ordered[0] > ordered[1] && ordered[1] > ordered[3] && ordered[3] > ordered[4] && ordered[4] > ordered[7]);
}

#[test]
fn rows_that_no_block_divides_are_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let weights = Weights::open(&model_folder(&folder.path().join("model"), &network("smollm2"))).unwrap();
    let path = folder.path().join("model.gguf");
    let written = write_model(&path, &file(&weights, Mix::Q4_K_M), &mut from(&weights)).unwrap();
    check_model(&path, &file(&weights, Mix::Q4_K_M), &mut from(&weights)).unwrap();
    let text = written.notes.join("\n");
    assert!(text.contains("F16 instead of Q4_K") && text.contains("rows of 24 numbers"), "{text}");
}

#[test]
fn a_model_that_came_as_gguf_keeps_its_keys_and_its_tokenizer_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let weights = Weights::open(&fixture("gguf/tiny-llama.gguf")).unwrap();
    let path = folder.path().join("again.gguf");
    let asked = ModelFile { chat_template: Some("{{ messages }}"), ..file(&weights, Mix::BF16) };
    write_model(&path, &asked, &mut from(&weights)).unwrap();
    check_model(&path, &asked, &mut from(&weights)).unwrap();
    let (before, after) = (File::open(&fixture("gguf/tiny-llama.gguf")).unwrap(), File::open(&path).unwrap());
    let kept = |file: &File| -> BTreeMap<String, checkpoints::gguf::Entry> {
        let entries = file.stored_entries().into_iter();
        entries
            .filter(|(key, _)| !key.starts_with("general.") && *key != "tokenizer.chat_template")
            .map(|(key, entry)| (key.to_string(), entry))
            .collect()
    };
    assert!(kept(&before).len() > 15);
    assert_eq!(kept(&before), kept(&after));
    assert_eq!(after.metadata().text("tokenizer.chat_template").unwrap(), Some("{{ messages }}"));
    // BF16 holds all but the tensors that were F16, Q8_0 or F32; the norms are F32 in both.
    assert_eq!(after.read("blk.1.attn_norm.weight").unwrap(), before.read("blk.1.attn_norm.weight").unwrap());
    assert_eq!(after.read("blk.1.attn_v.weight").unwrap(), before.read("blk.1.attn_v.weight").unwrap());
}

fn adapter_file(model: &Weights) -> AdapterFile<'_> {
    AdapterFile { model, name: "test", kind: BlockType::F32 }
}

#[test]
fn an_adapter_carries_peft_s_scale_in_alpha_and_llama_s_row_order_in_b() {
    let folder = tempfile::tempdir().unwrap();
    for (family, sub, root) in
        [("llama", "adapter", 1.0), ("llama", "adapter-rslora", 3f64.sqrt()), ("qwen3", "adapter", 1.0)]
    {
        let weights = Weights::open(&fixture(family)).unwrap();
        let adapter = read_adapter(&fixture(family).join(sub)).unwrap();
        let path = folder.path().join("adapter.gguf");
        write_adapter(&path, &adapter_file(&weights), &adapter).unwrap();
        check_adapter(&path, &adapter_file(&weights), &adapter).unwrap();
        let read = File::open(&path).unwrap();
        let text = |key: &str| read.metadata().text(key).unwrap().map(str::to_string);
        assert_eq!(text("general.type").as_deref(), Some("adapter"));
        assert_eq!(text("general.architecture").as_deref(), Some(family));
        assert_eq!(text("adapter.type").as_deref(), Some("lora"));
        // Rank 3: llama.cpp divides by 3 where PEFT divides by its root.
        let alpha = (adapter.config.alpha * root) as f32;
        assert_eq!(read.metadata().f32("adapter.lora.alpha").unwrap(), Some(alpha), "{family}/{sub}");
        assert_eq!(read.tensors().len(), 2 * adapter.pairs.len());
        let module = "model.layers.1.self_attn.q_proj";
        let Some(pair) = adapter.pairs.get(module) else { continue };
        let a = read.tensor("blk.1.attn_q.weight.lora_a").unwrap();
        assert_eq!(a.shape, pair.a.shape);
        let b = read.read("blk.1.attn_q.weight.lora_b").unwrap();
        let spec = weights.spec();
        let back = match family {
            "llama" => names::unpermuted(&b, spec.n_heads, spec.head_dim),
            _ => b.clone(),
        };
        assert_eq!(back, pair.b.data);
        assert_eq!(b == pair.b.data, family != "llama");
    }
}

#[test]
fn adapters_of_mixed_ranks_have_what_alpha_cannot_say_folded_into_b() {
    let folder = tempfile::tempdir().unwrap();
    let weights = Weights::open(&fixture("qwen3")).unwrap();
    let Adapter { mut config, mut pairs } = read_adapter(&fixture("qwen3/adapter")).unwrap();
    (config.rank_stabilized, config.rank) = (true, 2);
    let module = pairs.keys().next().unwrap().clone();
    let pair = pairs.get_mut(&module).unwrap();
    // The same pair with eight rows, all but two of them zero.
    let (inputs, outputs) = (pair.a.shape[1], pair.b.shape[0]);
    pair.a.shape[0] = 8;
    pair.a.data.resize(8 * inputs, 0.0);
    pair.b.data = pair.b.data.chunks_exact(2).flat_map(|row| [row[0], row[1], 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]).collect();
    pair.b.shape = vec![outputs, 8];
    let (alpha, given) = (config.alpha, pair.b.data[0]);
    let adapter = Adapter { config, pairs };
    let path = folder.path().join("adapter.gguf");
    write_adapter(&path, &adapter_file(&weights), &adapter).unwrap();
    check_adapter(&path, &adapter_file(&weights), &adapter).unwrap();
    let read = File::open(&path).unwrap();
    let name = names::gguf(&format!("{module}.weight"), Family::Qwen3).unwrap();
    let written = read.read(&format!("{name}.lora_b")).unwrap()[0];
    let at_run_time = f64::from(read.metadata().f32("adapter.lora.alpha").unwrap().unwrap()) / 8.0 * f64::from(written);
    let wanted = alpha / 8f64.sqrt() * f64::from(given);
    assert!((at_run_time - wanted).abs() <= 1e-6 * wanted.abs(), "{at_run_time} instead of {wanted}");
}

#[test]
fn what_cannot_be_written_is_refused_by_name_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out/model.gguf");
    let refusal = |model: &Path, mix: Mix, change: fn(&str, &mut Vec<f32>)| {
        let weights = Weights::open(model).unwrap();
        let mut source = |name: &str| -> Result<Vec<f32>, SourceError> {
            let mut data = weights.read(name)?.data;
            change(name, &mut data);
            Ok(data)
        };
        let error = write_model(&path, &file(&weights, mix), &mut source).unwrap_err();
        assert!(std::fs::read_dir(folder.path().join("out")).map_or(0, Iterator::count) == 0, "{error}");
        error.to_string()
    };
    let text = refusal(&fixture("gemma3"), Mix::F16, |_, _| {});
    assert!(text.contains("query_pre_attn_scalar"), "{text}");
    let text = refusal(&fixture("qwen3"), Mix::F16, |_, _| {});
    assert!(text.contains("tokenizer.json"), "{text}");
    let text = refusal(&fixture("llama"), Mix::F16, |name, data| {
        if name == "model.layers.1.mlp.up_proj.weight" {
            data[5] = f32::NAN;
        }
    });
    assert!(text.contains("model.layers.1.mlp.up_proj.weight") && text.contains("number 5 is NaN"), "{text}");
    let large = |_: &str, data: &mut Vec<f32>| data[0] = 1e6;
    assert!(refusal(&fixture("llama"), Mix::F16, large).contains("does not fit 16-bit floats"));
    let short = |_: &str, data: &mut Vec<f32>| data.truncate(data.len() - 1);
    assert!(refusal(&fixture("llama"), Mix::F16, short).contains("numbers were given for shape"));
    let weights = Weights::open(&fixture("llama")).unwrap();
    let other = read_adapter(&fixture("qwen3/adapter")).unwrap();
    let error = write_adapter(&path, &adapter_file(&weights), &other).unwrap_err();
    assert!(matches!(error, GgufExportError::Tensor { .. }) && error.to_string().contains("the model's is"), "{error}");
    assert!(!path.exists());
}

#[test]
fn a_file_that_holds_something_else_than_was_asked_for_is_not_called_good() {
    let folder = tempfile::tempdir().unwrap();
    let weights = Weights::open(&fixture("llama")).unwrap();
    let path = folder.path().join("model.gguf");
    write_model(&path, &file(&weights, Mix::F16), &mut from(&weights)).unwrap();
    let good = std::fs::read(&path).unwrap();
    let problem = || check_model(&path, &file(&weights, Mix::F16), &mut from(&weights)).unwrap_err().to_string();
    let extent = File::open(&path).unwrap().tensor("blk.1.ffn_up.weight").unwrap().extent.clone();
    let mut bad = good.clone();
    bad[extent.start + 10] ^= 1;
    std::fs::write(&path, &bad).unwrap();
    assert!(problem().contains("number 5 of `blk.1.ffn_up.weight`"), "{}", problem());
    // The token `e` spelled otherwise; the length of the file stays.
    let mut bad = good.clone();
    let at = bad.windows(9).position(|window| window == b"\x01\0\0\0\0\0\0\0e").unwrap();
    bad[at + 8] = b'\x7f';
    std::fs::write(&path, &bad).unwrap();
    let text = problem();
    assert!(text.contains("tokenizer") || text.contains("merge") || text.contains("token ids"), "{text}");
}

#[test]
fn the_modelfile_says_what_the_template_trained_with_says() {
    let tokenizer = Tokenizer::from_folder(&fixture("llama")).unwrap();
    let plan = DataPlan::of(Vec::new(), 64);
    let template = ServedTemplate::of(&plan, &tokenizer).unwrap().unwrap();
    let whole = modelfile(OllamaFiles::Model { model: "model-q4_k_m.gguf" }, Some(&template));
    assert!(whole.text.starts_with("FROM ./model-q4_k_m.gguf\nTEMPLATE \"\"\""), "{}", whole.text);
    assert!(whole.text.contains("<|im_start|>user\n{{ .Content }}<|im_end|>\n"), "{}", whole.text);
    assert!(
        whole.text.ends_with("\"\"\"\nPARAMETER stop \"<|im_end|>\"\nPARAMETER stop \"<|endoftext|>\"\n"),
        "{}",
        whole.text
    );
    let files = OllamaFiles::Adapter { base: "base.gguf", adapter: "adapter.gguf" };
    let both = modelfile(files, None);
    assert_eq!(both.text, "FROM ./base.gguf\nADAPTER ./adapter.gguf\n");
    assert!(both.notes[0].contains("no chat template"), "{:?}", both.notes);
}
