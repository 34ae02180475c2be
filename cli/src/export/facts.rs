//! What a run's files say about it: figures, data, licence.
//!
//! In:    `metrics.jsonl` and `data.json` of a run directory; the base model's files.
//! Out:   facts for a model card; what is not known is absent.
//! Never: guesses; a fact of a later step than the exported one.

use std::path::Path;

use checkpoints::weights::Weights;
use serde_json::Value;

/// Largest file of metrics that is read; a line is some 600 bytes.
const METRICS_BYTES_MAX: u64 = 1 << 30;
/// Largest card of a base model that is looked at.
const CARD_BYTES_MAX: u64 = 4 << 20;

/// Figures of a run up to a step.
#[derive(Debug, Default)]
pub struct Figures {
    /// Updates done.
    pub steps: u64,
    /// Tokens that went through the model.
    pub tokens: u64,
    /// Tokens that the loss counted.
    pub trained_tokens: u64,
    /// Loss of the first and of the last step.
    pub training_loss: Option<(f64, f64)>,
    /// Held-out figures before the first update.
    pub before: Option<HeldOut>,
    /// The newest held-out figures, and the step they are of.
    pub after: Option<(u64, HeldOut)>,
}

/// Held-out figures.
#[derive(Debug, Clone, Copy)]
pub struct HeldOut {
    /// Mean loss.
    pub loss: f64,
    /// Rows.
    pub rows: u64,
    /// Exact answers, and questions.
    pub exact: Option<(u64, u64)>,
}

impl Figures {
    /// Reads `metrics.jsonl`; lines after `last_step` are of another state.
    pub fn read(run: &Path, last_step: Option<u64>) -> Figures {
        let path = run.join("metrics.jsonl");
        let fits = std::fs::metadata(&path).is_ok_and(|found| found.len() <= METRICS_BYTES_MAX);
        let text = if fits { std::fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
        let mut figures = Figures::default();
        for line in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let Some(step) = line["step"].as_u64().filter(|&step| last_step.is_none_or(|last| step <= last)) else {
                continue;
            };
            match held_out(&line["evaluation"]) {
                Some(held_out) if step == 0 => figures.before = Some(held_out),
                Some(held_out) => figures.after = Some((step, held_out)),
                None => figures.step(step, &line),
            }
        }
        figures
    }

    fn step(&mut self, step: u64, line: &Value) {
        let Some(loss) = line["loss"].as_f64() else { return };
        self.steps = step;
        self.tokens += line["tokens"].as_u64().unwrap_or(0);
        self.trained_tokens += line["trained_tokens"].as_u64().unwrap_or(0);
        let first = self.training_loss.map_or(loss, |(first, _)| first);
        self.training_loss = Some((first, loss));
    }
}

fn held_out(evaluation: &Value) -> Option<HeldOut> {
    let exact = evaluation["exact"].as_array().and_then(|pair| Some((pair.first()?.as_u64()?, pair.get(1)?.as_u64()?)));
    Some(HeldOut { loss: evaluation["loss"].as_f64()?, rows: evaluation["rows"].as_u64().unwrap_or(0), exact })
}

/// What was prepared for the run, if it was noted.
pub fn data(run: &Path) -> Option<datasets::Report> {
    serde_json::from_str(&std::fs::read_to_string(run.join("data.json")).ok()?).ok()
}

/// The licence that the base's own files state: the front matter of its card, or GGUF's `general.license`.
pub fn licence(base: &Weights) -> Option<String> {
    if let Some(file) = base.gguf() {
        return file.metadata().text("general.license").ok().flatten().map(str::to_string);
    }
    let path = base.folder()?.join("README.md");
    let fits = std::fs::metadata(&path).is_ok_and(|found| found.len() <= CARD_BYTES_MAX);
    let text = if fits { std::fs::read_to_string(&path).ok()? } else { return None };
    let front = text.strip_prefix("---")?.split("\n---").next()?;
    let value = front.lines().find_map(|line| line.strip_prefix("license:"))?.trim().trim_matches(['"', '\'']);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
    (!value.is_empty() && value.chars().all(is_plain)).then(|| value.to_string())
}
