//! What becomes of one record: everything that can be done to it alone, on any thread.
//!
//! In:    a record with the shape of its file.
//! Out:   a [`Made`] row, or its fault.
//! Never: looks at another row, but for the sketches of held-out rows.

use planner::plan::{DataPlan, Deduplicate, Gate, HeldOut};

use super::length::{self, Fitted};
use crate::clean::{self, Fingerprint, Likeness, Overlap, Rules};
use crate::content::{Content, Record};
use crate::encode::{Encoder, Tokens};
use crate::gates::Gates;
use crate::row_error::RowError;
use crate::shapes::{self, Shape};

/// A record that no gate refused.
pub(super) struct Made {
    pub(super) fate: Fate,
    /// Gates that it would have failed and that are switched off.
    pub(super) findings: Gates,
    /// Tokens before anything was cut.
    pub(super) length: usize,
}

/// What is done with it.
pub(super) enum Fate {
    /// Rows, with what tells duplicates.
    Rows { rows: Vec<Tokens>, cut: Cut, held_out: bool, fingerprint: Box<Fingerprint> },
    /// Left out for its length.
    Dropped,
    /// Longer than `too_long = "error"` allows.
    TooLong,
    /// Removed by a cleaning rule.
    Removed(String),
    /// Checked, not encoded.
    Preference,
}

/// Whether it is what the file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// All of it.
    Whole,
    /// Its beginning.
    Truncated,
    /// In several rows.
    Split,
}

/// Which rows are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To train on, or held out by share.
    Training,
    /// Of the held-out source.
    HeldOut,
}

/// Everything that is needed, shared by all threads.
pub(super) struct Maker<'a> {
    pub(super) plan: &'a DataPlan,
    pub(super) encoder: &'a Encoder<'a>,
    pub(super) embedding_rows: usize,
    pub(super) allowed: Gates,
    pub(super) rules: Rules,
    /// Held-out rows; `None` while they are collected.
    pub(super) overlap: Option<Overlap>,
}

impl Maker<'_> {
    /// Makes one record into rows.
    pub(super) fn make(&self, record: Record, shape: &Shape, purpose: Purpose) -> Result<Made, RowError> {
        let mut findings = Gates::default();
        let content = shapes::content(record.raw, shape, self.allowed, &mut findings)?;
        let mut length = 0;
        let fate = self.fate(&content, purpose, &mut findings, &mut length)?;
        Ok(Made { fate, findings, length })
    }

    fn fate(
        &self,
        content: &Content,
        purpose: Purpose,
        findings: &mut Gates,
        length: &mut usize,
    ) -> Result<Fate, RowError> {
        if matches!(content, Content::Preference(_)) {
            return Ok(Fate::Preference);
        }
        let text = content.text();
        if purpose == Purpose::Training
            && let Err(refusal) = self.rules.check(&text)
        {
            return Ok(Fate::Removed(refusal.rule().to_owned()));
        }
        let fingerprint = Box::new(self.fingerprint(&text));
        let held_out = self.is_held_out(&fingerprint, purpose);
        if !held_out && let Some(fate) = self.overlapping(&fingerprint, findings)? {
            return Ok(fate);
        }
        let tokens = self.encoder.encode(content, findings)?;
        *length = tokens.ids.len();
        self.check_vocabulary(&tokens)?;
        let limit = self.plan.sequence_length;
        let fitted = match content {
            Content::Text(_) => length::split(tokens, limit),
            _ => length::fit(tokens, limit, self.plan.too_long, self.allowed, findings)?,
        };
        let (rows, cut) = match fitted {
            Fitted::Whole(row) => (vec![row], Cut::Whole),
            Fitted::Truncated(row) => (vec![row], Cut::Truncated),
            Fitted::Split(rows) => (rows, Cut::Split),
            Fitted::Dropped => return Ok(Fate::Dropped),
            Fitted::TooLong => return Ok(Fate::TooLong),
        };
        Ok(Fate::Rows { rows, cut, held_out, fingerprint })
    }

    /// The fingerprint of a record that is to be held out; faults of the record are found later.
    pub(super) fn held_out_fingerprint(&self, record: Record, shape: &Shape) -> Option<Fingerprint> {
        let everything = Gates::all();
        let content = shapes::content(record.raw, shape, everything, &mut Gates::default()).ok()?;
        let text = content.text();
        if self.rules.check(&text).err().is_some() {
            return None;
        }
        let fingerprint = Fingerprint::of(&text);
        self.is_held_out(&fingerprint, Purpose::Training).then_some(fingerprint)
    }

    /// The sketch costs as much as tokenising does: only where something is compared with it.
    fn fingerprint(&self, text: &str) -> Fingerprint {
        match self.plan.held_out.is_some() || self.plan.clean.deduplicate == Deduplicate::Near {
            true => Fingerprint::of(text),
            false => Fingerprint::exact_only(text),
        }
    }

    fn is_held_out(&self, fingerprint: &Fingerprint, purpose: Purpose) -> bool {
        match (purpose, &self.plan.held_out) {
            (Purpose::HeldOut, _) => true,
            (Purpose::Training, Some(HeldOut::Share(share))) => {
                clean::is_held_out(fingerprint.exact, self.plan.seed, *share)
            }
            _ => false,
        }
    }

    /// A training row that says what a held-out one says is removed where duplicates are, else refused.
    fn overlapping(&self, fingerprint: &Fingerprint, findings: &mut Gates) -> Result<Option<Fate>, RowError> {
        let Some(found) = self.overlap.as_ref().and_then(|overlap| overlap.find(fingerprint)) else { return Ok(None) };
        let removes = match self.plan.clean.deduplicate {
            Deduplicate::None => false,
            Deduplicate::Exact => found.likeness == Likeness::Exact,
            Deduplicate::Near => true,
        };
        if removes {
            return Ok(Some(Fate::Removed("stands in the held-out rows".to_owned())));
        }
        let similarity = match found.likeness {
            Likeness::Exact => 1.0,
            Likeness::Near(similarity) => similarity,
        };
        let fault =
            RowError::HeldOut { row: u64::from(found.held_out_row) + 1, percent: (similarity * 100.0).round() as u8 };
        self.allowed.pass(fault, findings).map(|()| None)
    }

    fn check_vocabulary(&self, tokens: &Tokens) -> Result<(), RowError> {
        match tokens.ids.iter().find(|id| **id as usize >= self.embedding_rows) {
            Some(&id) => Err(RowError::TokenOutsideModel { id, rows: self.embedding_rows }),
            None => Ok(()),
        }
    }
}

/// Gates that look at all rows together or at the template need no room in a row's findings.
pub(super) const ROW_GATES: [Gate; 8] = [
    Gate::OneBos,
    Gate::AnswerEnd,
    Gate::TrainedTokens,
    Gate::TruncatedAnswer,
    Gate::EmptyAnswer,
    Gate::Utf8,
    Gate::Roles,
    Gate::EvalOverlap,
];
