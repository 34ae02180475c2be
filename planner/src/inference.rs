//! Plans a network that only runs forward: to measure it, to talk to it, to compare an export with it.
//!
//! In:    a [`Request`]: the network, its format, what is asked of it; the machine's numbers.
//! Out:   an [`InferencePlan`]: the nearest tier whose memory holds it; or a [`DoesNotFit`] with the numbers.
//! Never: opens a file, touches a device.

use std::path::PathBuf;

use crate::architecture::DecoderSpec;
use crate::machine::Machine;
use crate::memory::{Placement, Shape, Sizes, Work};
use crate::plan::*;
use crate::units::bytes_text;

/// Bytes of one transfer and transfers in flight where no run says otherwise.
const TRANSFER_BYTES: u64 = 4 << 20;
const QUEUE_DEPTH: usize = 32;
/// I/O buffers: blocks are read ahead, never written behind.
const BUFFERS: usize = 8;

/// What is to be planned.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Names the files of the NVMe tier.
    pub name: String,
    /// The network.
    pub spec: &'a DecoderSpec,
    /// Format of weights and activations.
    pub precision: Precision,
    /// How the matrices of its blocks are kept.
    pub base: BaseStorage,
    /// Where it computes.
    pub device: DeviceChoice,
    /// What is asked of it.
    pub work: Work,
    /// Memory that may be used; `None` takes the machine's own share.
    pub memory_bytes: Option<u64>,
    /// Directories for weights that memory does not hold.
    pub nvme: Vec<PathBuf>,
}

/// Where a frozen network lives and what it needs.
#[derive(Debug, Clone, PartialEq)]
pub struct InferencePlan {
    /// Names the files of the NVMe tier.
    pub name: String,
    /// Where it computes.
    pub device: DeviceChoice,
    /// Format of weights and activations.
    pub precision: Precision,
    /// How the matrices of its blocks are kept.
    pub base: BaseStorage,
    /// Tier of the weights, and how bytes move; the other classes do not exist.
    pub offload: OffloadPlan,
    /// Memory by term.
    pub memory: MemoryPlan,
}

/// No tier holds the network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "does not fit: {memory}: needs {} but its budget is {}, {} short; {hint}",
    bytes_text(*needed_bytes), bytes_text(*budget_bytes), bytes_text(needed_bytes.saturating_sub(*budget_bytes))
)]
pub struct DoesNotFit {
    /// Which memory is short.
    pub memory: String,
    /// The least that is needed.
    pub needed_bytes: u64,
    /// What may be used.
    pub budget_bytes: u64,
    /// What to do.
    pub hint: &'static str,
}

/// The nearest tier that holds the network: the device, host memory beside a card, drives.
pub fn plan(request: &Request<'_>, machine: &Machine) -> Result<InferencePlan, DoesNotFit> {
    let budget = request.memory_bytes.unwrap_or_else(|| machine.auto_budget_bytes(request.device));
    let host = match request.device.has_own_memory() {
        false => budget,
        true => machine.auto_budget_bytes(DeviceChoice::Cpu),
    };
    let mut tiers = vec![Tier::Device];
    if !request.device.is_host() {
        tiers.push(Tier::Dram);
    }
    if !request.nvme.is_empty() {
        tiers.push(Tier::Nvme);
    }
    let plans: Vec<InferencePlan> = tiers.iter().map(|&tier| placed(request, machine, tier, (budget, host))).collect();
    let fits = |plan: &&InferencePlan| {
        let beside_a_card = request.device.has_own_memory();
        plan.memory.peak_bytes <= budget && !(beside_a_card && plan.memory.dram_bytes > host)
    };
    if let Some(plan) = plans.iter().find(fits) {
        return Ok(plan.clone());
    }
    let least = plans.iter().min_by_key(|plan| plan.memory.peak_bytes).expect("the device is always tried");
    Err(short(request, least, (budget, host)))
}

fn short(request: &Request<'_>, least: &InferencePlan, (budget, host): (u64, u64)) -> DoesNotFit {
    let hint = match request.nvme.is_empty() {
        true => "give a directory on a drive for the weights (--nvme DIR), or more memory (--memory)",
        false => "even with the weights on a drive; ask for fewer tokens at once, or give more memory (--memory)",
    };
    let is_host_short = request.device.has_own_memory() && least.memory.peak_bytes <= budget;
    let (memory, needed_bytes, budget_bytes) = match is_host_short {
        true => ("host memory".to_string(), least.memory.dram_bytes, host),
        false => (request.device.memory_name(), least.memory.peak_bytes, budget),
    };
    DoesNotFit { memory, needed_bytes, budget_bytes, hint }
}

/// A method that trains nothing.
fn nothing(base: BaseStorage) -> MethodPlan {
    MethodPlan::Lora(LoraPlan {
        rank: 1,
        alpha: 1.0,
        scale: 1.0,
        rank_stabilized: false,
        dropout: 0.0,
        targets: Vec::new(),
        start_from: None,
        base,
    })
}

/// An update rule that keeps nothing.
fn still() -> OptimizerPlan {
    OptimizerPlan {
        kind: OptimizerKind::Sgd,
        learning_rate: 0.0,
        beta1: 0.0,
        beta2: 0.0,
        epsilon: 0.0,
        momentum: 0.0,
        weight_decay: 0.0,
        max_grad_norm: None,
    }
}

fn placed(request: &Request<'_>, machine: &Machine, weights: Tier, (budget, host): (u64, u64)) -> InferencePlan {
    let (method, optimizer, work) = (nothing(request.base), still(), &request.work);
    let placement = Placement { weights, gradients: Tier::Device, optimizer: Tier::Device, activations: Tier::Device };
    let shape = Shape {
        spec: request.spec,
        device: request.device,
        cores: machine.cores,
        fast_bf16: machine.fast_bf16,
        precision: request.precision,
        method: &method,
        sizes: Sizes::of(request.spec, &method),
        optimizer: &optimizer,
        placement,
        has_gradient_arrays: false,
        buffers_bytes: BUFFERS as u64 * TRANSFER_BYTES,
        tokens: work.loss_tokens.max(work.read_tokens),
        keep: vec![Keep::Recompute; request.spec.n_layers()],
        answers: None,
    };
    InferencePlan {
        name: request.name.clone(),
        device: request.device,
        precision: request.precision,
        base: request.base,
        offload: offload(request, weights, (budget, host)),
        memory: shape.inference(work, budget),
    }
}

fn offload(request: &Request<'_>, weights: Tier, (budget, host): (u64, u64)) -> OffloadPlan {
    OffloadPlan {
        weights,
        gradients: Tier::Device,
        optimizer: Tier::Device,
        activations: Tier::Device,
        nvme: request.nvme.clone(),
        engine: IoEngine::Auto,
        span_elements: (TRANSFER_BYTES / 4) as usize,
        queue_depth: QUEUE_DEPTH,
        buffers: BUFFERS,
        device_budget_bytes: budget,
        dram_budget_bytes: host,
        write_budget_bytes: None,
        update_during_backward: false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::decide::tests::smollm2;
    use crate::rates::Rates;

    fn machine() -> Machine {
        Machine {
            memory_available_bytes: 16_000_000_000,
            memory_total_bytes: 16_000_000_000,
            cgroup_available_bytes: None,
            cores: 2,
            fast_bf16: false,
            cuda: Vec::new(),
            vulkan: Vec::new(),
            missing: Default::default(),
            device_rates: Vec::new(),
            io: Vec::new(),
            cards: 1,
            rates: Rates::usual(2),
        }
    }

    fn request(spec: &DecoderSpec) -> Request<'_> {
        let work = Work { loss_tokens: 0, rows: 1, cached_tokens: 2048, read_tokens: 512, adapter_numbers: 0 };
        Request {
            name: "talk".to_string(),
            spec,
            precision: Precision::F32,
            base: BaseStorage::Dense,
            device: DeviceChoice::Cpu,
            work,
            memory_bytes: None,
            nvme: Vec::new(),
        }
    }

    /// 134.5 million f32 weights are 538 MB; 2048 cached tokens of 30 blocks with 192 keys and values each are 94 MB.
    #[test]
    fn smollm2_in_f32_needs_its_weights_its_caches_and_little_more() {
        let spec = smollm2();
        let plan = plan(&request(&spec), &machine()).unwrap();
        let bytes = plan.memory.phases[1].counted_bytes;
        let counted = 134_515_008 * 4 + 2048 * 30 * 2 * 192 * 4;
        assert!((counted..counted + 150_000_000).contains(&bytes), "{bytes}");
        assert_eq!(plan.offload.weights, Tier::Device);
        let names: Vec<&str> = plan.memory.terms.iter().map(|term| term.name.as_str()).collect();
        assert!(!names.iter().any(|name| name.contains("optimizer") || name.contains("gradient")), "{names:?}");
    }

    #[test]
    fn weights_that_memory_does_not_hold_go_to_drives_or_are_refused_with_both_numbers() {
        let spec = smollm2();
        let short = Request { memory_bytes: Some(480_000_000), ..request(&spec) };
        let error = plan(&short, &machine()).unwrap_err();
        assert_eq!(error.budget_bytes, 480_000_000);
        assert!(error.needed_bytes > 538_000_000 && error.to_string().contains("--nvme"), "{error}");
        let paged = plan(&Request { nvme: vec!["/var/tmp".into()], ..short }, &machine()).unwrap();
        assert_eq!(paged.offload.weights, Tier::Nvme);
        assert!(paged.memory.nvme_bytes >= 30 * 3_538_944 * 4, "{}", paged.memory.nvme_bytes);
        let tiny = Request { memory_bytes: Some(50_000_000), nvme: vec!["/var/tmp".into()], ..request(&spec) };
        assert!(plan(&tiny, &machine()).unwrap_err().to_string().contains("even with the weights on a drive"));
    }
}
