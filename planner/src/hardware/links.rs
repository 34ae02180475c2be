//! How cards and drives share the lanes of a platform.
//!
//! In:    a [`Described`] machine.
//! Out:   lanes and rate of each card, rates of all drives together.
//! Never: boards and their slots: only what the processor's lanes allow.

use super::{Described, Ssd};
use crate::rates::NvmeRates;

/// Lanes of a drive.
pub(super) const DRIVE_LANES: u32 = 4;
/// What a board may split the lanes of a card into.
const SPLITS: [u32; 4] = [8, 4, 2, 1];
/// Usable one way and lane, bytes a second, by generation from 1: 12 GB/s of PCIe 3 x16, 25 of 4 x16, 53 of 5 x16 were measured.
const LANE_BYTES_PER_SECOND: [f64; 7] = [0.19e9, 0.38e9, 0.75e9, 1.56e9, 3.3e9, 6.6e9, 13.2e9];
/// What a drive on four lanes reaches at most, bytes a second, by generation from 1.
const DRIVE_BYTES_PER_SECOND: [f64; 7] = [0.85e9, 1.7e9, 3.5e9, 7.0e9, 14.0e9, 28.0e9, 56.0e9];

/// What each card gets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CardLink {
    /// Lanes that the card could use.
    pub lanes_asked: u32,
    /// Lanes that it gets.
    pub lanes: u32,
    /// The older of card and platform.
    pub generation: u8,
    /// Usable one way, bytes a second.
    pub bytes_per_second: f64,
}

impl CardLink {
    /// Usable one way with all the lanes that the card could use, bytes a second.
    pub fn full_bytes_per_second(&self) -> f64 {
        self.bytes_per_second / f64::from(self.lanes) * f64::from(self.lanes_asked)
    }
}

/// The link of each card; `None` without a card on lanes.
///
/// Cards split their lanes until they fit. Drives go first where a platform has no chipset to put them behind.
pub fn card_link(described: &Described) -> Option<CardLink> {
    let (gpu, count) = described.gpu.as_ref()?;
    let (generation, asked) = (gpu.pcie_generation?, u32::from(gpu.pcie_lanes?));
    let platform = described.platform();
    let drives = if platform.chipset_link_gb.is_some() { 0 } else { DRIVE_LANES * described.ssds.len() as u32 };
    let fits = |lanes: u32| count * lanes + drives <= platform.pcie_lanes;
    let splits = std::iter::once(asked).chain(SPLITS.into_iter().filter(|&lanes| lanes < asked));
    let lanes = splits.into_iter().find(|&lanes| fits(lanes)).unwrap_or(1);
    let generation = generation.min(platform.pcie_generation);
    let bytes_per_second = f64::from(lanes) * by_generation(&LANE_BYTES_PER_SECOND, generation);
    Some(CardLink { lanes_asked: asked, lanes, generation, bytes_per_second })
}

/// Rates of all drives together: each as fast as its lanes, those behind the chipset as fast as its link.
pub(super) fn drive_rates(described: &Described) -> Option<NvmeRates> {
    if described.ssds.is_empty() {
        return None;
    }
    let platform = described.platform();
    let generation = if described.unified().is_some() { u8::MAX } else { platform.pcie_generation };
    let link = |ssd: &Ssd| by_generation(&DRIVE_BYTES_PER_SECOND, ssd.pcie_generation.min(generation));
    let behind = described.ssds.len().saturating_sub(direct_drives(described) as usize);
    let sum = |rate: &dyn Fn(&Ssd) -> f64| {
        let mut rates: Vec<f64> = described.ssds.iter().map(|ssd| (rate(ssd) * 1e6).min(link(ssd))).collect();
        rates.sort_by(f64::total_cmp);
        let (shared, direct) = rates.split_at(behind);
        let chipset = platform.chipset_link_gb.unwrap_or(0.0) * 1e9;
        direct.iter().sum::<f64>() + shared.iter().sum::<f64>().min(chipset.max(shared.first().copied().unwrap_or(0.0)))
    };
    Some(NvmeRates {
        read_bytes_per_second: sum(&|ssd| ssd.read_mb),
        write_bytes_per_second: sum(&|ssd| ssd.sustained_write_mb.unwrap_or(ssd.write_mb)),
    })
}

/// Drives on the processor's own lanes; the others are behind the chipset.
pub(crate) fn direct_drives(described: &Described) -> u32 {
    let drives = described.ssds.len() as u32;
    if described.unified().is_some() {
        return drives;
    }
    let cards = described.gpu.as_ref().map_or(0, |(_, count)| *count);
    let taken = cards * card_link(described).map_or(0, |link| link.lanes);
    drives.min(described.platform().pcie_lanes.saturating_sub(taken) / DRIVE_LANES)
}

fn by_generation(rates: &[f64; 7], generation: u8) -> f64 {
    rates[usize::from(generation.clamp(1, 7)) - 1]
}
