//! The tokenizer that a GGUF file's metadata describes, as the `tokenizer.json` that says the same.
//!
//! In:    a [`GgufVocabulary`], the `tokenizer.ggml.*` entries as they stand in the file.
//! Out:   the JSON, and the facts about special tokens.
//! Never: guesses a pre-tokenizer: other splitting gives other token ids than the model was trained on.
//!
//! Follows llama.cpp's loader, since ids here must be those that the file is served with.

use serde_json::{Map, Value, json};

use crate::error::DataError;
use crate::pre_tokenizers::{self, Splitting};
use crate::spm_merges;
use crate::tokenizer::Facts;

/// The tokenizer entries of a GGUF file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GgufVocabulary {
    /// `gpt2` (byte-level BPE) or `llama` (SentencePiece BPE).
    pub model: String,
    /// Name of the pre-tokenizer, for `gpt2`.
    pub pre: Option<String>,
    /// Spelling of every token, by id.
    pub tokens: Vec<String>,
    /// Score of every token (`llama`).
    pub scores: Option<Vec<f32>>,
    /// Kind of every token: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    pub token_types: Option<Vec<i32>>,
    /// Merges, best first, `left right` (`gpt2`).
    pub merges: Vec<String>,
    /// Beginning-of-text id.
    pub bos: Option<u32>,
    /// End-of-text id.
    pub eos: Option<u32>,
    /// End-of-turn id.
    pub eot: Option<u32>,
    /// Id for what the vocabulary cannot spell.
    pub unknown: Option<u32>,
    /// Padding id.
    pub padding: Option<u32>,
    /// Whether plain text starts with `bos`.
    pub add_bos: Option<bool>,
    /// Whether plain text ends with `eos`; training decides that itself.
    pub add_eos: Option<bool>,
    /// Whether text gets a leading space.
    pub add_space_prefix: Option<bool>,
    /// Jinja source of the chat template.
    pub chat_template: Option<String>,
}

/// What errors call the source.
const PLACE: &str = "GGUF metadata";
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

/// Beginning, end and template.
pub(crate) fn facts(vocabulary: &GgufVocabulary) -> Result<Facts, DataError> {
    let spm = is_spm(vocabulary)?;
    // SentencePiece's ids where the file does not say, as llama.cpp has them.
    let default = |id: u32| spm.then_some(id);
    let mut eos: Vec<u32> = Vec::new();
    for id in vocabulary.eos.or(default(2)).into_iter().chain(vocabulary.eot) {
        if !eos.contains(&id) {
            eos.push(id);
        }
    }
    let bos_by_default = spm || pre_tokenizers::adds_bos(vocabulary.pre.as_deref());
    Ok(Facts {
        place: PLACE.to_owned(),
        bos: vocabulary.bos.or(default(1)),
        eos,
        adds_bos: vocabulary.add_bos.unwrap_or(bos_by_default),
        chat_template: vocabulary.chat_template.clone(),
    })
}

/// The same tokenizer as JSON.
pub(crate) fn tokenizer_json(vocabulary: GgufVocabulary) -> Result<Value, DataError> {
    check_lengths(&vocabulary)?;
    let added = added_tokens(&vocabulary);
    let parts = if is_spm(&vocabulary)? { spm(&vocabulary)? } else { byte_level(&vocabulary)? };
    let vocab: Map<String, Value> =
        vocabulary.tokens.into_iter().enumerate().map(|(id, token)| (token, json!(id))).collect();
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": parts.normalizer,
        "pre_tokenizer": parts.pre_tokenizer,
        "post_processor": null,
        "decoder": parts.decoder,
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": parts.unknown,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": parts.byte_fallback,
            "byte_fallback": parts.byte_fallback,
            "ignore_merges": parts.ignore_merges,
            "vocab": vocab,
            "merges": parts.merges,
        },
    }))
}

/// What the two families differ in.
struct Parts {
    normalizer: Value,
    pre_tokenizer: Value,
    decoder: Value,
    unknown: Option<String>,
    byte_fallback: bool,
    ignore_merges: bool,
    merges: Vec<(String, String)>,
}

fn is_spm(vocabulary: &GgufVocabulary) -> Result<bool, DataError> {
    match vocabulary.model.as_str() {
        "llama" => Ok(true),
        "gpt2" => Ok(false),
        other => Err(DataError::UnsupportedTokenizer { model: other.to_owned() }),
    }
}

fn check_lengths(vocabulary: &GgufVocabulary) -> Result<(), DataError> {
    let tokens = vocabulary.tokens.len();
    let others = [
        ("scores", vocabulary.scores.as_ref().map(Vec::len)),
        ("token_type", vocabulary.token_types.as_ref().map(Vec::len)),
    ];
    for (name, length) in others {
        if let Some(length) = length.filter(|length| *length != tokens) {
            let reason = format!("tokenizer.ggml.{name} has {length} entries for {tokens} tokens");
            return Err(DataError::tokenizer(PLACE, reason));
        }
    }
    if u32::try_from(tokens).is_err() {
        return Err(DataError::tokenizer(PLACE, format!("{tokens} tokens do not fit 32-bit ids")));
    }
    Ok(())
}

/// Control and user-defined tokens are found in text as they stand; only control tokens are left out of decoded text.
fn added_tokens(vocabulary: &GgufVocabulary) -> Vec<Value> {
    let kinds = vocabulary.token_types.iter().flatten();
    let added = vocabulary.tokens.iter().zip(kinds).enumerate();
    added
        .filter(|(_, (token, kind))| [UNKNOWN, CONTROL, USER_DEFINED].contains(*kind) && !token.is_empty())
        .map(|(id, (token, kind))| {
            json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": *kind != USER_DEFINED,
            })
        })
        .collect()
}

fn byte_level(vocabulary: &GgufVocabulary) -> Result<Parts, DataError> {
    let Splitting { normalizer, pre_tokenizer, ignore_merges } =
        pre_tokenizers::splitting(vocabulary.pre.as_deref(), vocabulary.add_space_prefix.unwrap_or(false))?;
    Ok(Parts {
        normalizer,
        pre_tokenizer,
        decoder: json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
        unknown: None,
        byte_fallback: false,
        ignore_merges,
        merges: split_merges(vocabulary)?,
    })
}

/// Splits `left right` at the first space that is not the piece itself, and checks the result.
fn split_merges(vocabulary: &GgufVocabulary) -> Result<Vec<(String, String)>, DataError> {
    let known: std::collections::HashSet<&str> = vocabulary.tokens.iter().map(String::as_str).collect();
    let mut merges = Vec::with_capacity(vocabulary.merges.len());
    for (index, merge) in vocabulary.merges.iter().enumerate() {
        let first = merge.chars().next().map_or(0, char::len_utf8);
        let pair = merge[first..].find(' ').map(|at| (&merge[..first + at], &merge[first + at + 1..]));
        match pair {
            Some((left, right))
                if known.contains(left)
                    && known.contains(right)
                    && known.contains(format!("{left}{right}").as_str()) =>
            {
                merges.push((left.to_owned(), right.to_owned()));
            }
            _ => {
                let reason = format!("merge {index} ({merge:?}) does not join two tokens into a third");
                return Err(DataError::tokenizer(PLACE, reason));
            }
        }
    }
    Ok(merges)
}

fn spm(vocabulary: &GgufVocabulary) -> Result<Parts, DataError> {
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    let prefixed = vocabulary.add_space_prefix.unwrap_or(true);
    let normalizer = if prefixed {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]})
    } else {
        replace
    };
    let unknown = vocabulary.unknown.unwrap_or(0) as usize;
    Ok(Parts {
        normalizer,
        pre_tokenizer: Value::Null,
        decoder: json!({"type": "Sequence", "decoders": decoders}),
        unknown: vocabulary.tokens.get(unknown).cloned(),
        byte_fallback: true,
        ignore_merges: false,
        merges: spm_merges::from_scores(vocabulary)?,
    })
}
