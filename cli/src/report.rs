//! `tune report`: one page for the browser about a run, or about several side by side.
//!
//! In:    run directories.
//! Out:   a self-contained HTML file; a line a run on stdout, or JSON.
//! Never: changes a run; loads anything from anywhere, now or when the page is read.

mod axis;
mod chart;
mod charts;
mod data;
mod draw;
mod line;
mod metrics;
mod page;
mod run_files;
mod series;
mod summary;
mod tables;

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use offload::durable::publish_file;
use planner::units::bytes_text;
use serde_json::json;

use self::charts::Runs;
use self::run_files::{Lock, Run};
use self::summary::Summary;
use crate::args::ReportArguments;
use crate::failure::{Failure, OrFail};
use crate::plan::say;

/// The page in a run directory.
const FILE: &str = "report.html";
/// Runs side by side: as many as there are colours that people tell apart.
const RUNS_MAX: usize = 8;
/// Points of a curve of one run; each may stand for the smallest and the largest of many steps.
const POINTS_MAX: usize = 600;
/// Points of all runs of a curve, so that a page stays below 2 MB.
const POINTS_TOGETHER_MAX: usize = 2000;

/// Reads, writes the page, prints.
pub fn print(arguments: &ReportArguments) -> Result<(), Failure> {
    let folders = &arguments.runs;
    if folders.len() > RUNS_MAX {
        return Err(anyhow!("{} runs: at most {RUNS_MAX} can be told apart side by side; name fewer", folders.len()))
            .or_input();
    }
    let most = POINTS_MAX.min(POINTS_TOGETHER_MAX / folders.len().max(1));
    let read = |folder: &PathBuf| Run::read(folder, most, Lock::Others);
    let runs = folders.iter().map(read).collect::<anyhow::Result<Vec<Run>>>().or_input()?;
    let output = match (&arguments.output, &folders[..]) {
        (Some(output), _) => output.clone(),
        (None, [one]) => one.join(FILE),
        (None, _) => PathBuf::from("comparison.html"),
    };
    check_folder(&output)?;
    let bytes = write(&runs, &output).or_run()?;
    let summaries: Vec<Summary> = runs.iter().map(Summary::of).collect();
    match arguments.json {
        true => {
            let text = serde_json::to_string_pretty(&json!({ "report": output, "bytes": bytes, "runs": summaries }));
            say(&format!("{}\n", text.or_run()?))
        }
        false => say(&text(&summaries, &output, bytes)),
    }
}

/// Leaves the page in a run directory at the end of its run, which this process has locked.
pub fn leave(folder: &Path) -> anyhow::Result<()> {
    let run = Run::read(folder, POINTS_MAX, Lock::Own)?;
    write(&[run], &folder.join(FILE)).map(drop)
}

/// Folders are the user's to make.
fn check_folder(output: &Path) -> Result<(), Failure> {
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match folder.is_dir() && !output.is_dir() {
        true => Ok(()),
        false => {
            Err(anyhow!("cannot write a page to {}: name a file in a folder that exists", output.display())).or_input()
        }
    }
}

/// Publishes the page and gives back its size.
fn write(runs: &[Run], output: &Path) -> anyhow::Result<usize> {
    let labels = labels(runs);
    let page = page::page(Runs { runs, labels: &labels });
    publish_file(output, page.as_bytes()).with_context(|| format!("cannot write {}", output.display()))?;
    Ok(page.len())
}

/// Names that tell runs apart: the recipe's, else the folder's, else the whole path.
fn labels(runs: &[Run]) -> Vec<String> {
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    let last = |run: &Run| run.folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let folders: Vec<String> = runs.iter().map(last).collect();
    let paths: Vec<String> = runs.iter().map(|run| run.folder.display().to_string()).collect();
    let differ = |labels: &Vec<String>| {
        let mut sorted: Vec<&String> = labels.iter().collect();
        sorted.sort_unstable();
        sorted.windows(2).all(|pair| pair[0] != pair[1]) && labels.iter().all(|label| !label.is_empty())
    };
    [names, folders].into_iter().find(differ).unwrap_or(paths)
}

fn text(summaries: &[Summary], output: &Path, bytes: usize) -> String {
    let mut out = String::new();
    for summary in summaries {
        for (name, value) in summary.rows() {
            out.push_str(&format!("{name:<18} {value}\n"));
        }
        out.push('\n');
    }
    out + &format!("{:<18} {} ({})\n", "report", output.display(), bytes_text(bytes as u64))
}
