//! Progress on stderr: a bar on a terminal, plain lines elsewhere.
//!
//! In:    what happened, as plain numbers.
//! Out:   lines and bars on stderr.
//! Never: stdout; results go there.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use checkpoints::source::FetchEvent;
use indicatif::{ProgressBar, ProgressStyle};
use planner::units::bytes_text;

/// Without a terminal, a line at least every so many steps ...
const PLAIN_STEPS: u64 = 10;
/// ... or after this time.
const PLAIN_PAUSE: Duration = Duration::from_secs(10);

/// Shows one run.
pub struct Progress {
    terminal: bool,
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
    steps: u64,
}

/// What a step line shows.
pub struct StepLine {
    /// Number of the step, from 1.
    pub step: u64,
    /// Passes over the data so far.
    pub epoch: f64,
    /// Mean loss of the step's trained tokens.
    pub loss: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// Speed of the step.
    pub tokens_per_second: f64,
    /// Time of the step.
    pub step_ms: f64,
    /// How the card fares; empty where none tells.
    pub card: String,
}

impl Progress {
    /// Looks at stderr once.
    pub fn new() -> Progress {
        Progress { terminal: std::io::stderr().is_terminal(), bar: None, last_line: None, steps: 0 }
    }

    /// One line that stays.
    pub fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) if self.terminal => bar.println(text),
            _ => eprintln!("{text}"),
        }
    }

    /// Training begins at `first_step` of `steps`.
    pub fn started(&mut self, steps: u64, first_step: u64) {
        self.steps = steps;
        self.last_line = None;
        if self.terminal {
            let template = "{bar:30} step {pos}/{len} {msg} {eta} left";
            self.open_bar(steps, template);
            if let Some(bar) = &self.bar {
                // The steps of an earlier process say nothing about the speed of this one.
                bar.set_position(first_step.saturating_sub(1));
                bar.reset_eta();
            }
        }
    }

    /// A step is done.
    pub fn step(&mut self, line: &StepLine) {
        let mut text =
            format!("loss {:.4} rate {:.2e} {:.0} tokens/s", line.loss, line.learning_rate, line.tokens_per_second);
        if !line.card.is_empty() {
            text = format!("{text} {}", line.card);
        }
        if let Some(bar) = &self.bar {
            bar.set_position(line.step);
            bar.set_message(text);
            return;
        }
        let due = line.step == 1 || line.step == self.steps || line.step.is_multiple_of(PLAIN_STEPS);
        if due || self.pause_is_over() {
            let left =
                Duration::from_secs_f64(self.steps.saturating_sub(line.step) as f64 * line.step_ms.max(0.0) / 1e3);
            eprintln!("step {}/{} epoch {:.2} {text} {} left", line.step, self.steps, line.epoch, clock(left));
            self.last_line = Some(Instant::now());
        }
    }

    /// Rows are being read.
    pub fn preparing(&mut self, at: datasets::Progress) {
        let datasets::Progress::Rows { rows, bytes, of } = at else { return };
        if self.terminal {
            if self.bar.as_ref().is_none_or(|bar| bar.length() != Some(of)) {
                self.open_bar(of, "{bar:30} {bytes}/{total_bytes} {msg} {eta} left");
            }
            if let Some(bar) = &self.bar {
                bar.set_position(bytes);
                bar.set_message(format!("{rows} rows"));
            }
        } else if self.pause_is_over() {
            eprintln!("{rows} rows, {} of {} read", bytes_text(bytes), bytes_text(of));
            self.last_line = Some(Instant::now());
        }
    }

    /// Part of an evaluation is done.
    pub fn evaluating(&mut self, what: &str, done: usize, of: usize) {
        if self.terminal {
            if self.bar.as_ref().is_none_or(|bar| bar.length() != Some(of as u64)) {
                self.open_bar(of as u64, "{bar:30} {msg} {pos}/{len} {eta} left");
            }
            if let Some(bar) = &self.bar {
                bar.set_message(what.to_string());
                bar.set_position(done as u64);
            }
        } else if self.pause_is_over() {
            eprintln!("{what} {done}/{of}");
            self.last_line = Some(Instant::now());
        }
    }

    /// The bar goes; what it said last is not needed any more.
    pub fn finished(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn pause_is_over(&mut self) -> bool {
        self.last_line.get_or_insert_with(Instant::now).elapsed() >= PLAIN_PAUSE
    }

    fn open_bar(&mut self, length: u64, template: &str) {
        self.finished();
        let style = ProgressStyle::with_template(template).expect("the template is a constant of this file");
        self.bar = Some(ProgressBar::new(length).with_style(style));
    }
}

/// Shows a download.
#[derive(Default)]
pub struct FetchProgress {
    bar: Option<ProgressBar>,
    /// Told only if another place is tried: the last failure is the program's error.
    failure: Option<String>,
}

impl FetchProgress {
    /// One event of a fetch.
    pub fn event(&mut self, event: FetchEvent) {
        match event {
            FetchEvent::Trying(place) => {
                if let Some(failure) = self.failure.take() {
                    eprintln!("{failure}; trying {place}");
                }
            }
            FetchEvent::Running(command) => eprintln!("running {command}"),
            FetchEvent::FileStarted { name, bytes } => self.file(&name, bytes),
            FetchEvent::Received(bytes) => self.bar.iter().for_each(|bar| bar.inc(bytes)),
            FetchEvent::FileDone => self.close(),
            FetchEvent::Failed(text) => {
                self.close();
                self.failure = Some(text);
            }
        }
    }

    fn file(&mut self, name: &str, bytes: u64) {
        if !std::io::stderr().is_terminal() {
            eprintln!("fetching {name}, {}", bytes_text(bytes));
            return;
        }
        let template = "{bar:30} {msg} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
        let style = ProgressStyle::with_template(template).expect("the template is a constant of this file");
        self.bar = Some(ProgressBar::new(bytes).with_style(style).with_message(name.to_string()));
    }

    fn close(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// `1:02:03` or `2:03`.
pub fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}
