//! The figures of the charts for the page's script.
//!
//! In:    charts as they were drawn.
//! Out:   JSON that can stand between script tags: numbers, and names that this program chose.
//! Never: text of a user.

use std::fmt::Write;

use super::axis::Scale;
use super::chart::{BOTTOM, Chart, Curve, LEFT, RIGHT, Style, TOP};
use super::draw::Shared;
use super::run_files::Run;
use super::series::Stretch;

/// Everything that the script needs to follow the pointer and to smooth again.
pub(super) fn json(charts: &[Chart<'_>], runs: &[Run], shared: Shared, slider: u32) -> String {
    let runs = runs.iter().map(|run| {
        let stretches = run.metrics.stretches();
        format!("{{\"first\":{},\"width\":{}}}", stretches.first, stretches.width)
    });
    let mut out = format!(
        "{{\"left\":{LEFT},\"right\":{RIGHT},\"top\":{TOP},\"bottom\":{BOTTOM},\"steps\":[{},{}],\"slider\":{slider},\"runs\":[{}],\"charts\":[",
        shared.steps.0,
        shared.steps.1,
        runs.collect::<Vec<_>>().join(",")
    );
    for (at, chart) in charts.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let log = chart.logarithmic().map_or("null".to_string(), ends);
        let _ = write!(
            out,
            "{comma}\n{{\"id\":\"{}\",\"unit\":\"{}\",\"lin\":{},\"log\":{log},\"curves\":[",
            chart.id,
            chart.unit.code(),
            ends(chart.linear())
        );
        let curves = chart.curves.iter().enumerate().filter(|(_, curve)| !curve.series.is_empty());
        out.push_str(&curves.map(|(at, curve)| self::curve(at, curve)).collect::<Vec<_>>().join(","));
        out.push_str("],\"dots\":[");
        let dots = chart.dots.iter().enumerate().map(|(at, dots)| {
            let steps: Vec<String> = dots.points.iter().map(|point| point.0.to_string()).collect();
            let values: Vec<String> = dots.points.iter().map(|point| number(point.1)).collect();
            format!("{{\"at\":{at},\"s\":[{}],\"v\":[{}]}}", steps.join(","), values.join(","))
        });
        out.push_str(&dots.collect::<Vec<_>>().join(","));
        out.push_str("]}");
    }
    out + "]}"
}

fn ends(scale: Scale) -> String {
    format!("[{},{}]", scale.low, scale.high)
}

/// Means of stretches; where a stretch is more than a step, also its smallest and largest figure.
fn curve(at: usize, curve: &Curve<'_>) -> String {
    let list = |of: fn(&Stretch) -> f64| {
        let values = curve
            .series
            .values
            .iter()
            .map(|stretch| stretch.as_ref().map_or("null".to_string(), |one| number(of(one))));
        values.collect::<Vec<_>>().join(",")
    };
    let mut out = format!("{{\"at\":{at},\"run\":{},\"v\":[{}]", curve.run, list(Stretch::mean));
    if curve.series.stretches.width > 1 {
        let _ =
            write!(out, ",\"lo\":[{}],\"hi\":[{}]", list(|stretch| stretch.least.0), list(|stretch| stretch.most.0));
    }
    let smooth = curve.style == Style::Smoothed;
    out + &format!(",\"smooth\":{smooth}}}")
}

/// Five significant digits, as short as JSON allows.
fn number(value: f64) -> String {
    if !value.is_finite() {
        return "null".to_string();
    }
    let rounded: f64 = format!("{value:.4e}").parse().unwrap_or(value);
    let (plain, powered) = (format!("{rounded}"), format!("{rounded:e}"));
    if plain.len() <= powered.len() { plain } else { powered }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_valid() {
        let texts = [2.283712, 0.0, 1.84e9, 1e-5, -3.0, f64::NAN, 123_456.0].map(number);
        assert_eq!(texts, ["2.2837", "0", "1.84e9", "1e-5", "-3", "null", "123460"]);
    }
}
