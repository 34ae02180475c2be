//! What this build could compute on beside the processor.
//!
//! In:    the drivers of cards, asked through `kernels`.
//! Out:   [`Kinds`]: names that a recipe may have, or what is missing.
//! Never: computes.

use kernels::devices::{self, Card};
use recipes::DeviceName;
use serde::Serialize;

use crate::machine::{self, Cards};

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
        let fact = |kind, cards: Option<Cards>| match cards {
            Some(cards) => usable(kind, cards),
            None => Fact::unknown(format!("not asked: the run computes on {device}")),
        };
        let [cuda, vulkan] = machine::asked(device);
        Kinds { cuda: fact("cuda", cuda), vulkan: fact("vulkan", vulkan) }
    }
}

fn usable(kind: &str, cards: Cards) -> Fact<Vec<Usable>> {
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
