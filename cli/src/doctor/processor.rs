//! Processors: cores that are there, cores that may be used, what they can do in one instruction.
//!
//! In:    `/proc/cpuinfo`, `/proc/self/status`, `/sys/devices/system/{cpu,node}`, the control group's processor quota.
//! Out:   a [`Processor`].
//! Never: measures.

use std::collections::BTreeSet;

use serde::Serialize;

use super::control_group;
use super::fact::{Fact, Tree, clean, list_count};

/// Instructions that matter here: the kernel's name and the usual one.
const INSTRUCTIONS: [(&str, &str); 13] = [
    ("fma", "FMA"),
    ("f16c", "F16C"),
    ("avx2", "AVX2"),
    ("avx512f", "AVX-512"),
    ("avx512_bf16", "AVX512-BF16"),
    ("avx_vnni", "AVX-VNNI"),
    ("amx_bf16", "AMX-BF16"),
    ("asimd", "NEON"),
    ("asimdhp", "FP16"),
    ("bf16", "BF16"),
    ("i8mm", "I8MM"),
    ("sve", "SVE"),
    ("sme", "SME"),
];

/// The processors of a machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Processor {
    /// As the processor names itself.
    pub model: Fact<String>,
    /// `x86_64`, `aarch64`.
    pub architecture: String,
    /// Cores in all sockets.
    pub cores: Fact<u64>,
    /// Hardware threads in all sockets.
    pub threads: Fact<u64>,
    /// Hardware threads that this process may run on.
    pub threads_allowed: Fact<u64>,
    /// Processor time that the control group grants, in threads; `None` without a limit.
    pub quota_threads: Option<f64>,
    /// NUMA nodes with processors.
    pub numa_nodes: Fact<u64>,
    /// Instruction sets that training can use.
    pub instructions: Vec<String>,
    /// How the clock is chosen: `performance`, `powersave`, `schedutil`.
    pub governor: Fact<String>,
    /// What chooses the clock: `intel_pstate`, `amd-pstate-epp`, `acpi-cpufreq`.
    pub clock_driver: Fact<String>,
    /// Clock that the system allows at most, MHz.
    pub clock_mhz_allowed: Option<f64>,
    /// Clock that the processor can do, MHz.
    pub clock_mhz_max: Option<f64>,
    /// Times that the processor slowed down because of heat since the start; only Intel counts them.
    pub heat_slowdowns: Option<u64>,
    /// Whether this is a virtual machine.
    pub is_virtual: bool,
}

impl Processor {
    /// Reads everything.
    pub fn of(tree: &Tree) -> Processor {
        let info = tree.text("/proc/cpuinfo");
        let text = info.as_deref().unwrap_or_default();
        let why = info.as_ref().err().cloned().unwrap_or_else(|| "/proc/cpuinfo does not say".to_string());
        let flags: BTreeSet<&str> =
            field(text, "flags").or_else(|| field(text, "Features")).unwrap_or_default().split_whitespace().collect();
        let policy = |name: &str| format!("/sys/devices/system/cpu/cpu0/cpufreq/{name}");
        let mhz = |name: &str| tree.number::<f64>(&policy(name)).filter(|khz| *khz > 0.0).map(|khz| khz / 1000.0);
        let told = |name: &str| Fact::or(tree.word(&policy(name)), "the kernel shows no control of the clock here");
        let model = field(text, "model name").or_else(|| field(text, "Model")).map(clean);
        Processor {
            model: Fact::or(model.filter(|name| !name.is_empty()), why.clone()),
            architecture: std::env::consts::ARCH.to_string(),
            cores: Fact::or(cores(text), why.clone()),
            threads: Fact::or(threads(tree, text), why),
            threads_allowed: Fact::or(threads_allowed(tree), "/proc/self/status does not say"),
            quota_threads: control_group::quota_threads(tree),
            numa_nodes: nodes(tree),
            instructions: INSTRUCTIONS
                .iter()
                .filter(|(name, _)| flags.contains(name))
                .map(|(_, title)| title.to_string())
                .collect(),
            governor: told("scaling_governor"),
            clock_driver: told("scaling_driver"),
            clock_mhz_allowed: mhz("scaling_max_freq"),
            clock_mhz_max: mhz("cpuinfo_max_freq"),
            heat_slowdowns: tree.number("/sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count"),
            is_virtual: flags.contains("hypervisor"),
        }
    }

    /// Whether an instruction set of [`INSTRUCTIONS`] is there.
    pub fn can(&self, title: &str) -> bool {
        self.instructions.iter().any(|name| name == title)
    }

    /// Threads that training will start: allowed ones, or fewer by the control group's quota.
    pub fn usable_threads(&self) -> Option<u64> {
        let allowed = self.threads_allowed.known().or(self.threads.known()).copied()?;
        let quota = self.quota_threads.map_or(u64::MAX, |quota| quota.max(1.0) as u64);
        Some(allowed.min(quota))
    }
}

/// The first value of a field of `/proc/cpuinfo`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    fields(text, name).next()
}

fn fields<'a>(text: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// Different pairs of socket and core; processors that do not tell theirs have one thread a core.
fn cores(text: &str) -> Option<u64> {
    let (sockets, cores) = (fields(text, "physical id"), fields(text, "core id"));
    let pairs: BTreeSet<(&str, &str)> = sockets.zip(cores).collect();
    match pairs.len() as u64 {
        0 => Some(fields(text, "processor").count() as u64).filter(|count| *count > 0),
        count => Some(count),
    }
}

fn threads(tree: &Tree, text: &str) -> Option<u64> {
    let present = tree.text("/sys/devices/system/cpu/present").ok().and_then(|list| list_count(&list));
    present.or_else(|| Some(fields(text, "processor").count() as u64).filter(|count| *count > 0))
}

/// The kernel lists threads that may come one day too, so only as many count as are there.
fn threads_allowed(tree: &Tree) -> Option<u64> {
    let status = tree.text("/proc/self/status").ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let online = tree.text("/sys/devices/system/cpu/online").ok().and_then(|list| list_count(&list));
    list_count(list).map(|count| count.min(online.unwrap_or(u64::MAX)))
}

fn nodes(tree: &Tree) -> Fact<u64> {
    let list = tree.word("/sys/devices/system/node/has_cpu").and_then(|list| list_count(&list));
    Fact::or(list, "/sys/devices/system/node/has_cpu: not there")
}
