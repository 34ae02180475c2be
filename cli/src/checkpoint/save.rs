//! `tune checkpoints save`: asks a run that is under way for a checkpoint.
//!
//! In:    the lock of the run directory, which names its process.
//! Out:   the new checkpoint's path on stdout, once it is complete.
//! Never: signals a process that does not hold the lock; takes a periodic checkpoint for the one it asked for.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use checkpoints::lock::held_by;
use serde_json::Value;

use super::SaveArguments;
use crate::failure::{Failure, OrFail};

/// Between two looks at what the run says.
const PAUSE: Duration = Duration::from_millis(50);
/// What a save is for that answers the request: the one asked for, or one that ends the process.
const ANSWERS: [&str; 4] = ["requested", "interrupted", "write_budget", "end"];

/// Asks, waits, prints.
pub(super) fn run(arguments: &SaveArguments) -> Result<(), Failure> {
    let folder = arguments.run.folder()?;
    let Some(holder) = held_by(&folder) else {
        let hint = "`tune checkpoints list` shows what it left";
        return Err(anyhow!("no process trains in {}: {hint}", folder.display())).or_input();
    };
    let process: u32 = holder
        .parse()
        .with_context(|| format!("{}: its lock names the process {holder:?}", folder.display()))
        .or_run()?;
    let mut lines = Lines::from_end(&folder).or_run()?;
    offload::process::ask_to_save(process)
        .with_context(|| format!("cannot signal process {process}, which holds {}", folder.display()))
        .or_run()?;
    eprintln!("asked process {process}; it saves after the step that is under way");
    loop {
        // In this order: what a process wrote before it ended is read after it was seen to have ended.
        let holds = held_by(&folder).is_some();
        if let Some(answer) = lines.added().or_run()?.iter().find_map(answer) {
            return answer;
        }
        if !holds {
            return Err(anyhow!("process {process} ended without the checkpoint: {}", folder.display())).or_run();
        }
        std::thread::sleep(PAUSE);
    }
}

/// What a line of `metrics.jsonl` says about the save that was asked for.
fn answer(line: &Value) -> Option<Result<(), Failure>> {
    let save = line.get("checkpoint")?;
    if !ANSWERS.contains(&save["reason"].as_str()?) {
        return None;
    }
    Some(match (save["path"].as_str(), save["failed"].as_str()) {
        (Some(path), _) => {
            println!("{path}");
            Ok(())
        }
        (None, problem) => {
            Err(anyhow!("step {}: no checkpoint: {}", line["step"], problem.unwrap_or("no reason given"))).or_run()
        }
    })
}

/// Lines that are added to `metrics.jsonl` from now on.
struct Lines {
    path: PathBuf,
    read: u64,
}

impl Lines {
    fn from_end(folder: &Path) -> anyhow::Result<Lines> {
        let path = folder.join("metrics.jsonl");
        // A run that has not made its first step has no file yet.
        let read = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
        Ok(Lines { path, read })
    }

    /// Whole new lines; a line that is not finished is read the next time.
    fn added(&mut self) -> anyhow::Result<Vec<Value>> {
        let Ok(mut file) = std::fs::File::open(&self.path) else { return Ok(Vec::new()) };
        file.seek(SeekFrom::Start(self.read))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).with_context(|| format!("cannot read {}", self.path.display()))?;
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        self.read += whole as u64;
        Ok(bytes[..whole].split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }
}
