//! A row's tokens in runs that look alike: context, trained, markers.
//!
//! In:    ids, which of them are trained on, the tokenizer.
//! Out:   [`Piece`]s with their text; a run of text tokens is decoded together, so that a character of several tokens is whole.
//! Never: paints.

use datasets::Tokenizer;

/// What a run of tokens is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Learned as the next token of the one before.
    pub trained: bool,
    /// A special token.
    pub marker: bool,
}

/// A run of tokens of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// What it is.
    pub kind: Kind,
    /// Its text, markers as the vocabulary spells them.
    pub text: String,
    /// Its token ids.
    pub ids: Vec<u32>,
}

/// Whether each of `length` tokens is trained on.
pub fn mask(length: usize, trained: &[[u32; 2]]) -> Vec<bool> {
    let mut mask = vec![false; length];
    for &[start, end] in trained {
        mask[start as usize..end as usize].fill(true);
    }
    mask
}

/// Text of ids, markers as they are spelled; ids that the tokenizer cannot decode are shown by number.
pub fn text(ids: &[u32], tokenizer: &Tokenizer) -> String {
    tokenizer.decode_with_special(ids).unwrap_or_else(|_| format!("{ids:?}"))
}

/// The runs of a row.
pub fn pieces(ids: &[u32], trained: &[bool], tokenizer: &Tokenizer) -> Vec<Piece> {
    let kind = |at: usize| Kind { trained: trained[at], marker: tokenizer.is_special(ids[at]) };
    let mut pieces = Vec::new();
    let mut start = 0;
    for at in 1..=ids.len() {
        if at == ids.len() || kind(at) != kind(start) {
            let run = &ids[start..at];
            pieces.push(Piece { kind: kind(start), text: text(run, tokenizer), ids: run.to_vec() });
            start = at;
        }
    }
    if ids.is_empty() { Vec::new() } else { pieces }
}
