//! Which charts a page has: every figure that a run recorded, and what the plan said of it.
//!
//! In:    runs, their labels.
//! Out:   charts; with several runs a colour is a run, with one run a colour is a figure.
//! Never: an empty chart: what was not recorded is named instead.

use planner::units::bytes_text;

use super::axis::Unit;
use super::chart::{Chart, Curve, Dots, Level, Mark, Style};
use super::metrics::Figure;
use super::run_files::Run;
use super::series::Series;

/// Colours of further figures of one run; the first is 0.
const SECOND: usize = 4;
const THIRD: usize = 2;
/// Of causes of waiting.
const STALLS: [(&str, &str, usize); 4] = [
    ("weights_ms", "waiting for weights", 1),
    ("activations_ms", "for block inputs", 2),
    ("gradients_ms", "for gradients", 3),
    ("optimizer_ms", "for the optimizer", 4),
];

/// Runs with their labels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Runs<'a> {
    pub(super) runs: &'a [Run],
    pub(super) labels: &'a [String],
}

impl<'a> Runs<'a> {
    /// Number, run and label of each.
    pub(super) fn each(self) -> impl Iterator<Item = (usize, &'a Run, &'a str)> {
        self.runs.iter().zip(self.labels).enumerate().map(|(at, (run, label))| (at, run, label.as_str()))
    }

    fn only(self) -> Option<&'a Run> {
        match self.runs {
            [run] => Some(run),
            _ => None,
        }
    }

    fn name(self, of_one: &str, label: &str) -> String {
        if self.runs.len() == 1 { of_one.to_string() } else { label.to_string() }
    }

    /// A curve a run.
    fn curves(self, figure: Figure, of_one: &str, style: Style) -> Vec<Curve<'a>> {
        let curve = |(run, one, label): (usize, &'a Run, &str)| Curve {
            label: self.name(of_one, label),
            colour: run,
            run,
            style,
            series: one.metrics.of(figure),
        };
        self.each().map(curve).collect()
    }

    /// A level a run, in the run's colour; one in the colour of limits where all runs have the same.
    fn levels(self, name: &str, value: impl Fn(&Run) -> Option<f64>) -> Vec<Level> {
        let values: Vec<Option<f64>> = self.runs.iter().map(value).collect();
        match values.first() {
            Some(Some(shared)) if values.iter().all(|value| *value == Some(*shared)) => {
                vec![Level { label: name.to_string(), value: *shared, colour: None, run: None }]
            }
            _ => {
                let level = |((run, _, label), value): ((usize, &Run, &str), &Option<f64>)| {
                    Some(Level {
                        label: format!("{label}, {name}"),
                        value: (*value)?,
                        colour: Some(run),
                        run: Some(run),
                    })
                };
                self.each().zip(&values).filter_map(level).collect()
            }
        }
    }
}

/// All charts that have something to show.
pub(super) fn charts(runs: Runs<'_>) -> Vec<Chart<'_>> {
    let mut charts = vec![loss(runs), learning_rate(runs), gradient_norm(runs), speed(runs), time(runs)];
    charts.push(if runs.only().is_some() { memory(runs) } else { peaks(runs) });
    charts.extend(waiting(runs));
    charts.extend(traffic(runs));
    charts.extend([written(runs), temperature(runs), power(runs)]);
    charts.retain(|chart| !chart.is_empty());
    let resumed = |run: &Run| -> Vec<Mark> {
        let sessions = run.sessions.iter().map(|session| session.first_step).filter(|step| *step > 1);
        let mut steps: Vec<u64> = run.metrics.resumed_at.iter().map(|(step, _)| *step).chain(sessions).collect();
        steps.sort_unstable();
        steps.dedup();
        steps.into_iter().map(Mark::Resumed).collect()
    };
    if let Some(run) = runs.only() {
        charts.iter_mut().for_each(|chart| chart.marks.extend(resumed(run)));
    }
    charts
}

/// What no run of the page recorded.
pub(super) fn not_recorded(runs: Runs<'_>) -> Vec<&'static str> {
    let says = |figures: &[Figure]| {
        runs.runs.iter().any(|run| figures.iter().any(|figure| !run.metrics.of(*figure).is_empty()))
    };
    let moves = runs
        .runs
        .iter()
        .any(|run| [Figure::Read, Figure::Written].iter().any(|figure| run.metrics.of(*figure).says_something()));
    let mut missing = Vec::new();
    if !moves {
        missing.push("bytes moved to and from NVMe (nothing lives there)");
    }
    if !says(&[Figure::Celsius]) {
        missing.push("temperature");
    }
    if !says(&[Figure::Watts]) {
        missing.push("power");
    }
    if !says(&[Figure::Throttled]) {
        missing.push("throttling");
    }
    missing
}

fn loss(runs: Runs<'_>) -> Chart<'_> {
    let mut chart = Chart::new("loss", "Loss", "mean of the trained tokens, natural logarithm", Unit::Plain);
    chart.may_be_logarithmic = true;
    chart.curves = runs.curves(Figure::Loss, "training", Style::Smoothed);
    for (run, one, label) in runs.each() {
        let known = one.metrics.evaluations.iter();
        let points: Vec<(u64, f64)> = known.filter_map(|(step, evaluation)| Some((*step, evaluation.loss?))).collect();
        if !points.is_empty() {
            let (label, colour) = match runs.only() {
                Some(_) => ("held-out".to_string(), SECOND),
                None => (format!("{label}, held-out"), run),
            };
            chart.dots.push(Dots { label, colour, run, points });
        }
    }
    if let Some(run) = runs.only() {
        chart.marks = run.checkpoints.iter().map(|kept| Mark::Checkpoint(kept.step)).collect();
        if !chart.marks.is_empty() {
            chart.note = "Triangles on the axis: checkpoints that are kept.".to_string();
        }
    }
    chart
}

fn learning_rate(runs: Runs<'_>) -> Chart<'_> {
    let mut chart = Chart::new("learning-rate", "Learning rate", "of the update", Unit::Plain);
    chart.curves = runs.curves(Figure::LearningRate, "learning rate", Style::Exact);
    chart
}

fn gradient_norm(runs: Runs<'_>) -> Chart<'_> {
    let mut chart =
        Chart::new("gradient-norm", "Gradient norm", "over all trained weights, before clipping", Unit::Plain);
    chart.may_be_logarithmic = true;
    chart.curves = runs.curves(Figure::GradientNorm, "norm", Style::Smoothed);
    chart.levels = runs.levels("clipped above", |run| run.plan.as_ref()?.max_grad_norm);
    chart
}

fn speed(runs: Runs<'_>) -> Chart<'_> {
    let mut chart = Chart::new("speed", "Speed", "tokens a second, padding included", Unit::TokensPerSecond);
    chart.curves = runs.curves(Figure::TokensPerSecond, "tokens/s", Style::Smoothed);
    chart.levels = runs.levels("planned", |run| Some(run.plan.as_ref()?.planned.tokens_per_second));
    chart
}

fn time(runs: Runs<'_>) -> Chart<'_> {
    let mut chart =
        Chart::new("step-time", "Step time", "time of an update, and what of it was waiting", Unit::Milliseconds);
    match runs.only() {
        Some(run) => chart.curves.extend(stalls(run)),
        None => chart.measure = "time of an update",
    }
    chart.curves.extend(runs.curves(Figure::StepMs, "step", Style::Smoothed));
    chart.levels = runs.levels("planned", |run| Some(run.plan.as_ref()?.planned.step_seconds * 1e3));
    let waits = chart.curves.iter().any(|curve| curve.style == Style::Stacked);
    chart.note = match (runs.only(), waits) {
        (Some(run), false) if !run.metrics.of(Figure::StallMs).is_empty() => "No step waited for bytes.".to_string(),
        _ => String::new(),
    };
    chart
}

/// Areas of the causes that made a step wait; causes that this version does not know have their own name.
fn stalls(run: &Run) -> Vec<Curve<'_>> {
    let curve = |(cause, series): (&String, &'_ Series)| {
        let known = STALLS.iter().find(|(key, ..)| key == cause);
        let (label, colour) = known
            .map_or((format!("for {}", cause.trim_end_matches("_ms")), 8), |(_, label, colour)| {
                (label.to_string(), *colour)
            });
        (label, colour, series.says_something())
    };
    let described = run.metrics.stalls.iter().map(|(cause, series)| (curve((cause, series)), series));
    let waited = described.filter(|((_, _, says_something), _)| *says_something);
    let mut curves: Vec<Curve<'_>> = waited
        .map(|((label, colour, _), series)| Curve { label, colour, run: 0, style: Style::Stacked, series })
        .collect();
    curves.sort_by_key(|curve| curve.colour);
    curves
}

/// Several runs: waiting is one curve a run.
fn waiting(runs: Runs<'_>) -> Option<Chart<'_>> {
    let waits = runs.runs.iter().any(|run| run.metrics.of(Figure::StallMs).says_something());
    if runs.only().is_some() || !waits {
        return None;
    }
    let mut chart =
        Chart::new("waiting", "Waiting for bytes", "time of an update in which compute waited", Unit::Milliseconds);
    chart.curves = runs.curves(Figure::StallMs, "waiting", Style::Smoothed);
    Some(chart)
}

fn memory(runs: Runs<'_>) -> Chart<'_> {
    let mut chart = Chart::new("memory", "Memory", "by tier, against the plan", Unit::Bytes);
    chart.curves = runs.curves(Figure::PeakRss, "process, peak so far", Style::Exact);
    let Some(run) = runs.only() else { return chart };
    for (figure, label, colour) in [(Figure::Device, "device tier", SECOND), (Figure::DramTier, "dram tier", THIRD)] {
        let series = run.metrics.of(figure);
        if series.says_something() {
            chart.curves.push(Curve { label: label.to_string(), colour, run: 0, style: Style::Exact, series });
        }
    }
    if let Some(plan) = &run.plan {
        chart.levels = runs.levels("planned peak", |_| Some(plan.planned.peak_bytes as f64));
        if plan.dram_bytes > 0 && run.metrics.of(Figure::DramTier).says_something() {
            let value = plan.dram_bytes as f64;
            chart.levels.push(Level { label: "planned dram".to_string(), value, colour: Some(THIRD), run: None });
        }
        chart.note = format!("The plan may use {}.", plan.device_budget);
    }
    chart
}

fn peaks(runs: Runs<'_>) -> Chart<'_> {
    let mut chart = memory(runs);
    chart.measure = "most that the process held so far, against the plan";
    chart.levels = runs.levels("planned peak", |run| Some(run.plan.as_ref()?.planned.peak_bytes as f64));
    chart
}

/// Bytes of each step: of one run each path, of several runs their sums.
fn traffic(runs: Runs<'_>) -> Vec<Chart<'_>> {
    let moved =
        |run: &Run| [Figure::Read, Figure::Written].iter().any(|figure| run.metrics.of(*figure).says_something());
    if !runs.runs.iter().any(moved) {
        return Vec::new();
    }
    let mut read = Chart::new("read", "Read from NVMe", "bytes of a step", Unit::Bytes);
    let mut write = Chart::new("write", "Written to NVMe", "bytes of a step", Unit::Bytes);
    match runs.only() {
        Some(run) if !run.metrics.paths.is_empty() => {
            for (colour, (path, (from, to))) in run.metrics.paths.iter().enumerate() {
                for (chart, series) in [(&mut read, from), (&mut write, to)] {
                    chart.curves.push(Curve { label: path.clone(), colour, run: 0, style: Style::Exact, series });
                }
            }
        }
        _ => {
            read.curves = runs.curves(Figure::Read, "read", Style::Exact);
            write.curves = runs.curves(Figure::Written, "written", Style::Exact);
        }
    }
    vec![read, write]
}

fn written(runs: Runs<'_>) -> Chart<'_> {
    let mut chart =
        Chart::new("written", "Written so far", "bytes that the run wrote to NVMe, against its budget", Unit::Bytes);
    if !runs.runs.iter().any(|run| run.metrics.of(Figure::WrittenSoFar).says_something()) {
        return chart;
    }
    chart.curves = runs.curves(Figure::WrittenSoFar, "written", Style::Exact);
    chart.levels = runs.levels("write budget", |run| run.plan.as_ref()?.write_budget_bytes.map(|bytes| bytes as f64));
    chart.note = match runs.only().and_then(|run| run.plan.as_ref()) {
        Some(plan) if plan.write_budget_bytes.is_none() => {
            format!(
                "No write budget is set. The plan says {} before the first step and {} a step.",
                bytes_text(plan.placed_bytes),
                bytes_text(plan.written_per_step)
            )
        }
        _ => String::new(),
    };
    chart
}

fn temperature(runs: Runs<'_>) -> Chart<'_> {
    let mut chart = Chart::new("temperature", "Temperature", "of the card", Unit::Celsius);
    chart.curves = runs.curves(Figure::Celsius, "card", Style::Exact);
    if let Some(run) = runs.only() {
        let series = run.metrics.of(Figure::Throttled);
        let slowed = series.known().filter(|stretch| stretch.most.0 > 0.0);
        chart.marks =
            joined(slowed.map(|stretch| (stretch.least.1.min(stretch.most.1), stretch.last.1)), series.stretches.width);
        let reasons: Vec<String> = run.metrics.throttled.iter().map(|(why, steps)| format!("{why}: {steps}")).collect();
        chart.note = match (series.is_empty(), reasons.is_empty()) {
            (true, _) => String::new(),
            (false, true) => "The card never slowed down.".to_string(),
            (false, false) => format!("Shaded: steps in which the card slowed down ({}).", reasons.join(", ")),
        };
    }
    chart
}

/// Neighbours become one stretch.
fn joined(spans: impl Iterator<Item = (u64, u64)>, width: u64) -> Vec<Mark> {
    let mut marks: Vec<(u64, u64)> = Vec::new();
    for (from, to) in spans {
        match marks.last_mut() {
            Some(last) if from <= last.1.saturating_add(width) => last.1 = to,
            _ => marks.push((from, to)),
        }
    }
    marks.into_iter().map(|(from, to)| Mark::Throttled(from, to)).collect()
}

fn power(runs: Runs<'_>) -> Chart<'_> {
    let mut chart = Chart::new("power", "Power", "that the card draws", Unit::Watts);
    chart.curves = runs.curves(Figure::Watts, "card", Style::Exact);
    chart
}
