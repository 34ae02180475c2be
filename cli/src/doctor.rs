//! `tune doctor`: what this machine is, measured; what will be slow, and what to do first.
//!
//! In:    folders that training would write to; the kernel's files; a few seconds of measuring.
//! Out:   a report for people, or JSON with stable keys; rates and profiles of drives in the cache for `tune plan`.
//! Never: changes a setting; fails because a tool or a permission is missing; leaves a file but the cache's.

mod cards;
mod control_group;
mod devices;
mod drives;
mod fact;
mod findings;
mod folders;
mod inventory;
mod link;
mod memory;
mod modules;
mod nvidia;
mod probe;
mod processor;
mod show;
mod system;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use planner::IoProfile;
use planner::rates::Rates;
use planner::units::bytes_text;
use recipes::DeviceName;
use serde::Serialize;

use crate::failure::{Failure, OrFail};
use crate::io_profile::{self, Earlier};
use crate::prepare::cache_folder;
use crate::rates;
use devices::Kinds;
use fact::{Fact, Tree};
use findings::{Finding, findings};
use folders::{Room, Tried};
use inventory::{Asked, Inventory};

/// Time for everything but the drives.
const MEASURE_TIME: Duration = Duration::from_secs(10);
/// Most bytes of a measurement on a drive at a time, and most of what is free there.
const DRIVE_BYTES_MAX: u64 = 1 << 30;
const DRIVE_FREE_PARTS: u64 = 20;
/// Fewer bytes than this say nothing about a drive.
const DRIVE_BYTES_MIN: u64 = 64 << 20;

/// `tune doctor`
#[derive(Debug, Args)]
pub struct DoctorArguments {
    /// A folder that training would write to; repeatable. Default: this folder and the cache
    #[arg(long, value_name = "DIR")]
    pub path: Vec<PathBuf>,
    /// Look only; drives and rates measured earlier are shown
    #[arg(long)]
    pub no_measure: bool,
    /// Measure drives again that were measured earlier
    #[arg(long, conflicts_with = "no_measure")]
    pub again: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Everything that is told.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Version of this program.
    pub version: &'static str,
    /// What the machine is.
    pub inventory: Inventory,
    /// What it sustains.
    pub rates: Fact<Rates>,
    /// What will be slow.
    pub findings: Vec<Finding>,
}

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    /// Nothing.
    Nothing,
    /// Rates, and drives that nobody measured.
    New,
    /// Rates and all drives.
    All,
}

/// Looks, measures, prints.
pub fn print(arguments: &DoctorArguments) -> Result<(), Failure> {
    let measure = match (arguments.no_measure, arguments.again) {
        (true, _) => Measure::Nothing,
        (false, false) => Measure::New,
        (false, true) => Measure::All,
    };
    let mut tell = |text: &str| eprintln!("{text}");
    let folders = folders(&arguments.path)?.into_iter().map(|path| tried(path, measure, &mut tell)).collect();
    let asked =
        Asked { nvidia: nvidia::driver(), built_for_cuda: cfg!(feature = "cuda"), devices: Kinds::asked(), folders };
    let rates = measured_rates(measure, &mut tell);
    // Sensors are read last: what heats up while working shows.
    let inventory = Inventory::of(&Tree::system(), asked);
    let findings = findings(&inventory, rates.known());
    let report = Report { version: env!("CARGO_PKG_VERSION"), inventory, rates, findings };
    match arguments.json {
        true => println!("{}", serde_json::to_string_pretty(&report).or_run()?),
        false => show::print(&report),
    }
    Ok(())
}

/// What this machine is for a run on `device`, without measuring: titles, each with names and values.
pub fn machine_facts(device: DeviceName) -> Vec<(String, Vec<(String, String)>)> {
    let (nvidia, built_for_cuda, devices) = (nvidia::driver(), cfg!(feature = "cuda"), Kinds::of_run(device));
    let asked = Asked { nvidia, built_for_cuda, devices, folders: Vec::new() };
    show::facts(&Inventory::of(&Tree::system(), asked))
}

/// The folders asked for, without links; by default this one, and the cache if it is on another drive.
fn folders(asked: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    if asked.is_empty() {
        let here = std::env::current_dir().or_run()?;
        let number = |path: &Path| path.metadata().ok().map(|found| found.dev());
        let cache =
            cache_folder().ok().and_then(|folder| folder.ancestors().find(|at| at.is_dir()).map(Path::to_path_buf));
        let other = cache.filter(|cache| number(cache) != number(&here));
        return Ok([Some(here), other].into_iter().flatten().collect());
    }
    let mut found = Vec::new();
    for path in asked {
        let real = path.canonicalize().ok().filter(|real| real.is_dir());
        let Some(real) = real else {
            return Err(anyhow!("no such directory: --path {}; make it, or name another", path.display())).or_input();
        };
        if !found.contains(&real) {
            found.push(real);
        }
    }
    Ok(found)
}

fn tried(path: PathBuf, measure: Measure, tell: &mut dyn FnMut(&str)) -> Tried {
    let room = probe::room(&path);
    let engine = probe::engine(&path);
    let profile = match (measure, &engine) {
        (Measure::Nothing, _) => Fact::or(io_profile::kept(&path), "not measured yet: leave out --no-measure"),
        (_, Fact::Unknown { unknown }) => Fact::unknown(unknown.clone()),
        (_, Fact::Known(_)) => profile(&path, &room, measure, tell),
    };
    Tried { path, room, engine, profile }
}

/// A failed measurement is a fact about the drive.
fn profile(path: &Path, room: &Fact<Room>, measure: Measure, tell: &mut dyn FnMut(&str)) -> Fact<IoProfile> {
    let free_bytes = room.known().map_or(0, |room| room.free_bytes);
    let bytes_max = DRIVE_BYTES_MAX.min(free_bytes / DRIVE_FREE_PARTS);
    if bytes_max < DRIVE_BYTES_MIN {
        let (free, needed) = (bytes_text(free_bytes), bytes_text(DRIVE_BYTES_MIN * DRIVE_FREE_PARTS));
        return Fact::unknown(format!("not measured: {free} are free, {needed} are needed"));
    }
    let earlier = if measure == Measure::All { Earlier::Replace } else { Earlier::Keep };
    match io_profile::of_directory(path, bytes_max, earlier, tell) {
        Ok(profile) => Fact::or(profile, "not measured: it is in memory, or has no room to try"),
        Err(failure) => Fact::unknown(format!("not measured: {failure}")),
    }
}

fn measured_rates(measure: Measure, tell: &mut dyn FnMut(&str)) -> Fact<Rates> {
    if measure == Measure::Nothing {
        return Fact::or(rates::known(), "not measured yet: leave out --no-measure");
    }
    match rates::measure(tell, MEASURE_TIME) {
        Ok(measured) => {
            if let Err(failure) = rates::remember(&measured) {
                tell(&format!("rates: cannot be kept, so plans use usual ones: {failure}"));
            }
            Fact::Known(measured)
        }
        Err(failure) => Fact::unknown(format!("not measured: {failure}")),
    }
}
