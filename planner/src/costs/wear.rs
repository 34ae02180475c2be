//! What a run writes to its drives, and how long they bear it.
//!
//! In:    a plan's files.
//! Out:   bytes of a step; [`Wear`].
//! Never: what checkpoints and logs write: they go to the run directory.
//!
//! | files | written by a step |
//! |---|---|
//! | gradients | once a micro-batch: the first replaces, the others add |
//! | block inputs | once a micro-batch, those of blocks that recompute |
//! | frozen weights | never |
//! | masters or adapters, optimizer states, stored bf16 weights of full training | once: the update |

use super::Wear;
use crate::hardware::Described;
use crate::plan::{Keep, MemoryTerm, MethodPlan, Plan, Tier};

/// Bytes that one optimizer step writes to the nvme tier; whole pages are not counted, they add less than a percent.
pub fn written_per_step(plan: &Plan) -> u64 {
    let micro_batches = micro_batches(plan);
    let files = plan.memory.nvme.iter().fold(0u64, |sum, term| {
        let times = match kind(term, &plan.method) {
            Kind::Frozen | Kind::Inputs => 0,
            Kind::Gradients => micro_batches,
            Kind::Updated => 1,
        };
        sum.saturating_add(term.bytes.saturating_mul(times))
    });
    files.saturating_add(micro_batches.saturating_mul(inputs_bytes(plan)))
}

/// How a file is written.
enum Kind {
    Frozen,
    Gradients,
    Inputs,
    Updated,
}

/// By the words of the term's name; what is not known counts as written by each update.
fn kind(term: &MemoryTerm, method: &MethodPlan) -> Kind {
    let has = |word| term.name.contains(word);
    match method {
        _ if has("gradient") => Kind::Gradients,
        _ if has("input") => Kind::Inputs,
        MethodPlan::Lora(_) if !has("adapter") && !has("optimizer") && !has("state") => Kind::Frozen,
        _ => Kind::Updated,
    }
}

fn micro_batches(plan: &Plan) -> u64 {
    (plan.train.rows_per_step / plan.train.micro_batch.max(1)) as u64
}

/// Inputs of the blocks that recompute, of one micro-batch.
fn inputs_bytes(plan: &Plan) -> u64 {
    if plan.offload.activations != Tier::Nvme {
        return 0;
    }
    let recomputed = plan.model.keep.iter().filter(|&&keep| keep == Keep::Recompute).count() as u64;
    let tokens = (plan.train.micro_batch * plan.data.sequence_length) as u64;
    recomputed * tokens * plan.model.spec.hidden as u64 * plan.model.precision.bytes()
}

/// Wear of the machine's drives; `None` if the plan keeps nothing on them.
pub(super) fn wear(plan: &Plan, machine: &Described) -> Option<Wear> {
    if plan.memory.nvme_bytes == 0 {
        return None;
    }
    let step = written_per_step(plan);
    let run_tb = plan.time.steps.map(|steps| (step as f64 * steps as f64 + plan.memory.nvme_bytes as f64) / 1e12);
    let weakest = machine.ssds.iter().map(|ssd| ssd.tbw).min_by(f64::total_cmp);
    let endurance_tb = weakest.map(|tbw| tbw * machine.ssds.len() as f64);
    Some(Wear {
        step_written_bytes: step,
        run_written_tb: run_tb,
        endurance_tb,
        steps_until_endurance: endurance_tb.filter(|_| step > 0).map(|tb| tb * 1e12 / step as f64),
        run_share: run_tb.zip(endurance_tb).map(|(run, endurance)| run / endurance),
    })
}
