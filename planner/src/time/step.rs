//! One optimizer step: the passes of every micro-batch, what moves between tiers meanwhile, and the update.
//!
//! In:    the shape of a micro-batch, the machine's rates.
//! Out:   a [`Load`] for each phase of the step.
//! Never: allocates; a search asks thousands of times.
//!
//! Bytes follow the engine: a block that is not on the device is read once forward and once more where it is recomputed, except the last,
//! which is still there; the input of a recomputed block leaves forward and comes back backward; gradients are added up in their tier
//! after every micro-batch; the update reads and writes parameters and states, and the network takes up what was updated.

use super::Work;
use super::block::{Arithmetic, stored_block_bytes};
use super::load::{Lanes, Load};
use crate::plan::{Keep, OptimizerKind, Precision, Resource, Tier};
use crate::rates::{HostRates, NvmeRates, Rates};

/// Bytes that one thread moves for a gradient on its way from the graph into its group's flat array: that array zeroed, the gradient
/// read and written; on the processor also the product's own result zeroed.
const GRADIENT_COPY_BYTES: f64 = 12.0;
const GRADIENT_RESULT_BYTES: f64 = 4.0;
/// Bytes moved to add a flat gradient to the sum: both read, the sum written.
const GRADIENT_SUM_BYTES: f64 = 12.0;
/// Passes over a block's bytes to make tensors of what is stored: zeroed, read, written.
const UNPACK_PASSES: f64 = 3.0;
/// Parameter read and written, gradient read.
const UPDATE_BYTES: f64 = 12.0;
/// f32 masters, gradients.
const MASTER_BYTES: f64 = 4.0;
/// The bf16 copy that compute reads where weights live outside of the device.
const COPY_BYTES: f64 = 2.0;

/// The phases of a step, in order of time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Phases {
    pub(super) forward: Load,
    pub(super) head: Load,
    pub(super) backward: Load,
    pub(super) update: Load,
}

/// What runs beside what on this device.
pub(super) fn lanes(work: &Work) -> Lanes {
    match work.shape.device.is_host() {
        true => Lanes::Host,
        false => Lanes::Card,
    }
}

/// Counts.
pub(super) fn phases(work: &Work, rates: &Rates) -> Phases {
    let traffic = Traffic::new(work, rates);
    let mut phases = Phases::default();
    passes(work, rates, &mut phases);
    traffic.passes(&mut phases);
    let update = traffic.update();
    // Only the last micro-batch's backward pass hides an update, and nothing hides the last groups' update.
    let hidden = if work.update_during_backward { 1.0 - traffic.tail() } else { 0.0 };
    let longest = phases.backward.seconds(traffic.lanes) / traffic.micro_batches;
    let room = if update.seconds(traffic.lanes) > 0.0 && traffic.lanes == Lanes::Card {
        (longest / update.seconds(traffic.lanes)).min(hidden)
    } else {
        hidden
    };
    phases.backward.add_load(&update, room);
    phases.update.add_load(&update, 1.0 - room);
    traffic.renew(&mut phases.update);
    phases
}

/// Arithmetic of all micro-batches of one card.
fn passes(work: &Work, rates: &Rates, phases: &mut Phases) {
    let shape = work.shape;
    let arithmetic = Arithmetic::new(shape, rates);
    let times = micro_batches(work);
    let (forward, backward) = (arithmetic.forward(), arithmetic.backward(false));
    let mut window = None;
    let mut attention = arithmetic.attention(None, work.sequence_length as f64);
    for (index, (layer, keep)) in shape.spec.layers.iter().zip(&shape.keep).enumerate() {
        if layer.window != window {
            window = layer.window;
            attention = arithmetic.attention(window, work.sequence_length as f64);
        }
        let [attention_forward, attention_backward] = &attention;
        phases.forward.add_load(&forward, times);
        phases.forward.add_load(attention_forward, times);
        if *keep == Keep::Recompute {
            phases.backward.add_load(&forward, times);
            phases.backward.add_load(attention_forward, times);
        }
        match index {
            0 => phases.backward.add_load(&arithmetic.backward(true), times),
            _ => phases.backward.add_load(&backward, times),
        }
        phases.backward.add_load(attention_backward, times);
    }
    phases.head.add_load(&arithmetic.head(work.trained_share), times);
}

/// Micro-batches of one card.
fn micro_batches(work: &Work) -> f64 {
    (work.micro_batches as f64 / f64::from(work.cards.max(1))).ceil()
}

/// What moves between tiers.
struct Traffic<'a> {
    work: &'a Work<'a>,
    host: HostRates,
    drives: NvmeRates,
    dram_bytes_per_second: f64,
    link_bytes_per_second: Option<f64>,
    card_link_bytes_per_second: f64,
    lanes: Lanes,
    micro_batches: f64,
    blocks: f64,
    /// Blocks that run forward again.
    recomputed: f64,
    last_is_recomputed: bool,
    /// Trained numbers.
    elements: f64,
    outer_elements: f64,
    is_full: bool,
}

impl Traffic<'_> {
    fn new<'a>(work: &'a Work<'a>, rates: &Rates) -> Traffic<'a> {
        let shape = work.shape;
        let lanes = lanes(work);
        let link = match lanes {
            Lanes::Host => None,
            Lanes::Card => rates.host_link_bytes_per_second,
        };
        Traffic {
            work,
            host: rates.host(),
            drives: rates.drives(),
            dram_bytes_per_second: rates.dram_bytes_per_second,
            link_bytes_per_second: link,
            card_link_bytes_per_second: rates.card_link_bytes_per_second.or(link).unwrap_or(f64::INFINITY),
            lanes,
            micro_batches: micro_batches(work),
            blocks: shape.keep.len() as f64,
            recomputed: shape.keep.iter().filter(|&&keep| keep == Keep::Recompute).count() as f64,
            last_is_recomputed: shape.keep.last() == Some(&Keep::Recompute),
            elements: shape.sizes.elements as f64,
            outer_elements: shape.sizes.outer_elements as f64,
            is_full: shape.method.full().is_some(),
        }
    }

    /// Blocks, block inputs and gradients of all micro-batches.
    fn passes(&self, phases: &mut Phases) {
        let (shape, times) = (self.work.shape, self.micro_batches);
        let weights = shape.placement.weights;
        if weights != Tier::Device {
            let block = stored_block_bytes(shape);
            let again = self.recomputed - if self.last_is_recomputed { 1.0 } else { 0.0 };
            self.bring(&mut phases.forward, weights, times * self.blocks * block);
            self.bring(&mut phases.backward, weights, times * again.max(0.0) * block);
        }
        if shape.placement.activations != Tier::Device {
            let input = shape.tokens as f64 * self.work.shape.spec.hidden as f64 * shape.precision.bytes() as f64;
            let bytes = times * self.recomputed * input;
            self.send(&mut phases.forward, shape.placement.activations, bytes);
            self.bring(&mut phases.backward, shape.placement.activations, bytes);
        }
        self.gradients(&mut phases.backward);
        let zeroed = times * MASTER_BYTES * self.outer_elements;
        phases.head.add(Resource::Dram, zeroed, zeroed / self.host.copy_bytes_per_second);
    }

    fn gradients(&self, load: &mut Load) {
        let (shape, times) = (self.work.shape, self.micro_batches);
        let flat = MASTER_BYTES * self.elements;
        self.cross(load, times * flat);
        let each = match self.lanes {
            Lanes::Host => GRADIENT_COPY_BYTES + GRADIENT_RESULT_BYTES,
            Lanes::Card => GRADIENT_COPY_BYTES,
        };
        let copied = times * each * (self.elements - self.outer_elements);
        load.add(Resource::Dram, copied, copied / self.host.copy_bytes_per_second);
        if shape.has_gradient_arrays {
            let summed = times * GRADIENT_SUM_BYTES * self.elements;
            load.add(Resource::Dram, summed, summed / self.dram_bytes_per_second);
            if shape.placement.gradients == Tier::Nvme {
                self.read(load, (times - 1.0) * flat);
                self.write(load, times * flat);
            }
        }
        let cards = f64::from(self.work.cards.max(1));
        if cards > 1.0 {
            let bytes = 2.0 * (cards - 1.0) / cards * flat;
            load.add(Resource::AllReduce, bytes, bytes / self.card_link_bytes_per_second);
        }
    }

    /// The whole update.
    fn update(&self) -> Load {
        let (shape, elements) = (self.work.shape, self.elements);
        let mut load = Load::default();
        let working = if self.has_working_copy() { COPY_BYTES } else { 0.0 };
        let bytes = elements * (UPDATE_BYTES + 2.0 * self.state_bytes() + working);
        let seconds = match shape.optimizer.kind {
            OptimizerKind::Adamw8bit | OptimizerKind::AdamwBf16 => elements / self.host.rounded_parameters_per_second,
            _ => bytes / self.host.update_bytes_per_second,
        };
        load.add(Resource::CpuOptimizer, bytes, seconds);
        let mut moved = [0.0, 0.0];
        if self.masters() == Tier::Nvme {
            moved = [MASTER_BYTES, MASTER_BYTES];
        }
        if shape.placement.optimizer == Tier::Nvme {
            moved = moved.map(|bytes| bytes + self.state_bytes());
        }
        if shape.has_gradient_arrays && shape.placement.gradients == Tier::Nvme {
            moved[0] += MASTER_BYTES;
        }
        if working > 0.0 && shape.placement.weights == Tier::Nvme {
            moved[1] += working;
        }
        self.read(&mut load, moved[0] * elements);
        self.write(&mut load, moved[1] * elements);
        load
    }

    /// The network takes up the updated numbers: every block that stays on the device, and what is around the blocks.
    fn renew(&self, load: &mut Load) {
        let resident = self.work.shape.placement.weights == Tier::Device;
        let elements = if resident { self.elements } else { self.outer_elements };
        let stored = match self.work.shape.precision {
            Precision::Bf16 if self.has_working_copy() => COPY_BYTES,
            _ => MASTER_BYTES,
        };
        let bytes = elements * stored;
        if self.masters() == Tier::Nvme {
            self.read(load, bytes);
        }
        let copied = UNPACK_PASSES * bytes;
        load.add(Resource::Dram, copied, copied / self.host.copy_bytes_per_second);
        self.cross(load, elements * self.work.shape.precision.bytes() as f64);
    }

    /// Part of the update that comes after the backward pass: what is around the blocks, and the first block.
    fn tail(&self) -> f64 {
        let last = self.outer_elements + self.work.shape.sizes.block_elements as f64;
        if self.elements > 0.0 { (last / self.elements).min(1.0) } else { 0.0 }
    }

    fn masters(&self) -> Tier {
        let shape = self.work.shape;
        let with_weights = self.is_full && shape.precision == Precision::F32 && shape.placement.weights != Tier::Device;
        if with_weights { shape.placement.weights } else { shape.placement.optimizer }
    }

    fn has_working_copy(&self) -> bool {
        let shape = self.work.shape;
        self.is_full && shape.precision == Precision::Bf16 && shape.placement.weights != Tier::Device
    }

    /// Bytes of one parameter's states; a factored moment is small and stays in memory.
    fn state_bytes(&self) -> f64 {
        match self.work.shape.optimizer.kind {
            OptimizerKind::Adamw => 8.0,
            OptimizerKind::Adamw8bit => 520.0 / 256.0,
            OptimizerKind::AdamwBf16 | OptimizerKind::Lion => 4.0,
            OptimizerKind::Sgd => {
                if self.work.shape.optimizer.momentum > 0.0 {
                    4.0
                } else {
                    0.0
                }
            }
            OptimizerKind::Adafactor => 0.0,
        }
    }

    /// From a tier to the device.
    fn bring(&self, load: &mut Load, tier: Tier, bytes: f64) {
        if tier == Tier::Nvme {
            self.read(load, bytes);
        }
        let copied = UNPACK_PASSES * bytes;
        load.add(Resource::Dram, copied, copied / self.dram_bytes_per_second);
        self.cross(load, bytes);
    }

    /// From the device to a tier.
    fn send(&self, load: &mut Load, tier: Tier, bytes: f64) {
        if tier == Tier::Nvme {
            self.write(load, bytes);
        }
        let copied = 2.0 * bytes;
        load.add(Resource::Dram, copied, copied / self.dram_bytes_per_second);
        self.cross(load, bytes);
    }

    /// Over the link between host and card, if there is one.
    fn cross(&self, load: &mut Load, bytes: f64) {
        if let Some(rate) = self.link_bytes_per_second {
            load.add(Resource::HostLink, bytes, bytes / rate);
        }
    }

    /// From the drives; every byte's checksum is looked at.
    fn read(&self, load: &mut Load, bytes: f64) {
        load.add(Resource::NvmeRead, bytes, bytes / self.drives.read_bytes_per_second);
        load.add(Resource::Dram, bytes, bytes / self.dram_bytes_per_second);
    }

    /// To the drives, with a checksum.
    fn write(&self, load: &mut Load, bytes: f64) {
        load.add(Resource::NvmeWrite, bytes, bytes / self.drives.write_bytes_per_second);
        load.add(Resource::Dram, bytes, bytes / self.dram_bytes_per_second);
    }
}
