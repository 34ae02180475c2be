//! `tune plan` as typed: which recipes on which machines, and what is wanted of them.
//!
//! In:    the arguments.
//! Out:   a page, a comparison, a list, JSON, a chart; exit code 3 for a plan that does not fit.
//! Never: fetches weights of a model whose configuration is enough.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use offload::durable::publish_file;
use planner::PlanError;
use planner::inventory;
use planner::report::Report;
use planner::what_fits::{Question, what_fits};
use recipes::{DeviceName, Recipe};
use serde::Serialize;

use super::{compare, fits_table, say, schema, svg, terminal, text};
use crate::args::PlanArguments;
use crate::described::Target;
use crate::failure::{Failure, OrFail};
use crate::io_profile::{self, Origin};
use crate::plan_report::{DRIVE, report};
use crate::{hardware, subject};

/// Rows that `--what-fits` plans with, tokens.
const ROW_TOKENS: usize = 2048;

/// Plans and prints on stdout.
pub fn print(arguments: &PlanArguments) -> Result<(), Failure> {
    if arguments.schema {
        return say(&schema());
    }
    let target = Target::of(&arguments.machine)?;
    match (&arguments.recipe, arguments.what_fits, arguments.compare.is_empty()) {
        (_, true, _) => list(arguments, &target),
        (recipe, _, false) => side_by_side(arguments, recipe.as_deref(), &target),
        (Some(recipe), _, _) => one(arguments, &read(recipe, arguments)?, &target),
        (None, _, _) => Err(anyhow!("no recipe: tune plan RECIPE")).or_input(),
    }
}

fn read(path: &Path, arguments: &PlanArguments) -> Result<Recipe, Failure> {
    recipes::read(path, &arguments.set).or_input()
}

fn one(arguments: &PlanArguments, recipe: &Recipe, target: &Target) -> Result<(), Failure> {
    let report = report(recipe, target, &subject::subject(recipe)?)?;
    if let Some(path) = &arguments.svg {
        write_chart(path, &svg(&report))
            .with_context(|| format!("cannot write the chart: {}", path.display()))
            .or_run()?;
    }
    match arguments.json {
        true => say_json(&report)?,
        false => say(&text(&report, origin(recipe, target), terminal::stdout_style()))?,
    }
    misfit(&report)
}

/// A chart is whole or not there; folders are the user's to make.
fn write_chart(path: &Path, text: &str) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::metadata(folder)?;
    Ok(publish_file(path, text.as_bytes())?)
}

/// Whether figures of transfers were measured; those of a described machine come from its drives.
fn origin(recipe: &Recipe, target: &Target) -> Origin {
    match target.described {
        Some(_) => Origin::Recipe,
        None => io_profile::origin(recipe, &io_profile::known(recipe)),
    }
}

/// The error of a plan that does not fit, after it was shown.
fn misfit(report: &Report) -> Result<(), Failure> {
    let Some(shortfall) = &report.shortfall else { return Ok(()) };
    let misfit = planner::Misfit { shortfall: shortfall.clone(), plan: report.plan.clone() };
    Err(Failure::DoesNotFit(PlanError::DoesNotFit(Box::new(misfit)).into()))
}

fn say_json(value: &impl Serialize) -> Result<(), Failure> {
    say(&format!("{}\n", serde_json::to_string_pretty(value).or_run()?))
}

/// Files with `[machine]` are machines for the recipe; others are recipes for the machine.
fn side_by_side(arguments: &PlanArguments, recipe: Option<&Path>, target: &Target) -> Result<(), Failure> {
    let catalogue = hardware::catalogue(&arguments.machine.catalogue)?;
    let recipe = recipe.map(|path| read(path, arguments)).transpose()?;
    let subject_of_recipe = recipe.as_ref().map(subject::subject).transpose()?;
    let mut reports = Vec::new();
    // The recipe itself on the machine that flags describe stands first.
    if let (Some(recipe), Some(subject), true) = (&recipe, &subject_of_recipe, target.described.is_some()) {
        reports.push((target.name.clone(), report(recipe, target, subject)?));
    }
    for path in &arguments.compare {
        let name = name_of(path);
        let report = match (Target::of_file(path, &catalogue)?, &recipe, &subject_of_recipe) {
            (Some(machine), Some(recipe), Some(subject)) => report(recipe, &machine, subject)?,
            (Some(_), _, _) => {
                let problem = anyhow!(
                    "{} describes a machine: name the recipe too: tune plan RECIPE --compare ...",
                    path.display()
                );
                return Err(problem).or_input();
            }
            (None, _, _) => {
                let other = read(path, arguments)?;
                report(&other, target, &subject::subject(&other)?)?
            }
        };
        reports.push((name, report));
    }
    match arguments.json {
        true => say_json(&reports.iter().map(|(_, report)| report).collect::<Vec<&Report>>()),
        false => say(&compare(&reports, terminal::stdout_style())),
    }
}

fn name_of(path: &Path) -> String {
    path.file_stem().map_or_else(|| path.display().to_string(), |stem| stem.to_string_lossy().into_owned())
}

fn list(arguments: &PlanArguments, target: &Target) -> Result<(), Failure> {
    let ssds = target.described.as_ref().map(|described| described.ssds.as_slice()).unwrap_or_default();
    let nvme: Vec<PathBuf> = if ssds.is_empty() { Vec::new() } else { vec![PathBuf::from(DRIVE)] };
    let capacity: u64 = ssds.iter().map(|ssd| ssd.capacity_gb.saturating_mul(1_000_000_000)).sum();
    let nvme_bytes = (!ssds.is_empty()).then_some(capacity);
    let machine = target.machine(&nvme, Vec::new(), DeviceName::Auto)?;
    let models: Vec<_> = inventory::known()
        .iter()
        .filter_map(|entry| entry.inventory().ok())
        .filter_map(|inventory| inventory.spec.map(|spec| (inventory.name, spec)))
        .collect();
    let question = Question { sequence_length: ROW_TOKENS, nvme, nvme_bytes };
    let rows = what_fits(&machine, &models, &question).or_run()?;
    target.notes.iter().for_each(|note| eprintln!("{note}"));
    match arguments.json {
        true => say_json(&rows),
        false => say(&fits_table(&rows, terminal::stdout_style())),
    }
}
