//! The page: everything about one run, or several side by side.
//!
//! In:    runs as they were read.
//! Out:   one HTML file that needs nothing else: style, script and figures are inside, and a policy forbids it to load anything.
//! Never: text of a user as markup or script.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::charts::{self, Runs};
use super::draw::{Shared, figure};
use super::run_files::Run;
use super::{data, tables};
use crate::markup::{PALETTE, escaped};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// The same colours on dark ground: lighter where they were dark.
const DARK_PALETTE: [&str; 9] =
    ["#4aa8e8", "#f0b429", "#2fc79a", "#e09ac4", "#ff8a4c", "#8fd0f5", "#d6c72e", "#bd9a86", "#a9b0b8"];
/// Runs of fewer steps are not smoothed.
const SMOOTHED_STEPS_MIN: f64 = 50.0;
/// Where the slider stands at first, of 100: a running mean over 2 % of the steps.
const SLIDER: u32 = 28;

/// The whole page.
pub(super) fn page(runs: Runs<'_>) -> String {
    let charts = charts::charts(runs);
    let steps = steps(runs.runs);
    let slider = if steps.1 - steps.0 < SMOOTHED_STEPS_MIN { 0 } else { SLIDER };
    let shared = Shared { steps, smoothing: smoothing(slider, steps.1 - steps.0) };
    let mut out = head(runs);
    let _ = write!(out, "<h2 id=\"results\">Results</h2>\n{}", tables::results(runs));
    if runs.runs.len() > 1 {
        let _ = write!(out, "<h2 id=\"differences\">What differs</h2>\n{}", tables::differences(runs));
    }
    let _ = write!(out, "<h2 id=\"curves\">Curves</h2>\n{}<div class=\"charts\">\n", controls(runs, slider));
    charts.iter().for_each(|chart| out.push_str(&figure(chart, shared)));
    let _ = write!(out, "</div>\n<p class=\"dim\">{}</p>\n", escaped(&honesty(runs)));
    out.push_str(&folded("The curves in figures", "", &tables::curves(&charts)));
    for (at, run, label) in runs.each() {
        out.push_str(&about(runs, (at, run, label)));
    }
    let _ = write!(
        out,
        "</main><footer class=\"dim\">Made by tune {} from the run directory alone.</footer>\n\
         <script type=\"application/json\" id=\"figures\">{}</script>\n<script>{SCRIPT}</script></body></html>\n",
        env!("CARGO_PKG_VERSION"),
        data::json(&charts, runs.runs, shared, slider)
    );
    out
}

/// Steps of all runs; 0 is among them where something was measured before the first update.
fn steps(runs: &[Run]) -> (f64, f64) {
    let first = runs.iter().map(|run| match run.metrics.evaluations.contains_key(&0) {
        true => 0.0,
        false => run.metrics.stretches().first as f64,
    });
    let last = runs.iter().filter_map(|run| run.metrics.last_step).max().unwrap_or(0) as f64;
    let first = first.fold(last, f64::min);
    (first, last.max(first + 1.0))
}

/// Steps of the running mean at a place of the slider; the page's script calculates the same.
fn smoothing(slider: u32, steps: f64) -> f64 {
    let share = f64::from(slider) / 100.0;
    0.25 * steps * share * share
}

fn head(runs: Runs<'_>) -> String {
    let title = runs.labels.join(" · ");
    let policy = format!(
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        base64(&Sha256::digest(SCRIPT.as_bytes()))
    );
    let colours = |palette: [&str; 9]| -> String {
        palette.iter().enumerate().map(|(at, colour)| format!("--c{at}:{colour};")).collect()
    };
    let classes: String = (0..PALETTE.len()).map(|at| format!(".c{at}{{--c:var(--c{at})}}")).collect();
    let kind = if runs.runs.len() > 1 { "runs side by side" } else { "run report" };
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\">\
         <meta name=\"referrer\" content=\"no-referrer\"><link rel=\"icon\" href=\"data:,\">\n<title>{}: {kind}</title>\n\
         <style>:root{{{}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{}}}}}\n{classes}\n{STYLE}</style></head>\n\
         <body>\n<header><h1>{}</h1>\n",
        escaped(&title),
        colours(PALETTE),
        colours(DARK_PALETTE),
        escaped(&title)
    );
    for (_, run, label) in runs.each() {
        let name = if runs.runs.len() > 1 { format!("{label}: ") } else { String::new() };
        let _ = writeln!(out, "<p class=\"dim\">{}{}</p>", escaped(&name), escaped(&what(run)));
    }
    out + "</header>\n<main>\n"
}

/// What was trained how, in a line.
fn what(run: &Run) -> String {
    let mut parts = Vec::new();
    let mut add = |text: Option<String>| parts.extend(text);
    add(run.key("method.kind").map(|kind| match run.key("method.rank") {
        Some(rank) => format!("{kind}, rank {rank}"),
        None => kind.to_string(),
    }));
    add(run.key("model.source").map(|source| format!("of {source}")));
    add(run.key("model.precision").map(|precision| format!("in {precision}")));
    add(run
        .key("optimizer.kind")
        .zip(run.key("optimizer.learning_rate"))
        .map(|(kind, rate)| format!("{kind} at {rate}")));
    add(run.key("hardware.device").map(|device| format!("on {device}")));
    add(run.sessions.first().and_then(|session| session.started()).map(|when| format!("begun {when}")));
    format!("{} ({})", parts.join(" · "), run.folder.display())
}

/// The tools above the curves. Without a script the logarithm still works, and the slider is not shown.
fn controls(runs: Runs<'_>, slider: u32) -> String {
    let mut out = String::from(
        "<input type=\"checkbox\" id=\"logarithmic\"><div class=\"controls\"><label for=\"logarithmic\">Logarithmic loss and gradient norm</label>",
    );
    let _ = write!(
        out,
        "<label class=\"scripted\" hidden>Smoothing <input type=\"range\" id=\"smoothing\" min=\"0\" max=\"100\" value=\"{slider}\"> <output id=\"smoothing-steps\"></output></label>"
    );
    if runs.runs.len() > 1 {
        out.push_str("<span class=\"scripted\" hidden>");
        for (at, _, label) in runs.each() {
            let _ = write!(
                out,
                "<label class=\"run\"><input type=\"checkbox\" class=\"run-shown\" value=\"{at}\" checked><i class=\"swatch stroke c{}\"></i>{}</label>",
                at % PALETTE.len(),
                escaped(label)
            );
        }
        out.push_str("</span>");
    }
    out + "<output id=\"at-step\" class=\"scripted dim\" aria-live=\"off\" hidden></output></div>\n"
}

/// How many steps a point stands for, and what nobody recorded.
fn honesty(runs: Runs<'_>) -> String {
    let mut out = String::new();
    for (_, run, label) in runs.each() {
        let (width, steps) = (run.metrics.stretches().width, run.metrics.steps_known);
        let name = if runs.runs.len() > 1 { format!("{label}: ") } else { String::new() };
        let _ = match width {
            1 => write!(out, "{name}{steps} steps, every one of them drawn. "),
            _ => write!(
                out,
                "{name}{steps} steps; of every {width} steps the smallest and the largest figure are drawn, smoothed curves and areas are of their means. "
            ),
        };
    }
    let missing = charts::not_recorded(runs);
    if !missing.is_empty() {
        let _ = write!(out, "Not recorded: {}.", missing.join(", "));
    }
    out
}

/// What is told of each run below the curves.
fn about(runs: Runs<'_>, (at, run, label): (usize, &Run, &str)) -> String {
    let several = runs.runs.len() > 1;
    let heading = |name: &str| if several { format!("{label}: {}", name.to_lowercase()) } else { name.to_string() };
    let mut out = String::new();
    let mut section = |name: &str, content: String| {
        if !content.is_empty() {
            let _ =
                write!(out, "<section data-run=\"{at}\"><h2>{}</h2>\n{content}</section>\n", escaped(&heading(name)));
        }
    };
    let notes: String = run.notes.iter().map(|note| format!("<li>{}</li>", escaped(note))).collect();
    section("Notes", if notes.is_empty() { notes } else { format!("<ul>{notes}</ul>\n") });
    section("Plan against measured", tables::against_plan(run));
    section("Answers before and after", tables::samples(&run.samples));
    section("Checkpoints", tables::checkpoints(run));
    section("Data", tables::data(run));
    section("Processes", tables::sessions(run));
    let files: String = run.files.iter().map(|name| format!("<li><code>{}</code></li>", escaped(name))).collect();
    if !files.is_empty() {
        section(
            "Files beside the page",
            format!("<ul>{files}</ul>\n<p class=\"dim\">events.out.tfevents.* are read by TensorBoard.</p>\n"),
        );
    }
    let open = if several { "" } else { " open" };
    out.push_str(&folded(&heading("Machine"), open, &tables::machine(run)));
    let recipe = format!("<pre class=\"recipe\">{}</pre>\n", escaped(&run.recipe_text));
    out.push_str(&folded(&heading("Recipe, as the run resolved it"), open, &recipe));
    out
}

fn folded(title: &str, open: &str, content: &str) -> String {
    match content.is_empty() {
        true => String::new(),
        false => format!("<details{open}><summary><h2>{}</h2></summary>\n{content}</details>\n", escaped(title)),
    }
}

/// As content policies want digests.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let word = three.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let is_there = place <= three.len();
            let letter = LETTERS[(word >> (18 - 6 * place)) as usize & 63] as char;
            out.push(if is_there { letter } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        let texts = ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|text| base64(text.as_bytes()));
        assert_eq!(texts, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
    }

    #[test]
    fn the_script_cannot_end_its_own_element() {
        assert!(!SCRIPT.contains("</") && !SCRIPT.contains("<!--"), "HTML would end the script there");
        assert!(!STYLE.contains('<'));
    }
}
