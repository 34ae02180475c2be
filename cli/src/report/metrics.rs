//! `metrics.jsonl` as curves.
//!
//! In:    the file, which may be huge, still growing, cut in its last line, or written by several processes one after the other.
//! Out:   every figure over the steps; where steps were done again after a resume, the later lines win, as the run itself has it.
//! Never: holds the file; a line that cannot be read is counted and told.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::line::{Evaluation, Line, head, line};
use super::series::{Series, Stretches};

/// Longest line that is read: a step's line has a few hundred bytes, and more only for every NVMe path.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// NVMe paths with curves of their own.
const PATHS_MAX: usize = 8;

/// What is drawn over the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Figure {
    Loss,
    LearningRate,
    GradientNorm,
    TokensPerSecond,
    StepMs,
    StallMs,
    PeakRss,
    Device,
    DramTier,
    Read,
    Written,
    WrittenSoFar,
    Celsius,
    Watts,
    Throttled,
}

const FIGURES: [Figure; 15] = [
    Figure::Loss,
    Figure::LearningRate,
    Figure::GradientNorm,
    Figure::TokensPerSecond,
    Figure::StepMs,
    Figure::StallMs,
    Figure::PeakRss,
    Figure::Device,
    Figure::DramTier,
    Figure::Read,
    Figure::Written,
    Figure::WrittenSoFar,
    Figure::Celsius,
    Figure::Watts,
    Figure::Throttled,
];

/// What a file told.
#[derive(Debug)]
pub(super) struct Metrics {
    stretches: Stretches,
    series: BTreeMap<Figure, Series>,
    /// Waiting by cause, milliseconds.
    pub(super) stalls: BTreeMap<String, Series>,
    /// Read and written bytes of each NVMe path.
    pub(super) paths: BTreeMap<String, (Series, Series)>,
    /// Held-out figures by step.
    pub(super) evaluations: BTreeMap<u64, Evaluation>,
    /// Steps of the whole run, as the last line says it.
    pub(super) steps_planned: Option<u64>,
    /// The last step done; `None` before the first.
    pub(super) last_step: Option<u64>,
    /// Steps with a line.
    pub(super) steps_known: u64,
    /// Passes over the data.
    pub(super) epochs: Option<f64>,
    /// Tokens of all steps, and those that the loss counted.
    pub(super) tokens: f64,
    pub(super) trained_tokens: f64,
    /// Time of all steps, seconds.
    pub(super) seconds: f64,
    /// Time of half of the steps at most, milliseconds.
    pub(super) step_ms_median: Option<f64>,
    /// Where a process went back to do steps again: the first of them, and how many lines were replaced.
    pub(super) resumed_at: Vec<(u64, u64)>,
    /// Steps by what the card said when it slowed down.
    pub(super) throttled: BTreeMap<String, u64>,
    /// Lines that cannot be read, and the first of them.
    pub(super) unreadable: u64,
    pub(super) first_unreadable: Option<u64>,
    /// The last line has no end: the run was writing it, or was killed while it did.
    pub(super) cut_at_the_end: bool,
}

impl Metrics {
    /// Reads a file twice: once for which lines win, once for their figures. At most `most` stretches a curve.
    pub(super) fn read(path: &Path, most: usize) -> std::io::Result<Metrics> {
        let timeline = Timeline::of(path)?;
        let stretches = Stretches::of(timeline.first, timeline.last.max(timeline.first), most);
        let mut metrics = Metrics::empty(stretches, &timeline);
        let mut step_ms = Vec::new();
        let mut lines = Lines::open(path, timeline.bytes)?;
        while let Some((number, text)) = lines.read()? {
            let Some(found) = text.and_then(line).filter(|found| !found.checkpoint) else { continue };
            let Some(step) = found.step.filter(|&step| timeline.wins(number, step, found.evaluation.is_some())) else {
                continue;
            };
            match found.evaluation {
                Some(evaluation) => drop(metrics.evaluations.insert(step, evaluation)),
                None => {
                    step_ms.extend(found.step_ms.map(|ms| ms as f32));
                    metrics.add(step, found);
                }
            }
        }
        metrics.step_ms_median = median(step_ms);
        metrics.count_written();
        Ok(metrics)
    }

    /// Of a run that has no file yet.
    pub(super) fn none() -> Metrics {
        let timeline = Timeline {
            bytes: 0,
            first: 0,
            last: 0,
            steps: Vec::new(),
            below: Vec::new(),
            unreadable: 0,
            first_unreadable: None,
            cut_at_the_end: false,
        };
        Metrics::empty(Stretches::of(0, 0, 1), &timeline)
    }

    fn empty(stretches: Stretches, timeline: &Timeline) -> Metrics {
        Metrics {
            stretches,
            series: FIGURES.into_iter().map(|figure| (figure, Series::new(stretches))).collect(),
            stalls: BTreeMap::new(),
            paths: BTreeMap::new(),
            evaluations: BTreeMap::new(),
            steps_planned: None,
            last_step: timeline.steps.last().map(|_| timeline.last),
            steps_known: 0,
            epochs: None,
            tokens: 0.0,
            trained_tokens: 0.0,
            seconds: 0.0,
            step_ms_median: None,
            resumed_at: timeline.resumed(),
            throttled: BTreeMap::new(),
            unreadable: timeline.unreadable,
            first_unreadable: timeline.first_unreadable,
            cut_at_the_end: timeline.cut_at_the_end,
        }
    }

    /// A figure over the steps.
    pub(super) fn of(&self, figure: Figure) -> &Series {
        &self.series[&figure]
    }

    /// Steps that share a point of the curves.
    pub(super) fn stretches(&self) -> Stretches {
        self.stretches
    }

    /// Most memory that the process ever had.
    pub(super) fn peak_rss_bytes(&self) -> Option<u64> {
        self.of(Figure::PeakRss).range().map(|(_, most)| most as u64)
    }

    /// Bytes that the run wrote to NVMe.
    pub(super) fn nvme_written_bytes(&self) -> u64 {
        self.of(Figure::WrittenSoFar).range().map_or(0, |(_, most)| most as u64)
    }

    fn add(&mut self, step: u64, found: Line) {
        self.steps_known += 1;
        self.steps_planned = found.steps.or(self.steps_planned);
        self.epochs = found.epoch.or(self.epochs);
        self.tokens += found.tokens.unwrap_or(0.0);
        self.trained_tokens += found.trained_tokens.unwrap_or(0.0);
        self.seconds += found.step_ms.unwrap_or(0.0) / 1e3;
        let has_card = found.gpu_celsius.is_some() || found.gpu_watts.is_some() || found.throttle.is_some();
        let figures = [
            (Figure::Loss, found.loss),
            (Figure::LearningRate, found.learning_rate),
            (Figure::GradientNorm, found.grad_norm),
            (Figure::TokensPerSecond, found.tokens_per_second),
            (Figure::StepMs, found.step_ms),
            (Figure::StallMs, found.stall_ms),
            (Figure::PeakRss, found.peak_rss_bytes.filter(|&bytes| bytes > 0.0)),
            (Figure::Device, found.device_bytes),
            (Figure::DramTier, found.dram_tier_bytes),
            (Figure::Read, found.nvme_read_bytes),
            (Figure::Written, found.nvme_write_bytes),
            (Figure::WrittenSoFar, found.nvme_written_bytes),
            (Figure::Celsius, found.gpu_celsius),
            (Figure::Watts, found.gpu_watts),
            (Figure::Throttled, has_card.then_some(f64::from(u8::from(found.throttle.is_some())))),
        ];
        for (figure, value) in figures {
            self.series.entry(figure).or_insert_with(|| Series::new(self.stretches)).add(step, value);
        }
        for (cause, ms) in found.stalls {
            self.stalls.entry(cause).or_insert_with(|| Series::new(self.stretches)).add(step, Some(ms));
        }
        for path in found.nvme {
            if self.paths.len() < PATHS_MAX || self.paths.contains_key(&path.path) {
                let fresh = || (Series::new(self.stretches), Series::new(self.stretches));
                let (read, written) = self.paths.entry(path.path).or_insert_with(fresh);
                read.add(step, path.read_bytes);
                written.add(step, path.written_bytes);
            }
        }
        if let Some(reason) = found.throttle {
            *self.throttled.entry(reason).or_default() += 1;
        }
    }

    /// Files of older versions do not say what was written so far: then it is what the steps wrote.
    fn count_written(&mut self) {
        if !self.of(Figure::WrittenSoFar).is_empty() {
            return;
        }
        let mut so_far = Series::new(self.stretches);
        let mut sum = 0.0;
        for stretch in self.of(Figure::Written).known() {
            sum += stretch.sum;
            so_far.add(stretch.least.1.max(stretch.most.1), Some(sum));
        }
        self.series.insert(Figure::WrittenSoFar, so_far);
    }
}

fn median(mut values: Vec<f32>) -> Option<f64> {
    let middle = values.len() / 2;
    (!values.is_empty()).then(|| f64::from(*values.select_nth_unstable_by(middle, f32::total_cmp).1))
}

/// Which lines win.
struct Timeline {
    /// Bytes that the file had: what a running run adds later is not looked at.
    bytes: u64,
    first: u64,
    last: u64,
    /// Every stretch of lines with rising steps: number of its first line, first step, last step.
    steps: Vec<[u64; 3]>,
    /// Of the stretch at the same place: steps below this one were not done again later.
    below: Vec<u64>,
    unreadable: u64,
    first_unreadable: Option<u64>,
    cut_at_the_end: bool,
}

impl Timeline {
    fn of(path: &Path) -> std::io::Result<Timeline> {
        let bytes = std::fs::metadata(path)?.len();
        let mut lines = Lines::open(path, bytes)?;
        let mut steps: Vec<[u64; 3]> = Vec::new();
        let (mut unreadable, mut first_unreadable) = (0, None);
        while let Some((number, text)) = lines.read()? {
            let found = text.and_then(head);
            match (found.as_ref().and_then(|found| found.step), found) {
                (Some(step), Some(found)) if !found.evaluation && !found.checkpoint => match steps.last_mut() {
                    Some([_, _, last]) if *last < step => *last = step,
                    _ => steps.push([number, step, step]),
                },
                (Some(_), Some(_)) => {}
                _ if lines.at_a_cut_end => {}
                _ => {
                    unreadable += 1;
                    first_unreadable = first_unreadable.or(Some(number));
                }
            }
        }
        let mut below = vec![u64::MAX; steps.len()];
        for at in (1..steps.len()).rev() {
            below[at - 1] = below[at].min(steps[at][1]);
        }
        let kept = steps.iter().zip(&below).filter(|(stretch, below)| stretch[1] < **below);
        let first = kept.map(|(stretch, _)| stretch[1]).min().unwrap_or(0);
        let last = steps.last().map_or(0, |stretch| stretch[2]);
        let cut_at_the_end = lines.at_a_cut_end;
        Ok(Timeline { bytes, first, last, steps, below, unreadable, first_unreadable, cut_at_the_end })
    }

    /// A step's line wins if no later line goes back to its step or before it; an evaluation if none goes back before it.
    fn wins(&self, number: u64, step: u64, is_evaluation: bool) -> bool {
        let at = self.steps.partition_point(|stretch| stretch[0] <= number);
        let below = match at {
            0 => self.steps.iter().map(|stretch| stretch[1]).min().unwrap_or(u64::MAX),
            at => self.below[at - 1],
        };
        if is_evaluation { step < below || self.steps.is_empty() } else { at > 0 && step < below }
    }

    /// Where a process went back: the step, and lines of steps that it replaced.
    fn resumed(&self) -> Vec<(u64, u64)> {
        let pair = |pair: &[[u64; 3]]| (pair[1][1], pair[0][2].saturating_sub(pair[1][1]).saturating_add(1));
        self.steps.windows(2).map(pair).collect()
    }
}

/// Number of a line from 1, and its content; none where it is too long.
type Numbered<'a> = (u64, Option<&'a [u8]>);

/// Lines one by one, in bounded memory.
struct Lines {
    file: std::io::Take<BufReader<File>>,
    buffer: Vec<u8>,
    number: u64,
    at_a_cut_end: bool,
}

impl Lines {
    fn open(path: &Path, bytes: u64) -> std::io::Result<Lines> {
        let file = BufReader::with_capacity(1 << 18, File::open(path)?).take(bytes);
        Ok(Lines { file, buffer: Vec::new(), number: 0, at_a_cut_end: false })
    }

    /// The next line that is not blank.
    fn read(&mut self) -> std::io::Result<Option<Numbered<'_>>> {
        loop {
            self.buffer.clear();
            let read = (&mut self.file).take(LINE_BYTES_MAX).read_until(b'\n', &mut self.buffer)?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            let ended = self.buffer.last() == Some(&b'\n');
            let too_long = !ended && read as u64 == LINE_BYTES_MAX;
            if too_long {
                self.skip_the_rest()?;
            }
            self.at_a_cut_end =
                !ended && !too_long && serde_json::from_slice::<serde::de::IgnoredAny>(&self.buffer).is_err();
            if !self.buffer.trim_ascii().is_empty() {
                return Ok(Some((self.number, (!too_long).then_some(self.buffer.as_slice()))));
            }
        }
    }

    fn skip_the_rest(&mut self) -> std::io::Result<()> {
        loop {
            self.buffer.clear();
            let read = (&mut self.file).take(LINE_BYTES_MAX).read_until(b'\n', &mut self.buffer)?;
            if read == 0 || self.buffer.last() == Some(&b'\n') {
                self.buffer.clear();
                self.buffer.push(b'?');
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
