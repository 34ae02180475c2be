//! One line a step: `metrics.jsonl`, and a TensorBoard event file beside it.
//!
//! In:    step metrics, evaluation reports.
//! Out:   appended files in the run directory.
//! Never: keeps lines of steps that a resumed run does again; ends a run because the disk is full for a while.

use std::fs::{File, OpenOptions};
use std::path::Path;

use crate::board::Board;
use crate::error::TrainError;
use crate::events::{EvaluationReport, StepMetrics};
use crate::patient::PatientFile;

/// Name of the file in the run directory.
pub(crate) const FILE: &str = "metrics.jsonl";

/// Writers of one run.
pub(crate) struct Metrics {
    lines: PatientFile,
    board: Option<Board>,
}

impl Metrics {
    /// Opens the files; lines beyond `steps_done` (of a run that went on after its checkpoint) are cut off.
    pub(crate) fn open(run: &Path, steps_done: u64, tensorboard: bool) -> Result<Metrics, TrainError> {
        let path = run.join(FILE);
        let failed = |source| TrainError::Metrics { path: path.clone(), source };
        let kept: String = match std::fs::read_to_string(&path) {
            Ok(text) => text.split_inclusive('\n').filter(|line| step_of(line) <= steps_done).collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(failed(error)),
        };
        offload::durable::publish_file(&path, kept.as_bytes())
            .map_err(|error| failed(std::io::Error::other(error.to_string())))?;
        let file = OpenOptions::new().append(true).open(&path).map_err(failed)?;
        let board = match tensorboard {
            true => Some(Board::create(run).map_err(failed)?),
            false => None,
        };
        Ok(Metrics { lines: PatientFile::new(path, file, kept.len() as u64), board })
    }

    /// One step.
    pub(crate) fn step(&mut self, metrics: &StepMetrics) -> Result<(), TrainError> {
        self.line(&serde_json::to_string(metrics).expect("plain numbers serialise"))?;
        let scalars = [
            ("train/loss", metrics.loss),
            ("train/learning_rate", metrics.learning_rate),
            ("train/grad_norm", metrics.grad_norm),
            ("speed/tokens_per_second", metrics.tokens_per_second),
            ("memory/peak_rss_bytes", metrics.peak_rss_bytes as f64),
        ];
        self.scalars(metrics.step, &scalars)
    }

    /// One evaluation, as a line with the step and the report.
    pub(crate) fn evaluation(&mut self, step: u64, report: &EvaluationReport) -> Result<(), TrainError> {
        self.line(&serde_json::json!({ "step": step, "evaluation": report }).to_string())?;
        let mut scalars = vec![("held_out/loss", report.loss)];
        scalars.extend(report.exact.map(|(right, of)| ("held_out/exact", right as f64 / of.max(1) as f64)));
        self.scalars(step, &scalars)
    }

    /// What became of a save, as a line with the step.
    pub(crate) fn checkpoint(&mut self, step: u64, what: &serde_json::Value) -> Result<(), TrainError> {
        self.line(&serde_json::json!({ "step": step, "checkpoint": what }).to_string())
    }

    /// The file, for whoever syncs it, and its size.
    pub(crate) fn file(&self) -> Result<(File, u64), TrainError> {
        let file = self.lines.file().try_clone().map_err(|source| self.failed(source))?;
        Ok((file, self.lines.written()))
    }

    /// What people should know, once.
    pub(crate) fn take_note(&mut self) -> Option<String> {
        self.lines.take_note().or_else(|| self.board.as_mut()?.take_note())
    }

    fn scalars(&mut self, step: u64, scalars: &[(&str, f64)]) -> Result<(), TrainError> {
        let written = self.board.as_mut().map_or(Ok(()), |board| board.scalars(step, scalars));
        written.map_err(|source| self.failed(source))
    }

    fn line(&mut self, text: &str) -> Result<(), TrainError> {
        self.lines.append(format!("{text}\n").as_bytes()).map_err(|source| self.failed(source))
    }

    /// Everything reaches the files.
    pub(crate) fn finish(mut self) -> Result<(), TrainError> {
        let board = self.board.as_mut().map_or(Ok(()), Board::finish);
        board.and_then(|()| self.lines.finish()).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: std::io::Error) -> TrainError {
        TrainError::Metrics { path: self.lines.path().to_path_buf(), source }
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
