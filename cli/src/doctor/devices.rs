//! What this build could compute on beside the processor.
//!
//! In:    the drivers of cards, asked through `kernels`.
//! Out:   [`Kinds`]: names that a recipe may have, or what is missing.
//! Never: computes.

use kernels::devices::{self, Card, Missing};
use recipes::DeviceName;
use serde::Serialize;

use crate::machine::{may_be_cuda, may_be_vulkan};

use super::fact::{Fact, clean};

/// Devices of each kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Kinds {
    /// NVIDIA cards under CUDA.
    pub cuda: Fact<Vec<Usable>>,
    /// Vulkan devices.
    pub vulkan: Fact<Vec<Usable>>,
}

/// A device that `hardware.device` can name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Usable {
    /// `cuda:0`.
    pub device: String,
    /// As its driver calls it.
    pub name: String,
    /// Its memory, bytes.
    pub memory_bytes: u64,
    /// What may be taken of it, bytes, where its driver says it.
    pub free_bytes: Option<u64>,
    /// It computes in the host's memory.
    pub shares_memory: bool,
    /// The processor stands in for a card.
    pub is_software: bool,
}

impl Kinds {
    /// Asks the drivers.
    pub fn asked() -> Kinds {
        Kinds { cuda: usable("cuda", devices::cuda_cards()), vulkan: usable("vulkan", devices::vulkan_cards()) }
    }

    /// Asks the drivers that a run on `device` loads anyway.
    pub fn of_run(device: DeviceName) -> Kinds {
        let not_asked = || Fact::unknown(format!("not asked: the run computes on {device}"));
        Kinds {
            cuda: if may_be_cuda(device) { usable("cuda", devices::cuda_cards()) } else { not_asked() },
            vulkan: if may_be_vulkan(device) { usable("vulkan", devices::vulkan_cards()) } else { not_asked() },
        }
    }
}

fn usable(kind: &str, cards: Result<Vec<Card>, Missing>) -> Fact<Vec<Usable>> {
    let one = |(index, card): (usize, Card)| Usable {
        device: format!("{kind}:{index}"),
        name: clean(&card.name),
        memory_bytes: card.memory_bytes,
        free_bytes: card.free_bytes,
        shares_memory: card.shares_memory,
        is_software: card.is_software,
    };
    match cards {
        Ok(cards) => Fact::Known(cards.into_iter().enumerate().map(one).collect()),
        Err(missing) => Fact::unknown(missing.to_string()),
    }
}
