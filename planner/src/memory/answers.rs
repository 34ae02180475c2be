//! How many answers are generated at once.
//!
//! In:    a [`Shape`] with answers.
//! Out:   rows and tokens for [`crate::plan::EvaluationPlan`], and what they need.
//! Never: more memory than training needs, unless a single row does.

use super::Shape;

/// Logits of a row, and what looks for the largest of them.
const LOGIT_BYTES: u64 = 8;

impl Shape<'_> {
    /// Rows answered at once at most, and tokens of all of them, each row as long as the longest; `None` without generation. Half of what
    /// training needs besides weights and arrays may go to logits, the rest goes to caches and to the forward pass of the prompts.
    pub fn answers_at_once(&self) -> Option<(u64, u64)> {
        let (rows_max, longest) = self.answers?;
        let free = self.training_bytes();
        let rows = (free / 2 / self.row_bytes()).clamp(1, rows_max.max(1));
        let tokens = free.saturating_sub(rows * self.row_bytes()) / self.token_bytes().max(1);
        Some((rows, tokens.clamp(longest, rows.saturating_mul(longest))))
    }

    /// What `rows` answers need whose tokens, prompts included, fill `tokens` cells.
    pub(super) fn answers_bytes(&self, rows: u64, tokens: u64) -> u64 {
        tokens.saturating_mul(self.token_bytes()).saturating_add(rows.saturating_mul(self.row_bytes()))
    }

    pub(super) fn row_bytes(&self) -> u64 {
        (self.spec.vocabulary as u64 * LOGIT_BYTES).max(1)
    }

    /// Keys and values of every block in f32, and the prompt's residual stream and feed-forward tensors.
    fn token_bytes(&self) -> u64 {
        self.cache_bytes().saturating_add(self.read_bytes())
    }

    /// Keys and values of one token in every block, f32.
    pub(super) fn cache_bytes(&self) -> u64 {
        let (_, kv, _) = self.widths();
        8 * kv * self.spec.n_layers() as u64
    }

    /// What one token of a prompt takes on its way through a block.
    pub(super) fn read_bytes(&self) -> u64 {
        self.forward_bytes(1).saturating_add(self.spec.hidden as u64 * self.precision.bytes())
    }
}
