//! A chart as SVG in a figure, with its legend.
//!
//! In:    a [`Chart`], the steps of the page, how much curves are smoothed.
//! Out:   HTML that shows everything without a script; the script finds its parts by `data-` attributes.
//! Never: text that was not escaped.

use std::fmt::Write;

use super::axis::{Scale, plain, step_ticks};
use super::chart::{BOTTOM, Chart, Curve, Frame, HEIGHT, LEFT, Level, Mark, RIGHT, Style, TOP, WIDTH};
use super::series::smoothed;
use crate::markup::escaped;

/// What all charts of a page share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shared {
    /// First and last step.
    pub(super) steps: (f64, f64),
    /// Steps that the running mean reaches over.
    pub(super) smoothing: f64,
}

/// The figure.
pub(super) fn figure(chart: &Chart<'_>, shared: Shared) -> String {
    let mut out = format!(
        "<figure class=\"chart\" id=\"chart-{id}\" data-chart=\"{id}\"><figcaption><h3>{}</h3> <span class=\"dim\">{}</span></figcaption>\n",
        escaped(chart.title),
        escaped(chart.measure),
        id = chart.id
    );
    legend(chart, &mut out);
    let _ = writeln!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" tabindex=\"0\" aria-labelledby=\"title-{id} desc-{id}\">\
         <title id=\"title-{id}\">{}</title><desc id=\"desc-{id}\">{}</desc>",
        escaped(chart.title),
        escaped(&description(chart)),
        id = chart.id
    );
    panel(chart, chart.linear(), "lin", shared, &mut out);
    if let Some(scale) = chart.logarithmic() {
        panel(chart, scale, "log", shared, &mut out);
    }
    let _ = writeln!(
        out,
        "<line class=\"cross\" x1=\"0\" x2=\"0\" y1=\"{TOP}\" y2=\"{BOTTOM}\" visibility=\"hidden\"/></svg>"
    );
    if !chart.note.is_empty() {
        let _ = writeln!(out, "<p class=\"dim note\">{}</p>", escaped(&chart.note));
    }
    out + "</figure>\n"
}

/// For those who hear the page: what runs from where to where.
fn description(chart: &Chart<'_>) -> String {
    let curve = |curve: &Curve<'_>| {
        let ((first, last), (least, most)) = (curve.series.ends()?, curve.series.range()?);
        let [first, last, least, most] = [first, last, least, most].map(|value| chart.unit.text(value));
        Some(format!("{}: from {first} to {last}, between {least} and {most}.", curve.label))
    };
    let level = |level: &Level| format!("{}: {}.", level.label, chart.unit.text(level.value));
    let dots = chart.dots.iter().filter_map(|dots| {
        let (first, last) = (dots.points.first()?, dots.points.last()?);
        Some(format!(
            "{}: {} at step {}, {} at step {}.",
            dots.label,
            chart.unit.text(first.1),
            first.0,
            chart.unit.text(last.1),
            last.0
        ))
    });
    let parts = chart.curves.iter().filter_map(curve).chain(dots).chain(chart.levels.iter().map(level));
    format!("{} over steps. {}", chart.measure, parts.collect::<Vec<_>>().join(" "))
}

/// Names, colours, and the figure of the last step, which the script replaces by that under the pointer.
fn legend(chart: &Chart<'_>, out: &mut String) {
    out.push_str("<ul class=\"legend\">");
    for (at, curve) in chart.curves.iter().enumerate().filter(|(_, curve)| !curve.series.is_empty()) {
        let shape = if curve.style == Style::Stacked { "box" } else { "stroke" };
        let value = curve.series.ends().map_or(String::new(), |(_, last)| chart.unit.text(last));
        let item = format!("data-value=\"c{at}\"");
        entry(out, Some(curve.run), (shape, &format!("c{}", curve.colour)), &curve.label, (&item, &value));
    }
    for (at, dots) in chart.dots.iter().enumerate() {
        let value = dots.points.last().map_or(String::new(), |point| chart.unit.text(point.1));
        let item = format!("data-value=\"d{at}\"");
        entry(out, Some(dots.run), ("dot", &format!("c{}", dots.colour)), &dots.label, (&item, &value));
    }
    for level in &chart.levels {
        let above = if chart.shows(level) { "" } else { ", above the chart" };
        let value = format!("{}{above}", chart.unit.round_text(level.value));
        entry(out, level.run, ("dashes", &level_class(level)), &level.label, ("", &value));
    }
    out.push_str("</ul>\n");
}

fn entry(out: &mut String, run: Option<usize>, swatch: (&str, &str), label: &str, value: (&str, &str)) {
    let ((shape, colour), (item, value)) = (swatch, value);
    let _ = write!(
        out,
        "<li{}><i class=\"swatch {shape} {colour}\"></i>{} <b {item}>{}</b></li>",
        of_run(run),
        escaped(label),
        escaped(value)
    );
}

/// What the script hides with a run.
fn of_run(run: Option<usize>) -> String {
    run.map_or(String::new(), |run| format!(" data-run=\"{run}\""))
}

fn level_class(level: &Level) -> String {
    level.colour.map_or("limit".to_string(), |colour| format!("c{colour}"))
}

/// Everything on one scale.
fn panel(chart: &Chart<'_>, scale: Scale, class: &str, shared: Shared, out: &mut String) {
    let frame = Frame { steps: shared.steps, scale };
    let alone = if chart.logarithmic().is_none() { " only" } else { "" };
    let _ = write!(out, "<g class=\"{class}{alone}\">");
    axes(chart, &frame, out);
    chart.marks.iter().for_each(|mark| marked(mark, &frame, out));
    stacked(chart, &frame, out);
    chart.levels.iter().filter(|level| chart.shows(level)).for_each(|level| dashed(level, &frame, out));
    for (at, curve) in chart.curves.iter().enumerate() {
        match curve.style {
            Style::Stacked => {}
            Style::Exact => {
                path(out, &frame, &curve.series.points(), &format!("curve c{}", curve.colour), (curve.run, None))
            }
            Style::Smoothed => {
                path(out, &frame, &curve.series.points(), &format!("raw c{}", curve.colour), (curve.run, None));
                let mean = smoothed(&curve.series.means(), shared.smoothing);
                path(out, &frame, &mean, &format!("curve c{}", curve.colour), (curve.run, Some(at)));
            }
        }
    }
    for dots in &chart.dots {
        let points: Vec<(f64, f64)> = dots.points.iter().map(|(step, value)| (*step as f64, *value)).collect();
        path(out, &frame, &points, &format!("between c{}", dots.colour), (dots.run, None));
        for (step, value) in &dots.points {
            let (x, y) = (frame.x(*step as f64), frame.y(*value));
            let tip = format!("{} at step {step}: {}", dots.label, chart.unit.text(*value));
            let _ = write!(
                out,
                "<circle class=\"dot c{}\" data-run=\"{}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"><title>{}</title></circle>",
                dots.colour,
                dots.run,
                escaped(&tip)
            );
        }
    }
    out.push_str("</g>\n");
}

fn axes(chart: &Chart<'_>, frame: &Frame, out: &mut String) {
    for tick in frame.scale.ticks() {
        let y = frame.y(tick);
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"tick\" x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            y + 4.0,
            escaped(&chart.unit.tick_text(tick, frame.scale.high))
        );
    }
    for tick in step_ticks(frame.steps.0, frame.steps.1) {
        let x = frame.x(tick);
        let _ = write!(
            out,
            "<line class=\"tick-mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{BOTTOM}\" y2=\"{:.0}\"/>\
             <text class=\"tick\" x=\"{x:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
            BOTTOM + 4.0,
            BOTTOM + 18.0,
            steps_text(tick)
        );
    }
    let middle = (LEFT + RIGHT) / 2.0;
    let _ = write!(
        out,
        "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{BOTTOM}\" y2=\"{BOTTOM}\"/>\
         <text class=\"tick\" x=\"{middle:.0}\" y=\"{:.0}\" text-anchor=\"middle\">step</text>",
        HEIGHT - 5.0
    );
}

/// `950`, `12k`, `3.5M` of steps.
fn steps_text(step: f64) -> String {
    let text = |amount: f64, unit: &str| format!("{}{unit}", (amount * 100.0).round() / 100.0);
    match step {
        step if step < 10_000.0 => text(step, ""),
        step if step < 1e6 => text(step / 1e3, "k"),
        step if step < 1e9 => text(step / 1e6, "M"),
        step => plain(step),
    }
}

fn marked(mark: &Mark, frame: &Frame, out: &mut String) {
    let _ = match mark {
        Mark::Resumed(step) => {
            let x = frame.x(*step as f64 - 0.5).max(LEFT);
            write!(
                out,
                "<line class=\"resumed\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{BOTTOM}\"><title>resumed at step {step}</title></line>"
            )
        }
        Mark::Checkpoint(step) => {
            let x = frame.x(*step as f64);
            write!(
                out,
                "<path class=\"kept\" d=\"M{:.1} {BOTTOM}l4 -7l4 7z\"><title>checkpoint of step {step}</title></path>",
                x - 4.0
            )
        }
        Mark::Throttled(from, to) => {
            let (left, right) = (frame.x(*from as f64 - 0.5).max(LEFT), frame.x(*to as f64 + 0.5).min(RIGHT));
            write!(
                out,
                "<rect class=\"throttled\" x=\"{left:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.0}\"><title>throttled, steps {from} to {to}</title></rect>",
                (right - left).max(0.5),
                BOTTOM - TOP
            )
        }
    };
}

fn dashed(level: &Level, frame: &Frame, out: &mut String) {
    let y = frame.y(level.value);
    let _ = write!(
        out,
        "<line class=\"level {}\"{} x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\"><title>{}</title></line>",
        level_class(level),
        of_run(level.run),
        escaped(&level.label)
    );
}

fn stacked(chart: &Chart<'_>, frame: &Frame, out: &mut String) {
    let mut below: Option<Vec<(f64, f64)>> = None;
    for (at, top) in chart.stack() {
        let mut d = d_of(frame, &top);
        let floor = below.unwrap_or_else(|| top.iter().map(|point| (point.0, 0.0)).collect());
        for (step, value) in floor.iter().rev() {
            let _ = write!(d, "L{} {}", tenth(frame.x(*step)), tenth(frame.y(*value)));
        }
        let curve = &chart.curves[at];
        let _ = write!(out, "<path class=\"area c{}\" data-run=\"{}\" d=\"{d}Z\"/>", curve.colour, curve.run);
        below = Some(top);
    }
}

fn path(out: &mut String, frame: &Frame, points: &[(f64, f64)], class: &str, (run, curve): (usize, Option<usize>)) {
    if points.is_empty() {
        return;
    }
    let smooth = curve.map_or(String::new(), |curve| format!(" data-smooth=\"{curve}\""));
    let _ = write!(out, "<path class=\"{class}\" data-run=\"{run}\"{smooth} d=\"{}\"/>", d_of(frame, points));
}

/// A lone point is a dot, by way of a line's round ends.
fn d_of(frame: &Frame, points: &[(f64, f64)]) -> String {
    let mut d = String::with_capacity(points.len() * 11);
    for (at, (step, value)) in points.iter().enumerate() {
        let letter = if at == 0 { 'M' } else { 'L' };
        let _ = write!(d, "{letter}{} {}", tenth(frame.x(*step)), tenth(frame.y(*value)));
    }
    if points.len() == 1 {
        d.push_str("h.1");
    }
    d
}

/// One digit behind the point, none where it is 0.
fn tenth(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_string)
}
