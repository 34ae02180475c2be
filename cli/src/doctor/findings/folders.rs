//! Rules about folders and the drives below them.
//!
//! In:    the inventory with what was tried and measured.
//! Out:   findings.
//! Never: takes the word of a virtual drive about turning disks.

use planner::units::bytes_text;

use super::super::drives::{Bus, Drive};
use super::super::folders::{Engine, Folder, Kind};
use super::{Finding, Seen, note, slows, stops};

/// State of full training with AdamW: weights, gradients, both moments, with room for buffers. ZeRO-Infinity counts the same.
const STATE_BYTES_PER_PARAMETER: u64 = 20;
/// Models that people train, billions of parameters.
const MODEL_SIZES: [f64; 9] = [70.0, 32.0, 24.0, 14.0, 8.0, 4.0, 3.0, 1.5, 0.5];
/// Room for the state of a model of 8 billion parameters is enough not to be mentioned.
const ENOUGH_BYTES: u64 = 8_000_000_000 * STATE_BYTES_PER_PARAMETER;
/// Below this share of free space a drive's fast cache shrinks.
const FULL_SHARE: f64 = 0.1;
/// Below this a drive holds up training, bytes a second.
const SLOW_WRITES: u64 = 500_000_000;
/// io_uring came with it.
const KERNEL_OLDEST: (u32, u32) = (5, 6);

/// All rules; of several folders on one drive the first speaks for the drive.
pub(super) fn look(seen: &Seen<'_>, found: &mut Vec<Finding>) {
    let mut told: Vec<String> = Vec::new();
    for folder in &seen.machine.folders {
        let place = folder.path.display().to_string();
        found.extend(writable(folder, &place));
        let drive = seen.machine.drive_of(folder);
        let on = drive.map_or_else(|| place.clone(), |drive| drive.name.clone());
        if told.contains(&on) {
            continue;
        }
        told.push(on);
        found.extend(file_system(folder, &place));
        found.extend(drive.and_then(|drive| drive_kind(folder, drive)).or_else(|| slow_writes(folder, &place)));
        found.extend(drive.and_then(drive_link));
        found.extend(drive.filter(|drive| is_encrypted(seen, drive)).map(|_| encryption(&place)));
        found.extend(little_room(folder, &place));
        found.extend(nearly_full(folder, &place));
        found.extend(folder.engine.known().and_then(|engine| page_cache(folder, engine, &place)));
    }
    found.extend(ring(seen));
}

fn writable(folder: &Folder, place: &str) -> Option<Finding> {
    if folder.is_read_only {
        let fix = "name a folder on another file system: `--path`, offload.nvme";
        return Some(stops("folder_read_only", format!("{place} cannot be written"), "it is mounted read-only", fix));
    }
    match &folder.engine {
        super::super::fact::Fact::Unknown { unknown } => Some(stops(
            "folder_closed",
            format!("{place} cannot hold training's files"),
            unknown.clone(),
            "give it to you: `sudo chown $USER FOLDER`; or name another with `--path`, offload.nvme",
        )),
        super::super::fact::Fact::Known(_) => None,
    }
}

fn file_system(folder: &Folder, place: &str) -> Option<Finding> {
    let name = folder.file_system.known()?;
    match folder.kind.known()? {
        Kind::Memory => Some(slows(
            "folder_in_memory",
            format!("what is put into {place} stays in memory"),
            format!("{name} is a file system in memory"),
            "put offload.nvme on a drive",
        )),
        Kind::Network => Some(slows(
            "folder_network",
            format!("{place} is as fast as its network{}", rates(folder)),
            format!("{name} keeps its files on another machine"),
            "put offload.nvme on a drive of this machine",
        )),
        Kind::Layers => Some(slows(
            "folder_layers",
            format!("{place} is a container's layer: slower, and gone with it"),
            format!("{name} lays folders over each other"),
            "mount a folder of the host: `docker run -v /fast/drive:/data ...`, and put offload.nvme there",
        )),
        Kind::Program => Some(slows(
            "folder_program",
            format!("{place} is served by a program{}", rates(folder)),
            format!("{name} goes through user space"),
            "put offload.nvme on a drive that the kernel serves itself",
        )),
        Kind::Drive if ["btrfs", "zfs", "bcachefs"].contains(&name.as_str()) => Some(note(
            "folder_copies_on_write",
            format!("files in {place} grow into pieces when overwritten"),
            format!("{name} writes every change to a new place"),
            match name.as_str() {
                "btrfs" => "make a folder of its own and `chattr +C` it while it is empty; put offload.nvme there",
                _ => "put offload.nvme on ext4 or xfs, or on a data set with recordsize=1M and compression off",
            },
        )),
        Kind::Drive => None,
    }
}

/// What was measured, as a part of a sentence.
fn rates(folder: &Folder) -> String {
    let rate = |bytes: u64| format!("{}/s", bytes_text(bytes));
    folder.profile.known().map_or_else(String::new, |profile| {
        format!(": reads {}, writes {}", rate(profile.read_bytes_per_second), rate(profile.write_bytes_per_second))
    })
}

fn drive_kind(folder: &Folder, drive: &Drive) -> Option<Finding> {
    let writes = folder.profile.known().map(|profile| bytes_text(profile.write_bytes_per_second));
    let name = match drive.made_of.is_empty() {
        true => drive.name.clone(),
        false => format!("{} ({})", drive.name, drive.made_of.join(", ")),
    };
    let speed = |usual: &str| match &writes {
        Some(writes) => format!("disk {name} writes at {writes}/s"),
        None => format!("disk {name} writes at {usual}"),
    };
    match drive.bus {
        _ if drive.is_rotational.known() == Some(&true) => Some(slows(
            "drive_rotational",
            speed("some 100 to 250 MB/s"),
            "it is a rotational disk",
            "put offload.nvme on an SSD; checkpoints and data may stay",
        )),
        Bus::Usb => Some(slows(
            "drive_usb",
            speed("0.04 to 1 GB/s, as its port allows"),
            "it is plugged in by USB",
            "put offload.nvme on a drive inside; else use a 10 Gbit/s port: `lsusb -t` shows the speed",
        )),
        Bus::Mmc => {
            Some(slows("drive_card", speed("20 to 300 MB/s"), "it is a memory card", "put offload.nvme on an SSD"))
        }
        Bus::Ata => Some(note(
            "drive_sata",
            speed("0.5 GB/s at most"),
            "SATA carries 0.55 GB/s",
            "for offload.nvme an NVMe drive is 6 to 20 times as fast",
        )),
        _ => None,
    }
}

fn slow_writes(folder: &Folder, place: &str) -> Option<Finding> {
    let profile = folder.profile.known().filter(|profile| profile.write_bytes_per_second < SLOW_WRITES)?;
    Some(slows(
        "drive_slow_writes",
        format!("{place} writes at {}/s", bytes_text(profile.write_bytes_per_second)),
        "the drive's fast cache is used up, it is shared, or a provider limits it",
        "wait until it is idle and run `tune doctor --again`; `sudo fstrim -a` tells an SSD what is free; else take another drive",
    ))
}

fn drive_link(drive: &Drive) -> Option<Finding> {
    let link = drive.link?;
    let (now, most) = (link.now, link.device_max);
    if now.usable_gb() >= most.usable_gb() {
        return None;
    }
    Some(slows(
        "drive_link",
        format!("disk {} moves {:.1} GB/s at most, it could do {:.1}", drive.name, now.usable_gb(), most.usable_gb()),
        format!("its slot runs at {}, the drive can {}", now.text(), most.text()),
        "move it to an M.2 slot with x4 lanes of its generation from the processor; the board's manual names it",
    ))
}

/// Encryption may lie on the mapped drive itself or on what it is made of.
fn is_encrypted(seen: &Seen<'_>, drive: &Drive) -> bool {
    let all = seen.machine.drives.known().map(Vec::as_slice).unwrap_or_default();
    drive.is_encrypted || all.iter().any(|below| below.is_encrypted && drive.made_of.contains(&below.name))
}

fn encryption(place: &str) -> Finding {
    note(
        "drive_encrypted",
        format!("reads and writes in {place} cost processor time"),
        "the drive is encrypted by the kernel (dm-crypt)",
        "put offload.nvme on a drive or partition without encryption; `cryptsetup benchmark` shows the cost",
    )
}

fn little_room(folder: &Folder, place: &str) -> Option<Finding> {
    let is_memory = folder.kind.known() == Some(&Kind::Memory);
    let room = folder.room.known().filter(|room| !is_memory && room.free_bytes < ENOUGH_BYTES)?;
    let billions = room.free_bytes as f64 / STATE_BYTES_PER_PARAMETER as f64 / 1e9;
    let fits = match MODEL_SIZES.iter().find(|size| **size <= billions) {
        Some(size) => format!("full training's state fits for models up to {size}B"),
        None => "full training's state fits for no usual model".to_string(),
    };
    Some(note(
        "folder_little_room",
        format!("{place} has {} free: {fits}", bytes_text(room.free_bytes)),
        format!(
            "full training keeps {STATE_BYTES_PER_PARAMETER} bytes a parameter: 8B needs {}",
            bytes_text(ENOUGH_BYTES)
        ),
        "free some, or name a larger drive in offload.nvme; LoRA needs none of it",
    ))
}

fn nearly_full(folder: &Folder, place: &str) -> Option<Finding> {
    let is_drive = folder.kind.known() == Some(&Kind::Drive);
    let room = folder.room.known().filter(|_| is_drive)?;
    if room.free_bytes as f64 >= FULL_SHARE * room.total_bytes as f64 {
        return None;
    }
    Some(slows(
        "drive_nearly_full",
        format!(
            "{place}: {} of {} free; long writes get slow",
            bytes_text(room.free_bytes),
            bytes_text(room.total_bytes)
        ),
        "an SSD caches writes in free space, and has little of it",
        "free a fifth of the drive, then `sudo fstrim -a`",
    ))
}

fn page_cache(folder: &Folder, engine: &Engine, place: &str) -> Option<Finding> {
    if engine.is_direct || folder.kind.known() == Some(&Kind::Memory) {
        return None;
    }
    let reason = engine.notes.iter().find(|note| note.contains("page cache"));
    let reason = reason.and_then(|note| Some(note.split_once('(')?.1.split_once(')')?.0.to_string()));
    let name = folder.file_system.text(Clone::clone);
    Some(slows(
        "folder_page_cache",
        format!("transfers in {place} are copied once more and fill the memory"),
        format!("{name} refuses O_DIRECT{}", reason.map_or_else(String::new, |reason| format!(": {reason}"))),
        "put offload.nvme on ext4 or xfs on a drive of this machine",
    ))
}

/// One finding for the machine: io_uring is allowed or not wherever files lie.
fn ring(seen: &Seen<'_>) -> Option<Finding> {
    let system = &seen.machine.system;
    let engine = seen.machine.folders.iter().find_map(|folder| folder.engine.known())?;
    if engine.kind == "io_uring" || system.os != "linux" {
        return None;
    }
    let symptom = "more processor time for each byte to and from drives".to_string();
    let (constraint, fix) = match (system.io_uring_disabled, system.kernel_version()) {
        (Some(level @ 1..), _) => (
            format!("io_uring is off: sysctl kernel.io_uring_disabled = {level}"),
            "`sudo sysctl kernel.io_uring_disabled=0` allows it until the next start",
        ),
        (_, Some(version)) if version < KERNEL_OLDEST => {
            (format!("kernel {}.{} has no usable io_uring", version.0, version.1), "install a kernel of 5.10 or newer")
        }
        _ if system.has_call_filter || system.container.is_some() => (
            format!("the container forbids io_uring ({})", engine.why),
            "give the container a seccomp profile that allows io_uring_setup, io_uring_enter and io_uring_register: \
             `docker run --security-opt seccomp=profile.json ...`",
        ),
        _ => (engine.why.clone(), "see `tune bench io --engine io-uring` for the kernel's answer"),
    };
    Some(slows("io_uring_refused", symptom, constraint, fix))
}
