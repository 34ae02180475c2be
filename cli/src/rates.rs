//! What this machine sustains: measured once, then kept in the cache folder.
//!
//! In:    the kernels themselves; `hardware.json` in the cache folder.
//! Out:   [`Rates`] for the planner.
//! Never: measures for `tune plan`; fails because of the cache file.

mod kernels;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use offload::array::Place;
use offload::bench_adam::{AdamOptions, AdamReport, bench_adam};
use offload::durable::publish_file;
use offload::rules::{AdamW, Rule};
use offload::store::EngineChoice;
use planner::IoProfile;
use planner::rates::{HostRates, NvmeRates, Rates, RatesOrigin};
use planner::units::bytes_text;

use crate::failure::{Failure, OrFail};
use crate::prepare::cache_folder;

const CACHE_FILE: &str = "hardware.json";
/// What a real step is expected to differ from an estimate made of measured rates (docs/LOG.md).
const BAND: [f64; 2] = [0.85, 1.15];
/// Parameters of the updates that are measured: beyond any cache, and quick.
const UPDATE_PARAMETERS: u64 = 16 << 20;
const ROUNDED_PARAMETERS: u64 = 4 << 20;
const UPDATES: usize = 5;
const SPAN_ELEMENTS: usize = 1 << 20;
/// Programs that wait for a core, on average over a minute: more of them disturb a measurement.
const LOAD_MAX: f64 = 0.5;

/// By machine, see [`key`].
type Kept = BTreeMap<String, Rates>;

/// Measures the processor and its memory for about `seconds`; tells what it finds.
///
/// # Errors
/// [`Failure::Run`] where memory for the measurement is short.
pub fn measure(tell: &mut dyn FnMut(&str), seconds: Duration) -> Result<Rates, Failure> {
    ::kernels::memory::pack_by_panels();
    tell_of_others(tell);
    let (update, rounded) = (update(false)?, update(true)?);
    let copy_bytes_per_second = ::kernels::measure::copy_bytes_per_second();
    tell(&format!(
        "memory: triad {}/s, one thread copies {}/s, an update moves {}/s",
        bytes_text(update.triad_bytes_per_second as u64),
        bytes_text(copy_bytes_per_second as u64),
        bytes_text(update.bytes_per_second as u64)
    ));
    let f32 = kernels::measure(::kernels::measure::Format::F32, seconds / 2);
    let bf16 = kernels::measure(::kernels::measure::Format::Bf16, seconds / 2);
    for (name, found) in [("f32", &f32), ("bf16", &bf16)] {
        let gflops = |flops: f64| flops / 1e9;
        tell(&format!(
            "{name}: products {:.0} GFLOP/s, attention {:.0} GFLOP/s, element-wise {}/s",
            gflops(found.matmul_flops),
            gflops(found.attention_flops),
            bytes_text(found.vector_bytes_per_second as u64)
        ));
    }
    Ok(Rates {
        origin: RatesOrigin::Measured,
        f32,
        bf16,
        device_bytes_per_second: update.triad_bytes_per_second,
        dram_bytes_per_second: update.triad_bytes_per_second,
        host_link_bytes_per_second: None,
        card_link_bytes_per_second: None,
        nvme: None,
        host: Some(HostRates {
            update_bytes_per_second: update.bytes_per_second,
            rounded_parameters_per_second: rounded.elements as f64 / rounded.seconds,
            copy_bytes_per_second,
            call_seconds: kernels::call_seconds(),
        }),
        band: BAND,
    })
}

/// An update of a group in memory: with f32 states, or with states rounded to 8 bits.
fn update(is_rounded: bool) -> Result<AdamReport, Failure> {
    let rule = AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 };
    let (rule, elements) = match is_rounded {
        false => (Rule::AdamW(rule), UPDATE_PARAMETERS),
        true => (Rule::AdamW8bit(rule), ROUNDED_PARAMETERS),
    };
    let options = AdamOptions {
        place: Place::Dram,
        elements,
        steps: UPDATES,
        rule,
        working: false,
        span_elements: SPAN_ELEMENTS,
        paths: Vec::new(),
        engine: EngineChoice::Auto,
        triad_elements: elements as usize,
    };
    bench_adam(&options).or_run()
}

/// What was measured on this machine by this version; `None` if nothing was, or the file is damaged, which is said on stderr.
pub fn known() -> Option<Rates> {
    let file = cache_folder().ok()?.join(CACHE_FILE);
    match read(&file) {
        Ok(kept) => kept.get(&key()).copied(),
        Err(problem) => {
            eprintln!("{}: ignored: {problem}; `tune doctor` measures again", file.display());
            None
        }
    }
}

/// Keeps what was measured for later plans.
///
/// # Errors
/// [`Failure::Run`] where the cache folder cannot be written.
pub fn remember(rates: &Rates) -> Result<PathBuf, Failure> {
    let folder = cache_folder().or_run()?;
    let file = folder.join(CACHE_FILE);
    let mut kept = read(&file).unwrap_or_default();
    kept.insert(key(), *rates);
    let text = serde_json::to_vec_pretty(&kept).expect("plain numbers serialise");
    let written = std::fs::create_dir_all(&folder).map_err(anyhow::Error::from);
    let written = written.and_then(|()| Ok(publish_file(&file, &text)?));
    written.with_context(|| format!("{}: cannot be written", file.display())).or_run()?;
    Ok(file)
}

/// The drives that were measured, all together; directories on one drive share it.
pub fn drives(io: &[IoProfile]) -> Option<NvmeRates> {
    let device = |profile: &IoProfile| profile.path.metadata().map(|found| found.dev()).ok();
    let mut one_each: Vec<&IoProfile> = Vec::new();
    for profile in io {
        if !one_each.iter().any(|known| device(known) == device(profile)) {
            one_each.push(profile);
        }
    }
    let sum = |rate: fn(&IoProfile) -> u64| one_each.iter().map(|profile| rate(profile) as f64).sum::<f64>();
    (!io.is_empty()).then(|| NvmeRates {
        read_bytes_per_second: sum(|profile| profile.read_bytes_per_second),
        write_bytes_per_second: sum(|profile| profile.write_bytes_per_second),
    })
}

/// What runs beside a measurement makes it too low; said, because nothing can be done about it here.
fn tell_of_others(tell: &mut dyn FnMut(&str)) {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Option<f64> = text.split(' ').next().and_then(|load| load.parse().ok());
    if let Some(load) = load.filter(|&load| load > LOAD_MAX) {
        tell(&format!(
            "other programs are running (load {load:.1}): rates may come out too low; measure again when they have ended"
        ));
    }
}

/// Processor, cores and version: another of either is another machine.
fn key() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or(std::env::consts::ARCH, |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    format!("{model} x{cores} tune {}", env!("CARGO_PKG_VERSION"))
}

/// What a cache file holds; nothing if there is no file.
fn read(file: &Path) -> Result<Kept, String> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Kept::new()),
        Err(error) => return Err(error.to_string()),
    };
    let kept: Kept = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    match kept.iter().find(|(_, rates)| !is_possible(rates)) {
        Some((key, _)) => Err(format!("impossible rates for {key}")),
        None => Ok(kept),
    }
}

/// Every rate is a positive number.
fn is_possible(rates: &Rates) -> bool {
    let compute = [rates.f32, rates.bf16].into_iter().flat_map(|format| {
        let kernels = format.kernels();
        [
            format.matmul_flops,
            format.attention_flops,
            format.vector_bytes_per_second,
            kernels.weight_gradient_flops,
            kernels.low_rank_flops,
            kernels.weight_bytes_per_second,
            kernels.attention_backward_flops,
            kernels.gate_bytes_per_second,
            kernels.logits_per_second,
            kernels.far_logits_per_second,
        ]
    });
    let host = rates.host();
    let memory = [rates.dram_bytes_per_second, host.update_bytes_per_second, host.copy_bytes_per_second];
    let more = [rates.device_bytes_per_second, host.rounded_parameters_per_second];
    compute.chain(memory).chain(more).all(|rate| rate > 0.0 && !rate.is_nan()) && host.call_seconds >= 0.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rates_survive_the_cache_file_and_a_rate_of_zero_makes_it_unusable() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(CACHE_FILE);
        assert!(read(&file).unwrap().is_empty());
        let mut kept = Kept::from([(key(), Rates::usual(2))]);
        std::fs::write(&file, serde_json::to_vec(&kept).unwrap()).unwrap();
        assert_eq!(read(&file).unwrap()[&key()].f32.matmul_flops, Rates::usual(2).f32.matmul_flops);
        kept.get_mut(&key()).unwrap().dram_bytes_per_second = 0.0;
        std::fs::write(&file, serde_json::to_vec(&kept).unwrap()).unwrap();
        assert!(read(&file).unwrap_err().contains("impossible"));
        std::fs::write(&file, "{").unwrap();
        assert!(read(&file).is_err());
    }

    #[test]
    fn measured_rates_are_possible_and_products_are_faster_than_one_thread_of_scalars() {
        let mut said = Vec::new();
        let rates = measure(&mut |line| said.push(line.to_string()), Duration::from_secs(1)).unwrap();
        assert!(is_possible(&rates), "{rates:?}");
        assert_eq!(rates.origin, RatesOrigin::Measured);
        assert!(rates.f32.matmul_flops > 1e9, "{rates:?}");
        assert!(said.iter().any(|line| line.starts_with("f32: products")), "{said:?}");
    }
}
