//! Update rules: how gradients change parameters, over one span of a group at a time.
//!
//! In:    a span's `f32` parameters and gradients, the bytes of its optimizer states, the step.
//! Out:   parameters and states updated in place and, where asked, the parameters rounded to bf16, in one pass.
//! Never: reads a clock or a thread number; lets the span size or the number of threads change a bit.
//!
//! A group is flat: its tensors ("slots") lie one after another, each start aligned to [`ALIGNMENT`] elements, zeros between.

mod adafactor;
pub mod adamw;
mod adamw_8bit;
mod adamw_bf16;
mod blocks;
mod dynamic_map;
mod lion;
mod norm;
mod round;
mod sgd;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub use adafactor::Adafactor;
pub(crate) use adafactor::AdafactorPass;
pub use adamw::AdamW;
pub use dynamic_map::dynamic_map;
pub use lion::Lion;
pub(crate) use norm::norms_of_256;
pub use norm::squared_norm_by_256;
pub use round::round_to_bf16;
pub use sgd::Sgd;

/// Every slot of a group starts at a multiple of this many elements; state arrays are measured per so many elements.
pub const ALIGNMENT: u64 = 256;

/// Which rule, with its constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// AdamW with `f32` states, 8 bytes a parameter.
    AdamW(AdamW),
    /// AdamW with states of 8 bits, quantised in blocks of 256 elements; 2.03 bytes a parameter.
    AdamW8bit(AdamW),
    /// AdamW with bf16 states, rounded stochastically; 4 bytes a parameter.
    AdamWBf16(AdamW),
    /// Lion, 4 bytes a parameter.
    Lion(Lion),
    /// Gradient descent, with momentum (4 bytes a parameter) or without (none).
    Sgd(Sgd),
    /// Adafactor without a first moment: a row and a column of `f32` for each matrix.
    Adafactor(Adafactor),
}

/// An optimizer state that has a value for each parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateArray {
    /// Name, in checkpoints too.
    pub name: &'static str,
    /// Bytes for 256 parameters.
    pub bytes_per_256: usize,
}

/// What one step is made with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Number of the update; the first is 1.
    pub number: u64,
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// What gradients are multiplied with first: the clip factor, else 1.
    pub gradient_scale: f32,
    /// Seed of stochastic rounding.
    pub seed: u64,
}

/// One tensor in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRange {
    /// First element in the group, a multiple of [`ALIGNMENT`].
    pub start: u64,
    /// Elements: `rows * columns`.
    pub len: u64,
    /// Rows of the matrix; 1 for a vector.
    pub rows: u64,
    /// Columns of the matrix; a vector's length.
    pub columns: u64,
    /// Whether weight decay applies.
    pub decay: bool,
}

/// A piece of a group to update: elements `first_element ..` of it.
#[derive(Debug)]
pub struct Span<'a> {
    /// Its first element in the group, a multiple of [`ALIGNMENT`].
    pub first_element: u64,
    /// Parameters, updated.
    pub parameters: &'a mut [f32],
    /// Gradients.
    pub gradients: &'a [f32],
    /// One entry for each of [`Rule::states`], in that order, updated.
    pub states: Vec<&'a mut [u8]>,
    /// The parameters rounded to bf16 (bit patterns), written where wanted.
    pub working: Option<&'a mut [u16]>,
}

/// What a span belongs to.
#[derive(Clone, Copy, Debug)]
pub struct SpanContext<'a> {
    /// The group's tensors in ascending order.
    pub slots: &'a [SlotRange],
    /// The group's number, for stochastic rounding.
    pub key: u64,
    /// The step.
    pub step: Step,
}

const FIRST_MOMENT: StateArray = StateArray { name: "first_moment", bytes_per_256: 1024 };

impl Rule {
    /// The states with a value for each parameter; all start as zero bytes.
    ///
    /// Adafactor has none: its state is one array of [`Rule::factor_elements`] values.
    pub fn states(&self) -> &'static [StateArray] {
        const ADAMW: &[StateArray] = &[FIRST_MOMENT, StateArray { name: "second_moment", bytes_per_256: 1024 }];
        const BF16: &[StateArray] = &[
            StateArray { name: "first_moment", bytes_per_256: 512 },
            StateArray { name: "second_moment", bytes_per_256: 512 },
        ];
        const CODES: &[StateArray] = &[
            StateArray { name: "first_moment_codes", bytes_per_256: 256 },
            StateArray { name: "first_moment_absmax", bytes_per_256: 4 },
            StateArray { name: "second_moment_codes", bytes_per_256: 256 },
            StateArray { name: "second_moment_absmax", bytes_per_256: 4 },
        ];
        match self {
            Rule::AdamW(_) => ADAMW,
            Rule::AdamW8bit(_) => CODES,
            Rule::AdamWBf16(_) => BF16,
            Rule::Lion(_) => &[FIRST_MOMENT],
            Rule::Sgd(sgd) if sgd.momentum == 0.0 => &[],
            Rule::Sgd(_) => &[StateArray { name: "momentum", bytes_per_256: 1024 }],
            Rule::Adafactor(_) => &[],
        }
    }

    /// Bytes of [`Rule::states`] for one parameter; 0 for Adafactor, whose state grows with rows and columns instead.
    pub fn bytes_per_parameter(&self) -> f64 {
        self.states().iter().map(|state| state.bytes_per_256 as f64).sum::<f64>() / ALIGNMENT as f64
    }

    /// `f32` values in the factored state of a group with `slots`; 0 for every rule but Adafactor.
    pub fn factor_elements(&self, slots: &[SlotRange]) -> u64 {
        match self {
            Rule::Adafactor(_) => slots.iter().map(adafactor::factor_elements).sum(),
            _ => 0,
        }
    }

    /// Updates one span.
    ///
    /// # Panics
    /// If lengths disagree, the step is 0, or the rule is Adafactor, which needs whole tensors: all are our bugs.
    pub fn update_span(&self, context: &SpanContext<'_>, span: Span<'_>) {
        assert!(context.step.number > 0, "the first step is number 1");
        check_span(self.states(), &span);
        match self {
            Rule::AdamW(adamw) => adamw::update_span(adamw, context, span),
            Rule::AdamW8bit(adamw) => adamw_8bit::update_span(adamw, context, span),
            Rule::AdamWBf16(adamw) => adamw_bf16::update_span(adamw, context, span),
            Rule::Lion(lion) => lion::update_span(lion, context, span),
            Rule::Sgd(sgd) => sgd::update_span(sgd, context, span),
            Rule::Adafactor(_) => unreachable!("Adafactor updates whole tensors, see `AdafactorPass`"),
        }
    }
}

fn check_span(states: &[StateArray], span: &Span<'_>) {
    let length = span.parameters.len();
    let blocks = length / ALIGNMENT as usize;
    assert!(length.is_multiple_of(ALIGNMENT as usize), "a span of {length} elements");
    assert!(span.first_element.is_multiple_of(ALIGNMENT), "a span that starts at {}", span.first_element);
    assert_eq!(span.gradients.len(), length, "gradients of {length} parameters");
    assert_eq!(span.states.len(), states.len(), "optimizer states");
    for (state, bytes) in states.iter().zip(&span.states) {
        assert_eq!(bytes.len(), blocks * state.bytes_per_256, "bytes of {} for {length} parameters", state.name);
    }
    assert!(span.working.as_ref().is_none_or(|working| working.len() == length), "bf16 copy of {length} parameters");
}

/// The runs of elements `first .. first + len` of a group that agree on weight decay, relative to `first`.
///
/// Zeros between two slots go with the one before them.
pub(crate) fn decay_runs(slots: &[SlotRange], first: u64, len: usize) -> Vec<(Range<usize>, bool)> {
    let from = slots.partition_point(|slot| slot.start <= first).saturating_sub(1);
    let mut runs: Vec<(Range<usize>, bool)> = Vec::new();
    for (i, slot) in slots.iter().enumerate().skip(from) {
        let start = slot.start.saturating_sub(first) as usize;
        if start >= len {
            break;
        }
        let end = slots.get(i + 1).map_or(len, |next| ((next.start - first) as usize).min(len));
        match runs.last_mut() {
            Some((run, decay)) if *decay == slot.decay => run.end = end,
            _ => runs.push((start..end, slot.decay)),
        }
    }
    if runs.is_empty() {
        runs.push((0..len, false));
    }
    runs
}
