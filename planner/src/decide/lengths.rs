//! Answers `data.sequence_length = "auto"` and `train.tokens_per_step = "auto"`.
//!
//! In:    a [`Ground`].
//! Out:   the candidates at the chosen lengths.
//! Never: a row beyond the model's positions.
//!
//! Rows: the longest power of two whose tokens take at most a tenth longer than those of the shortest. Step: the fewest tokens a second tenth
//! of which no larger step would save: more tokens a step cost the run updates, and buy speed only until moved bytes hide behind compute.

use recipes::MicroBatch;

use super::PlanError;
use super::ground::{Ground, Lengths};
use super::search::{Candidate, best};

/// Rows that `auto` tries, tokens.
const ROWS: std::ops::RangeInclusive<u32> = 9..=13;
/// Steps that `auto` tries, tokens.
const STEPS: std::ops::RangeInclusive<u32> = 13..=19;
/// The step that rows are compared at where both are `auto`.
const STEP_COMPARED: usize = 1 << 16;
/// What is worth it.
const TOLERANCE: f64 = 1.10;

/// What fits at the lengths that suit best; empty if nothing fits at any.
pub(super) fn choose(ground: &Ground) -> Result<Vec<Candidate>, PlanError> {
    let sequences = sequences(ground)?;
    let fixed_step = ground.recipe.train.tokens_per_step.fixed();
    let at_rows = |sequence: &usize| Lengths { sequence: *sequence, step: fixed_step.unwrap_or(STEP_COMPARED) };
    let options: Vec<Lengths> = sequences.iter().map(at_rows).filter(|&lengths| divides(ground, lengths)).collect();
    if options.is_empty() {
        return Err(no_length(ground));
    }
    // Shortest first, so the longest within the tolerance is the last.
    let searched = options.into_iter().map(|lengths| ground.candidates(lengths)).filter(|found| !found.is_empty());
    let Some(chosen) = within_tolerance(searched.collect(), Iterator::last) else { return Ok(Vec::new()) };
    if fixed_step.is_some() {
        return Ok(chosen);
    }
    let sequence = chosen.first().map_or(0, |candidate| candidate.choice.lengths.sequence);
    let steps = STEPS.map(|power| Lengths { sequence, step: (1 << power).max(sequence) / sequence * sequence });
    let searched = steps.filter(|&lengths| divides(ground, lengths)).map(|lengths| ground.candidates(lengths));
    let searched = searched.filter(|found| !found.is_empty()).collect();
    Ok(within_tolerance(searched, |mut good| good.next()).unwrap_or(chosen))
}

/// The lengths at which a plan that does not fit is described: the shortest rows, the recipe's or the smallest step.
pub(super) fn least(ground: &Ground) -> Result<Lengths, PlanError> {
    let sequence = sequences(ground)?.first().copied().unwrap_or(2);
    let step = ground.recipe.train.tokens_per_step.fixed().unwrap_or((1 << STEPS.start()).max(sequence));
    Ok(Lengths { sequence, step })
}

/// Of searches at several lengths those whose best is at most [`TOLERANCE`] slower a token than the fastest of all; `pick` takes one.
fn within_tolerance(
    searched: Vec<Vec<Candidate>>,
    pick: impl Fn(std::vec::IntoIter<Vec<Candidate>>) -> Option<Vec<Candidate>>,
) -> Option<Vec<Candidate>> {
    let cost = |found: &Vec<Candidate>| best(found).map_or(f64::INFINITY, Candidate::seconds_per_token);
    let least = searched.iter().map(cost).fold(f64::INFINITY, f64::min);
    let good: Vec<Vec<Candidate>> = searched.into_iter().filter(|found| cost(found) <= TOLERANCE * least).collect();
    pick(good.into_iter())
}

fn sequences(ground: &Ground) -> Result<Vec<usize>, PlanError> {
    let positions = ground.spec.max_positions;
    match ground.recipe.data.sequence_length.fixed() {
        Some(asked) if asked > positions => Err(PlanError::SequenceTooLong { asked, positions }),
        Some(asked) => Ok(vec![asked]),
        None => {
            let powers: Vec<usize> = ROWS.map(|power| 1 << power).filter(|&length| length <= positions).collect();
            Ok(if powers.is_empty() { vec![positions] } else { powers })
        }
    }
}

fn divides(ground: &Ground, lengths: Lengths) -> bool {
    let whole = lengths.step >= lengths.sequence && lengths.step.is_multiple_of(lengths.sequence);
    whole
        && match ground.recipe.train.micro_batch {
            MicroBatch::Rows(rows) => lengths.rows().is_multiple_of(rows),
            MicroBatch::Auto => true,
        }
}

fn no_length(ground: &Ground) -> PlanError {
    let MicroBatch::Rows(micro_batch) = ground.recipe.train.micro_batch else {
        return PlanError::NoRowLength {
            step: ground.recipe.train.tokens_per_step.fixed().unwrap_or(0),
            micro_batch: 1,
        };
    };
    PlanError::NoRowLength { step: ground.recipe.train.tokens_per_step.fixed().unwrap_or(STEP_COMPARED), micro_batch }
}
