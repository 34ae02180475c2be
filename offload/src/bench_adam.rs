//! Measures an optimizer update against what the memory and the disk can move.
//!
//! In:    a rule, a number of parameters, where they live.
//! Out:   seconds an update, bytes a second, next to a plain triad and, on NVMe, the store's own rate, alternating in one run.
//! Never: prints; compares figures of different runs.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use multiversion::multiversion;
use rayon::prelude::*;

use crate::array::{Array, Place, Tiers};
use crate::error::TierError;
use crate::group::{Group, GroupLayout, GroupPlaces, group_elements, lay_out};
use crate::rules::{Rule, Step};
use crate::slab::{Slab, Slabs};
use crate::store::{EngineChoice, Store, StoreOptions, Ticket};
use crate::update::{GradientSource, Updater, buffers_needed};

/// Elements a thread handles at a time in the triad.
const BLOCK: usize = 16 * 1024;
/// Elements of each of the triad's arrays that are beyond every cache: 256 MiB.
pub const TRIAD_ELEMENTS: usize = 64 << 20;
/// Transfers in flight when the store's own rate is measured.
const TRANSFERS: usize = 32;

/// What to measure.
#[derive(Clone, Debug)]
pub struct AdamOptions {
    /// Where parameters, gradients, states and the bf16 copy live.
    pub place: Place,
    /// Parameters, rounded up to a multiple of 256.
    pub elements: u64,
    /// Updates; the first is not counted.
    pub steps: usize,
    /// The rule.
    pub rule: Rule,
    /// Whether a bf16 copy is written too.
    pub working: bool,
    /// Parameters that are moved at a time, a multiple of 256.
    pub span_elements: usize,
    /// Directories for NVMe.
    pub paths: Vec<PathBuf>,
    /// The engine for NVMe.
    pub engine: EngineChoice,
    /// Elements of each of the triad's three arrays, usually [`TRIAD_ELEMENTS`].
    pub triad_elements: usize,
}

/// Medians over the steps.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamReport {
    /// Parameters.
    pub elements: u64,
    /// Threads that computed.
    pub threads: usize,
    /// Seconds an update.
    pub seconds: f64,
    /// Bytes that an update has to read and write, per parameter: 28 for AdamW in `f32`, 2 more with a bf16 copy.
    pub bytes_per_parameter: f64,
    /// Bytes a second of the update.
    pub bytes_per_second: f64,
    /// Bytes a second of `a = b + s * c` over `f32` arrays beyond the cache, 12 bytes an element.
    pub triad_bytes_per_second: f64,
    /// Waited for the disk, seconds an update.
    pub stall_seconds: f64,
    /// Bytes a second of the same reads and writes with the store alone; `None` in memory.
    pub store_bytes_per_second: Option<f64>,
    /// Which engine ran, and why; `None` in memory.
    pub engine: Option<String>,
}

impl AdamReport {
    /// The update's bytes a second as a part of the triad's.
    pub fn share_of_triad(&self) -> f64 {
        self.bytes_per_second / self.triad_bytes_per_second
    }

    /// The update's bytes a second as a part of the store's own.
    pub fn share_of_store(&self) -> Option<f64> {
        self.store_bytes_per_second.map(|store| self.bytes_per_second / store)
    }
}

/// Bytes that an update has to read and write for one parameter: parameter, gradient and states in, all but the gradient out.
pub fn bytes_per_parameter(rule: &Rule, working: bool) -> f64 {
    12.0 + 2.0 * rule.bytes_per_parameter() + if working { 2.0 } else { 0.0 }
}

/// Measures as `options` say. Takes, besides the group, 12 bytes per element of the triad and up to 256 MiB that gradients are made in.
///
/// # Errors
/// What the tiers say.
///
/// # Panics
/// If `steps` is 0: our bug.
pub fn bench_adam(options: &AdamOptions) -> Result<AdamReport, TierError> {
    assert!(options.steps > 0, "a measurement without steps");
    let tiers = open_tiers(options)?;
    let mut group = fill_group(&tiers, options)?;
    let mut triad = Triad::new(options.triad_elements)?;
    let (mut triads, mut updates, mut stalls, mut stores) = (vec![], vec![], vec![], vec![]);
    for number in 1..=options.steps as u64 + 1 {
        triads.push(triad.run());
        if let Some(store) = &tiers.nvme {
            stores.push(pump(store, &group)?);
        }
        let step = Step { number, learning_rate: 1e-5, gradient_scale: 1.0, seed: 0 };
        let started = Instant::now();
        let report = Updater::new(options.rule).update(&mut [&mut group], &step, GradientSource::FromArray)?;
        updates.push(started.elapsed());
        stalls.push(report.stall());
        // The same gradients again: their values do not matter, reading them does.
        group.fresh = false;
    }
    let seconds = median(&updates);
    let bytes_per_parameter = bytes_per_parameter(&options.rule, options.working);
    let bytes = bytes_per_parameter * group.elements() as f64;
    Ok(AdamReport {
        elements: group.elements(),
        threads: rayon::current_num_threads(),
        seconds,
        bytes_per_parameter,
        bytes_per_second: bytes / seconds,
        triad_bytes_per_second: 12.0 * options.triad_elements as f64 / median(&triads),
        stall_seconds: median(&stalls),
        store_bytes_per_second: (!stores.is_empty()).then(|| bytes / median(&stores)),
        engine: tiers.nvme.as_ref().map(|store| store.engine().why),
    })
}

/// The median of all but the first, which warms up.
fn median(times: &[Duration]) -> f64 {
    let mut times = times[1..].to_vec();
    times.sort();
    let (low, high) = (times[(times.len() - 1) / 2], times[times.len() / 2]);
    (low + high).as_secs_f64() / 2.0
}

fn open_tiers(options: &AdamOptions) -> Result<Tiers, TierError> {
    let nvme = (options.place == Place::Nvme).then(|| {
        Store::open(StoreOptions {
            run: "bench-adam".to_owned(),
            paths: options.paths.clone(),
            engine: options.engine,
            buffers: buffers_needed(&options.rule, options.working).max(TRANSFERS),
            buffer_bytes: options.span_elements * 4,
            queue_depth: TRANSFERS,
            write_budget_bytes: None,
            faults: None,
        })
    });
    let slabs = |tier| Slabs::new(tier, u64::MAX);
    Ok(Tiers { device: slabs("device"), dram: slabs("dram"), nvme: nvme.transpose()? })
}

/// A group of matrices with values in all of it.
fn fill_group(tiers: &Tiers, options: &AdamOptions) -> Result<Group, TierError> {
    let columns = 1024;
    let slots = lay_out([(options.elements.div_ceil(columns), columns, true)]);
    let layout = GroupLayout { name: "bench", key: 0, slots: &slots, span_elements: options.span_elements };
    let place = options.place;
    let places = GroupPlaces {
        parameters: place,
        gradients: Some(place),
        states: place,
        working: options.working.then_some(place),
    };
    let mut group = Group::new(tiers, &options.rule, &layout, &places)?;
    let elements = group_elements(&slots);
    let piece = (64 << 20).min(elements) as usize;
    let values: Vec<f32> = (0..piece).into_par_iter().map(|i| (i % 1009) as f32 * 1e-3 - 0.5).collect();
    for first in (0..elements).step_by(piece) {
        let values = &values[..piece.min((elements - first) as usize)];
        group.write_parameters(first, values)?;
        if let Some(gradients) = &mut group.gradients {
            gradients.write(first, bytemuck::cast_slice(values))?;
        }
    }
    group.fresh = false;
    Ok(group)
}

/// The memory's own rate.
struct Triad {
    arrays: [Slab; 3],
}

impl Triad {
    fn new(elements: usize) -> Result<Triad, TierError> {
        let slabs = Slabs::new("dram", u64::MAX);
        let array = || slabs.take("the triad", 4 * elements as u64);
        Ok(Triad { arrays: [array()?, array()?, array()?] })
    }

    fn run(&mut self) -> Duration {
        let [a, b, c] = &mut self.arrays;
        let (a, b, c): (&mut [f32], &[f32], &[f32]) =
            (bytemuck::cast_slice_mut(a), bytemuck::cast_slice(b), bytemuck::cast_slice(c));
        let started = Instant::now();
        let blocks = a.par_chunks_mut(BLOCK).zip(b.par_chunks(BLOCK).zip(c.par_chunks(BLOCK)));
        blocks.for_each(|(a, (b, c))| triad_block(a, b, c, 3.0));
        started.elapsed()
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn triad_block(a: &mut [f32], b: &[f32], c: &[f32], s: f32) {
    for (a, (b, c)) in a.iter_mut().zip(b.iter().zip(c)) {
        *a = b + s * c;
    }
}

/// Moves what an update moves, without computing: every span of every array is read, then written back unless it is gradients; the
/// bf16 copy is written only.
fn pump(store: &Store, group: &Group) -> Result<Duration, TierError> {
    let started = Instant::now();
    let changed = [&group.parameters].into_iter().chain(&group.states);
    let changed = changed.map(|array| (array, true));
    let all: Vec<(&Array, bool)> = changed.chain(group.gradients.iter().map(|array| (array, false))).collect();
    let mut reads: VecDeque<(&Array, bool, usize, Ticket)> = VecDeque::new();
    let mut writes: VecDeque<Ticket> = VecDeque::new();
    let depth = store.pool().count() / 2;
    for span in 0..group.parameters.spans() {
        for (array, write) in &all {
            if reads.len() == depth {
                turn(store, &mut reads, &mut writes)?;
            }
            let Some((_, extent)) = array.on_nvme() else { continue };
            while writes.len() >= depth {
                finish(&mut writes)?;
            }
            reads.push_back((array, *write, span, store.read(extent, span, store.pool().take())));
        }
        if let Some((_, extent)) = group.working.as_ref().and_then(Array::on_nvme) {
            while writes.len() >= depth {
                finish(&mut writes)?;
            }
            writes.push_back(store.write(extent, span, store.pool().take()));
        }
    }
    while !reads.is_empty() {
        turn(store, &mut reads, &mut writes)?;
    }
    while !writes.is_empty() {
        finish(&mut writes)?;
    }
    Ok(started.elapsed())
}

/// Ends the oldest read and starts its write.
fn turn(
    store: &Store,
    reads: &mut VecDeque<(&Array, bool, usize, Ticket)>,
    writes: &mut VecDeque<Ticket>,
) -> Result<(), TierError> {
    let Some((array, write, span, ticket)) = reads.pop_front() else { return Ok(()) };
    let buffer = ticket.wait()?;
    if let Some((_, extent)) = array.on_nvme().filter(|_| write) {
        writes.push_back(store.write(extent, span, buffer));
    }
    Ok(())
}

fn finish(writes: &mut VecDeque<Ticket>) -> Result<(), TierError> {
    writes.pop_front().map_or(Ok(()), |ticket| ticket.wait().map(drop))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::rules::AdamW;

    #[test]
    fn a_measurement_counts_28_bytes_a_parameter_and_compares_like_with_like() {
        let directory = tempfile::tempdir().unwrap();
        let adamw = AdamW { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1 };
        for (place, working) in [(Place::Dram, true), (Place::Nvme, false)] {
            let options = AdamOptions {
                place,
                elements: 200_000,
                steps: 2,
                rule: Rule::AdamW(adamw),
                working,
                span_elements: 256 * 64,
                paths: vec![directory.path().to_owned()],
                engine: EngineChoice::Auto,
                triad_elements: 1 << 20,
            };
            let report = bench_adam(&options).unwrap();
            assert_eq!(report.elements, 200_704);
            assert_eq!(report.bytes_per_parameter, if working { 30.0 } else { 28.0 });
            let bytes = report.seconds * report.bytes_per_second;
            assert!((bytes - report.bytes_per_parameter * 200_704.0).abs() < 1.0, "{report:?}");
            assert_eq!(report.share_of_store().is_some(), place == Place::Nvme);
            assert!(report.triad_bytes_per_second > 0.0 && report.share_of_triad() > 0.0);
        }
    }
}
