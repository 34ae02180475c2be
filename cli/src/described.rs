//! The machine that a plan is for: this one, or one described by flags or by a file.
//!
//! In:    `--gpu --ram --nvme --cpu --catalogue` and prices, or a TOML file with `[machine]` and `[prices]`.
//! Out:   a [`Target`].
//! Never: looks at this machine if another one was described.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use planner::costs::Prices;
use planner::hardware::{Asked, Catalogue, Described};
use planner::units::bytes_text;
use planner::{IoProfile, Machine};
use recipes::DeviceName;
use serde::Deserialize;

use crate::failure::{Failure, OrFail};
use crate::{hardware, machine};

/// A machine from the catalogue, and prices.
#[derive(Debug, Clone, Default, Args)]
pub struct MachineArguments {
    /// Plan for this card instead of this machine, such as rtx-a4500x2; "none" computes on the processor
    #[arg(long, value_name = "NAME[xN]")]
    pub gpu: Option<String>,
    /// Memory of the machine, such as 128GB
    #[arg(long, value_name = "SIZE", value_parser = crate::args::size)]
    pub ram: Option<u64>,
    /// Drives, such as 990-pro-2tb or 990-pro-2tbx2
    #[arg(long, value_name = "NAME[xN]", num_args = 1..)]
    pub nvme: Vec<String>,
    /// Processor, such as threadripper-3960x
    #[arg(long, value_name = "NAME")]
    pub cpu: Option<String>,
    /// More parts, or better figures for known ones
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub catalogue: Vec<PathBuf>,
    /// Price of a kWh, in your currency
    #[arg(long, value_name = "PRICE", allow_negative_numbers = true)]
    pub tariff: Option<f64>,
    /// Price of the machine
    #[arg(long, value_name = "PRICE", allow_negative_numbers = true)]
    pub price: Option<f64>,
    /// Price of a rented machine per hour, to compare with buying
    #[arg(long, value_name = "PRICE", allow_negative_numbers = true)]
    pub cloud_price: Option<f64>,
    /// Tokens a second of the rented machine; otherwise it is taken to be as fast
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub cloud_tokens_per_second: Option<f64>,
}

/// What a plan is for.
#[derive(Debug, Clone)]
pub struct Target {
    /// For messages.
    pub name: String,
    /// Its parts; `None` for this machine.
    pub described: Option<Described>,
    /// What was assumed about it.
    pub notes: Vec<String>,
    /// As given.
    pub prices: Prices,
}

/// A machine file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MachineFile {
    machine: MachineSection,
    #[serde(default)]
    prices: Prices,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MachineSection {
    #[serde(default)]
    gpu: Option<String>,
    #[serde(default)]
    ram: Option<String>,
    #[serde(default)]
    nvme: Vec<String>,
    #[serde(default)]
    cpu: Option<String>,
}

impl Target {
    /// What the flags describe; this machine without any.
    pub fn of(arguments: &MachineArguments) -> Result<Target, Failure> {
        let prices = Prices {
            tariff_per_kwh: arguments.tariff,
            hardware: arguments.price,
            cloud_per_hour: arguments.cloud_price,
            cloud_tokens_per_second: arguments.cloud_tokens_per_second,
        };
        let asked = Asked {
            gpu: arguments.gpu.clone(),
            ram: arguments.ram,
            nvme: arguments.nvme.clone(),
            cpu: arguments.cpu.clone(),
        };
        let catalogue = hardware::catalogue(&arguments.catalogue)?;
        if asked.gpu.is_none() && asked.ram.is_none() && asked.nvme.is_empty() && asked.cpu.is_none() {
            return Ok(Target { name: "this machine".to_string(), described: None, notes: Vec::new(), prices });
        }
        described(&catalogue, &asked, prices)
    }

    /// What a file with `[machine]` describes; `None` if it has no such table.
    pub fn of_file(path: &Path, catalogue: &Catalogue) -> Result<Option<Target>, Failure> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string()).or_input()?;
        let table: toml::Table =
            toml::from_str(&text).map_err(|error| anyhow!("{}: {}", path.display(), one_line(&error))).or_input()?;
        if !table.contains_key("machine") {
            return Ok(None);
        }
        let file: MachineFile =
            toml::from_str(&text).map_err(|error| anyhow!("{}: {}", path.display(), one_line(&error))).or_input()?;
        let ram = file.machine.ram.map(|text| crate::args::size(&text).map_err(|problem| (text, problem)));
        let ram = ram.transpose().map_err(|(text, problem)| anyhow!("{}: ram = {text:?}: {problem}", path.display()));
        let MachineSection { gpu, nvme, cpu, .. } = file.machine;
        let asked = Asked { gpu, ram: ram.or_input()?, nvme, cpu };
        described(catalogue, &asked, file.prices).map(Some)
    }

    /// What the planner may use for `device`; `paths` are the directories that stand for the drives.
    pub fn machine(&self, paths: &[PathBuf], io: Vec<IoProfile>, device: DeviceName) -> Result<Machine, Failure> {
        match &self.described {
            Some(described) => Ok(described.machine(paths)),
            None => machine::read(io, device).or_run(),
        }
    }
}

fn described(catalogue: &Catalogue, asked: &Asked, prices: Prices) -> Result<Target, Failure> {
    let described = catalogue.describe(asked).or_input()?;
    Ok(Target { name: title(&described), notes: described.notes.clone(), described: Some(described), prices })
}

/// Cards, memory and drives in a few words.
fn title(described: &Described) -> String {
    let gpu = match &described.gpu {
        Some((gpu, 1)) => gpu.title.clone(),
        Some((gpu, count)) => format!("{count} x {}", gpu.title),
        None => described.platform().title,
    };
    format!("{gpu}, {}", bytes_text(described.ram_bytes))
}

/// A TOML error without the picture of the line.
fn one_line(error: &toml::de::Error) -> String {
    error.message().replace('\n', " ")
}
