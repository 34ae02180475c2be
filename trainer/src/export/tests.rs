//! Facts about comparisons: what was changed after it was written is found.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use checkpoints::merged::{Change, Merged};
use checkpoints::model_folder::stage_model;
use checkpoints::narrow::whole;
use checkpoints::peft::{read_adapter, stage_adapter};
use checkpoints::stream::{Format, StreamedTensor};
use checkpoints::weights::Weights;
use datasets::Tokenizer;

use super::{ExportError, tensors, tokens};
use crate::model_folder::files_beside;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

/// The tiny Llama with its adapter merged, in bf16, and the folder it is in.
fn staged(weights: &Weights, change: Change<'_>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let merged = Merged::new(weights, change).unwrap();
    let tensors = weights.spec().tensors().into_iter().map(|(name, shape)| {
        let (merged, own) = (&merged, name.clone());
        let fill = whole(Format::Bf16, move || Ok(merged.read(&own)?.data));
        StreamedTensor { name, shape, format: Format::Bf16, fill }
    });
    let files = files_beside(weights, Format::Bf16, None).unwrap();
    stage_model(folder.path(), tensors.collect(), &files, u64::MAX).unwrap();
    folder
}

#[test]
fn one_changed_bit_of_a_written_weight_is_found_by_name() {
    let weights = Weights::open(&fixture("llama")).unwrap();
    let adapter = read_adapter(&fixture("llama/adapter")).unwrap();
    let change = Change::Adapter(&adapter);
    let folder = staged(&weights, change);
    let merged = Merged::new(&weights, change).unwrap();
    let compare = || tensors::compare_model(&merged, &Weights::open(folder.path()).unwrap(), Format::Bf16);
    assert_eq!(compare().unwrap().0, weights.spec().tensors().len());
    let path = folder.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(compare(), Err(ExportError::TensorDiffers { .. })));
    let base_alone = Merged::new(&weights, Change::Nothing).unwrap();
    let written = Weights::open(folder.path()).unwrap();
    let error = tensors::compare_model(&base_alone, &written, Format::Bf16).unwrap_err();
    assert!(matches!(error, ExportError::TensorDiffers { .. }), "a model without its adapter is another one");
    let error = tensors::compare_model(&merged, &written, Format::F16).unwrap_err();
    assert!(matches!(error, ExportError::FormatDiffers { .. }));
}

#[test]
fn an_adapter_with_another_number_or_another_scale_is_found() {
    let adapter = read_adapter(&fixture("llama/adapter")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let compare = |changed: &checkpoints::peft::Adapter| {
        stage_adapter(folder.path(), &changed.config, &changed.tensors()).unwrap();
        tensors::compare_adapters(&adapter, &read_adapter(folder.path()).unwrap(), folder.path())
    };
    assert_eq!(compare(&adapter).unwrap().0, 28);
    let mut other = adapter.clone();
    other.pairs.values_mut().next().unwrap().b.data[3] += 1e-6;
    assert!(matches!(compare(&other), Err(ExportError::TensorDiffers { at: 3, .. })));
    let mut other = adapter.clone();
    other.config.rank_stabilized = true;
    assert!(matches!(compare(&other), Err(ExportError::ScaleDiffers { .. })));
    let mut other = adapter.clone();
    other.pairs.pop_first();
    assert!(matches!(compare(&other), Err(ExportError::TensorMissing { .. })));
}

#[test]
fn a_tokenizer_with_two_ids_exchanged_another_end_or_another_template_is_found() {
    let ours = Tokenizer::from_folder(&fixture("llama")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str| std::fs::read_to_string(fixture("llama").join(name)).unwrap();
    let written = |tokenizer: &str, config: &str| {
        std::fs::write(folder.path().join("tokenizer.json"), tokenizer).unwrap();
        std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
        tokens::compare(&ours, None, &Tokenizer::from_folder(folder.path()).unwrap())
    };
    let (tokenizer, config) = (read("tokenizer.json"), read("tokenizer_config.json"));
    assert!(written(&tokenizer, &config).unwrap() > 100);
    let mut json: serde_json::Value = serde_json::from_str(&tokenizer).unwrap();
    let vocabulary = json["model"]["vocab"].as_object_mut().unwrap();
    let (t, h) = (vocabulary["T"].clone(), vocabulary["q"].clone());
    vocabulary.insert("T".into(), h);
    vocabulary.insert("q".into(), t);
    assert!(matches!(written(&json.to_string(), &config), Err(ExportError::TokensDiffer { .. })));
    let other_end = config.replace("\"eos_token\": \"<|im_end|>\"", "\"eos_token\": \"<|endoftext|>\"");
    assert!(matches!(written(&tokenizer, &other_end), Err(ExportError::EndsDiffer { .. })));
    let other_template = config.replace("<|im_end|>\\\\n", "<|im_end|>");
    assert!(matches!(written(&tokenizer, &other_template), Err(ExportError::TemplateDiffers)));
}
