//! How byte-level BPE vocabularies cut text into words before merging, by the name a GGUF file gives the rule.
//!
//! In:    `tokenizer.ggml.pre`, or a `tokenizer.json`.
//! Out:   the normalizer and pre-tokenizer in `tokenizer.json` form, or the name of that rule.
//! Never: falls back to another rule.
//!
//! Regular expressions as in the published `tokenizer.json` of each family and in llama.cpp (`llama-vocab.cpp`).

use serde_json::{Value, json};

use crate::error::DataError;

/// How text is cut.
pub(crate) struct Splitting {
    /// Before cutting.
    pub(crate) normalizer: Value,
    /// The cuts, and the mapping of bytes to letters.
    pub(crate) pre_tokenizer: Value,
    /// Whether a word that is a token is taken whole, without merging.
    pub(crate) ignore_merges: bool,
}

/// One rule and the names it goes by.
struct Rule {
    names: &'static [&'static str],
    cut: Cut,
    compose: bool,
    ignore_merges: bool,
}

enum Cut {
    /// GPT-2's expression, built into the byte-level pre-tokenizer.
    Gpt2,
    /// Every digit alone, then GPT-2's expression.
    DigitsGpt2,
    /// These expressions one after another.
    Expressions(&'static [&'static str]),
}

const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|",
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const DEFAULT: [&str; 4] = [
    r"[\p{P}\$\+<=>\^~\|]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
    r"\p{N}+",
    r"[0-9][0-9][0-9]",
];

const RULES: [Rule; 6] = [
    Rule { names: &["gpt-2", "phi-2"], cut: Cut::Gpt2, compose: false, ignore_merges: false },
    Rule { names: &["smollm", "starcoder"], cut: Cut::DigitsGpt2, compose: false, ignore_merges: false },
    Rule {
        names: &["llama-bpe", "llama3", "llama-v3"],
        cut: Cut::Expressions(&[LLAMA3]),
        compose: false,
        ignore_merges: true,
    },
    Rule { names: &["qwen2"], cut: Cut::Expressions(&[QWEN2]), compose: true, ignore_merges: false },
    Rule { names: &["tekken"], cut: Cut::Expressions(&[TEKKEN]), compose: false, ignore_merges: true },
    Rule { names: &["default"], cut: Cut::Expressions(&DEFAULT), compose: false, ignore_merges: false },
];

/// Looks up the rule; files from before `pre` existed mean `default`.
pub(crate) fn splitting(pre: Option<&str>, add_prefix_space: bool) -> Result<Splitting, DataError> {
    let pre = pre.unwrap_or("default");
    let Some(rule) = RULES.iter().find(|rule| rule.names.contains(&pre)) else {
        return Err(DataError::UnsupportedPreTokenizer { pre: pre.to_owned(), supported: supported() });
    };
    let bytes = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": false, "use_regex": use_regex});
    let cuts = match rule.cut {
        Cut::Gpt2 => vec![bytes(true)],
        Cut::DigitsGpt2 => vec![json!({"type": "Digits", "individual_digits": true}), bytes(true)],
        Cut::Expressions(list) => list
            .iter()
            .map(|regex| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false}))
            .chain([bytes(false)])
            .collect(),
    };
    Ok(Splitting {
        normalizer: if rule.compose { json!({"type": "NFC"}) } else { Value::Null },
        pre_tokenizer: json!({"type": "Sequence", "pretokenizers": cuts}),
        ignore_merges: rule.ignore_merges,
    })
}

/// The name of the rule by which a byte-level `tokenizer.json` cuts; `None` where no rule is the same.
pub(crate) fn name_of(tokenizer: &Value) -> Option<&'static str> {
    let ignore_merges = tokenizer["model"]["ignore_merges"].as_bool().unwrap_or(false);
    let steps = steps(&tokenizer["pre_tokenizer"]);
    RULES.iter().map(|rule| rule.names[0]).find(|name| {
        splitting(Some(name), false).is_ok_and(|rule| {
            rule.ignore_merges == ignore_merges
                && parts(&rule.normalizer, "normalizers") == parts(&tokenizer["normalizer"], "normalizers")
                && self::steps(&rule.pre_tokenizer) == steps
        })
    })
}

/// The parts of a sequence, or the only one.
pub(crate) fn parts<'a>(value: &'a Value, list: &str) -> Vec<&'a Value> {
    match value[list].as_array() {
        Some(parts) => parts.iter().flat_map(|part| self::parts(part, list)).collect(),
        None if value.is_null() => Vec::new(),
        None => vec![value],
    }
}

/// What a pre-tokenizer does, without what changes offsets only.
fn steps(pre_tokenizer: &Value) -> Vec<Value> {
    let without_trim = |step: &Value| {
        let mut step = step.clone();
        if let Some(step) = step.as_object_mut() {
            step.remove("trim_offsets");
        }
        step
    };
    parts(pre_tokenizer, "pretokenizers").into_iter().map(without_trim).collect()
}

/// Every rule's name, for messages.
pub(crate) fn supported() -> String {
    let names: Vec<&str> = RULES.iter().flat_map(|rule| rule.names).copied().collect();
    names.join(", ")
}

/// Whether models with this pre-tokenizer expect beginning-of-text where the file does not say.
pub(crate) fn adds_bos(pre: Option<&str>) -> bool {
    matches!(pre, Some("llama-bpe" | "llama3" | "llama-v3" | "tekken"))
}
