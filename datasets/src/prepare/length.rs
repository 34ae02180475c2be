//! Rows that are longer than the sequence length.
//!
//! In:    an encoded row, the plan's policy.
//! Out:   the rows that it becomes: itself, its beginning, its pieces, or none.
//! Never: cuts through an answer unless the gate is switched off.

use std::ops::Range;

use planner::plan::TooLong;

use crate::encode::Tokens;
use crate::gates::Gates;
use crate::row_error::RowError;

/// What a row becomes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fitted {
    /// It fits.
    Whole(Tokens),
    /// Its beginning.
    Truncated(Tokens),
    /// A document in pieces.
    Split(Vec<Tokens>),
    /// Nothing: it is left out.
    Dropped,
    /// It is longer than `too_long = "error"` allows.
    TooLong,
}

/// Applies the policy to a row that may not be cut into pieces.
pub(super) fn fit(
    tokens: Tokens,
    limit: usize,
    policy: TooLong,
    allowed: Gates,
    findings: &mut Gates,
) -> Result<Fitted, RowError> {
    if tokens.ids.len() <= limit {
        return Ok(Fitted::Whole(tokens));
    }
    match policy {
        TooLong::Error => Ok(Fitted::TooLong),
        TooLong::Drop => Ok(Fitted::Dropped),
        TooLong::Truncate => {
            if tokens.trained.iter().any(|range| range.end as usize > limit) {
                let fault = RowError::TruncatedAnswer { tokens: tokens.ids.len(), limit };
                allowed.pass(fault, findings)?;
            }
            let cut = piece(&tokens, 0..limit);
            Ok(if cut.trained.is_empty() { Fitted::Dropped } else { Fitted::Truncated(cut) })
        }
    }
}

/// Cuts a document into rows of at most `limit` tokens. Neighbours share one token, so every token but the first is predicted once.
pub(super) fn split(tokens: Tokens, limit: usize) -> Fitted {
    let length = tokens.ids.len();
    if length <= limit {
        return Fitted::Whole(tokens);
    }
    let starts = (0..length - 1).step_by(limit - 1);
    Fitted::Split(starts.map(|start| piece(&tokens, start..length.min(start + limit))).collect())
}

/// The tokens of `range`; the first is not trained on: nothing predicts it.
fn piece(tokens: &Tokens, range: Range<usize>) -> Tokens {
    let (start, end) = (range.start as u32, range.end as u32);
    let trained = tokens.trained.iter().filter_map(|trained| {
        let inside = trained.start.max(start + 1)..trained.end.min(end);
        (!inside.is_empty()).then(|| inside.start - start..inside.end - start)
    });
    Tokens { ids: tokens.ids[range].to_vec(), trained: trained.collect() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::single_range_in_vec_init)]
    use super::*;
    use planner::plan::Gate;

    fn row(length: u32, trained: Range<u32>) -> Tokens {
        Tokens { ids: (0..length).collect(), trained: vec![trained] }
    }

    #[test]
    fn pieces_of_a_document_predict_every_token_but_the_first_exactly_once() {
        for (length, limit) in [(10, 4), (11, 4), (9, 9), (10, 9), (3, 2), (100, 7)] {
            let pieces = match split(row(length, 1..length), limit) {
                Fitted::Split(pieces) => pieces,
                Fitted::Whole(whole) => vec![whole],
                other => panic!("{other:?}"),
            };
            let predicted = pieces.iter().flat_map(|piece| {
                piece.trained.iter().flat_map(|range| &piece.ids[range.start as usize..range.end as usize])
            });
            assert_eq!(predicted.copied().collect::<Vec<_>>(), (1..length).collect::<Vec<_>>(), "{length} by {limit}");
            assert!(pieces.iter().all(|piece| piece.ids.len() <= limit && piece.ids.len() > 1));
        }
    }

    #[test]
    fn a_cut_through_an_answer_is_refused_unless_its_gate_is_off() {
        let mut findings = Gates::default();
        let cut = |allowed, findings: &mut Gates| fit(row(10, 5..9), 7, TooLong::Truncate, allowed, findings);
        assert_eq!(cut(Gates::default(), &mut findings), Err(RowError::TruncatedAnswer { tokens: 10, limit: 7 }));
        let Fitted::Truncated(row) = cut(Gates::of(&[Gate::TruncatedAnswer]), &mut findings).unwrap() else { panic!() };
        assert_eq!((row.ids.len(), row.trained), (7, vec![5..7]));
        assert!(findings.contains(Gate::TruncatedAnswer));
    }

    #[test]
    fn an_end_after_the_answer_may_be_cut_and_longer_rows_follow_the_policy() {
        let fitted = |policy| fit(row(10, 2..5), 7, policy, Gates::default(), &mut Gates::default()).unwrap();
        assert!(matches!(fitted(TooLong::Truncate), Fitted::Truncated(cut) if cut.trained == [2..5]));
        assert_eq!(fitted(TooLong::Drop), Fitted::Dropped);
        assert_eq!(fitted(TooLong::Error), Fitted::TooLong);
    }
}
