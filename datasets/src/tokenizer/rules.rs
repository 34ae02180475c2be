//! Reads from a `tokenizer.json` how it cuts text, and whether the fast path knows every part of it.
//!
//! In:    the JSON.
//! Out:   [`Rules`], or the reason why only the tokenizers crate can run this tokenizer.
//! Never: touches the vocabulary, except to see whether merges cross a space.

use serde_json::Value;

use super::added::AddedToken;

/// What the fast path needs to know.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rules {
    /// Found in the text as it stands, then those found in the normalised text.
    pub(super) added: [Vec<AddedToken>; 2],
    /// How text becomes words.
    pub(super) cut: Cut,
    /// Whether text is composed (NFC) first.
    pub(super) compose: bool,
    /// Whether offsets leave out spaces at a token's ends, and what the crate then does with the first token.
    pub(super) trim: Option<Trim>,
}

/// How text becomes words, and words the letters of the vocabulary.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cut {
    /// Byte-level BPE: these one after another, then a letter for each byte.
    Bytes(Vec<Step>),
    /// SentencePiece BPE: before every run of spaces, which are spelled `▁`.
    Spaces {
        /// Whether plain text gets a space in front.
        prefix: bool,
    },
}

/// One cut.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// Matches and what is between them are words.
    Expression(String),
    /// Numerals in runs of at most this many.
    Digits(usize),
}

/// The byte-level post-processor's wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trim {
    /// Keep one space at the beginning of the first token.
    pub(super) keep_first_space: bool,
}

/// The expression inside the crate's byte-level pre-tokenizer (`ByteLevel`, `use_regex`).
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Reads `json`; the error says which part is not known.
pub(super) fn read(json: &Value) -> Result<Rules, String> {
    let model = &json["model"];
    if model["type"].as_str().is_some_and(|kind| kind != "BPE") {
        return Err(format!("model {}", model["type"]));
    }
    if model["dropout"].as_f64().is_some_and(|dropout| dropout > 0.0) {
        return Err("dropout".to_owned());
    }
    let normalizers = parts(&json["normalizer"], "normalizers");
    let pre_tokenizers = parts(&json["pre_tokenizer"], "pretokenizers");
    let (cut, compose) = match (kinds(&normalizers).as_slice(), pre_tokenizers.is_empty()) {
        ([], false) => (bytes(&pre_tokenizers)?, false),
        (["NFC"], false) => (bytes(&pre_tokenizers)?, true),
        (["Replace"], _) | (["Prepend", "Replace"], true) => (spaces(&normalizers, &pre_tokenizers, model)?, false),
        (other, _) => return Err(format!("normalizers {other:?}")),
    };
    let added = added_tokens(&json["added_tokens"])?;
    if matches!(cut, Cut::Spaces { .. }) && !added[1].is_empty() {
        return Err("added tokens that are normalised".to_owned());
    }
    let trim = trim(&json["post_processor"])?;
    if matches!(cut, Cut::Spaces { .. }) && trim.is_some() {
        return Err("a byte-level post-processor without byte-level words".to_owned());
    }
    Ok(Rules { added, cut, compose, trim })
}

/// The members of a sequence, or the one part itself.
fn parts<'a>(value: &'a Value, list: &str) -> Vec<&'a Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Object(part) if part.get("type").is_some_and(|kind| kind == "Sequence") => {
            part[list].as_array().into_iter().flatten().flat_map(|inner| parts(inner, list)).collect()
        }
        part => vec![part],
    }
}

fn kinds<'a>(parts: &[&'a Value]) -> Vec<&'a str> {
    parts.iter().map(|part| part["type"].as_str().unwrap_or("?")).collect()
}

/// `Split`, `Digits`, and `ByteLevel` at the end.
fn bytes(pre_tokenizers: &[&Value]) -> Result<Cut, String> {
    let unknown = |part: &Value| Err(format!("pre_tokenizer {part}"));
    let Some((last, first)) = pre_tokenizers.split_last() else { return Err("no pre_tokenizer".to_owned()) };
    let mut steps = Vec::new();
    for part in first {
        steps.push(match part["type"].as_str() {
            Some("Split") if part["behavior"] == "Isolated" && part["invert"] == false => {
                match part["pattern"]["Regex"].as_str() {
                    Some(expression) => Step::Expression(expression.to_owned()),
                    None => return unknown(part),
                }
            }
            Some("Digits") => Step::Digits(if part["individual_digits"] == true { 1 } else { usize::MAX }),
            _ => return unknown(part),
        });
    }
    if last["type"] != "ByteLevel" || last["add_prefix_space"] != false {
        return unknown(last);
    }
    if last["use_regex"].as_bool().unwrap_or(true) {
        steps.push(Step::Expression(GPT2.to_owned()));
    }
    Ok(Cut::Bytes(steps))
}

/// SentencePiece's replacements; exact only if no merge joins a space to what is before it.
fn spaces(normalizers: &[&Value], pre_tokenizers: &[&Value], model: &Value) -> Result<Cut, String> {
    let Some((replace, prepend)) = normalizers.split_last() else { return Err("no normalizer".to_owned()) };
    if replace["pattern"]["String"] != " " || replace["content"] != "▁" {
        return Err(format!("normalizer {replace}"));
    }
    if let Some(other) = prepend.iter().find(|part| part["prepend"] != "▁") {
        return Err(format!("normalizer {other}"));
    }
    // Gemma's: no space is left to split at after the replacement.
    if let Some(other) = pre_tokenizers.iter().find(|part| part["type"] != "Split" || part["pattern"]["String"] != " ")
    {
        return Err(format!("pre_tokenizer {other}"));
    }
    if model["ignore_merges"] == true {
        return Err("ignore_merges without words".to_owned());
    }
    let spelled = ["continuing_subword_prefix", "end_of_word_suffix"];
    if spelled.iter().any(|name| model[name].as_str().is_some_and(|text| !text.is_empty())) {
        return Err("subword prefixes or suffixes".to_owned());
    }
    let byte = |byte: u32| format!("<0x{byte:02X}>");
    if model["byte_fallback"] != true || (0..256).any(|code| model["vocab"][byte(code)].is_null()) {
        return Err("no byte fallback: unknown characters are joined across words".to_owned());
    }
    match merges(model).find(|(left, right)| crosses(left, right)) {
        Some((left, right)) => Err(format!("merge \"{left} {right}\" crosses a space")),
        None => Ok(Cut::Spaces { prefix: !prepend.is_empty() }),
    }
}

fn merges(model: &Value) -> impl Iterator<Item = (&str, &str)> {
    model["merges"].as_array().into_iter().flatten().filter_map(|merge| match merge {
        Value::String(text) => text.split_once(' '),
        other => other[0].as_str().zip(other[1].as_str()),
    })
}

/// Whether `▁` follows another character in the merged token.
fn crosses(left: &str, right: &str) -> bool {
    let mut before = '▁';
    left.chars().chain(right.chars()).any(|character| {
        let crossing = character == '▁' && before != '▁';
        before = character;
        crossing
    })
}

fn added_tokens(list: &Value) -> Result<[Vec<AddedToken>; 2], String> {
    let mut added = [Vec::new(), Vec::new()];
    for token in list.as_array().into_iter().flatten() {
        let (Some(id), Some(content)) = (token["id"].as_u64(), token["content"].as_str()) else {
            return Err(format!("added token {token}"));
        };
        if token["single_word"] == true {
            return Err(format!("added token {content:?} counts as a whole word only"));
        }
        let is = |name: &str| token[name] == true;
        let (lstrip, rstrip) = (is("lstrip"), is("rstrip"));
        let id = u32::try_from(id).map_err(|_| format!("added token id {id}"))?;
        added[usize::from(is("normalized"))].push(AddedToken { id, content: content.to_owned(), lstrip, rstrip });
    }
    Ok(added)
}

/// Templates add tokens only where they are asked to; byte-level post-processors trim offsets.
fn trim(post_processor: &Value) -> Result<Option<Trim>, String> {
    let mut trims = Vec::new();
    for part in parts(post_processor, "processors") {
        match part["type"].as_str() {
            Some("TemplateProcessing") => {}
            Some("ByteLevel") if part["trim_offsets"] == false => {}
            Some("ByteLevel") => trims.push(Trim { keep_first_space: part["add_prefix_space"] != false }),
            _ => return Err(format!("post_processor {part}")),
        }
    }
    match trims.as_slice() {
        [] => Ok(None),
        [trim] => Ok(Some(*trim)),
        _ => Err("two post-processors that trim".to_owned()),
    }
}
