//! Drives: what the kernel knows of each one.
//!
//! In:    `/sys/block`.
//! Out:   [`Drive`]s; loop devices, memory devices and empty readers are left out.
//! Never: opens a drive.

use serde::Serialize;

use super::fact::{Fact, Tree};
use super::link::Link;

/// Sizes in `/sys/block` count these, whatever the drive's own sectors are.
const SECTOR_BYTES: u64 = 512;
const LEFT_OUT: [&str; 5] = ["loop", "ram", "zram", "sr", "fd"];

/// How a drive is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bus {
    /// PCIe.
    Nvme,
    /// A cable and a plug that move.
    Usb,
    /// SATA, SAS.
    Ata,
    /// A memory card or soldered flash.
    Mmc,
    /// A virtual machine's drive: what is below it is not seen.
    Virtual,
    /// Made of other drives: RAID, LVM, encryption.
    Mapped,
    /// Another machine's.
    Network,
    /// Something else.
    Other,
}

/// A drive.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Drive {
    /// `nvme0n1`.
    pub name: String,
    /// As sold.
    pub model: Fact<String>,
    /// Capacity, bytes.
    pub bytes: u64,
    /// How it is reached.
    pub bus: Bus,
    /// Whether it has turning disks.
    pub is_rotational: Fact<bool>,
    /// Its PCIe link, for NVMe.
    pub link: Option<Link>,
    /// Names of the drives below, for RAID, LVM and encryption.
    pub made_of: Vec<String>,
    /// Whether everything on it is encrypted by the processor.
    pub is_encrypted: bool,
    /// The order in which requests are sent: `none`, `mq-deadline`, `bfq`.
    pub scheduler: Option<String>,
}

/// All drives, or why they are not known.
pub fn drives(tree: &Tree) -> Fact<Vec<Drive>> {
    let names = match tree.names("/sys/block") {
        Ok(names) => names,
        Err(why) => return Fact::unknown(why),
    };
    let shown = names.iter().filter(|name| !LEFT_OUT.iter().any(|start| is_numbered(name, start)));
    Fact::Known(shown.filter_map(|name| drive(tree, name)).filter(|drive| drive.bytes > 0).collect())
}

/// `loop7`, but not `loopback`.
fn is_numbered(name: &str, start: &str) -> bool {
    name.strip_prefix(start).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

fn drive(tree: &Tree, name: &str) -> Option<Drive> {
    let folder = format!("/sys/block/{name}");
    let real = tree.real(&folder)?;
    // Of an NVMe drive with several paths the kernel hides the paths.
    if tree.number::<u8>(&format!("{folder}/hidden")).is_some_and(|hidden| hidden != 0) {
        return None;
    }
    let bus = bus(name, &real);
    let turns = tree.number::<u8>(&format!("{folder}/queue/rotational"));
    let is_rotational = match bus {
        Bus::Virtual | Bus::Network => Fact::unknown("a virtual drive does not tell what is below it"),
        _ => Fact::or(turns.map(|turns| turns != 0), format!("{folder}/queue/rotational: not there")),
    };
    let model = ["device/model", "device/name"].iter().find_map(|file| tree.word(&format!("{folder}/{file}")));
    let uuid = tree.word(&format!("{folder}/dm/uuid")).unwrap_or_default();
    let scheduler = tree.text(&format!("{folder}/queue/scheduler")).ok();
    Some(Drive {
        name: name.to_string(),
        model: Fact::or(model, "it does not tell"),
        bytes: tree.number::<u64>(&format!("{folder}/size"))?.checked_mul(SECTOR_BYTES)?,
        bus,
        is_rotational,
        link: (bus == Bus::Nvme).then(|| link_above(tree, &real)).flatten(),
        made_of: tree.names(&format!("{folder}/slaves")).unwrap_or_default(),
        is_encrypted: uuid.starts_with("CRYPT-"),
        scheduler: scheduler.and_then(|text| Some(text.split_once('[')?.1.split_once(']')?.0.to_string())),
    })
}

fn bus(name: &str, real: &str) -> Bus {
    let starts = |words: &[&str]| words.iter().any(|word| name.starts_with(word));
    match () {
        () if starts(&["vd", "xvd"]) || real.contains("/virtio") || real.contains("/vbd-") => Bus::Virtual,
        () if starts(&["nbd", "rbd", "drbd"]) => Bus::Network,
        () if starts(&["dm-", "md", "bcache"]) => Bus::Mapped,
        () if starts(&["nvme"]) => Bus::Nvme,
        () if starts(&["mmcblk"]) => Bus::Mmc,
        () if real.contains("/usb") => Bus::Usb,
        () if starts(&["sd"]) => Bus::Ata,
        () => Bus::Other,
    }
}

/// The link of the nearest device above that has one.
fn link_above(tree: &Tree, real: &str) -> Option<Link> {
    let mut at = real;
    while let Some((above, _)) = at.rsplit_once('/') {
        if let Some(link) = Link::of(tree, above) {
            return Some(link);
        }
        at = above;
    }
    None
}
