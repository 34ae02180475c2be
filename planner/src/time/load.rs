//! What one phase asks of each resource, and how long it takes when they overlap as the engine overlaps them.
//!
//! In:    amounts and seconds, one operation after another.
//! Out:   seconds of the phase, and what takes longest.
//! Never: knows what the operations are.

use crate::plan::{Phase, PhaseTime, Resource, ResourceTime};

const RESOURCES: [Resource; 8] = [
    Resource::Compute,
    Resource::DeviceMemory,
    Resource::HostLink,
    Resource::Dram,
    Resource::NvmeRead,
    Resource::NvmeWrite,
    Resource::CpuOptimizer,
    Resource::AllReduce,
];

/// Who computes: it decides what runs beside what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lanes {
    /// The host's cores compute, update and copy, one for the other; only the drives run beside them.
    Host,
    /// A card computes while the host updates and copies, bytes cross the link, and the drives run.
    Card,
}

/// Work of one phase.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Load {
    amounts: [f64; 8],
    seconds: [f64; 8],
}

impl Load {
    /// One operation more.
    pub(super) fn add(&mut self, resource: Resource, amount: f64, seconds: f64) {
        self.amounts[resource as usize] += amount;
        self.seconds[resource as usize] += seconds;
    }

    /// `other`, `times` over.
    pub(super) fn add_load(&mut self, other: &Load, times: f64) {
        for resource in 0..RESOURCES.len() {
            self.amounts[resource] += times * other.amounts[resource];
            self.seconds[resource] += times * other.seconds[resource];
        }
    }

    /// Each lane's seconds: what is in one lane takes turns, lanes run side by side.
    fn lanes(&self, lanes: Lanes) -> [(f64, &'static [Resource]); 4] {
        use Resource::{AllReduce, Compute, CpuOptimizer, DeviceMemory, Dram, HostLink, NvmeRead, NvmeWrite};
        const CORES: &[Resource] = &[Compute, DeviceMemory, Dram, CpuOptimizer];
        const CARD: &[Resource] = &[Compute, DeviceMemory];
        const HOST: &[Resource] = &[Dram, CpuOptimizer];
        // Reads and writes of one drive take turns: bench adam moves what their sum says (docs/LOG.md).
        const DRIVES: &[Resource] = &[NvmeRead, NvmeWrite];
        const LINKS: &[Resource] = &[HostLink, AllReduce];
        let lane = |resources: &'static [Resource]| {
            (resources.iter().map(|&resource| self.seconds[resource as usize]).sum(), resources)
        };
        match lanes {
            Lanes::Host => [lane(CORES), lane(DRIVES), lane(LINKS), (0.0, &[])],
            Lanes::Card => [lane(CARD), lane(HOST), lane(DRIVES), lane(LINKS)],
        }
    }

    /// Seconds of the phase: those of its longest lane.
    pub(super) fn seconds(&self, lanes: Lanes) -> f64 {
        self.lanes(lanes).into_iter().fold(0.0, |longest, (seconds, _)| longest.max(seconds))
    }

    /// The phase as the plan shows it.
    pub(super) fn phase(&self, phase: Phase, lanes: Lanes) -> PhaseTime {
        let lane = self.lanes(lanes).into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
        let (seconds, longest) = lane.unwrap_or((0.0, &[]));
        let of = |resource: Resource| self.seconds[resource as usize];
        let bottleneck = longest.iter().copied().max_by(|&a, &b| of(a).total_cmp(&of(b)));
        let resources = RESOURCES.into_iter().filter(|&resource| of(resource) > 0.0).map(|resource| ResourceTime {
            resource,
            amount: self.amounts[resource as usize],
            seconds: of(resource),
        });
        PhaseTime {
            phase,
            seconds,
            bottleneck: bottleneck.unwrap_or(Resource::Compute),
            resources: resources.collect(),
        }
    }
}
