//! `tune hardware`: the parts that `tune plan` can describe a machine with.
//!
//! In:    the built-in catalogue, files given with `--catalogue`.
//! Out:   a table, an entry, or JSON on stdout.
//! Never: looks at the machine it runs on; that is `tune doctor`.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use planner::hardware::{Asked, Catalogue, Cpu, Gpu, Part, Ssd};
use planner::rates::Rates;
use planner::units::bytes_text;
use serde_json::json;

use crate::failure::{Failure, OrFail};

/// `tune hardware ...`
#[derive(Debug, Subcommand)]
pub enum HardwareCommand {
    /// All parts by name
    List(ListArguments),
    /// One part with all that is known of it, and where from
    Show(ShowArguments),
}

/// `tune hardware list`
#[derive(Debug, Args)]
pub struct ListArguments {
    /// Only these
    #[arg(value_enum)]
    pub kind: Option<PartKind>,
    /// A catalogue file of your own; its entries are added, and replace those of the same name
    #[arg(long, value_name = "FILE")]
    pub catalogue: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `tune hardware show`
#[derive(Debug, Args)]
pub struct ShowArguments {
    /// As in the list, or as people spell it: rtx-4090, "RTX 4090", 990-pro-2tb
    pub name: String,
    /// A catalogue file of your own; its entries are added, and replace those of the same name
    #[arg(long, value_name = "FILE")]
    pub catalogue: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Kinds of parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PartKind {
    /// Cards and machines with one memory
    Gpu,
    /// Processors with their platforms
    Cpu,
    /// Drives
    Ssd,
}

/// Prints.
pub fn print(command: &HardwareCommand) -> Result<(), Failure> {
    match command {
        HardwareCommand::List(arguments) => list(arguments),
        HardwareCommand::Show(arguments) => show(arguments),
    }
}

/// The built-in catalogue and the user's files, in their order.
pub fn catalogue(files: &[PathBuf]) -> Result<Catalogue, Failure> {
    let mut catalogue = Catalogue::built_in();
    for file in files {
        let text = std::fs::read_to_string(file);
        let text = text.with_context(|| format!("cannot read the catalogue {}", file.display())).or_input()?;
        catalogue.add(&text, &file.display().to_string()).or_input()?;
    }
    Ok(catalogue)
}

fn list(arguments: &ListArguments) -> Result<(), Failure> {
    let mut catalogue = catalogue(&arguments.catalogue)?;
    let wanted = |kind| arguments.kind.is_none_or(|only| only == kind);
    if !wanted(PartKind::Gpu) {
        catalogue.gpus.clear();
    }
    if !wanted(PartKind::Cpu) {
        catalogue.cpus.clear();
    }
    if !wanted(PartKind::Ssd) {
        catalogue.ssds.clear();
    }
    match arguments.json {
        true => println!("{}", serde_json::to_string_pretty(&catalogue).or_run()?),
        false => print!("{}", tables(&catalogue)),
    }
    Ok(())
}

fn tables(catalogue: &Catalogue) -> String {
    let gpus = ["gpu", "memory", "GB/s", "bf16 TFLOPS", "f32 TFLOPS", "PCIe", "W"];
    let cpus = ["cpu", "cores", "channels x MT/s", "PCIe", "f32 TFLOPS", "bf16 TFLOPS", "W"];
    let ssds = ["ssd", "capacity", "read MB/s", "write MB/s", "sustained", "TBW", "DWPD"];
    let tables = [
        table(gpus, catalogue.gpus.iter().map(gpu_row).collect()),
        table(cpus, catalogue.cpus.iter().map(cpu_row).collect()),
        table(ssds, catalogue.ssds.iter().map(ssd_row).collect()),
    ];
    tables.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

/// The first column to the left, the others to the right; nothing without rows.
pub fn table<const N: usize>(head: [&str; N], rows: Vec<[String; N]>) -> Option<String> {
    if rows.is_empty() {
        return None;
    }
    let mut lines = vec![head.map(str::to_string)];
    lines.extend(rows);
    let widths: [usize; N] =
        std::array::from_fn(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0));
    let text = |line: &[String; N]| {
        let cells = line.iter().zip(widths).enumerate();
        let cells = cells.map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("  {cell:>width$}"),
        });
        format!("{}\n", cells.collect::<String>().trim_end())
    };
    Some(lines.iter().map(text).collect())
}

fn gpu_row(gpu: &Gpu) -> [String; 7] {
    let shared = if gpu.unified { " shared" } else { "" };
    [
        gpu.name.clone(),
        format!("{} GiB{shared}", gpu.memory_gib),
        gpu.bandwidth_gb.to_string(),
        optional(gpu.bf16_tflops),
        gpu.fp32_tflops.to_string(),
        slot(gpu),
        gpu.watts.to_string(),
    ]
}

fn cpu_row(cpu: &Cpu) -> [String; 7] {
    [
        cpu.name.clone(),
        cpu.cores.to_string(),
        format!("{} x {}", cpu.memory_channels, cpu.memory_mts),
        format!("{} x{}", cpu.pcie_generation, cpu.pcie_lanes),
        cpu.fp32_tflops.to_string(),
        optional(cpu.bf16_tflops),
        cpu.watts.to_string(),
    ]
}

fn ssd_row(ssd: &Ssd) -> [String; 7] {
    [
        ssd.name.clone(),
        format!("{} GB", ssd.capacity_gb),
        ssd.read_mb.to_string(),
        ssd.write_mb.to_string(),
        optional(ssd.sustained_write_mb),
        ssd.tbw.to_string(),
        optional(ssd.dwpd),
    ]
}

fn optional(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_string(), |value| value.to_string())
}

fn slot(gpu: &Gpu) -> String {
    match (gpu.pcie_generation, gpu.pcie_lanes) {
        (Some(generation), Some(lanes)) => format!("{generation} x{lanes}"),
        _ => "-".to_string(),
    }
}

fn show(arguments: &ShowArguments) -> Result<(), Failure> {
    let catalogue = catalogue(&arguments.catalogue)?;
    let part = catalogue.part(&arguments.name).or_input()?;
    if arguments.json {
        let sustained = alone(&catalogue, part);
        let value = json!({ "part": part, "sustained": sustained });
        println!("{}", serde_json::to_string_pretty(&value).or_run()?);
        return Ok(());
    }
    let rows = match part {
        Part::Gpu(gpu) => gpu_facts(gpu, alone(&catalogue, part)),
        Part::Cpu(cpu) => cpu_facts(cpu),
        Part::Ssd(ssd) => ssd_facts(ssd),
    };
    rows.into_iter().for_each(|(name, value)| println!("{name:<12} {value}"));
    Ok(())
}

/// What a machine with this part and usual others sustains; `None` for a drive.
fn alone(catalogue: &Catalogue, part: Part<'_>) -> Option<Rates> {
    let asked = match part {
        Part::Gpu(gpu) => Asked { gpu: Some(gpu.name.clone()), ..Asked::default() },
        Part::Cpu(cpu) => Asked { cpu: Some(cpu.name.clone()), ..Asked::default() },
        Part::Ssd(_) => return None,
    };
    let described = catalogue.describe(&asked).ok()?;
    Some(planner::hardware::rates(&described))
}

fn gpu_facts(gpu: &Gpu, rates: Option<Rates>) -> Vec<(&'static str, String)> {
    let tflops = |value: Option<f64>| value.map_or("none".to_string(), |value| format!("{value} TFLOPS"));
    let mut facts = vec![
        ("name", gpu.name.clone()),
        ("title", gpu.title.clone()),
        ("memory", format!("{} GiB, {} for programs", gpu.memory_gib, bytes_text(gpu.memory_bytes()))),
        ("bandwidth", format!("{} GB/s", gpu.bandwidth_gb)),
        ("bf16 peak", tflops(gpu.bf16_tflops)),
    ];
    facts.extend(gpu.fp16_tflops.map(|_| ("fp16 peak", tflops(gpu.fp16_tflops))));
    facts.push(("f32 peak", tflops(Some(gpu.fp32_tflops))));
    facts.extend(rates.map(|rates| {
        let (bf16, f32) = (rates.bf16.matmul_flops / 1e12, rates.f32.matmul_flops / 1e12);
        let units = if f32 > gpu.fp32_tflops { " on TF32 units" } else { "" };
        ("sustained", format!("{bf16:.0} TFLOPS in bf16, {f32:.0} in f32{units}: what plans count with"))
    }));
    let link = match gpu.unified {
        true => "processor and graphics share the memory".to_string(),
        false => format!("PCIe {}", slot(gpu)),
    };
    facts.push(("link", link));
    facts.extend(gpu.card_link_gb.map(|link| ("card to card", format!("{link} GB/s, both ways together"))));
    facts.push(("power", format!("{} W", gpu.watts)));
    facts.push(("source", gpu.source.clone()));
    facts
}

fn cpu_facts(cpu: &Cpu) -> Vec<(&'static str, String)> {
    let memory = format!(
        "{} channels of {} MT/s: {:.0} GB/s sustained",
        cpu.memory_channels,
        cpu.memory_mts,
        cpu.dram_bytes_per_second() / 1e9
    );
    let mut facts = vec![("name", cpu.name.clone()), ("title", cpu.title.clone()), ("cores", cpu.cores.to_string())];
    facts.push(("memory", memory));
    facts.extend(cpu.memory_gb_max.map(|most| ("at most", format!("{most} GB"))));
    facts.push(("f32", format!("{} TFLOPS sustained", cpu.fp32_tflops)));
    facts.push(("bf16", cpu.bf16_tflops.map_or("none".to_string(), |bf16| format!("{bf16} TFLOPS sustained"))));
    facts.push(("lanes", format!("{} of PCIe {}", cpu.pcie_lanes, cpu.pcie_generation)));
    facts.extend(cpu.chipset_link_gb.map(|link| ("chipset", format!("{link} GB/s for all that is behind it"))));
    facts.push(("power", format!("{} W", cpu.watts)));
    facts.push(("source", cpu.source.clone()));
    facts
}

fn ssd_facts(ssd: &Ssd) -> Vec<(&'static str, String)> {
    let sustained = match ssd.sustained_write_mb {
        Some(rate) => format!("; {rate} MB/s once the fast cache is full"),
        None => String::new(),
    };
    let daily = ssd.dwpd.map_or(String::new(), |dwpd| format!(", {dwpd} drive writes a day"));
    vec![
        ("name", ssd.name.clone()),
        ("title", ssd.title.clone()),
        ("capacity", format!("{} GB", ssd.capacity_gb)),
        ("reads", format!("{} MB/s", ssd.read_mb)),
        ("writes", format!("{} MB/s{sustained}", ssd.write_mb)),
        ("endurance", format!("{} TB written{daily}", ssd.tbw)),
        ("link", format!("PCIe {} x4", ssd.pcie_generation)),
        ("source", ssd.source.clone()),
    ]
}
