//! The metadata of a GGUF model file.
//!
//! In:    a model to write, its layout.
//! Out:   keys and values as llama.cpp's converter names them.
//! Never: changes what a GGUF base says of its network and tokenizer: that is carried over byte for byte.

use checkpoints::gguf::{BlockType, Entry, File};
use datasets::GgufVocabulary;
use planner::config::MetadataValue;

use super::layout::Layout;
use super::{GgufExportError, ModelFile};

const CHAT_TEMPLATE: &str = "tokenizer.chat_template";
/// Version of the block formats.
const QUANTIZATION_VERSION: u32 = 2;

/// Entries of the tokenizer, and what the user should know.
pub(super) struct Vocabulary {
    pub(super) entries: Vec<(String, Entry)>,
    pub(super) notes: Vec<String>,
}

/// `general.*`, then the network, then the tokenizer.
pub(super) fn model_entries(
    file: &ModelFile<'_>,
    layout: &Layout,
    vocabulary: Vec<(String, Entry)>,
) -> Vec<(String, Entry)> {
    let architecture = layout.description.architecture;
    let mut entries = general(architecture, "model", file.name, file.mix.file_type());
    match file.model.gguf() {
        Some(base) => entries.extend(carried(base, &format!("{architecture}."))),
        None => {
            let keys = layout.description.keys.iter().filter(|(key, _)| !key.starts_with("general."));
            entries.extend(keys.filter_map(|(key, value)| Some((key.clone(), entry(value)?))));
        }
    }
    entries.extend(vocabulary);
    entries
}

/// What every GGUF file begins with.
pub(super) fn general(architecture: &str, kind: &str, name: &str, file_type: u32) -> Vec<(String, Entry)> {
    let text = |text: &str| Entry::Text(text.to_string());
    [
        ("general.architecture", text(architecture)),
        ("general.type", text(kind)),
        ("general.name", text(name)),
        ("general.file_type", Entry::U32(file_type)),
        ("general.quantization_version", Entry::U32(QUANTIZATION_VERSION)),
    ]
    .map(|(key, value)| (key.to_string(), value))
    .to_vec()
}

/// `general.file_type` of a file whose matrices are all of this format.
pub(super) fn file_type_of(kind: BlockType) -> u32 {
    match kind {
        BlockType::F32 => 0,
        BlockType::BF16 => 32,
        _ => 1,
    }
}

fn carried(base: &File, prefix: &str) -> Vec<(String, Entry)> {
    let entries = base.stored_entries().into_iter().filter(|(key, _)| key.starts_with(prefix));
    entries.map(|(key, value)| (key.to_string(), value)).collect()
}

fn entry(value: &MetadataValue) -> Option<Entry> {
    Some(match value {
        MetadataValue::Unsigned(value) => u32::try_from(*value).map_or(Entry::U64(*value), Entry::U32),
        MetadataValue::Float(value) => Entry::F32(*value as f32),
        MetadataValue::Bool(value) => Entry::Bool(*value),
        MetadataValue::Text(text) => Entry::Text(text.clone()),
        MetadataValue::UnsignedList(_) | MetadataValue::Other => return None,
    })
}

/// The tokenizer's entries.
pub(super) fn vocabulary(file: &ModelFile<'_>) -> Result<Vocabulary, GgufExportError> {
    let (mut entries, notes) = match file.model.gguf() {
        Some(base) => (carried(base, "tokenizer."), Vec::new()),
        None => {
            let tokenizer = crate::load::tokenizer(file.model)?;
            let (vocabulary, notes) = tokenizer.to_gguf(file.model.folder(), file.model.spec().vocabulary)?;
            (spelled(vocabulary), notes)
        }
    };
    if let Some(template) = file.chat_template {
        entries.retain(|(key, _)| key != CHAT_TEMPLATE);
        entries.push((CHAT_TEMPLATE.to_string(), Entry::Text(template.to_string())));
    }
    Ok(Vocabulary { entries, notes })
}

fn spelled(vocabulary: GgufVocabulary) -> Vec<(String, Entry)> {
    let ids = [
        ("bos_token_id", vocabulary.bos),
        ("eos_token_id", vocabulary.eos),
        ("eot_token_id", vocabulary.eot),
        ("unknown_token_id", vocabulary.unknown),
        ("padding_token_id", vocabulary.padding),
    ];
    let flags = [
        ("add_bos_token", vocabulary.add_bos),
        ("add_eos_token", vocabulary.add_eos),
        ("add_space_prefix", vocabulary.add_space_prefix),
    ];
    let mut entries = vec![("model", Entry::Text(vocabulary.model))];
    entries.extend(vocabulary.pre.map(|pre| ("pre", Entry::Text(pre))));
    entries.push(("tokens", Entry::Texts(vocabulary.tokens)));
    entries.extend(vocabulary.scores.map(|scores| ("scores", Entry::F32s(scores))));
    entries.extend(vocabulary.token_types.map(|kinds| ("token_type", Entry::I32s(kinds))));
    if !vocabulary.merges.is_empty() {
        entries.push(("merges", Entry::Texts(vocabulary.merges)));
    }
    entries.extend(ids.into_iter().filter_map(|(key, id)| Some((key, Entry::U32(id?)))));
    entries.extend(flags.into_iter().filter_map(|(key, flag)| Some((key, Entry::Bool(flag?)))));
    let mut entries: Vec<(String, Entry)> =
        entries.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect();
    entries.extend(vocabulary.chat_template.map(|text| (CHAT_TEMPLATE.to_string(), Entry::Text(text))));
    entries
}
