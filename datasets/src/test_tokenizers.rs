//! Tiny tokenizers for tests.
//!
//! In:    nothing.
//! Out:   a byte-level and a SentencePiece vocabulary of a few hundred tokens.
//! Never: used outside tests.
#![allow(clippy::unwrap_used)]

use crate::gguf_vocabulary::GgufVocabulary;
use crate::tokenizer::Tokenizer;
use crate::tokenizer::letters::letters;

/// ChatML as this project writes it, with beginning-of-text.
pub(crate) const CHATML: &str = "{{ bos_token }}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// Ids 0..=3 are `<s>`, `<|endoftext|>`, `<|im_start|>`, `<|im_end|>`; 4.. are bytes; then a few merged pieces.
pub(crate) fn byte_level_vocabulary(pre: &str) -> GgufVocabulary {
    let mut tokens: Vec<String> = ["<s>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(String::from).to_vec();
    let mut kinds = vec![3; tokens.len()];
    tokens.extend(letters().iter().map(char::to_string));
    let merges = ["Ġ a", "h e", "he l", "l o", "hel lo", "1 2", "12 3", "u s", "e r", "us er", "ĠĠ ĠĠ", "Ġ Ġ"];
    tokens.extend(["Ġa", "he", "hel", "lo", "hello", "12", "123", "us", "er", "user", "ĠĠĠĠ", "ĠĠ"].map(String::from));
    kinds.resize(tokens.len(), 1);
    tokens.push("<think>".into());
    kinds.push(4);
    GgufVocabulary {
        model: "gpt2".into(),
        pre: Some(pre.into()),
        tokens,
        token_types: Some(kinds),
        merges: merges.map(String::from).to_vec(),
        bos: Some(0),
        eos: Some(3),
        ..GgufVocabulary::default()
    }
}

/// The byte-level tokenizer with a template.
pub(crate) fn byte_level(template: Option<&str>) -> Tokenizer {
    let vocabulary = byte_level_vocabulary("smollm");
    Tokenizer::from_gguf(GgufVocabulary { chat_template: template.map(String::from), ..vocabulary }).unwrap()
}

/// `<unk>`, `<s>`, `</s>`, 256 bytes, then pieces whose score falls with the id.
pub(crate) fn spm_vocabulary() -> GgufVocabulary {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).to_vec();
    let mut kinds = vec![2, 3, 3];
    tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    kinds.resize(tokens.len(), 6);
    let pieces = ["▁h", "el", "▁hel", "lo", "▁hello", "▁w", "or", "▁wor", "ld", "▁world"];
    tokens.extend(
        pieces.iter().chain(&["▁", "h", "e", "l", "o", "w", "r", "d", "\u{e9}"]).map(|piece| piece.to_string()),
    );
    kinds.resize(tokens.len(), 1);
    let scores = (0..tokens.len()).map(|id| if id < 259 { 0.0 } else { 259.0 - id as f32 }).collect();
    GgufVocabulary {
        model: "llama".into(),
        tokens,
        scores: Some(scores),
        token_types: Some(kinds),
        ..GgufVocabulary::default()
    }
}
