//! Scales, ticks and figures with units.
//!
//! In:    a range of values, a unit.
//! Out:   round ticks that cover it, positions, words such as `1.25 GB` or `350 ms`.
//! Never: a tick that is not a round number.

use planner::units::bytes_text;

use crate::plan::words;

/// What a figure is measured in. The page's script knows them by [`Unit::code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// No unit: losses, norms, rates of learning.
    Plain,
    /// Bytes, shown in decimal units.
    Bytes,
    /// Milliseconds, shown in the unit that suits.
    Milliseconds,
    /// Tokens a second.
    TokensPerSecond,
    /// Degrees Celsius.
    Celsius,
    /// Watts.
    Watts,
}

impl Unit {
    /// The unit's name in the page's data.
    pub(super) fn code(self) -> &'static str {
        match self {
            Unit::Plain => "plain",
            Unit::Bytes => "bytes",
            Unit::Milliseconds => "ms",
            Unit::TokensPerSecond => "tps",
            Unit::Celsius => "celsius",
            Unit::Watts => "watts",
        }
    }

    /// A value for people.
    pub(super) fn text(self, value: f64) -> String {
        match self {
            Unit::Plain => plain(value),
            Unit::Bytes => bytes_text(value.max(0.0) as u64),
            Unit::Milliseconds => words::seconds(value / 1e3),
            Unit::TokensPerSecond => words::figure(value),
            Unit::Celsius => format!("{value:.0} °C"),
            Unit::Watts => format!("{value:.0} W"),
        }
    }
}

impl Unit {
    /// Whether half of a bar is half of what it stands for, so that the axis begins at 0.
    fn begins_at_zero(self) -> bool {
        matches!(self, Unit::Bytes | Unit::Milliseconds | Unit::TokensPerSecond | Unit::Watts)
    }

    /// A value without digits that say nothing.
    pub(super) fn round_text(self, value: f64) -> String {
        let text = self.text(value);
        let (number, unit) = text.split_once(' ').unwrap_or((&text, ""));
        let number = match number.contains('.') && !number.contains('e') {
            true => number.trim_end_matches('0').trim_end_matches('.'),
            false => number,
        };
        if unit.is_empty() { number.to_string() } else { format!("{number} {unit}") }
    }

    /// A tick of an axis that ends at `high`: all in one unit.
    pub(super) fn tick_text(self, tick: f64, high: f64) -> String {
        let (size, name) = match self {
            _ if tick == 0.0 => return "0".to_string(),
            Unit::Bytes => unit_of(high, &[(1.0, "B"), (1e3, "KB"), (1e6, "MB"), (1e9, "GB"), (1e12, "TB")]),
            Unit::Milliseconds => unit_of(high, &[(1.0, "ms"), (1e3, "s"), (6e4, "min"), (3.6e6, "h")]),
            _ => return self.round_text(tick),
        };
        format!("{} {name}", Unit::Plain.round_text(tick / size))
    }
}

/// The largest unit that is not larger than the value.
fn unit_of(high: f64, units: &[(f64, &'static str)]) -> (f64, &'static str) {
    units.iter().rev().find(|(size, _)| *size <= high).or(units.first()).copied().unwrap_or((1.0, ""))
}

/// Four significant digits; powers of ten where a number is very small or large.
pub(super) fn plain(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_string(),
        size if !size.is_finite() => "-".to_string(),
        size if !(1e-3..1e6).contains(&size) => {
            let text = format!("{value:.2e}");
            let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
            let digits = if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits };
            format!("{digits}e{power}")
        }
        size => {
            let digits = (3 - size.log10().floor() as i32).clamp(0, 6) as usize;
            format!("{value:.digits$}")
        }
    }
}

/// How values become heights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    /// The value at the bottom and at the top.
    pub(super) low: f64,
    pub(super) high: f64,
    /// Powers of ten are equally far apart.
    pub(super) logarithmic: bool,
}

impl Scale {
    /// Covers `low` to `high` with round ends; from 0 where the unit asks for it, or where it costs little.
    pub(super) fn linear(low: f64, high: f64, unit: Unit) -> Scale {
        let low = if low > 0.0 && (unit.begins_at_zero() || low < 0.6 * high) { 0.0 } else { low };
        let (low, high) =
            if high > low { (low, high) } else { (low.min(0.0), if low > 0.0 { low * 1.25 } else { low + 1.0 }) };
        let step = step_of(high - low);
        Scale { low: (low / step + 1e-9).floor() * step, high: (high / step - 1e-9).ceil() * step, logarithmic: false }
    }

    /// Covers `low` to `high`, both greater than 0.
    pub(super) fn logarithmic(low: f64, high: f64) -> Scale {
        let (low, high) = if high > low * 1.05 { (low, high) } else { (low / 1.3, high * 1.3) };
        Scale { low: low / 1.04, high: high * 1.04, logarithmic: true }
    }

    /// Where a value stands: 0 at the bottom, 1 at the top; values outside stay outside.
    pub(super) fn share(&self, value: f64) -> f64 {
        match self.logarithmic {
            true => (value.max(f64::MIN_POSITIVE) / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        }
    }

    /// Round values, about five.
    pub(super) fn ticks(&self) -> Vec<f64> {
        if self.logarithmic { self.log_ticks() } else { self.linear_ticks() }
    }

    fn linear_ticks(&self) -> Vec<f64> {
        let step = step_of(self.high - self.low);
        let first = (self.low / step - 1e-9).ceil();
        let count = ((self.high - self.low) / step + 1e-9).floor() as usize + 1;
        let at = |index: usize| (first + index as f64) * step;
        (0..count.min(20)).map(at).filter(|tick| *tick <= self.high + step * 1e-6).collect()
    }

    /// 1, 2, 5 of every power of ten where few fit, powers alone where many do.
    fn log_ticks(&self) -> Vec<f64> {
        let (from, to) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let decades = f64::from(to - from);
        let among = |digits: &[f64]| -> Vec<f64> {
            let every = (decades / 7.0).ceil().max(1.0) as usize;
            let powers = (from..=to).step_by(if digits.len() > 1 { 1 } else { every });
            let all = powers.flat_map(|power| digits.iter().map(move |digit| digit * 10f64.powi(power)));
            all.filter(|tick| (self.low..=self.high).contains(tick)).collect()
        };
        let found = among(if decades > 4.0 { &[1.0] } else { &[1.0, 2.0, 5.0] });
        match found.len() {
            0 | 1 => {
                Scale { logarithmic: false, ..*self }.linear_ticks().into_iter().filter(|tick| *tick > 0.0).collect()
            }
            _ => found,
        }
    }
}

/// 1, 2 or 5 times a power of ten, so that four to seven fit.
fn step_of(range: f64) -> f64 {
    let rough = range / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let digit = rough / power;
    power
        * if digit < 1.5 {
            1.0
        } else if digit < 3.5 {
            2.0
        } else if digit < 7.5 {
            5.0
        } else {
            10.0
        }
}

/// Round steps of a run, as ticks of the axis below; never half a step.
pub(super) fn step_ticks(first: f64, last: f64) -> Vec<f64> {
    let scale = Scale { low: first, high: last.max(first + 1.0), logarithmic: false };
    scale.linear_ticks().into_iter().filter(|tick| tick.fract() == 0.0 && *tick <= last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_cover_the_range() {
        let scale = Scale::linear(0.3, 2.3, Unit::Plain);
        assert_eq!((scale.low, scale.high), (0.0, 2.5));
        assert_eq!(scale.ticks().len(), 6);
        let near = Scale::linear(9.2, 9.8, Unit::Plain);
        assert!(near.low > 9.0 && near.ticks().len() >= 4, "{near:?} {:?}", near.ticks());
        assert_eq!(Scale::linear(5.0, 5.0, Unit::Plain).low, 0.0);
        assert_eq!(Scale::linear(0.0, 0.0, Unit::Plain).ticks().len(), 6);
        assert!(Scale::linear(-3.0, -3.0, Unit::Plain).ticks().len() >= 2);
        assert_eq!(Scale::linear(9.2e8, 9.8e8, Unit::Bytes).low, 0.0, "bytes begin at 0");
    }

    #[test]
    fn a_logarithmic_scale_puts_powers_of_ten_at_equal_distances() {
        let scale = Scale::logarithmic(0.01, 10.0);
        let [a, b, c] = [0.01, 0.1, 1.0].map(|value| scale.share(value));
        assert!((b - a - (c - b)).abs() < 1e-12);
        assert!(scale.ticks().contains(&0.1) && scale.ticks().contains(&1.0));
        assert!(Scale::logarithmic(2.0, 2.0).ticks().len() >= 2);
        assert!(Scale::logarithmic(1e-12, 1e6).ticks().len() <= 12);
    }

    #[test]
    fn figures_have_their_units() {
        assert_eq!(Unit::Bytes.text(1.25e9), "1.25 GB");
        assert_eq!([350.0, 1234.0, 0.25].map(|ms| Unit::Milliseconds.text(ms)), ["350 ms", "1.23 s", "0.25 ms"]);
        assert_eq!([2.28371, 0.0123456, 2e-5, 123.456, 1.0].map(plain), ["2.284", "0.01235", "2e-5", "123.5", "1.000"]);
        assert_eq!(Unit::Watts.text(212.4), "212 W");
        let ticks = [9e8, 1.2e9, 0.0].map(|bytes| Unit::Bytes.tick_text(bytes, 1.5e9));
        assert_eq!(ticks, ["0.9 GB", "1.2 GB", "0"]);
        assert_eq!([2000.0, 12000.0].map(|ms| Unit::Milliseconds.tick_text(ms, 12000.0)), ["2 s", "12 s"]);
        assert_eq!((Unit::Plain.round_text(1.0), Unit::TokensPerSecond.round_text(90.0)), ("1".into(), "90".into()));
    }

    #[test]
    fn steps_have_whole_ticks() {
        assert_eq!(step_ticks(0.0, 3.0), [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(step_ticks(1.0, 100_000.0), [20_000.0, 40_000.0, 60_000.0, 80_000.0, 100_000.0]);
        assert_eq!(step_ticks(5.0, 5.0), [5.0]);
    }
}
