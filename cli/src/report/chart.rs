//! One chart: what is on it, and its scales.
//!
//! In:    curves, levels, dots and marks.
//! Out:   a [`Frame`] that says where every step and value stands.
//! Never: draws; hides a value: scales cover everything that is on the chart.

use super::axis::{Scale, Unit};
use super::series::Series;

/// How a curve is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// A faint curve of every figure behind a strong one of their running mean.
    Smoothed,
    /// As it is.
    Exact,
    /// An area on top of the stacked ones before it, from means of stretches.
    Stacked,
}

/// A curve.
#[derive(Debug)]
pub(super) struct Curve<'a> {
    pub(super) label: String,
    /// Number in the palette.
    pub(super) colour: usize,
    /// Which run, from 0.
    pub(super) run: usize,
    pub(super) style: Style,
    pub(super) series: &'a Series,
}

/// A level that the plan states, or that must not be passed.
#[derive(Debug)]
pub(super) struct Level {
    pub(super) label: String,
    pub(super) value: f64,
    /// Number in the palette; `None` is the colour of limits.
    pub(super) colour: Option<usize>,
    /// Whose it is; `None` where it is everybody's.
    pub(super) run: Option<usize>,
}

/// Figures at some steps only.
#[derive(Debug)]
pub(super) struct Dots {
    pub(super) label: String,
    pub(super) colour: usize,
    pub(super) run: usize,
    pub(super) points: Vec<(u64, f64)>,
}

/// What happened at a step.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Mark {
    /// A process went on here.
    Resumed(u64),
    /// A checkpoint is kept of this step.
    Checkpoint(u64),
    /// The card slowed down in these steps.
    Throttled(u64, u64),
}

/// A chart.
#[derive(Debug)]
pub(super) struct Chart<'a> {
    /// Unique in the page.
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// What the height is, in words.
    pub(super) measure: &'static str,
    pub(super) unit: Unit,
    pub(super) curves: Vec<Curve<'a>>,
    pub(super) levels: Vec<Level>,
    pub(super) dots: Vec<Dots>,
    pub(super) marks: Vec<Mark>,
    pub(super) note: String,
    /// It can be drawn with equal ratios at equal distances.
    pub(super) may_be_logarithmic: bool,
}

/// A level that is more times higher than everything else is named beside the chart, not drawn: it would flatten the curves.
const LEVEL_FACTOR_MAX: f64 = 4.0;

impl<'a> Chart<'a> {
    /// Nothing on it yet.
    pub(super) fn new(id: &'static str, title: &'static str, measure: &'static str, unit: Unit) -> Chart<'a> {
        Chart {
            id,
            title,
            measure,
            unit,
            curves: Vec::new(),
            levels: Vec::new(),
            dots: Vec::new(),
            marks: Vec::new(),
            note: String::new(),
            may_be_logarithmic: false,
        }
    }

    /// Whether there is anything to see.
    pub(super) fn is_empty(&self) -> bool {
        self.curves.iter().all(|curve| curve.series.is_empty()) && self.dots.iter().all(|dots| dots.points.is_empty())
    }

    /// Smallest and largest value of curves and dots.
    fn range(&self) -> (f64, f64) {
        let curves = self.curves.iter().filter(|curve| curve.style != Style::Stacked);
        let curves = curves.filter_map(|curve| curve.series.range());
        let dots = self.dots.iter().flat_map(|dots| dots.points.iter().map(|point| (point.1, point.1)));
        let stacked = self.stacked_most().map(|most| (0.0, most));
        let all = curves.chain(dots).chain(stacked);
        all.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or((0.0, 1.0))
    }

    fn stacked_most(&self) -> Option<f64> {
        self.stack().last().map(|(_, tops)| tops.iter().map(|top| top.1).fold(0.0, f64::max))
    }

    /// Upper edges of the stacked curves, by their place in `curves`, lowest first.
    pub(super) fn stack(&self) -> Vec<(usize, Vec<(f64, f64)>)> {
        let mut edges: Vec<(usize, Vec<(f64, f64)>)> = Vec::new();
        for (at, curve) in self.curves.iter().enumerate().filter(|(_, curve)| curve.style == Style::Stacked) {
            let below = edges.last().map(|(_, edge)| edge.clone());
            let stretches = curve.series.values.iter().enumerate();
            let heights = stretches.map(|(at, stretch)| {
                let height = stretch.as_ref().map_or(0.0, |stretch| stretch.mean());
                (curve.series.stretches.middle(at), height + below.as_ref().map_or(0.0, |below| below[at].1))
            });
            edges.push((at, heights.collect()));
        }
        edges
    }

    /// Whether a level can be drawn without flattening what is measured.
    pub(super) fn shows(&self, level: &Level) -> bool {
        level.value <= LEVEL_FACTOR_MAX * self.range().1
    }

    /// Scale with equal distances for equal differences.
    pub(super) fn linear(&self) -> Scale {
        let (low, high) = self.range();
        let levels = self.levels.iter().filter(|level| self.shows(level)).map(|level| level.value);
        let (low, high) = levels.fold((low, high), |(low, high), level| (low.min(level), high.max(level * 1.04)));
        Scale::linear(low, high, self.unit)
    }

    /// Scale with equal distances for equal ratios, if that is wanted and every value is above 0.
    pub(super) fn logarithmic(&self) -> Option<Scale> {
        let (low, high) = self.range();
        let levels = self.levels.iter().filter(|level| self.shows(level) && level.value > 0.0).map(|level| level.value);
        let (low, high) = levels.fold((low, high), |(low, high), level| (low.min(level), high.max(level)));
        (self.may_be_logarithmic && low > 0.0).then(|| Scale::logarithmic(low, high))
    }
}

/// Where things stand on a chart, units of the drawing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Frame {
    /// First and last step.
    pub(super) steps: (f64, f64),
    pub(super) scale: Scale,
}

/// Size of a drawing, and of the part that holds the curves.
pub(super) const WIDTH: f64 = 560.0;
pub(super) const HEIGHT: f64 = 290.0;
pub(super) const LEFT: f64 = 68.0;
pub(super) const RIGHT: f64 = WIDTH - 12.0;
pub(super) const TOP: f64 = 12.0;
pub(super) const BOTTOM: f64 = HEIGHT - 40.0;

impl Frame {
    /// Of a step.
    pub(super) fn x(&self, step: f64) -> f64 {
        LEFT + (step - self.steps.0) / (self.steps.1 - self.steps.0).max(1.0) * (RIGHT - LEFT)
    }

    /// Of a value.
    pub(super) fn y(&self, value: f64) -> f64 {
        BOTTOM - self.scale.share(value) * (BOTTOM - TOP)
    }
}
