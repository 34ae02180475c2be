//! Merges for a SentencePiece vocabulary that stores scores only.
//!
//! In:    pieces with scores.
//! Out:   merges, best first: every way to join two pieces into a third, by the third's score.
//! Never: joins into control, byte, unknown or unused pieces.
//!
//! The same rule as the conversion in transformers (`generate_merges`), which the published `tokenizer.json` files use.

use std::cmp::Ordering;
use std::collections::HashMap;

use crate::error::DataError;
use crate::gguf_vocabulary::GgufVocabulary;

/// Longest piece, bytes: every split of a piece is tried, so a longer one would cost its square.
const PIECE_BYTES_MAX: usize = 1024;
/// Kind of an ordinary piece.
const NORMAL: i32 = 1;

struct Merge<'a> {
    score: f32,
    left: &'a str,
    right: &'a str,
    ids: (u32, u32),
}

/// All merges of `vocabulary`.
pub(crate) fn from_scores(vocabulary: &GgufVocabulary) -> Result<Vec<(String, String)>, DataError> {
    let fault = |reason: String| DataError::tokenizer("GGUF metadata", reason);
    let Some(scores) = &vocabulary.scores else {
        return Err(fault("tokenizer.ggml.scores is missing; a \"llama\" vocabulary needs it".to_owned()));
    };
    let kind = |id: usize| vocabulary.token_types.as_ref().map_or(NORMAL, |kinds| kinds[id]);
    let pieces: Vec<(usize, &str)> =
        vocabulary.tokens.iter().map(String::as_str).enumerate().filter(|(id, _)| kind(*id) == NORMAL).collect();
    let ids: HashMap<&str, u32> = pieces.iter().map(|&(id, piece)| (piece, id as u32)).collect();
    let mut merges = Vec::new();
    for &(id, piece) in &pieces {
        if piece.len() > PIECE_BYTES_MAX {
            return Err(fault(format!("token {id} is {} bytes long, more than {PIECE_BYTES_MAX}", piece.len())));
        }
        let first = merges.len();
        for (at, _) in piece.char_indices().skip(1) {
            let (left, right) = piece.split_at(at);
            if let (Some(&left_id), Some(&right_id)) = (ids.get(left), ids.get(right)) {
                merges.push(Merge { score: scores[id], left, right, ids: (left_id, right_id) });
            }
        }
        merges[first..].sort_by_key(|merge| merge.ids);
    }
    merges.sort_by(best_first);
    Ok(merges.into_iter().map(|merge| (merge.left.to_owned(), merge.right.to_owned())).collect())
}

/// Higher score, then longer left part, then longer right part (in characters).
fn best_first(a: &Merge<'_>, b: &Merge<'_>) -> Ordering {
    let length = |text: &str| text.chars().count();
    b.score
        .total_cmp(&a.score)
        .then_with(|| length(b.left).cmp(&length(a.left)))
        .then_with(|| length(b.right).cmp(&length(a.right)))
}
