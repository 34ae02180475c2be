//! Rules about host memory.
//!
//! In:    the inventory; the measured triad.
//! Out:   findings.
//! Never: complains of a limit that is not reached.

use planner::rates::RatesOrigin;
use planner::units::bytes_text;

use super::super::memory::Memory;
use super::super::probe::{TRANSFER_BYTES, TRANSFERS};
use super::{Finding, Seen, note, slows};

/// A limit this close to all memory is none.
const LIMIT_SHARE: f64 = 0.95;
/// Buffers beyond those in flight, and the ring itself.
const SPARE_BYTES: u64 = 4 << 20;
/// What one channel of DDR4-3200 or half a channel of DDR5 sustains, bytes a second.
const ONE_CHANNEL: f64 = 22e9;
/// Fewer threads cannot ask for more than one channel gives.
const THREADS_FOR_CHANNELS: u64 = 4;
/// AdamW in f32 reads and writes this for one parameter.
const ADAM_BYTES: f64 = 28.0;
/// Below this share of memory other programs hold a lot.
const AVAILABLE_SHARE: f64 = 0.5;

/// All rules.
pub(super) fn look(seen: &Seen<'_>, found: &mut Vec<Finding>) {
    let memory = &seen.machine.memory;
    found.extend(group_limit(memory, seen.machine.system.container.as_deref()));
    found.extend(taken(memory));
    found.extend(lock_limit(seen));
    found.extend(swap(memory));
    found.extend(huge_pages(memory));
    found.extend(slow_modules(memory).or_else(|| one_module(memory)));
    found.extend(slow_triad(seen));
}

fn group_limit(memory: &Memory, container: Option<&str>) -> Option<Finding> {
    let (total, limit) = (*memory.total_bytes.known()?, memory.group_limit_bytes?);
    if limit as f64 >= LIMIT_SHARE * total as f64 {
        return None;
    }
    let fix = match container {
        Some("kubernetes") => "raise resources.limits.memory of the container".to_string(),
        Some(_) => format!("start the container with more: `docker run --memory={}g ...`", total >> 30),
        None => {
            "`systemd-run --user --scope -p MemoryMax=infinity tune run ...` runs it without, where that is allowed"
                .to_string()
        }
    };
    Some(slows(
        "memory_limit",
        format!("training may use {} of {}", bytes_text(limit), bytes_text(total)),
        "a control group limits it; beyond it the kernel kills the program",
        fix,
    ))
}

fn taken(memory: &Memory) -> Option<Finding> {
    let (usable, available) = (memory.usable_bytes()?, *memory.available_bytes.known()?);
    (available < (AVAILABLE_SHARE * usable as f64) as u64).then(|| {
        note(
            "memory_taken",
            format!("{} of {} are available", bytes_text(available), bytes_text(usable)),
            "other programs hold the rest",
            "`ps aux --sort=-rss | head` lists them",
        )
    })
}

/// Buffers that the kernel keeps mapped count as locked memory.
fn lock_limit(seen: &Seen<'_>) -> Option<Finding> {
    let memory = &seen.machine.memory;
    let limit = *memory.lock_limit_bytes.known()?;
    let needed = (TRANSFERS * TRANSFER_BYTES) as u64 + SPARE_BYTES;
    let rings = || seen.machine.folders.iter().filter_map(|folder| folder.engine.known());
    let is_enough = memory.may_lock_all || limit >= needed || rings().any(|engine| engine.has_registered_buffers);
    if is_enough || !rings().any(|engine| engine.kind == "io_uring") {
        return None;
    }
    Some(slows(
        "lock_limit",
        "the kernel maps the buffers anew for every transfer".to_string(),
        format!("{} may be locked, {} are needed", bytes_text(limit), bytes_text(needed)),
        "`ulimit -l unlimited` for this shell, if the hard limit allows; for good a line `USER - memlock unlimited` in \
         /etc/security/limits.d/tune.conf; containers: `--ulimit memlock=-1`",
    ))
}

fn swap(memory: &Memory) -> Option<Finding> {
    let areas = memory.swap.known().filter(|areas| !areas.is_empty())?;
    let used: u64 = areas.iter().map(|area| area.used_bytes).sum();
    let bytes = areas.iter().fold(0u64, |sum, area| sum.saturating_add(area.bytes));
    if areas.iter().all(|area| area.is_compressed_memory) {
        return Some(note(
            "swap_compressed",
            format!("{} of swap lie in memory, {} used", bytes_text(bytes), bytes_text(used)),
            "zram compresses memory; weights and moments do not get smaller",
            "`sudo swapoff -a` for the run: a plan that fits needs none",
        ));
    }
    Some(note(
        "swap_on",
        format!(
            "a run that takes too much gets slow instead of stopping: {} of swap, {} used",
            bytes_text(bytes),
            bytes_text(used)
        ),
        "swap is on",
        "`sudo swapoff -a` for the run, or offload.nvme, which moves the same bytes in order",
    ))
}

fn huge_pages(memory: &Memory) -> Option<Finding> {
    (memory.huge_pages.known()? == "never").then(|| {
        slows(
            "huge_pages_off",
            "walks over large arrays lose time on addresses of small pages".to_string(),
            "transparent huge pages are off",
            "`echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled` lets programs that ask have them",
        )
    })
}

/// Modules that run below their rating: the BIOS starts them at a speed that every board can do.
fn slow_modules(memory: &Memory) -> Option<Finding> {
    let modules = memory.modules.known()?;
    let slower = |share: f64| {
        modules.iter().find_map(|module| {
            let (rated, running) = (module.rated_mts?, module.running_mts?);
            (f64::from(running) < share * f64::from(rated)).then_some((rated, running))
        })
    };
    let (rated, running) = slower(0.97)?;
    Some(slows(
        "memory_speed",
        format!("memory runs at {running} MT/s, its modules can {rated}"),
        "the BIOS did not load their profile, or there are more modules than the processor drives at full speed",
        "in the BIOS turn on XMP, EXPO or DOCP; with four modules on two channels the rated speed may not be possible",
    ))
}

fn one_module(memory: &Memory) -> Option<Finding> {
    let modules = memory.modules.known()?;
    (modules.len() == 1).then(|| {
        slows(
            "memory_one_module",
            "memory moves half the bytes it could".to_string(),
            "a single module uses a single channel",
            "add a second module of the same kind in the slot that the board's manual pairs it with",
        )
    })
}

fn slow_triad(seen: &Seen<'_>) -> Option<Finding> {
    // Usual figures say nothing about this machine.
    let rate = seen.rates.filter(|rates| rates.origin == RatesOrigin::Measured)?.dram_bytes_per_second;
    let threads = seen.machine.processor.usable_threads()?;
    if threads < THREADS_FOR_CHANNELS || rate >= ONE_CHANNEL {
        return None;
    }
    Some(slows(
        "memory_slow",
        format!("memory moves {:.1} GB/s: AdamW on 1B parameters takes {:.1} s", rate / 1e9, ADAM_BYTES * 1e9 / rate),
        format!("that is as much as one channel gives; {threads} threads could use more"),
        "`sudo dmidecode -t memory` lists modules: one per channel, XMP or EXPO on; on a shared machine others use it too",
    ))
}
