//! Updates groups of parameters wherever they live: memory in place, NVMe one span ahead and one behind.
//!
//! In:    groups, a step, gradients from their arrays or straight from the backward pass.
//! Out:   parameters, states and bf16 copies after the step; how long it waited for the disk.
//! Never: computes anything another way because of where an array lives, the span size or the number of threads.

use std::time::Duration;

use crate::array::Array;
use crate::error::TierError;
use crate::group::Group;
use crate::pipeline::{Access, Lane, SPANS_IN_FLIGHT, WalkTimes, walk};
use crate::rules::{Adafactor, AdafactorPass, Rule, Span, SpanContext, Step};

/// Where an update finds its gradients.
#[derive(Clone, Copy, Debug)]
pub enum GradientSource<'a> {
    /// In each group's own array. Afterwards they are logically zero.
    FromArray,
    /// In memory, for one group: they never touch a tier. The group's own array keeps what it has.
    Flat(&'a [f32]),
}

/// What an update did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpdateReport {
    /// Waited for reads, or for buffers to read into.
    pub read_stall: Duration,
    /// Waited for writes.
    pub write_stall: Duration,
    /// Computed.
    pub compute: Duration,
    /// Parameters updated, padding included.
    pub elements: u64,
}

impl UpdateReport {
    /// All waiting for the disk.
    pub fn stall(&self) -> Duration {
        self.read_stall + self.write_stall
    }

    fn add(&mut self, times: WalkTimes) {
        self.read_stall += times.read_stall;
        self.write_stall += times.write_stall;
        self.compute += times.compute;
    }
}

/// Transfer buffers an update takes at most, if all arrays are on NVMe; `working` says whether there is a bf16 copy.
///
/// The pool must have as many besides those that others hold meanwhile, tickets not yet waited for included: an update waits for
/// buffers. A pool of two thirds makes it wait for writes before it reads on, one third for reads too; with less it is refused.
pub fn buffers_needed(rule: &Rule, working: bool) -> usize {
    SPANS_IN_FLIGHT * (2 + rule.states().len() + usize::from(working))
}

/// Carries out the updates of one rule.
#[derive(Clone, Copy, Debug)]
pub struct Updater {
    rule: Rule,
}

impl Updater {
    /// An updater for `rule`.
    pub fn new(rule: Rule) -> Updater {
        Updater { rule }
    }

    /// The rule.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Bytes that one update of `groups` writes to NVMe, for a look at the write budget beforehand.
    pub fn nvme_write_bytes(&self, groups: &[&Group]) -> u64 {
        let changed = |group: &&Group| {
            let arrays = group.states.iter().chain([&group.parameters]).chain(&group.working);
            arrays.filter(|array| array.on_nvme().is_some()).map(Array::bytes).sum::<u64>()
        };
        groups.iter().map(changed).sum()
    }

    /// Performs one step on every group, in order.
    ///
    /// # Errors
    /// What the tiers say, after every transfer in flight has ended and its buffer is back. Each span of each array is then wholly before
    /// or wholly after the step, but not all the same: all `groups` refuse further updates with [`TierError::Torn`], and the run goes
    /// on from its last checkpoint.
    ///
    /// # Panics
    /// If gradients are missing, [`GradientSource::Flat`] comes with another number of groups than one or another length than the
    /// group's, or a group was made for another rule: our bugs.
    pub fn update(
        &self,
        groups: &mut [&mut Group],
        step: &Step,
        gradients: GradientSource<'_>,
    ) -> Result<UpdateReport, TierError> {
        if let GradientSource::Flat(flat) = gradients {
            assert_eq!(groups.len(), 1, "flat gradients are those of one group");
            assert_eq!(flat.len() as u64, groups[0].elements(), "flat gradients");
        }
        groups.iter().try_for_each(|group| group.check_whole())?;
        groups.iter_mut().for_each(|group| group.torn = true);
        let mut report =
            UpdateReport { elements: groups.iter().map(|group| group.elements()).sum(), ..Default::default() };
        match &self.rule {
            Rule::Adafactor(adafactor) => {
                for group in groups.iter_mut() {
                    update_factored(adafactor, group, step, gradients, &mut report)?;
                }
            }
            rule => report.add(update_elementwise(rule, groups, step, gradients)?),
        }
        for group in groups.iter_mut() {
            group.torn = false;
            group.fresh |= matches!(gradients, GradientSource::FromArray);
        }
        Ok(report)
    }
}

/// The gradients of one group, as the walk finds them.
struct Gradients<'a> {
    /// Those that are not in a lane: given directly, or zeros of one span's length for a group that has had none.
    outside: Option<Outside<'a>>,
    span_elements: usize,
}

enum Outside<'a> {
    Flat(&'a [f32]),
    Zeros(Vec<f32>),
}

impl<'a> Gradients<'a> {
    fn new(group: &Group, source: GradientSource<'a>) -> Gradients<'a> {
        let span_elements = group.parameters.span_elements();
        let length = group.elements().min(span_elements as u64) as usize;
        let outside = match source {
            GradientSource::Flat(flat) => Some(Outside::Flat(flat)),
            GradientSource::FromArray if group.fresh => Some(Outside::Zeros(vec![0.0; length])),
            GradientSource::FromArray => None,
        };
        Gradients { outside, span_elements }
    }

    /// The lane to read them from, if they are in an array.
    fn lane<'g>(&self, array: &'g mut Option<Array>) -> Option<Lane<'g>> {
        let array = array.as_mut().filter(|_| self.outside.is_none());
        assert_eq!(array.is_none(), self.outside.is_some(), "a group with gradients has an array for them");
        array.map(|array| Lane::new(array, Access::Read))
    }

    /// Those of a span; takes the view of their lane from the front of `views` if there is one.
    fn of_span<'s>(&'s self, span: usize, len: usize, views: &mut impl Iterator<Item = &'s mut [u8]>) -> &'s [f32] {
        match &self.outside {
            Some(Outside::Flat(flat)) => &flat[span * self.span_elements..][..len],
            Some(Outside::Zeros(zeros)) => &zeros[..len],
            None => bytemuck::cast_slice(views.next().expect("the lane of gradients")),
        }
    }

    /// Elements in `span` of a group of `elements`.
    fn span_len(&self, span: usize, elements: u64) -> usize {
        (elements - (span * self.span_elements) as u64).min(self.span_elements as u64) as usize
    }
}

fn update_elementwise(
    rule: &Rule,
    groups: &mut [&mut Group],
    step: &Step,
    source: GradientSource<'_>,
) -> Result<WalkTimes, TierError> {
    let gradients: Vec<Gradients<'_>> = groups.iter().map(|group| Gradients::new(group, source)).collect();
    let spans: Vec<usize> = groups.iter().map(|group| group.parameters.spans()).collect();
    let mut contexts = Vec::with_capacity(groups.len());
    let mut lanes = Vec::with_capacity(groups.len());
    for (group, gradients) in groups.iter_mut().zip(&gradients) {
        let Group { key, slots, parameters, gradients: array, states, working, .. } = &mut **group;
        assert_eq!(states.len(), rule.states().len(), "states of group {key}");
        contexts.push(SpanContext { slots, key: *key, step: *step });
        let mut own = vec![Lane::new(parameters, Access::Change)];
        own.extend(gradients.lane(array));
        own.extend(states.iter_mut().map(|state| Lane::new(state, Access::Change)));
        own.extend(working.iter_mut().map(|working| Lane::new(working, Access::Write)));
        lanes.push(own);
    }
    walk(&mut lanes, &spans, |group, span, views| {
        let mut views = views.into_iter();
        let parameters: &mut [f32] = bytemuck::cast_slice_mut(views.next().expect("the lane of parameters"));
        let first_element = (span * gradients[group].span_elements) as u64;
        let gradients = gradients[group].of_span(span, parameters.len(), &mut views);
        let states = views.by_ref().take(rule.states().len()).collect();
        let working = views.next().map(bytemuck::cast_slice_mut);
        rule.update_span(&contexts[group], Span { first_element, parameters, gradients, states, working });
    })
}

/// Adafactor needs whole tensors: two walks over the gradients, then one over everything.
fn update_factored(
    adafactor: &Adafactor,
    group: &mut Group,
    step: &Step,
    source: GradientSource<'_>,
    report: &mut UpdateReport,
) -> Result<(), TierError> {
    let (gradients, spans, elements) = (Gradients::new(group, source), group.parameters.spans(), group.elements());
    let first = |span: usize| (span * gradients.span_elements) as u64;
    let Group { slots, parameters, gradients: array, states, working, .. } = group;
    let factors = states.first_mut().and_then(Array::in_memory_mut).expect("factors are kept in memory");
    let factors: &mut [f32] = bytemuck::cast_slice_mut(factors);
    let mut pass = AdafactorPass::new(adafactor, slots, *step, factors);

    report.add(walk(&mut [gradients.lane(array).into_iter().collect()], &[spans], |_, span, views| {
        pass.observe(first(span), gradients.of_span(span, gradients.span_len(span, elements), &mut views.into_iter()));
    })?);
    pass.finish_statistics();
    report.add(walk(&mut [gradients.lane(array).into_iter().collect()], &[spans], |_, span, views| {
        pass.measure(first(span), gradients.of_span(span, gradients.span_len(span, elements), &mut views.into_iter()));
    })?);
    pass.finish_measure();

    let mut lanes = vec![Lane::new(parameters, Access::Change)];
    lanes.extend(gradients.lane(array));
    lanes.extend(working.iter_mut().map(|working| Lane::new(working, Access::Write)));
    report.add(walk(&mut [lanes], &[spans], |_, span, views| {
        let mut views = views.into_iter();
        let parameters: &mut [f32] = bytemuck::cast_slice_mut(views.next().expect("the lane of parameters"));
        let span_gradients = gradients.of_span(span, parameters.len(), &mut views);
        let working = views.next().map(bytemuck::cast_slice_mut);
        pass.apply(first(span), parameters, span_gradients, working);
    })?);
    pass.store_factors(factors);
    Ok(())
}
