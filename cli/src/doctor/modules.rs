//! Memory modules, as the firmware lists them.
//!
//! In:    `/sys/firmware/dmi/entries/17-*/raw`, one SMBIOS "memory device" each; usually for root only.
//! Out:   size, rated and running speed of each module that is plugged in.
//! Never: trusts a length in the table.
//!
//! Source: DMTF DSP0134 (SMBIOS 3.7), 7.18.

use serde::Serialize;

use super::fact::{Fact, Tree};

const FOLDER: &str = "/sys/firmware/dmi/entries";
/// Places in the structure.
const SIZE: usize = 0x0C;
const SPEED: usize = 0x15;
const EXTENDED_SIZE: usize = 0x1C;
const CONFIGURED_SPEED: usize = 0x20;

/// One module.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Module {
    /// Its size, bytes.
    pub bytes: u64,
    /// What it can do, MT/s.
    pub rated_mts: Option<u32>,
    /// What it runs at, MT/s.
    pub running_mts: Option<u32>,
}

/// All modules, or why they are not known.
pub fn modules(tree: &Tree) -> Fact<Vec<Module>> {
    let names = match tree.names(FOLDER) {
        Ok(names) => names,
        Err(why) => return Fact::unknown(why),
    };
    let mut found = Vec::new();
    for name in names.iter().filter(|name| name.starts_with("17-")) {
        match tree.bytes(&format!("{FOLDER}/{name}/raw")) {
            Ok(raw) => found.extend(module(&raw)),
            Err(why) => return Fact::unknown(why),
        }
    }
    match found.is_empty() {
        true => Fact::unknown("the firmware lists no memory module"),
        false => Fact::Known(found),
    }
}

/// `None` for an empty slot and for a structure that is too short.
fn module(raw: &[u8]) -> Option<Module> {
    let length = usize::from(*raw.get(1)?).min(raw.len());
    let structure = raw.get(..length)?;
    let word = |at: usize| Some(u16::from_le_bytes(structure.get(at..at + 2)?.try_into().ok()?));
    let speed = |at: usize| word(at).filter(|mts| !matches!(mts, 0 | 0xFFFF)).map(u32::from);
    let bytes = match word(SIZE)? {
        0 | 0xFFFF => return None,
        // The size in MiB stands elsewhere, in four bytes.
        0x7FFF => {
            let long = structure.get(EXTENDED_SIZE..EXTENDED_SIZE + 4)?.try_into().ok()?;
            u64::from(u32::from_le_bytes(long) & 0x7FFF_FFFF) << 20
        }
        small if small & 0x8000 != 0 => u64::from(small & 0x7FFF) << 10,
        size => u64::from(size) << 20,
    };
    Some(Module { bytes, rated_mts: speed(SPEED), running_mts: speed(CONFIGURED_SPEED) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn raw(size: u16, rated: u16, running: u16) -> Vec<u8> {
        let mut raw = vec![0u8; 40];
        (raw[0], raw[1]) = (17, 40);
        raw[SIZE..SIZE + 2].copy_from_slice(&size.to_le_bytes());
        raw[SPEED..SPEED + 2].copy_from_slice(&rated.to_le_bytes());
        raw[EXTENDED_SIZE..EXTENDED_SIZE + 4].copy_from_slice(&65536u32.to_le_bytes());
        raw[CONFIGURED_SPEED..CONFIGURED_SPEED + 2].copy_from_slice(&running.to_le_bytes());
        raw
    }

    #[test]
    fn a_module_says_its_size_and_both_speeds_and_an_empty_slot_is_none() {
        let expected = Module { bytes: 16 << 30, rated_mts: Some(3200), running_mts: Some(2133) };
        assert_eq!(module(&raw(16384, 3200, 2133)), Some(expected));
        assert_eq!(
            module(&raw(0x7FFF, 0, 0xFFFF)),
            Some(Module { bytes: 64 << 30, rated_mts: None, running_mts: None })
        );
        assert_eq!(module(&raw(0, 3200, 3200)), None);
    }

    #[test]
    fn a_table_cut_anywhere_is_no_panic() {
        let whole = raw(0x7FFF, 3200, 2133);
        for cut in 0..whole.len() {
            let _ = module(&whole[..cut]);
        }
        assert_eq!(module(&[17, 255]), None);
    }
}
