//! What holds for every rule that works element by element or by blocks of 256.

#![allow(clippy::unwrap_used)]
use super::testing::{GROUP, group_values, run, slots};
use super::{AdamW, Lion, Rule, Sgd, SlotRange, Span, SpanContext, Step, decay_runs, round_to_bf16};

fn rules() -> [Rule; 6] {
    let adamw = AdamW { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1 };
    [
        Rule::AdamW(adamw),
        Rule::AdamW8bit(adamw),
        Rule::AdamWBf16(adamw),
        Rule::Lion(Lion { beta1: 0.9, beta2: 0.99, weight_decay: 0.3 }),
        Rule::Sgd(Sgd { momentum: 0.9, weight_decay: 0.1 }),
        Rule::Sgd(Sgd { momentum: 0.0, weight_decay: 0.1 }),
    ]
}

#[test]
fn cutting_a_group_into_spans_changes_no_bit_of_any_array() {
    for rule in rules() {
        let whole = run(&rule, 3, GROUP);
        for blocks in [1, 7, 64] {
            assert!(run(&rule, 3, 256 * blocks) == whole, "{rule:?} in spans of {blocks} blocks");
        }
    }
}

#[test]
fn one_and_two_threads_give_the_same_bits() {
    for rule in rules() {
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run(&rule, 2, 256 * 100))
        };
        assert!(on(1) == on(2), "{rule:?}");
    }
}

#[test]
fn padding_stays_zero_and_the_bf16_copy_is_the_parameters_rounded() {
    let initial = group_values(1);
    for rule in rules() {
        let found = run(&rule, 3, 256 * 7);
        let slots = slots();
        let padding = |i: usize| !slots.iter().any(|slot| (slot.start..slot.start + slot.len).contains(&(i as u64)));
        assert!((0..GROUP).filter(|i| padding(*i)).all(|i| found.parameters[i] == 0.0), "{rule:?}");
        let moved = (0..GROUP).filter(|i| !padding(*i) && found.parameters[*i] != initial[*i]).count();
        assert!(moved * 100 > GROUP * 95, "{rule:?} moved {moved} parameters");
        let mut rounded = vec![0; GROUP];
        round_to_bf16(&found.parameters, &mut rounded);
        assert!(found.working == rounded, "{rule:?}");
    }
}

#[test]
fn a_nan_gradient_makes_its_parameter_nan_and_leaves_other_blocks_alone() {
    for rule in rules() {
        let (mut p, mut g) = (vec![1.0f32; 1024], vec![0.5f32; 1024]);
        g[700] = f32::NAN;
        let mut states: Vec<Vec<u32>> = rule.states().iter().map(|state| vec![0; state.bytes_per_256]).collect();
        let states = states.iter_mut().map(|words| bytemuck::cast_slice_mut(words)).collect();
        let step = Step { number: 1, learning_rate: 0.1, gradient_scale: 1.0, seed: 0 };
        let span = Span { first_element: 0, parameters: &mut p, gradients: &g, states, working: None };
        rule.update_span(&SpanContext { slots: &[], key: 0, step }, span);
        assert!(p[700].is_nan() && p[..512].iter().chain(&p[768..]).all(|p| p.is_finite()), "{rule:?}");
    }
}

fn slot(start: u64, len: u64, decay: bool) -> SlotRange {
    SlotRange { start, len, rows: 1, columns: len, decay }
}

#[test]
fn decay_runs_follow_the_slots_and_join_neighbours_that_agree() {
    let slots = [slot(0, 300, true), slot(512, 512, true), slot(1024, 10, false), slot(1280, 256, true)];
    assert_eq!(decay_runs(&slots, 0, 1536), [(0..1024, true), (1024..1280, false), (1280..1536, true)]);
    assert_eq!(decay_runs(&slots, 256, 256), [(0..256, true)]);
    assert_eq!(decay_runs(&slots, 768, 512), [(0..256, true), (256..512, false)]);
    assert_eq!(decay_runs(&slots, 1024, 256), [(0..256, false)]);
    assert_eq!(decay_runs(&[], 0, 256), [(0..256, false)]);
}

#[test]
fn states_weigh_what_the_plan_says() {
    let adamw = AdamW { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1 };
    assert_eq!(Rule::AdamW(adamw).bytes_per_parameter(), 8.0);
    assert_eq!(Rule::AdamW8bit(adamw).bytes_per_parameter(), 2.03125);
    assert_eq!(Rule::AdamWBf16(adamw).bytes_per_parameter(), 4.0);
    assert_eq!(Rule::Sgd(Sgd { momentum: 0.0, weight_decay: 0.0 }).bytes_per_parameter(), 0.0);
}
