//! What may be used of each memory.
//!
//! In:    the recipe's promises, what the machine has.
//! Out:   [`Budgets`], or the promise that cannot be kept.
//! Never: more than the machine has.

use recipes::{MemorySize, Recipe};

use super::PlanError;
use crate::machine::Machine;
use crate::memory::Needs;
use crate::plan::DeviceChoice;

/// What may be used of each memory, bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budgets {
    /// Of the memory that the device computes in.
    pub(super) memory_bytes: u64,
    /// Of that, the device tier.
    pub(super) device_bytes: u64,
    /// The dram tier; on the CPU also a part of the memory.
    pub(super) dram_bytes: u64,
}

impl Budgets {
    pub(super) fn of(recipe: &Recipe, machine: &Machine, device: DeviceChoice) -> Result<Budgets, PlanError> {
        let memory_bytes = memory_budget(recipe, machine, device)?;
        let within = |key, asked_bytes| match asked_bytes > memory_bytes {
            true => Err(PlanError::BudgetBeyondMemory { key, asked_bytes, memory_bytes }),
            false => Ok(asked_bytes),
        };
        let device_bytes = match recipe.offload.device_budget {
            MemorySize::Auto => memory_bytes,
            MemorySize::Bytes(asked) => within("offload.device_budget", asked)?,
        };
        let dram_bytes = match (recipe.offload.dram_budget, device.has_own_memory()) {
            (MemorySize::Auto, false) => memory_bytes,
            (MemorySize::Auto, true) => machine.auto_budget_bytes(DeviceChoice::Cpu),
            (MemorySize::Bytes(asked), false) => within("offload.dram_budget", asked)?,
            (MemorySize::Bytes(asked), true) => {
                within_machine("offload.dram_budget", asked, machine.memory_total_bytes)?
            }
        };
        Ok(Budgets { memory_bytes, device_bytes, dram_bytes })
    }

    /// The memory that is exceeded most, if any is: its name, what is needed, what may be used.
    pub(super) fn shortage(&self, needs: &Needs, device: DeviceChoice) -> Option<(String, u64, u64)> {
        Some(self.tightest(needs, device)).filter(|(_, needed, budget)| needed > budget)
    }

    /// The memory that is used to the largest share, its need and its budget.
    pub(super) fn tightest(&self, needs: &Needs, device: DeviceChoice) -> (String, u64, u64) {
        let checks: [(String, u64, u64); 3] = [
            (device.memory_name(), needs.memory_bytes, self.memory_bytes),
            ("offload.device_budget".to_string(), needs.device_bytes, self.device_bytes),
            ("offload.dram_budget".to_string(), needs.dram_bytes, self.dram_bytes),
        ];
        let share = |check: &(String, u64, u64)| check.1 as f64 / check.2.max(1) as f64;
        // Of equals the first: a budget that is all of the memory is named as the memory.
        checks.into_iter().reduce(|a, b| if share(&b) > share(&a) { b } else { a }).expect("three were listed")
    }
}

fn memory_budget(recipe: &Recipe, machine: &Machine, device: DeviceChoice) -> Result<u64, PlanError> {
    let total_bytes = machine.memory_bytes_max(device);
    match recipe.hardware.memory {
        MemorySize::Auto => Ok(machine.auto_budget_bytes(device)),
        MemorySize::Bytes(asked) => within_machine("hardware.memory", asked, total_bytes),
    }
}

fn within_machine(key: &'static str, asked_bytes: u64, total_bytes: u64) -> Result<u64, PlanError> {
    match asked_bytes > total_bytes {
        true => Err(PlanError::MemoryBeyondMachine { key, asked_bytes, total_bytes }),
        false => Ok(asked_bytes),
    }
}
