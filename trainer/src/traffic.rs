//! Bytes read from and written to NVMe, step by step, and how many the next step will write.
//!
//! In:    the store's counters, the plan, the arrays.
//! Out:   bytes per path of a step, bytes of the whole run, the end of the write budget before it is crossed.
//! Never: counts what placing the arrays wrote as part of a step; it counts for the run.

use offload::array::Array;
use offload::store::{PathTraffic, Store};
use planner::plan::{Keep, Plan, Tier};

use crate::error::TrainError;
use crate::events::PathBytes;
use crate::parameters::Parameters;

/// The NVMe tier writes whole pages.
const PAGE_BYTES: u64 = 4096;

/// What was read from and written to NVMe.
#[derive(Debug)]
pub(crate) struct Traffic {
    /// By earlier processes of the run.
    written_before: u64,
    last: Vec<PathTraffic>,
    /// Written by a step: calculated, or measured where that was more.
    step_bytes: u64,
    budget_bytes: Option<u64>,
}

/// Why a run stops before its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WriteBudgetEnd {
    pub(crate) budget_bytes: u64,
    pub(crate) written_bytes: u64,
    pub(crate) step_bytes: u64,
}

impl Traffic {
    /// Begins to count steps: the arrays are placed and filled.
    ///
    /// # Errors
    /// [`TrainError::WriteBudgetTooSmall`] if not even one step can be made.
    pub(crate) fn start(
        plan: &Plan,
        parameters: &Parameters,
        store: Option<&Store>,
        written_before: u64,
    ) -> Result<Traffic, TrainError> {
        let last = store.map(Store::traffic).unwrap_or_default();
        let step_bytes = step_write_bytes(plan, parameters);
        let traffic = Traffic { written_before, last, step_bytes, budget_bytes: plan.offload.write_budget_bytes };
        match traffic.budget_ends() {
            None => Ok(traffic),
            Some(WriteBudgetEnd { budget_bytes, written_bytes, step_bytes }) => {
                Err(TrainError::WriteBudgetTooSmall { budget_bytes, written_bytes, step_bytes })
            }
        }
    }

    /// Bytes of each path since the last call.
    pub(crate) fn step(&mut self, store: Option<&Store>) -> Vec<PathBytes> {
        let now = store.map(Store::traffic).unwrap_or_default();
        let since = |(now, before): (&PathTraffic, &PathTraffic)| PathBytes {
            path: now.path.clone(),
            read_bytes: now.read_bytes - before.read_bytes,
            written_bytes: now.written_bytes - before.written_bytes,
        };
        let bytes: Vec<PathBytes> = now.iter().zip(&self.last).map(since).collect();
        self.step_bytes = self.step_bytes.max(bytes.iter().map(|path| path.written_bytes).sum());
        self.last = now;
        bytes
    }

    /// All bytes that the run wrote.
    pub(crate) fn written(&self) -> u64 {
        self.written_before + self.last.iter().map(|path| path.written_bytes).sum::<u64>()
    }

    /// Whether another step would write more than the recipe allows.
    pub(crate) fn budget_ends(&self) -> Option<WriteBudgetEnd> {
        let (budget_bytes, written_bytes, step_bytes) = (self.budget_bytes?, self.written(), self.step_bytes);
        (written_bytes + step_bytes > budget_bytes).then_some(WriteBudgetEnd {
            budget_bytes,
            written_bytes,
            step_bytes,
        })
    }
}

/// What one step writes: every micro-batch the block inputs and the gradients, the update once everything it changes.
fn step_write_bytes(plan: &Plan, parameters: &Parameters) -> u64 {
    let micro_batches = (plan.train.rows_per_step / plan.train.micro_batch) as u64;
    let group = |number| {
        let group = parameters.group(number);
        let gradients: u64 = group.gradients.iter().map(array_bytes).sum();
        let changed = [&group.parameters].into_iter().chain(&group.states).chain(&group.working);
        micro_batches * gradients + changed.map(array_bytes).sum::<u64>()
    };
    let groups: u64 = (0..parameters.layout().len()).map(group).sum();
    groups + micro_batches * input_bytes(plan)
}

/// Whole pages of every span of an array, if it is on NVMe.
fn array_bytes(array: &Array) -> u64 {
    array
        .on_nvme()
        .map_or(0, |_| in_pages(array.bytes(), array.span_elements() as u64 / 256 * array.bytes_per_256() as u64))
}

/// Inputs of all blocks that recompute, of one micro-batch, if they are on NVMe.
fn input_bytes(plan: &Plan) -> u64 {
    if plan.offload.activations != Tier::Nvme {
        return 0;
    }
    let number_bytes = plan.model.precision.bytes();
    let elements = plan.train.micro_batch * plan.data.sequence_length * plan.model.spec.hidden;
    let bytes = (elements as u64).next_multiple_of(256) * number_bytes;
    let blocks = plan.model.keep.iter().filter(|&&keep| keep == Keep::Recompute).count();
    blocks as u64 * in_pages(bytes, plan.offload.span_elements as u64 * number_bytes)
}

fn in_pages(bytes: u64, chunk_bytes: u64) -> u64 {
    let (chunks, rest) = (bytes / chunk_bytes, bytes % chunk_bytes);
    chunks * chunk_bytes.next_multiple_of(PAGE_BYTES) + rest.next_multiple_of(PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_is_written_in_whole_pages() {
        assert_eq!(in_pages(0, 65536), 0);
        assert_eq!(in_pages(1, 65536), 4096);
        assert_eq!(in_pages(3 * 65536 + 5000, 65536), 3 * 65536 + 8192);
        assert_eq!(in_pages(3 * 16, 16), 3 * 4096);
    }
}
