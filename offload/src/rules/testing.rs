//! A small group and a plain driver, for the tests of every rule.

use super::{Rule, SlotRange, Span, SpanContext, Step};

/// Elements of the group in [`slots`].
pub const GROUP: usize = 256 * 150;

/// Matrices with weight decay, vectors without, and padding after three of them.
pub fn slots() -> Vec<SlotRange> {
    let slot = |start, rows, columns, decay| SlotRange { start, len: rows * columns, rows, columns, decay };
    vec![
        slot(0, 60, 300, true),
        slot(71 * 256, 1, 300, false),
        slot(73 * 256, 100, 100, true),
        slot(113 * 256, 1, 512, false),
        slot(115 * 256, 35, 255, true),
    ]
}

/// The elements of the group that belong to slots, each with whether weight decay applies.
pub fn elements() -> impl Iterator<Item = (usize, bool)> {
    slots().into_iter().flat_map(|slot| (slot.start..slot.start + slot.len).map(move |i| (i as usize, slot.decay)))
}

/// `count` reproducible values in -1 to 1.
pub fn values(count: usize, mut state: u64) -> Vec<f32> {
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(next).collect()
}

/// [`values`] of a group: zero between the slots.
pub fn group_values(seed: u64) -> Vec<f32> {
    let (all, mut own) = (values(GROUP, seed), vec![0.0; GROUP]);
    elements().for_each(|(i, _)| own[i] = all[i]);
    own
}

/// A group's arrays after some updates.
#[derive(Debug, PartialEq)]
pub struct Arrays {
    pub parameters: Vec<f32>,
    pub states: Vec<Vec<u32>>,
    pub working: Vec<u16>,
}

/// `steps` updates in spans of `span` elements, gradients halved, the learning rate 0.01 over the step.
pub fn run(rule: &Rule, steps: u64, span: usize) -> Arrays {
    run_with_seed(rule, steps, span, 0)
}

/// As [`run`], with a seed for stochastic rounding.
pub fn run_with_seed(rule: &Rule, steps: u64, span: usize, seed: u64) -> Arrays {
    let words = |bytes_per_256: usize| vec![0u32; GROUP / 256 * bytes_per_256 / 4];
    let states = rule.states().iter().map(|state| words(state.bytes_per_256)).collect();
    let mut arrays = Arrays { parameters: group_values(1), states, working: vec![0; GROUP] };
    for number in 1..=steps {
        let gradients = group_values(100 + number);
        let step = Step { number, learning_rate: 1e-2 / number as f64, gradient_scale: 0.5, seed };
        let context = SpanContext { slots: &slots(), key: 3, step };
        for first in (0..GROUP).step_by(span) {
            let range = first..(first + span).min(GROUP);
            let bytes = |per_256: usize| range.start / 256 * per_256..range.end / 256 * per_256;
            let states = arrays.states.iter_mut().zip(rule.states());
            let states = states.map(|(words, state)| &mut bytemuck::cast_slice_mut(words)[bytes(state.bytes_per_256)]);
            let span = Span {
                first_element: first as u64,
                states: states.collect(),
                parameters: &mut arrays.parameters[range.clone()],
                gradients: &gradients[range.clone()],
                working: Some(&mut arrays.working[range.clone()]),
            };
            rule.update_span(&context, span);
        }
    }
    arrays
}
