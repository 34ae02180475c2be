//! Host memory: how much, what limits it, what happens when it runs out.
//!
//! In:    `/proc/{meminfo,swaps}`, `/proc/self/{limits,status}`, the control group, the kernel's switches, SMBIOS where it may be read.
//! Out:   a [`Memory`].
//! Never: measures; allocates.

use serde::Serialize;

use super::control_group;
use super::fact::{Fact, Tree, clean};
use super::modules::{Module, modules};

/// `CAP_IPC_LOCK` in the kernel's masks: with it memory may be locked without a limit.
const CAN_LOCK_BIT: u32 = 14;

/// Memory of a machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Memory {
    /// In all, bytes.
    pub total_bytes: Fact<u64>,
    /// What programs can still take, bytes.
    pub available_bytes: Fact<u64>,
    /// What the control group grants, bytes; `None` without a limit.
    pub group_limit_bytes: Option<u64>,
    /// What this process may lock, bytes; `u64::MAX` without a limit.
    pub lock_limit_bytes: Fact<u64>,
    /// Whether this process may lock memory whatever the limit.
    pub may_lock_all: bool,
    /// Swap areas.
    pub swap: Fact<Vec<Swap>>,
    /// Transparent huge pages: `always`, `madvise`, `never`.
    pub huge_pages: Fact<String>,
    /// Memory modules; the firmware's table is for root only.
    pub modules: Fact<Vec<Module>>,
}

/// A swap area.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Swap {
    /// `/dev/zram0`, `/swapfile`.
    pub name: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// In use, bytes.
    pub used_bytes: u64,
    /// Whether it is a part of memory, compressed.
    pub is_compressed_memory: bool,
}

impl Memory {
    /// Reads everything.
    pub fn of(tree: &Tree) -> Memory {
        let info = tree.text("/proc/meminfo");
        let bytes = |name: &str| {
            let text = info.as_ref().map_err(Clone::clone)?;
            kilobytes(text, name).ok_or_else(|| format!("/proc/meminfo has no usable {name}"))
        };
        let status = tree.text("/proc/self/status").unwrap_or_default();
        Memory {
            total_bytes: bytes("MemTotal").into(),
            available_bytes: bytes("MemAvailable").into(),
            group_limit_bytes: control_group::memory_limit_bytes(tree),
            lock_limit_bytes: lock_limit(tree).into(),
            may_lock_all: may_lock_all(&status),
            swap: tree.text("/proc/swaps").map(|text| swap(&text)).into(),
            huge_pages: huge_pages(tree),
            modules: modules(tree),
        }
    }

    /// What training can have at most, bytes.
    pub fn usable_bytes(&self) -> Option<u64> {
        let total = *self.total_bytes.known()?;
        Some(total.min(self.group_limit_bytes.unwrap_or(u64::MAX)))
    }
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The soft limit: what counts until the program raises it.
fn lock_limit(tree: &Tree) -> Result<u64, String> {
    let text = tree.text("/proc/self/limits")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max locked memory"));
    let word = line.and_then(|rest| rest.split_whitespace().next());
    let limit = word.and_then(|word| if word == "unlimited" { Some(u64::MAX) } else { word.parse().ok() });
    limit.ok_or_else(|| "/proc/self/limits has no usable line of locked memory".to_string())
}

fn may_lock_all(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> CAN_LOCK_BIT & 1 == 1)
}

fn swap(text: &str) -> Vec<Swap> {
    let area = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let bytes = |at: usize| words.get(at)?.parse::<u64>().ok()?.checked_mul(1024);
        let name = clean(words.first()?);
        let is_compressed_memory = name.contains("zram");
        Some(Swap { name, bytes: bytes(2)?, used_bytes: bytes(3)?, is_compressed_memory })
    };
    text.lines().skip(1).filter_map(area).collect()
}

/// The word in brackets: `always [madvise] never`.
fn huge_pages(tree: &Tree) -> Fact<String> {
    let path = "/sys/kernel/mm/transparent_hugepage/enabled";
    let chosen = tree.text(path).and_then(|text| {
        let word = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
        word.map(|(word, _)| clean(word)).ok_or_else(|| format!("{path}: none is chosen"))
    });
    chosen.into()
}
