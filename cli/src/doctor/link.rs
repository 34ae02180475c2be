//! The PCIe link of a card or a drive: what it runs at, and what either end could do.
//!
//! In:    `current_link_*` and `max_link_*` of a device and of the bridges above it.
//! Out:   a [`Link`].
//! Never: takes a link that sleeps for one that is slow: cards lower their speed, not their width, when idle.

use serde::Serialize;

use super::fact::Tree;

/// What is left of the signalling rate after encoding, headers and flow control: 25 GB/s of 31.5 on Gen4 x16, 53 of 63 on Gen5 x16.
const USABLE: f64 = 0.8;
/// AMD's cards hold a switch of their own in front of the graphics part; the link to the machine is the switch's.
const AMD_CARD: &str = "0x1002";

/// Generation and lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Lanes {
    /// PCIe generation.
    pub generation: u8,
    /// Lanes.
    pub lanes: u32,
}

impl Lanes {
    /// One way, as copies reach it, GB/s.
    pub fn usable_gb(&self) -> f64 {
        let signalled = match self.generation {
            1 => 0.25,
            2 => 0.5,
            3 => 0.985,
            4 => 1.969,
            5 => 3.938,
            _ => 7.563,
        };
        USABLE * signalled * f64::from(self.lanes)
    }

    /// `Gen4 x16`.
    pub fn text(&self) -> String {
        format!("Gen{} x{}", self.generation, self.lanes)
    }
}

/// A link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Link {
    /// What it runs at now; an idle card lowers its generation.
    pub now: Lanes,
    /// What the card or drive could do.
    pub device_max: Lanes,
    /// What the slot could do, where the bridge above tells.
    pub slot_max: Option<Lanes>,
}

impl Link {
    /// What both ends could do together.
    pub fn possible(&self) -> Lanes {
        let slot = self.slot_max.unwrap_or(self.device_max);
        Lanes {
            generation: self.device_max.generation.min(slot.generation),
            lanes: self.device_max.lanes.min(slot.lanes),
        }
    }

    /// What it reaches when it wakes up: the lanes of now at the generation both ends know.
    pub fn awake(&self) -> Lanes {
        Lanes { generation: self.possible().generation, lanes: self.now.lanes }
    }

    /// The link above `device`, a folder in `/sys/devices`; `None` if it tells none.
    pub fn of(tree: &Tree, device: &str) -> Option<Link> {
        let outside = outermost(tree, device);
        let above = outside.rsplit_once('/').map(|(above, _)| above).unwrap_or_default();
        Some(Link {
            now: lanes(tree, &outside, "current")?,
            device_max: lanes(tree, &outside, "max")?,
            slot_max: lanes(tree, above, "max"),
        })
    }
}

/// The function whose link leaves the card: for AMD the switch on the card, else the device itself.
fn outermost(tree: &Tree, device: &str) -> String {
    let vendor = |folder: &str| tree.word(&format!("{folder}/vendor"));
    let mut at = device.to_string();
    if vendor(device).as_deref() != Some(AMD_CARD) {
        return at;
    }
    while let Some((above, _)) = at.rsplit_once('/') {
        let is_on_card = vendor(above).as_deref() == Some(AMD_CARD);
        if !is_on_card || lanes(tree, above, "current").is_none() {
            break;
        }
        at = above.to_string();
    }
    at
}

fn lanes(tree: &Tree, folder: &str, which: &str) -> Option<Lanes> {
    let speed = tree.word(&format!("{folder}/{which}_link_speed"))?;
    let lanes = tree.number::<u32>(&format!("{folder}/{which}_link_width")).filter(|lanes| (1..=32).contains(lanes))?;
    Some(Lanes { generation: generation(&speed)?, lanes })
}

/// `16.0 GT/s PCIe` is generation 4.
fn generation(speed: &str) -> Option<u8> {
    let rate: f64 = speed.split_whitespace().next()?.parse().ok()?;
    match rate {
        rate if rate < 2.0 => None,
        rate if rate < 4.0 => Some(1),
        rate if rate < 7.0 => Some(2),
        rate if rate < 12.0 => Some(3),
        rate if rate < 24.0 => Some(4),
        rate if rate < 48.0 => Some(5),
        rate if rate < 96.0 => Some(6),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usable_rates_are_those_that_are_measured() {
        for (generation, lanes, measured_gb) in [(3, 16, 12.0), (4, 16, 25.0), (5, 16, 53.0), (4, 8, 13.0)] {
            let usable = Lanes { generation, lanes }.usable_gb();
            assert!((usable / measured_gb - 1.0).abs() < 0.06, "Gen{generation} x{lanes}: {usable}");
        }
    }

    #[test]
    fn speeds_of_every_kernel_are_read_and_nonsense_is_none() {
        let speeds =
            [("2.5 GT/s", 1), ("5 GT/s", 2), ("8.0 GT/s PCIe", 3), ("16.0 GT/s PCIe", 4), ("32.0 GT/s PCIe", 5)];
        speeds.iter().for_each(|(text, expected)| assert_eq!(generation(text), Some(*expected), "{text}"));
        for nonsense in ["Unknown", "", "-5 GT/s", "NaN GT/s", "1e99 GT/s"] {
            assert_eq!(generation(nonsense), None, "{nonsense}");
        }
    }
}
