//! Encoding text in parts, so that no token crosses a border that inference has.
//!
//! In:    text, byte positions of borders.
//! Out:   ids and offsets of the whole.
//! Never: cuts where no token crosses: the whole is encoded at once then, as at inference.

use crate::error::DataError;
use crate::row_error::RowError;
use crate::tokenizer::{Encoded, Tokenizer};

use super::Encoder;

/// Whether the tokenizer begins a text otherwise than it goes on after a line end (SentencePiece's leading space).
pub(crate) fn is_spaced(tokenizer: &Tokenizer) -> Result<bool, DataError> {
    let (alone, line, after) = (tokenizer.encode("a")?, tokenizer.encode("\n")?, tokenizer.encode("\na")?);
    Ok(after.strip_prefix(line.as_slice()) != Some(&alone))
}

/// Encodes `text`; borders (ascending) that a token crosses are cut at.
pub(crate) fn encode(encoder: &Encoder, text: &str, borders: &[usize]) -> Result<Encoded, RowError> {
    let mut whole = encoder.tokenizer.encode_row(text)?;
    let crossed: Vec<usize> = borders.iter().copied().filter(|border| is_crossed(&whole, *border)).collect();
    if crossed.is_empty() {
        return Ok(whole);
    }
    whole = Encoded { ids: Vec::new(), offsets: Vec::new() };
    let mut from = 0;
    for until in crossed.into_iter().chain([text.len()]) {
        let part = &text[from..until];
        let encoded = if from == 0 { encoder.tokenizer.encode_row(part)? } else { continued(encoder, part)? };
        whole.ids.extend(encoded.ids);
        whole.offsets.extend(encoded.offsets.into_iter().map(|bytes| bytes.start + from..bytes.end + from));
        from = until;
    }
    Ok(whole)
}

fn is_crossed(encoded: &Encoded, border: usize) -> bool {
    let at = encoded.offsets.partition_point(|bytes| bytes.end <= border);
    encoded.offsets.get(at).is_some_and(|bytes| bytes.start < border)
}

/// Encodes a part that stands behind another one: without the space that some tokenizers put before a text.
pub(crate) fn continued(encoder: &Encoder, part: &str) -> Result<Encoded, RowError> {
    if encoder.spaced && !part.is_empty() {
        let line = encoder.tokenizer.encode_row("\n")?.ids;
        let after = encoder.tokenizer.encode_row(&format!("\n{part}"))?;
        let rest = after.offsets.iter().skip(line.len());
        if after.ids.starts_with(&line) && rest.clone().all(|bytes| bytes.start >= 1) {
            let offsets = rest.map(|bytes| bytes.start - 1..bytes.end - 1).collect();
            return Ok(Encoded { ids: after.ids[line.len()..].to_vec(), offsets });
        }
    }
    encoder.tokenizer.encode_row(part)
}
