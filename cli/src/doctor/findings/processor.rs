//! Rules about processors and power.
//!
//! In:    the inventory; measured products.
//! Out:   findings.
//! Never: calls `powersave` slow where it is only the name of the usual mode.

use planner::rates::RatesOrigin;

use super::super::processor::Processor;
use super::super::system::{Power, Sensor};
use super::{Finding, Seen, note, slows};

/// Drivers under which `powersave` raises the clock as needed.
const SELF_CLOCKING: [&str; 3] = ["intel_pstate", "amd-pstate-epp", "amd_pstate_epp"];
/// Clocks limited by more than this cost time.
const CLOCK_SHARE: f64 = 0.9;
/// This close to the limit parts slow down, degrees Celsius.
const NEAR_CELSIUS: f64 = 5.0;

/// All rules.
pub(super) fn look(seen: &Seen<'_>, found: &mut Vec<Finding>) {
    let processor = &seen.machine.processor;
    found.extend(instructions(processor));
    found.extend(bf16(seen));
    found.extend(affinity(processor));
    found.extend(quota(processor));
    found.extend(governor(processor).or_else(|| clock_limit(processor)));
    found.extend(heat(seen));
    found.extend(twins(processor));
    found.extend(nodes(processor));
    found.extend(battery(seen));
}

fn instructions(processor: &Processor) -> Option<Finding> {
    // A processor that tells no instruction at all was not read.
    if processor.architecture != "x86_64" || processor.model.known().is_none() || processor.can("AVX2") {
        return None;
    }
    let fix = match processor.is_virtual {
        true => "give the virtual machine the host's processor: QEMU `-cpu host`, libvirt `host-passthrough`",
        false => "another processor: any since Haswell (2013) or Zen (2017) has it",
    };
    Some(slows(
        "no_avx2",
        "matrix products run at a quarter of the usual rate".to_string(),
        "the processor has no AVX2",
        fix,
    ))
}

/// What was measured speaks where it is there; else what the processor can do.
fn bf16(seen: &Seen<'_>) -> Option<Finding> {
    let processor = &seen.machine.processor;
    let fix = "model.precision = \"f32\" where memory allows; bf16 halves the memory all the same";
    let rates = seen.rates.filter(|rates| rates.origin == RatesOrigin::Measured);
    if let Some(rates) = rates {
        let (bf16, f32) = (rates.bf16.matmul_flops, rates.f32.matmul_flops);
        return (bf16 < f32).then(|| {
            let symptom = format!("products in bf16 run at {:.0} GFLOP/s, in f32 at {:.0}", bf16 / 1e9, f32 / 1e9);
            note("bf16_slow", symptom, "this processor widens bf16 before it multiplies", fix)
        });
    }
    let has = ["AVX512-BF16", "AMX-BF16", "BF16"].iter().any(|name| processor.can(name));
    (!has && processor.can("AVX2")).then(|| {
        let lacks = if processor.can("AVX-512") {
            "AVX-512 but no bf16 products"
        } else {
            "AVX2, but neither AVX-512 nor bf16 products"
        };
        note("bf16_missing", "bf16 is not faster than f32 here".to_string(), format!("the processor has {lacks}"), fix)
    })
}

fn affinity(processor: &Processor) -> Option<Finding> {
    let (present, allowed) = (*processor.threads.known()?, *processor.threads_allowed.known()?);
    (allowed < present).then(|| {
        slows(
            "threads_not_allowed",
            format!("training runs on {allowed} of {present} threads"),
            "this process may not use the others (affinity, cpuset, or cores switched off)",
            "`taskset -pc 0-N $$` widens a shell's; containers: `--cpuset-cpus`; `chcpu -e LIST` switches cores on",
        )
    })
}

fn quota(processor: &Processor) -> Option<Finding> {
    let quota = processor.quota_threads?;
    let allowed = *processor.threads_allowed.known().or(processor.threads.known())?;
    if quota >= allowed as f64 {
        return None;
    }
    Some(slows(
        "threads_quota",
        format!("training gets the time of {quota:.1} of {allowed} threads"),
        "a control group limits processor time",
        "containers: `docker run --cpus=N`, Kubernetes resources.limits.cpu; services: CPUQuota= of the unit",
    ))
}

fn governor(processor: &Processor) -> Option<Finding> {
    let driver = processor.clock_driver.known().map(String::as_str).unwrap_or_default();
    let governor = processor.governor.known()?;
    if governor != "powersave" || SELF_CLOCKING.contains(&driver) {
        return None;
    }
    Some(slows(
        "governor_powersave",
        "processors stay at their lowest clock".to_string(),
        format!("the governor is powersave under {driver}"),
        "`sudo cpupower frequency-set -g performance` until the next start",
    ))
}

fn clock_limit(processor: &Processor) -> Option<Finding> {
    let (allowed, most) = (processor.clock_mhz_allowed?, processor.clock_mhz_max?);
    (allowed < CLOCK_SHARE * most).then(|| {
        slows(
            "clock_limit",
            format!("processors may run at {allowed:.0} of {most:.0} MHz"),
            "the highest clock was lowered",
            format!("`sudo cpupower frequency-set -u {most:.0}MHz`; on laptops `powerprofilesctl set performance`"),
        )
    })
}

/// The hottest sensor near its own limit, else the processor's count.
fn heat(seen: &Seen<'_>) -> Option<Finding> {
    let fix = "clean fans and filters, give the case air; a laptop stands free on a hard surface";
    let sensors = seen.machine.system.sensors.known().map(Vec::as_slice).unwrap_or_default();
    let room = |sensor: &Sensor| Some(sensor.celsius_max? - sensor.celsius);
    let nearest = sensors.iter().filter_map(|sensor| Some((room(sensor)?, sensor)));
    let nearest = nearest.min_by(|a, b| a.0.total_cmp(&b.0)).filter(|(room, _)| *room <= NEAR_CELSIUS);
    if let Some((_, sensor)) = nearest {
        let most = sensor.celsius_max.unwrap_or(sensor.celsius);
        let symptom = format!("{} is at {:.0} °C, its limit is {most:.0}", sensor.name, sensor.celsius);
        return Some(slows("part_hot", symptom, "hot parts slow down, then switch off", fix));
    }
    let count = seen.machine.processor.heat_slowdowns.filter(|count| *count > 0)?;
    Some(note(
        "processor_was_hot",
        format!("the processor slowed down {count} times since the start"),
        "it got too hot",
        fix,
    ))
}

fn twins(processor: &Processor) -> Option<Finding> {
    let (cores, threads) = (*processor.cores.known()?, *processor.threads.known()?);
    (threads > cores).then(|| {
        note(
            "threads_share_cores",
            format!("{threads} threads on {cores} cores"),
            "two threads share a core's arithmetic (SMT): products gain nothing from the second",
            format!("if other programs stutter: `RAYON_NUM_THREADS={cores} tune run ...`"),
        )
    })
}

fn nodes(processor: &Processor) -> Option<Finding> {
    let nodes = *processor.numa_nodes.known()?;
    (nodes > 1).then(|| {
        slows(
            "numa_nodes",
            format!("memory of the other of {nodes} nodes is half as fast"),
            "several processors or dies, each with its own memory (NUMA)",
            "`numactl --interleave=all tune run ...` spreads memory evenly; a run that fits one node: `numactl -N0 -m0`",
        )
    })
}

fn battery(seen: &Seen<'_>) -> Option<Finding> {
    (seen.machine.system.power.known() == Some(&Power::Battery)).then(|| {
        slows(
            "on_battery",
            "clocks are low, and the run ends with the battery".to_string(),
            "it runs on its battery",
            "plug it in; after an unwanted end `tune run RECIPE --resume` goes on",
        )
    })
}
