//! What a machine is, as far as it can be told without measuring.
//!
//! In:    a [`Tree`] of the kernel's files, and what only the running machine tells.
//! Out:   an [`Inventory`]; as JSON its keys are stable.
//! Never: fails.

use serde::Serialize;

use super::cards::{Card, cards};
use super::devices::Kinds;
use super::drives::{Drive, drives};
use super::fact::{Fact, Tree};
use super::folders::{Folder, Tried};
use super::memory::Memory;
use super::nvidia::Driver;
use super::processor::Processor;
use super::system::System;

/// What a machine is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inventory {
    /// The machine as a whole.
    pub system: System,
    /// Processors.
    pub processor: Processor,
    /// Host memory.
    pub memory: Memory,
    /// NVIDIA's driver.
    pub nvidia: Fact<Driver>,
    /// Whether this build computes on NVIDIA cards.
    pub built_for_cuda: bool,
    /// What this build could compute on.
    pub devices: Kinds,
    /// Cards.
    pub cards: Fact<Vec<Card>>,
    /// Drives.
    pub drives: Fact<Vec<Drive>>,
    /// Folders that were asked about.
    pub folders: Vec<Folder>,
}

/// What files do not tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// NVIDIA's driver.
    pub nvidia: Fact<Driver>,
    /// Whether this build computes on NVIDIA cards.
    pub built_for_cuda: bool,
    /// What this build could compute on.
    pub devices: Kinds,
    /// Folders and what trying them told.
    pub folders: Vec<Tried>,
}

impl Inventory {
    /// Looks at everything once.
    pub fn of(tree: &Tree, asked: Asked) -> Inventory {
        Inventory {
            system: System::of(tree),
            processor: Processor::of(tree),
            memory: Memory::of(tree),
            cards: cards(tree, &asked.nvidia),
            nvidia: asked.nvidia,
            built_for_cuda: asked.built_for_cuda,
            devices: asked.devices,
            drives: drives(tree),
            folders: asked.folders.into_iter().map(|tried| Folder::of(tree, tried)).collect(),
        }
    }

    /// The drive under a folder.
    pub fn drive_of(&self, folder: &Folder) -> Option<&Drive> {
        let name = folder.drive.known()?;
        self.drives.known()?.iter().find(|drive| &drive.name == name)
    }

    /// Cards that could compute.
    pub fn computing_cards(&self) -> impl Iterator<Item = &Card> {
        let cards = self.cards.known().map(Vec::as_slice).unwrap_or_default();
        cards.iter().filter(|card| card.maker != super::cards::Maker::DisplayOnly)
    }
}
