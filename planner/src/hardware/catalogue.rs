//! The list of parts: what is built in, and what the user adds.
//!
//! In:    TOML with `[[gpu]]`, `[[cpu]]` and `[[ssd]]`.
//! Out:   a [`Catalogue`]; entries by name.
//! Never: opens a file; keeps an entry with a number that no part has.

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::error::HardwareError;
use super::names::{Named, find};
use super::{Cpu, Gpu, Ssd};

const BUILT_IN: [(&str, &str); 3] = [
    (include_str!("../../catalogue/gpus.toml"), "gpus.toml"),
    (include_str!("../../catalogue/cpus.toml"), "cpus.toml"),
    (include_str!("../../catalogue/ssds.toml"), "ssds.toml"),
];

/// Parts by kind, in the order of their files.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Catalogue {
    /// Cards and unified machines.
    pub gpus: Vec<Gpu>,
    /// Processors with their platforms.
    pub cpus: Vec<Cpu>,
    /// Drives.
    pub ssds: Vec<Ssd>,
}

/// An entry of any kind.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part<'a> {
    /// A card or unified machine.
    Gpu(&'a Gpu),
    /// A processor.
    Cpu(&'a Cpu),
    /// A drive.
    Ssd(&'a Ssd),
}

/// A catalogue file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(default)]
    gpu: Vec<Spanned<Gpu>>,
    #[serde(default)]
    cpu: Vec<Spanned<Cpu>>,
    #[serde(default)]
    ssd: Vec<Spanned<Ssd>>,
}

impl Catalogue {
    /// What the program brings.
    pub fn built_in() -> Catalogue {
        let mut catalogue = Catalogue::default();
        for (text, origin) in BUILT_IN {
            catalogue.add(text, origin).expect("a test parses the built-in catalogue");
        }
        catalogue
    }

    /// Adds the entries of a file; an entry replaces the one of the same name. `origin` names the file in messages.
    ///
    /// # Errors
    /// Unknown keys and numbers that no part has, with file, line and what was expected; then nothing is added.
    pub fn add(&mut self, text: &str, origin: &str) -> Result<(), HardwareError> {
        let parsed: Text = toml::from_str(text).map_err(|error| explain(&error, text, origin))?;
        let gpus = checked(parsed.gpu, text, origin)?;
        let cpus = checked(parsed.cpu, text, origin)?;
        let ssds = checked(parsed.ssd, text, origin)?;
        gpus.into_iter().for_each(|gpu| put(&mut self.gpus, gpu));
        cpus.into_iter().for_each(|cpu| put(&mut self.cpus, cpu));
        ssds.into_iter().for_each(|ssd| put(&mut self.ssds, ssd));
        Ok(())
    }

    /// A card or unified machine by name, loosely spelled.
    ///
    /// # Errors
    /// The three nearest names.
    pub fn gpu(&self, name: &str) -> Result<&Gpu, HardwareError> {
        find(&self.gpus, name)
    }

    /// A processor by name, loosely spelled.
    ///
    /// # Errors
    /// The three nearest names.
    pub fn cpu(&self, name: &str) -> Result<&Cpu, HardwareError> {
        find(&self.cpus, name)
    }

    /// A drive by name, loosely spelled.
    ///
    /// # Errors
    /// The three nearest names.
    pub fn ssd(&self, name: &str) -> Result<&Ssd, HardwareError> {
        find(&self.ssds, name)
    }

    /// A part of any kind by name, loosely spelled.
    ///
    /// # Errors
    /// The variants of a kind in which the name is ambiguous, else the three nearest names of the kind with the nearest.
    pub fn part(&self, name: &str) -> Result<Part<'_>, HardwareError> {
        let tries = [self.gpu(name).map(Part::Gpu), self.cpu(name).map(Part::Cpu), self.ssd(name).map(Part::Ssd)];
        let mut unknown = Vec::new();
        for found in tries {
            match found {
                Err(HardwareError::Unknown { kind, name, nearest }) => unknown.push((kind, name, nearest)),
                other => return other,
            }
        }
        let first = |nearest: &str| nearest.split(',').next().unwrap_or_default().to_string();
        let score = |nearest: &str| (strsim::jaro_winkler(&name.to_lowercase(), &first(nearest)) * 1e6) as i64;
        let best = unknown.into_iter().max_by_key(|(_, _, nearest)| score(nearest));
        let (kind, name, nearest) = best.expect("all three kinds were tried");
        Err(HardwareError::Unknown { kind, name, nearest })
    }
}

fn put<E: Named>(entries: &mut Vec<E>, entry: E) {
    match entries.iter_mut().find(|old| old.name() == entry.name()) {
        Some(old) => *old = entry,
        None => entries.push(entry),
    }
}

/// A number of an entry with the range that real parts have.
struct Bound {
    key: &'static str,
    value: f64,
    least: f64,
    most: f64,
    unit: &'static str,
}

fn bound(key: &'static str, value: impl Into<f64>, least: f64, most: f64, unit: &'static str) -> Bound {
    Bound { key, value: value.into(), least, most, unit }
}

/// What is checked of an entry.
trait Checked: Named {
    fn bounds(&self) -> Vec<Bound>;
    /// What contradicts itself, in words.
    fn contradiction(&self) -> Option<String>;
    fn source(&mut self) -> &mut String;
}

impl Checked for Gpu {
    fn bounds(&self) -> Vec<Bound> {
        let tflops = |key, value: Option<f64>| value.map(|value| bound(key, value, 0.01, 100_000.0, "TFLOPS"));
        let mut bounds = vec![
            bound("memory_gib", self.memory_gib, 1.0, 4096.0, "GiB"),
            bound("bandwidth_gb", self.bandwidth_gb, 10.0, 100_000.0, "GB/s"),
            bound("fp32_tflops", self.fp32_tflops, 0.01, 10_000.0, "TFLOPS"),
            bound("watts", self.watts, 5.0, 5000.0, "W"),
        ];
        bounds.extend(tflops("bf16_tflops", self.bf16_tflops));
        bounds.extend(tflops("fp16_tflops", self.fp16_tflops));
        bounds.extend(tflops("measured_tflops", self.measured_tflops));
        bounds.extend(self.usable_gib.map(|value| bound("usable_gib", value, 0.5, self.memory_gib, "GiB")));
        bounds.extend(self.pcie_generation.map(|value| bound("pcie_generation", value, 1.0, 7.0, "")));
        bounds.extend(self.pcie_lanes.map(|value| bound("pcie_lanes", value, 1.0, 16.0, "lanes")));
        bounds.extend(self.card_link_gb.map(|value| bound("card_link_gb", value, 1.0, 10_000.0, "GB/s")));
        bounds.extend(self.cpu_cores.map(|value| bound("cpu_cores", value, 1.0, 1024.0, "cores")));
        bounds
    }

    fn contradiction(&self) -> Option<String> {
        let card = self.pcie_generation.is_some() && self.pcie_lanes.is_some();
        match (self.unified, card) {
            (false, false) => Some("a card needs pcie_generation and pcie_lanes, or unified = true".to_string()),
            (true, _) if self.cpu_cores.is_none() => Some("a unified machine needs cpu_cores".to_string()),
            _ => None,
        }
    }

    fn source(&mut self) -> &mut String {
        &mut self.source
    }
}

impl Checked for Cpu {
    fn bounds(&self) -> Vec<Bound> {
        let mut bounds = vec![
            bound("cores", self.cores, 1.0, 4096.0, "cores"),
            bound("memory_channels", self.memory_channels, 1.0, 64.0, "channels"),
            bound("memory_mts", self.memory_mts, 400.0, 25_600.0, "MT/s"),
            bound("pcie_generation", self.pcie_generation, 1.0, 7.0, ""),
            bound("pcie_lanes", self.pcie_lanes, 1.0, 1024.0, "lanes"),
            bound("fp32_tflops", self.fp32_tflops, 0.005, 1000.0, "TFLOPS"),
            bound("watts", self.watts, 3.0, 5000.0, "W"),
        ];
        bounds.extend(self.bf16_tflops.map(|value| bound("bf16_tflops", value, 0.005, 10_000.0, "TFLOPS")));
        bounds.extend(self.chipset_link_gb.map(|value| bound("chipset_link_gb", value, 0.5, 1000.0, "GB/s")));
        bounds.extend(self.memory_gb_max.map(|value| bound("memory_gb_max", value, 1.0, 65_536.0, "GB")));
        bounds
    }

    fn contradiction(&self) -> Option<String> {
        None
    }

    fn source(&mut self) -> &mut String {
        &mut self.source
    }
}

impl Checked for Ssd {
    fn bounds(&self) -> Vec<Bound> {
        let mut bounds = vec![
            bound("capacity_gb", self.capacity_gb as f64, 16.0, 1_000_000.0, "GB"),
            bound("read_mb", self.read_mb, 50.0, 100_000.0, "MB/s"),
            bound("write_mb", self.write_mb, 20.0, 100_000.0, "MB/s"),
            bound("tbw", self.tbw, 1.0, 10_000_000.0, "TB"),
            bound("pcie_generation", self.pcie_generation, 1.0, 7.0, ""),
        ];
        bounds.extend(
            self.sustained_write_mb.map(|value| bound("sustained_write_mb", value, 5.0, self.write_mb, "MB/s")),
        );
        bounds.extend(self.dwpd.map(|value| bound("dwpd", value, 0.01, 200.0, "drive writes a day")));
        bounds
    }

    fn contradiction(&self) -> Option<String> {
        None
    }

    fn source(&mut self) -> &mut String {
        &mut self.source
    }
}

fn checked<E: Checked>(entries: Vec<Spanned<E>>, text: &str, origin: &str) -> Result<Vec<E>, HardwareError> {
    let mut checked: Vec<E> = Vec::new();
    for spanned in entries {
        let place = place(text, origin, spanned.span().start);
        let mut entry = spanned.into_inner();
        let name = entry.name().to_string();
        let typed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        if name.is_empty() || !name.chars().all(typed) {
            let why = "a name is made of a-z, 0-9, dashes and dots, as in rtx-4060-ti-16gb".to_string();
            return Err(HardwareError::Entry { place, name, why });
        }
        if checked.iter().any(|other| other.name() == name) {
            return Err(HardwareError::Entry { place, name, why: "there twice in this file; leave one".to_string() });
        }
        let outside = |bound: &Bound| !(bound.least..=bound.most).contains(&bound.value);
        if let Some(Bound { key, value, least, most, unit }) = entry.bounds().into_iter().find(outside) {
            return Err(HardwareError::Implausible { place, name, key, value, least, most, unit });
        }
        if let Some(why) = entry.contradiction() {
            return Err(HardwareError::Entry { place, name, why });
        }
        if entry.source().is_empty() {
            *entry.source() = origin.to_string();
        }
        checked.push(entry);
    }
    Ok(checked)
}

fn place(text: &str, origin: &str, at: usize) -> String {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    format!("{origin}:{}", 1 + before.iter().filter(|&&byte| byte == b'\n').count())
}

/// serde's words for an unknown key are ``unknown field `x`, expected one of `a`, `b` ``; the tests hold that.
fn explain(error: &toml::de::Error, text: &str, origin: &str) -> HardwareError {
    let place = error.span().map_or_else(|| origin.to_string(), |span| place(text, origin, span.start));
    let message = error.message();
    if !message.starts_with("unknown field") {
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ").replace("missing field", "missing key");
        return HardwareError::Syntax { place, message };
    }
    let mut names = message.split('`').skip(1).step_by(2);
    let key = names.next().unwrap_or_default().to_string();
    let known: Vec<&str> = names.collect();
    let score = |name: &&&str| (strsim::jaro_winkler(&key, name) * 1e6) as i64;
    let hint = match known.iter().max_by_key(score) {
        Some(best) if strsim::jaro_winkler(&key, best) >= 0.7 => format!("did you mean `{best}`?"),
        _ => format!("known here: {}", known.join(", ")),
    };
    HardwareError::UnknownKey { place, key, hint }
}
