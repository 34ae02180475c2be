//! Figures over steps, made fewer without hiding any: each stretch of steps keeps its smallest, its largest and its mean.
//!
//! In:    a figure a step, in any order of stretches.
//! Out:   stretches; with at most as many steps as stretches, every figure is there.
//! Never: holds more than the asked number of stretches, however long the run was.

/// Which steps share a stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretches {
    /// The first step.
    pub(super) first: u64,
    /// Steps of a stretch.
    pub(super) width: u64,
    /// How many.
    pub(super) count: usize,
}

impl Stretches {
    /// At most `most` stretches over the steps from `first` to `last`.
    pub(super) fn of(first: u64, last: u64, most: usize) -> Stretches {
        let steps = last.saturating_sub(first).saturating_add(1);
        let width = steps.div_ceil(most.max(1) as u64).max(1);
        Stretches { first, width, count: steps.div_ceil(width) as usize }
    }

    fn index(&self, step: u64) -> Option<usize> {
        let index = usize::try_from(step.checked_sub(self.first)? / self.width).ok()?;
        (index < self.count).then_some(index)
    }

    /// The step in the middle of a stretch.
    pub(super) fn middle(&self, index: usize) -> f64 {
        self.first as f64 + index as f64 * self.width as f64 + (self.width - 1) as f64 / 2.0
    }
}

/// Figures of one stretch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stretch {
    /// How many figures.
    pub(super) count: u64,
    /// Their sum.
    pub(super) sum: f64,
    /// The smallest, and its step.
    pub(super) least: (f64, u64),
    /// The largest, and its step.
    pub(super) most: (f64, u64),
    /// The one of the latest step.
    pub(super) last: (f64, u64),
}

impl Stretch {
    /// Mean of the figures.
    pub(super) fn mean(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }
}

/// One figure over the steps of a run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    pub(super) stretches: Stretches,
    pub(super) values: Vec<Option<Stretch>>,
}

impl Series {
    /// Nothing yet.
    pub(super) fn new(stretches: Stretches) -> Series {
        Series { stretches, values: vec![None; stretches.count] }
    }

    /// Adds what is known of a step.
    pub(super) fn add(&mut self, step: u64, value: Option<f64>) {
        let (Some(value), Some(index)) = (value, self.stretches.index(step)) else { return };
        match &mut self.values[index] {
            None => {
                let here = (value, step);
                self.values[index] = Some(Stretch { count: 1, sum: value, least: here, most: here, last: here });
            }
            Some(stretch) => {
                stretch.count += 1;
                stretch.sum += value;
                stretch.least = if value < stretch.least.0 { (value, step) } else { stretch.least };
                stretch.most = if value > stretch.most.0 { (value, step) } else { stretch.most };
                stretch.last = if step >= stretch.last.1 { (value, step) } else { stretch.last };
            }
        }
    }

    /// Stretches that hold a figure.
    pub(super) fn known(&self) -> impl Iterator<Item = &Stretch> {
        self.values.iter().flatten()
    }

    /// Whether nothing is known.
    pub(super) fn is_empty(&self) -> bool {
        self.known().next().is_none()
    }

    /// Whether there is more to see than zeros.
    pub(super) fn says_something(&self) -> bool {
        self.known().any(|stretch| stretch.least.0 != 0.0 || stretch.most.0 != 0.0)
    }

    /// The smallest and the largest figure.
    pub(super) fn range(&self) -> Option<(f64, f64)> {
        let low = self.known().map(|stretch| stretch.least.0).reduce(f64::min)?;
        let high = self.known().map(|stretch| stretch.most.0).reduce(f64::max)?;
        Some((low, high))
    }

    /// The figure of the first step that has one, as far as stretches tell, and of the last.
    pub(super) fn ends(&self) -> Option<(f64, f64)> {
        let first = self.known().next()?;
        let opening = if first.least.1 < first.most.1 { first.least.0 } else { first.most.0 };
        let opening = if first.count == 1 || self.stretches.width == 1 { opening } else { first.mean() };
        Some((opening, self.known().last()?.last.0))
    }

    /// Sum of all figures.
    pub(super) fn sum(&self) -> f64 {
        self.known().map(|stretch| stretch.sum).sum()
    }

    /// The curve: of each stretch the smallest and the largest figure at their steps, in the order of steps.
    pub(super) fn points(&self) -> Vec<(f64, f64)> {
        let mut points = Vec::with_capacity(2 * self.values.len());
        for stretch in self.known() {
            let (least, most) = ((stretch.least.1 as f64, stretch.least.0), (stretch.most.1 as f64, stretch.most.0));
            match least.0.total_cmp(&most.0) {
                std::cmp::Ordering::Less => points.extend([least, most]),
                std::cmp::Ordering::Greater => points.extend([most, least]),
                std::cmp::Ordering::Equal => points.push(least),
            }
        }
        points
    }

    /// The mean of each stretch at its middle.
    pub(super) fn means(&self) -> Vec<(f64, f64)> {
        let known = self.values.iter().enumerate();
        known.filter_map(|(at, stretch)| Some((self.stretches.middle(at), stretch.as_ref()?.mean()))).collect()
    }
}

/// An exponential mean over about `steps` steps, free of the pull towards its start; 0 changes nothing. The page's script does the same.
pub(super) fn smoothed(points: &[(f64, f64)], steps: f64) -> Vec<(f64, f64)> {
    if steps <= 0.0 {
        return points.to_vec();
    }
    let first = points.first().map_or(0.0, |point| point.0);
    let (mut sum, mut weight) = (0.0, 0.0);
    let mut before = first - points.get(1).map_or(1.0, |second| second.0 - first);
    let mean = |&(step, value): &(f64, f64)| {
        let keep = (-(step - before) / steps).exp();
        before = step;
        sum = sum * keep + value * (1.0 - keep);
        weight = weight * keep + (1.0 - keep);
        (step, if weight > 0.0 { sum / weight } else { value })
    };
    points.iter().map(mean).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_short_run_keeps_every_figure() {
        let mut series = Series::new(Stretches::of(1, 5, 600));
        (1..=5).for_each(|step| series.add(step, Some(10.0 - step as f64)));
        let expected: Vec<(f64, f64)> = (1..=5).map(|step| (step as f64, 10.0 - step as f64)).collect();
        assert_eq!((series.points(), series.means()), (expected.clone(), expected));
        assert_eq!(series.ends(), Some((9.0, 5.0)));
    }

    #[test]
    fn a_long_run_keeps_its_one_spike_and_its_one_dip() {
        let mut series = Series::new(Stretches::of(1, 1_000_000, 500));
        for step in 1..=1_000_000 {
            let value = if step == 777_777 {
                99.0
            } else if step == 333_333 {
                -5.0
            } else {
                1.0
            };
            series.add(step, Some(value));
        }
        assert_eq!(series.values.len(), 500);
        assert!(series.points().contains(&(777_777.0, 99.0)) && series.points().contains(&(333_333.0, -5.0)));
        assert_eq!(series.range(), Some((-5.0, 99.0)));
        assert_eq!(series.known().map(|stretch| stretch.count).sum::<u64>(), 1_000_000);
    }

    #[test]
    fn steps_without_a_figure_leave_a_gap_and_absurd_steps_take_no_memory() {
        let mut series = Series::new(Stretches::of(1, u64::MAX, 100));
        series.add(u64::MAX, Some(1.0));
        series.add(0, Some(1.0));
        series.add(5, None);
        assert!(series.values.len() <= 101);
        assert_eq!(series.known().count(), 1);
    }

    #[test]
    fn a_mean_over_steps_starts_at_the_first_figure_and_follows() {
        let points: Vec<(f64, f64)> = (0..200).map(|step| (step as f64, if step < 100 { 4.0 } else { 2.0 })).collect();
        let smooth = smoothed(&points, 10.0);
        assert_eq!(smooth[0], (0.0, 4.0));
        assert!((smooth[99].1 - 4.0).abs() < 1e-9 && smooth[105].1 > 2.5 && (smooth[199].1 - 2.0).abs() < 1e-3);
        assert_eq!(smoothed(&points, 0.0), points);
    }
}
