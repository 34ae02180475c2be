//! A tokenizer as the `tokenizer.ggml.*` entries of a GGUF file.
//!
//! In:    a [`Tokenizer`], its folder, the rows of the model's embedding.
//! Out:   a [`GgufVocabulary`] that gives the same ids when read back, and what llama.cpp does otherwise.
//! Never: writes a tokenizer whose ids would change: it is refused, with the part of it that GGUF has no word for.
//!
//! Follows llama.cpp's converter: control tokens are those that `tokenizer.json` calls special or that look so; ids without a token
//! are `[PAD<id>]`, unused. A SentencePiece score is the rank of the piece's first merge, below zero, as sentencepiece trains it.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use crate::error::DataError;
use crate::gguf_vocabulary::GgufVocabulary;
use crate::tokenizer::Tokenizer;
use crate::{folder, pre_tokenizers};

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;
/// Pieces to which no merge leads.
const SCORE_NONE: f32 = -1e6;

/// What ends a turn but not a text, by name, as llama.cpp knows them.
const TURN_ENDS: [&str; 5] = ["<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<turn|>"];

/// Text that a tokenizer must cut in the same way after writing and reading; it holds what pre-tokenizers differ in.
pub const FIXED_TEXT: &str = "The quick brown fox jumps over the lazy dog.\n\nIt's 1234567890 bytes, isn't it? WE'LL see: 3.14159e-10\t\
     (tabs)  two  spaces   three\r\nnaïve café Ångström — “quotes” … 東京タワー Привет мир عربى हिन्दी 한국어 🦀👩‍🚀\n    def \
     f(x):\n        return x**2 # ok\n<html>&amp;</html> $^{}_| ~`@ ";

/// Entries for a GGUF file, with notes for the user. `rows` is the height of the embedding.
pub(crate) fn vocabulary(
    tokenizer: &Tokenizer,
    folder: Option<&Path>,
    rows: usize,
) -> Result<(GgufVocabulary, Vec<String>), DataError> {
    let json: Value =
        serde_json::from_str(&tokenizer.to_json()?).map_err(|error| DataError::tokenizer("tokenizer.json", error))?;
    let mut notes = Vec::new();
    let mut tokens = Tokens::read(&json, rows, &mut notes)?;
    let mut vocabulary = match spaces(&json)? {
        None => byte_level(&json)?,
        Some(prefixed) => GgufVocabulary { add_space_prefix: Some(prefixed), ..sentence_pieces(&json, &mut tokens) },
    };
    (vocabulary.tokens, vocabulary.token_types) = (tokens.texts, Some(tokens.kinds));
    special_ids(&mut vocabulary, tokenizer, folder)?;
    check(tokenizer, &vocabulary, &mut notes)?;
    Ok((vocabulary, notes))
}

fn refused(reason: impl Into<String>) -> DataError {
    DataError::NotForGguf { reason: reason.into() }
}

/// Spelling and kind of every id.
struct Tokens {
    texts: Vec<String>,
    kinds: Vec<i32>,
}

impl Tokens {
    fn read(json: &Value, rows: usize, notes: &mut Vec<String>) -> Result<Tokens, DataError> {
        let model = &json["model"];
        if model["type"] != "BPE" {
            return Err(refused(format!("its model is {}, only BPE can be written", model["type"])));
        }
        for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
            if model[key].as_str().is_some_and(|text| !text.is_empty()) {
                return Err(refused(format!("its `{key}` is {}, which GGUF cannot say", model[key])));
            }
        }
        let pad = |id: usize| format!("[PAD{id}]");
        let mut tokens = Tokens { texts: (0..rows).map(pad).collect(), kinds: vec![UNUSED; rows] };
        for (text, id) in model["vocab"].as_object().into_iter().flatten() {
            tokens.set(id, text, NORMAL);
        }
        let mut beyond = 0;
        for added in json["added_tokens"].as_array().into_iter().flatten() {
            let text = added["content"].as_str().unwrap_or_default();
            let kind = if added["special"] == true || looks_special(text) { CONTROL } else { USER_DEFINED };
            beyond += usize::from(!tokens.set(&added["id"], text, kind));
            if ["lstrip", "rstrip", "single_word"].iter().any(|flag| added[flag] == true) {
                notes.push(format!("the token {text} takes spaces beside it away; llama.cpp leaves them"));
            }
        }
        if beyond > 0 {
            notes.push(format!("{beyond} added tokens beyond the embedding's {rows} rows are left out"));
        }
        Ok(tokens)
    }

    /// Whether there is such an id.
    fn set(&mut self, id: &Value, text: &str, kind: i32) -> bool {
        let id = id.as_u64().map_or(usize::MAX, |id| id as usize);
        let there = id < self.texts.len();
        if there {
            self.texts[id] = text.to_owned();
            self.kinds[id] = kind;
        }
        there
    }
}

/// The converter's `does_token_look_special`: models are published whose markers are not called special.
fn looks_special(text: &str) -> bool {
    ["<pad>", "<mask>", "<2mass>", "[@BOS@]"].contains(&text)
        || text.starts_with("<|") && text.ends_with("|>")
        || text.starts_with("<｜") && text.ends_with("｜>")
        || text.starts_with("<unused") && text.ends_with('>')
}

/// For a SentencePiece tokenizer, whether it writes a space before a text; `None` for a byte-level one.
fn spaces(json: &Value) -> Result<Option<bool>, DataError> {
    if json["model"]["byte_fallback"] != true {
        return Ok(None);
    }
    let mut prefixed = false;
    for step in pre_tokenizers::parts(&json["normalizer"], "normalizers") {
        match step["type"].as_str() {
            Some("Prepend") if step["prepend"] == "▁" => prefixed = true,
            Some("Replace") if step["pattern"]["String"] == " " && step["content"] == "▁" => {}
            _ => return Err(refused(format!("its normalizer has a step that SentencePiece in GGUF has not: {step}"))),
        }
    }
    for step in pre_tokenizers::parts(&json["pre_tokenizer"], "pretokenizers") {
        match step["type"].as_str() {
            Some("Metaspace") if step["replacement"] == "▁" && step["split"] != true => {
                prefixed |= step["prepend_scheme"] != "never";
            }
            // Gemma's: spaces are gone already, so it never cuts.
            Some("Split") if step["pattern"]["String"] == " " => {}
            _ => {
                return Err(refused(format!(
                    "its pre-tokenizer has a step that SentencePiece in GGUF has not: {step}"
                )));
            }
        }
    }
    Ok(Some(prefixed))
}

fn byte_level(json: &Value) -> Result<GgufVocabulary, DataError> {
    let name = pre_tokenizers::name_of(json).ok_or_else(|| {
        let supported = pre_tokenizers::supported();
        refused(format!("its way of cutting text is none that llama.cpp has a name for; known here: {supported}"))
    })?;
    let mut merges = Vec::new();
    for (left, right) in pairs(json) {
        if left.contains(' ') || right.contains(' ') {
            return Err(refused(format!("its merge of {left:?} and {right:?} holds a space")));
        }
        merges.push(format!("{left} {right}"));
    }
    Ok(GgufVocabulary { model: "gpt2".to_owned(), pre: Some(name.to_owned()), merges, ..GgufVocabulary::default() })
}

/// Merges, best first, in both spellings of `tokenizer.json`.
fn pairs(json: &Value) -> impl Iterator<Item = (&str, &str)> {
    json["model"]["merges"].as_array().into_iter().flatten().filter_map(|merge| match merge {
        Value::String(text) => text.split_once(' '),
        other => other[0].as_str().zip(other[1].as_str()),
    })
}

/// Scores; the tokens get the kinds of SentencePiece.
fn sentence_pieces(json: &Value, tokens: &mut Tokens) -> GgufVocabulary {
    let mut first: HashMap<String, usize> = HashMap::new();
    for (rank, (left, right)) in pairs(json).enumerate() {
        first.entry(format!("{left}{right}")).or_insert(rank);
    }
    let unknown = json["model"]["unk_token"].as_str();
    let mut unknown_id = None;
    let mut scores = vec![0.0; tokens.texts.len()];
    for (id, text) in tokens.texts.iter_mut().enumerate() {
        let kind = &mut tokens.kinds[id];
        if Some(text.as_str()) == unknown {
            (*kind, unknown_id) = (UNKNOWN, Some(id as u32));
        } else if *kind == NORMAL && is_byte(text) {
            *kind = BYTE;
        } else if *kind == NORMAL {
            scores[id] = first.get(text.as_str()).map_or(SCORE_NONE, |&rank| -1.0 - rank as f32);
        } else if *kind == USER_DEFINED {
            // llama.cpp looks for these in the text before spaces are replaced.
            *text = text.replace('▁', " ");
        }
    }
    GgufVocabulary {
        model: "llama".to_owned(),
        pre: Some("default".to_owned()),
        scores: Some(scores),
        unknown: unknown_id,
        ..GgufVocabulary::default()
    }
}

fn is_byte(text: &str) -> bool {
    text.len() == 6 && text.starts_with("<0x") && text.ends_with('>')
}

fn special_ids(vocabulary: &mut GgufVocabulary, tokenizer: &Tokenizer, folder: Option<&Path>) -> Result<(), DataError> {
    let config = match folder {
        Some(folder) => folder::json(&folder.join("tokenizer_config.json"))?.unwrap_or_default(),
        None => Value::Null,
    };
    let padding = folder::token_name(&config["pad_token"]);
    vocabulary.padding = padding.and_then(|name| tokenizer.id_of(&name));
    vocabulary.bos = tokenizer.bos();
    vocabulary.eos = tokenizer.eos().first().copied();
    vocabulary.eot = tokenizer.eos().iter().copied().find(|&id| {
        vocabulary.eos != Some(id) && tokenizer.token(id).is_some_and(|token| TURN_ENDS.contains(&token.as_str()))
    });
    vocabulary.add_bos = Some(tokenizer.adds_bos());
    vocabulary.add_eos = Some(false);
    vocabulary.chat_template = tokenizer.chat_template().map(str::to_owned);
    Ok(())
}

/// Reads the entries as every GGUF file is read, and compares ids.
fn check(tokenizer: &Tokenizer, vocabulary: &GgufVocabulary, notes: &mut Vec<String>) -> Result<(), DataError> {
    let back = Tokenizer::from_gguf(vocabulary.clone())?;
    for text in FIXED_TEXT.split_inclusive('\n').chain([FIXED_TEXT]) {
        let (ours, theirs) = (tokenizer.encode(text)?, back.encode(text)?);
        if ours != theirs {
            let at = ours.iter().zip(&theirs).take_while(|(ours, theirs)| ours == theirs).count();
            return Err(refused(format!("written and read back it gives other ids for {text:?}, from token {at} on")));
        }
    }
    // A special token between texts: SentencePiece variants differ in whether a space follows it.
    if let Some(end) = tokenizer.eos().first().and_then(|&id| tokenizer.token(id)) {
        let text = format!("one{end}two{end}\nthree");
        if tokenizer.encode(&text)? != back.encode(&text)? {
            notes.push(format!(
                "behind a special token such as {end} llama.cpp cuts text otherwise than in training: compare the answers"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::test_tokenizers::{byte_level_vocabulary, spm_vocabulary};

    #[test]
    fn a_byte_level_vocabulary_comes_back_as_it_was() {
        for pre in ["smollm", "qwen2", "llama-bpe", "gpt-2", "tekken"] {
            let given = GgufVocabulary {
                bos: Some(0),
                add_bos: Some(true),
                add_eos: Some(false),
                chat_template: Some("{{ messages }}".into()),
                ..byte_level_vocabulary(pre)
            };
            let tokenizer = Tokenizer::from_gguf(given.clone()).unwrap();
            let (written, notes) = tokenizer.to_gguf(None, given.tokens.len()).unwrap();
            assert_eq!(written, given, "{pre}");
            assert!(notes.is_empty(), "{notes:?}");
        }
    }

    #[test]
    fn rows_beyond_the_vocabulary_are_unused_tokens() {
        let tokenizer = Tokenizer::from_gguf(byte_level_vocabulary("smollm")).unwrap();
        let known = tokenizer.vocabulary();
        let (written, _) = tokenizer.to_gguf(None, known + 2).unwrap();
        assert_eq!(written.tokens[known..], [format!("[PAD{known}]"), format!("[PAD{}]", known + 1)]);
        assert_eq!(written.token_types.unwrap()[known..], [UNUSED, UNUSED]);
    }

    #[test]
    fn a_sentencepiece_vocabulary_keeps_its_ids_kinds_and_the_order_of_its_scores() {
        let given = spm_vocabulary();
        let tokenizer = Tokenizer::from_gguf(given.clone()).unwrap();
        let (written, _) = tokenizer.to_gguf(None, given.tokens.len()).unwrap();
        assert_eq!((&written.tokens, &written.token_types), (&given.tokens, &given.token_types));
        assert_eq!((written.model.as_str(), written.add_space_prefix), ("llama", Some(true)));
        assert_eq!((written.bos, written.eos, written.unknown), (Some(1), Some(2), Some(0)));
        let back = Tokenizer::from_gguf(written).unwrap();
        for text in ["hello world", "world hello  held", "naïve 東京", " a"] {
            assert_eq!(back.encode(text).unwrap(), tokenizer.encode(text).unwrap(), "{text:?}");
        }
    }

    #[test]
    fn tokenizers_that_gguf_has_no_word_for_are_refused_with_the_part() {
        let folder = tempfile::tempdir().unwrap();
        let good: Value =
            serde_json::from_str(&Tokenizer::from_gguf(byte_level_vocabulary("smollm")).unwrap().to_json().unwrap())
                .unwrap();
        let refusal = |change: &dyn Fn(&mut Value)| {
            let mut json = good.clone();
            change(&mut json);
            std::fs::write(folder.path().join("tokenizer.json"), json.to_string()).unwrap();
            let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
            tokenizer.to_gguf(Some(folder.path()), tokenizer.vocabulary()).unwrap_err().to_string()
        };
        let text = refusal(&|json| json["pre_tokenizer"] = json!({"type": "Whitespace"}));
        assert!(text.contains("none that llama.cpp has a name for") && text.contains("smollm"), "{text}");
        let text = refusal(&|json| json["normalizer"] = json!({"type": "Lowercase"}));
        assert!(text.contains("cutting text"), "{text}");
        let text = refusal(&|json| {
            json["model"] = json!({"type": "WordLevel", "vocab": json["model"]["vocab"], "unk_token": "<s>"});
        });
        assert!(text.contains("WordLevel"), "{text}");
    }
}
