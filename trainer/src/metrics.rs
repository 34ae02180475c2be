//! One line a step: `metrics.jsonl`, and a TensorBoard event file beside it.
//!
//! In:    step metrics, evaluation reports.
//! Out:   appended files in the run directory.
//! Never: keeps lines of steps that a resumed run does again.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use tensorboard_rs::summary_writer::SummaryWriter;

use crate::error::TrainError;
use crate::events::{EvaluationReport, StepMetrics};

/// Writers of one run.
pub(crate) struct Metrics {
    path: PathBuf,
    file: File,
    board: Option<SummaryWriter>,
}

impl Metrics {
    /// Opens the files; lines beyond `steps_done` (of a run that went on after its checkpoint) are cut off.
    pub(crate) fn open(run: &Path, steps_done: u64, tensorboard: bool) -> Result<Metrics, TrainError> {
        let path = run.join("metrics.jsonl");
        let failed = |source| TrainError::Metrics { path: path.clone(), source };
        let kept: String = match std::fs::read_to_string(&path) {
            Ok(text) => text.split_inclusive('\n').filter(|line| step_of(line) <= steps_done).collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(failed(error)),
        };
        offload::durable::publish_file(&path, kept.as_bytes())
            .map_err(|error| failed(std::io::Error::other(error.to_string())))?;
        let file = OpenOptions::new().append(true).open(&path).map_err(failed)?;
        let board = tensorboard.then(|| SummaryWriter::new(run));
        Ok(Metrics { path, file, board })
    }

    /// One step.
    pub(crate) fn step(&mut self, metrics: &StepMetrics) -> Result<(), TrainError> {
        self.line(&serde_json::to_string(metrics).expect("plain numbers serialise"))?;
        if let Some(board) = &mut self.board {
            let scalars = [
                ("train/loss", metrics.loss),
                ("train/learning_rate", metrics.learning_rate),
                ("train/grad_norm", metrics.grad_norm),
                ("speed/tokens_per_second", metrics.tokens_per_second),
                ("memory/peak_rss_bytes", metrics.peak_rss_bytes as f64),
            ];
            for (tag, value) in scalars {
                board.add_scalar(tag, value as f32, metrics.step as usize);
            }
        }
        Ok(())
    }

    /// One evaluation, as a line with the step and the report.
    pub(crate) fn evaluation(&mut self, step: u64, report: &EvaluationReport) -> Result<(), TrainError> {
        self.line(&serde_json::json!({ "step": step, "evaluation": report }).to_string())?;
        if let Some(board) = &mut self.board {
            board.add_scalar("held_out/loss", report.loss as f32, step as usize);
            if let Some((right, of)) = report.exact {
                board.add_scalar("held_out/exact", right as f32 / of.max(1) as f32, step as usize);
            }
        }
        Ok(())
    }

    fn line(&mut self, text: &str) -> Result<(), TrainError> {
        writeln!(self.file, "{text}").map_err(|source| TrainError::Metrics { path: self.path.clone(), source })
    }

    /// Everything reaches the files.
    pub(crate) fn finish(mut self) -> Result<(), TrainError> {
        if let Some(board) = &mut self.board {
            board.flush();
        }
        self.file.sync_all().map_err(|source| TrainError::Metrics { path: self.path.clone(), source })
    }
}

/// The step of a line; of one that cannot be read, a step that no other comes after.
pub(crate) fn step_of(line: &str) -> u64 {
    serde_json::from_str::<serde_json::Value>(line).ok().and_then(|value| value["step"].as_u64()).unwrap_or(u64::MAX)
}

/// Most memory this process ever held, bytes; 0 where the system does not tell.
pub fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).map_or(0, |kilobytes| kilobytes * 1024)
}
