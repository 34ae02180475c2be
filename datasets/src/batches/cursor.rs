//! Where training stands in its data.
//!
//! In:    a cursor and the batches it goes over.
//! Out:   the next cursor; the step it stands at.
//! Never: holds a state besides two numbers.

use serde::{Deserialize, Serialize};

use super::{Batches, Step};

/// The step to be taken next. Two numbers are enough, since the order is a function of seed and epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Epoch, from 0.
    pub epoch: u64,
    /// Step in it, from 0.
    pub step: u64,
}

impl Cursor {
    /// The cursor after this one: the next step, or the first of the next epoch that has one.
    #[must_use]
    pub fn next(self, batches: &Batches) -> Cursor {
        let step = self.step.saturating_add(1);
        if step < batches.steps_in_epoch(self.epoch) {
            return Cursor { step, ..self };
        }
        Cursor { epoch: self.epoch.wrapping_add(1), step: 0 }.settled(batches)
    }

    /// This cursor, or the beginning of the next epoch that has a step where its own has none left: small weights can leave an epoch
    /// without a row. Without any row it stays where it is.
    #[must_use]
    pub fn settled(self, batches: &Batches) -> Cursor {
        if batches.dataset.is_empty() || self.step < batches.steps_in_epoch(self.epoch) {
            return self;
        }
        let mut epoch = self.epoch.wrapping_add(1);
        // Ends: the weights show at least one row an epoch on average, see OrderError::NothingShown.
        while batches.steps_in_epoch(epoch) == 0 {
            epoch = epoch.wrapping_add(1);
        }
        Cursor { epoch, step: 0 }
    }

    /// The step it stands at.
    pub fn step(self, batches: &Batches) -> Step {
        batches.step(self.epoch, self.step)
    }
}
