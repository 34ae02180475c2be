//! From what was typed to a machine.
//!
//! In:    names, counts and sizes, as in `--gpu rtx-a4500x2 --ram 128GB --nvme 990-pro-2tb`.
//! Out:   a [`Described`] machine with notes on what was assumed.
//! Never: a silent guess.

use super::catalogue::Catalogue;
use super::error::HardwareError;
use super::names::{Named, counted, is_size, shown};
use super::{Described, Gpu, Ssd, Vendor, gib};
use crate::units::bytes_text;

/// The most cards and drives in one machine.
const CARDS_MAX: u32 = 16;
const DRIVES_MAX: u32 = 32;
/// Host memory: below, no system with a driver and a model starts; above, no platform of the list takes it.
const RAM_BYTES_MIN: u64 = 1_000_000_000;
const RAM_BYTES_MAX: u64 = 64_000_000_000_000;
/// Where none is named.
const RAM_BYTES_ASSUMED: u64 = 64_000_000_000;
/// Drives that are described by their size, bytes.
const DRIVE_BYTES_MIN: u64 = 100_000_000_000;
const DRIVE_BYTES_MAX: u64 = 64_000_000_000_000;

/// What was typed about a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// `rtx-a4500x2`, `RTX 4090`, or `none` for a machine that computes on its processor, which `None` means too.
    pub gpu: Option<String>,
    /// Host memory, bytes.
    pub ram: Option<u64>,
    /// Drives: `990-pro-2tb`, `990-pro-2tbx2`, or `2TB` for a usual PCIe 4 drive of that size.
    pub nvme: Vec<String>,
    /// `threadripper-3960x`.
    pub cpu: Option<String>,
}

impl Catalogue {
    /// The machine that was typed.
    ///
    /// # Errors
    /// Unknown names with the nearest, absurd counts and sizes, parts that a unified machine does not take.
    pub fn describe(&self, asked: &Asked) -> Result<Described, HardwareError> {
        let gpu = match asked.gpu.as_deref().map(str::trim) {
            None | Some("none") => None,
            Some(text) => Some(self.cards(text)?),
        };
        let mut ssds = Vec::new();
        for text in &asked.nvme {
            let (ssd, count) = self.drives(text)?;
            ssds.extend(std::iter::repeat_n(ssd, count as usize));
        }
        let drives = ssds.len();
        if drives > DRIVES_MAX as usize {
            let (kind, name) = (Ssd::KIND, asked.nvme[0].clone());
            return Err(HardwareError::Count {
                kind,
                text: asked.nvme.join(" "),
                count: drives as i64,
                most: DRIVES_MAX,
                name,
            });
        }
        if let Some(ram) = asked.ram
            && !(RAM_BYTES_MIN..=RAM_BYTES_MAX).contains(&ram)
        {
            return Err(HardwareError::Ram { asked_bytes: ram, least_bytes: RAM_BYTES_MIN, most_bytes: RAM_BYTES_MAX });
        }
        let cpu = asked.cpu.as_deref().map(|name| self.cpu(name).cloned()).transpose()?;
        let unified = gpu.as_ref().filter(|(gpu, _)| gpu.unified).map(|(gpu, _)| gpu);
        let ram_bytes = match unified {
            Some(machine) => unified_ram(machine, asked)?,
            None => asked.ram.unwrap_or(RAM_BYTES_ASSUMED),
        };
        let mut described = Described { gpu, cpu, ram_bytes, ssds, notes: Vec::new() };
        described.notes = notes(&described, asked);
        Ok(described)
    }

    fn cards(&self, text: &str) -> Result<(Gpu, u32), HardwareError> {
        let (gpu, count) = found(text, CARDS_MAX, |name| self.gpu(name).cloned())?;
        if gpu.unified && count > 1 {
            let why = format!("{count} of them do not share a run; describe one");
            return Err(HardwareError::Unified { name: gpu.name, why });
        }
        Ok((gpu, count))
    }

    fn drives(&self, text: &str) -> Result<(Ssd, u32), HardwareError> {
        found(text, DRIVES_MAX, |name| match recipes::bytes_of(name.trim()) {
            Some(bytes) => usual_drive(name, bytes),
            None if is_size(&name.trim().to_lowercase()) => usual_drive(name, 0),
            None => self.ssd(name).cloned(),
        })
    }
}

/// `text` as a name, else as a name and a count.
fn found<E: Named>(
    text: &str,
    most: u32,
    find: impl Fn(&str) -> Result<E, HardwareError>,
) -> Result<(E, u32), HardwareError> {
    let whole = match find(text) {
        Ok(entry) => return Ok((entry, 1)),
        Err(error) => error,
    };
    let Some((name, count)) = counted(text) else { return Err(whole) };
    match find(name) {
        Ok(entry) if (1..=i64::from(most)).contains(&count) => Ok((entry, count as u32)),
        Ok(entry) => {
            let name = entry.name().to_string();
            Err(HardwareError::Count { kind: E::KIND, text: shown(text), count, most, name })
        }
        // The part before the last x of `rtx-9999` is no name: only what looks like NAMExN is answered with the nearest of NAME.
        Err(error) if name.len() >= 4 && (1..1000).contains(&count) => Err(error),
        Err(_) => Err(whole),
    }
}

fn unified_ram(machine: &Gpu, asked: &Asked) -> Result<u64, HardwareError> {
    let all = gib(machine.usable_gib.unwrap_or(machine.memory_gib));
    let refuse = |why| Err(HardwareError::Unified { name: machine.name.clone(), why });
    match (asked.ram, &asked.cpu) {
        (_, Some(cpu)) => refuse(format!("it has its own processor; leave --cpu {} out", shown(cpu))),
        (Some(ram), _) if ram > gib(machine.memory_gib) => refuse(format!(
            "it has {} of memory, not {}; leave --ram out",
            bytes_text(gib(machine.memory_gib)),
            bytes_text(ram)
        )),
        (Some(ram), _) => Ok(ram.min(all)),
        (None, _) => Ok(all),
    }
}

/// A PCIe 4 drive with TLC flash, as most are sold: 600 TB written a TB of capacity.
fn usual_drive(text: &str, bytes: u64) -> Result<Ssd, HardwareError> {
    if !(DRIVE_BYTES_MIN..=DRIVE_BYTES_MAX).contains(&bytes) {
        return Err(HardwareError::DriveSize { text: shown(text) });
    }
    let terabytes = bytes as f64 / 1e12;
    Ok(Ssd {
        name: format!("usual-{}", bytes_text(bytes).replace(' ', "").to_lowercase()),
        title: format!("a usual PCIe 4 drive of {}", bytes_text(bytes)),
        capacity_gb: bytes / 1_000_000_000,
        read_mb: 7000.0,
        write_mb: 6000.0,
        sustained_write_mb: Some(1500.0),
        tbw: 600.0 * terabytes,
        dwpd: Some(0.33),
        pcie_generation: 4,
        aliases: Vec::new(),
        source: "usual figures of TLC drives (K)".to_string(),
    })
}

fn notes(described: &Described, asked: &Asked) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(machine) = described.unified() {
        notes.push(format!(
            "{} has one memory for processor and graphics: it is counted once, and the plan says device cpu; no build of this program \
             uses its graphics part yet",
            machine.title
        ));
        return notes;
    }
    if asked.ram.is_none() {
        notes.push(format!("no --ram: {} assumed", bytes_text(described.ram_bytes)));
    }
    match &described.cpu {
        None => notes.push(format!("no --cpu: {} assumed", described.platform().title)),
        Some(cpu) => notes.extend(cpu.memory_gb_max.and_then(|most| {
            let beyond = described.ram_bytes > gib(f64::from(most));
            beyond.then(|| {
                format!("{} takes at most {most} GB of memory, not {}", cpu.title, bytes_text(described.ram_bytes))
            })
        })),
    }
    if let Some((gpu, _)) = described.gpu.as_ref().filter(|(gpu, _)| gpu.vendor != Vendor::Nvidia) {
        notes.push(format!(
            "{}: the plan counts it as a card, but no build of this program uses cards of this maker yet",
            gpu.title
        ));
    }
    if described.ssds.iter().any(|ssd| ssd.name.starts_with("usual-")) {
        notes.push(
            "drives given by size: 7.0 GB/s reads, 1.5 GB/s sustained writes, 600 TB written a TB assumed".to_string(),
        );
    }
    notes
}
