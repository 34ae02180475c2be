//! AdamW in one pass.
//!
//! In:    masters, gradients and both moments in f32.
//! Out:   masters and moments after the update; on request the masters in bf16 as well.
//! Never: reads or writes a number twice.
//!
//! Source: Loshchilov and Hutter 2017, arXiv:1711.05101, algorithm 2.

use cubecl::client::Client;
use cubecl::prelude::*;

use crate::launch::{Buffer, Number, UNITS, cover, launch};

/// Numbers of one update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub learning_rate: f32,
    /// Decay of the first and of the second moment.
    pub betas: [f32; 2],
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Factor on gradients: clipping and averaging.
    pub gradient_scale: f32,
    /// Number of this step, from 1.
    pub step: u32,
}

#[cube(launch, create_dummy_kernel)]
#[allow(clippy::too_many_arguments)]
fn update<F: Float>(
    parameters: &mut [f32],
    gradients: &[f32],
    first: &mut [f32],
    second: &mut [f32],
    copy: &mut [F],
    gradient_scale: f32,
    beta1: f32,
    beta2: f32,
    keep: f32,
    step_size: f32,
    root_scale: f32,
    epsilon: f32,
    #[comptime] copies: bool,
    #[define(F)] _number: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at >= parameters.len() {
        terminate!();
    }
    let gradient = gradients[at] * gradient_scale;
    let m = beta1 * first[at] + (1.0f32 - beta1) * gradient;
    let v = beta2 * second[at] + (1.0f32 - beta2) * gradient * gradient;
    first[at] = m;
    second[at] = v;
    let updated = parameters[at] * keep - step_size * m / (v.sqrt() * root_scale + epsilon);
    parameters[at] = updated;
    if comptime!(copies) {
        copy[at] = F::cast_from(updated);
    }
}

/// Updates in place; `copy` gets the new masters in its own format.
///
/// # Panics
/// If sizes disagree: our bug.
pub fn adamw(
    client: &Client,
    [parameters, gradients, first, second]: [&Buffer; 4],
    copy: Option<(&Buffer, Number)>,
    rule: AdamW,
) {
    for (what, buffer) in [("gradients", gradients), ("first moments", first), ("second moments", second)] {
        buffer.expect(what, parameters.len());
    }
    if parameters.is_empty() {
        return;
    }
    let corrections = rule.betas.map(|beta| 1.0 - f64::from(beta).powi(rule.step as i32));
    let step_size = (f64::from(rule.learning_rate) / corrections[0]) as f32;
    let root_scale = corrections[1].sqrt().recip() as f32;
    let copies = copy.is_some();
    let keep = 1.0 - rule.learning_rate * rule.weight_decay;
    let (target, number) = copy.map_or((Buffer::empty(client, 1, Number::F32), Number::F32), |(copy, number)| {
        copy.expect("copies", parameters.len());
        (copy.clone(), number)
    });
    launch!(
        client,
        update,
        cover(parameters.len()),
        CubeDim::new_1d(UNITS),
        parameters,
        gradients,
        first,
        second,
        target,
        rule.gradient_scale,
        rule.betas[0],
        rule.betas[1],
        keep,
        step_size,
        root_scale,
        rule.epsilon,
        copies,
        number.element(),
    );
}
