//! Facts about the comparison, the table of what fits, and plan against measured.

use super::super::style::{Colour, Style};
use super::super::{Measured, against_measured, compare, fits_table};
use super::samples;
use planner::report::Report;
use planner::units::bytes_text;
use planner::what_fits::{FitMethod, FitRow, Reach};

fn style(width: usize) -> Style {
    Style { colour: Colour::Never, width }
}

fn reports() -> Vec<(String, Report)> {
    vec![
        ("processor.toml".to_string(), samples::lora_on_a_processor()),
        ("one-card.toml".to_string(), samples::full_beside_a_card()),
        ("eight-cards-with-quite-a-long-name.toml".to_string(), samples::eight_cards()),
        ("small.toml".to_string(), samples::does_not_fit()),
    ]
}

#[test]
fn a_comparison_has_a_column_a_report_in_as_many_blocks_as_the_width_asks_for() {
    for (width, blocks) in [(60, 2), (80, 2), (120, 1)] {
        let text = compare(&reports(), style(width));
        assert_eq!(text.lines().filter(|line| line.starts_with("fits ")).count(), blocks, "{width}:\n{text}");
        assert!(text.lines().all(|line| line.chars().count() <= width), "{width}:\n{text}");
        let misfit = samples::does_not_fit().shortfall.unwrap();
        let short = bytes_text(misfit.needed_bytes - misfit.budget_bytes);
        assert!(text.contains(&format!("no, {short} short")), "{text}");
    }
    let text = compare(&reports(), style(120));
    let speeds = text.lines().find(|line| line.starts_with("tokens/s")).unwrap();
    assert_eq!(speeds.split_whitespace().count(), 5, "{speeds}");
}

#[test]
fn a_row_that_no_report_fills_is_left_out() {
    let bare = [("a".to_string(), samples::lora_on_a_processor())];
    let text = compare(&bare, style(80));
    assert!(!text.contains("price") && !text.contains("power") && text.contains("bound by"), "{text}");
}

fn row(reach: Reach, model: &str) -> FitRow {
    FitRow {
        method: FitMethod::Lora,
        reach,
        model: model.to_string(),
        parameters: 8_030_261_248,
        placement: "dram: gradients, optimizer".to_string(),
        micro_batch: 4,
        sequence_length: 2048,
        tokens_per_second: 1234.5,
        step_seconds: 53.1,
        peak_bytes: 21_000_000_000,
        dram_bytes: 700_000_000,
        nvme_bytes: 0,
    }
}

#[test]
fn a_reach_that_adds_nothing_says_so() {
    let rows =
        [row(Reach::Device, "llama-3.1-8b"), row(Reach::Dram, "llama-3.1-8b"), row(Reach::Nvme, "llama-3.1-70b")];
    let text = fits_table(&rows, style(80));
    assert!(text.contains("with dram the same"), "{text}");
    assert!(text.lines().any(|line| line.contains("with nvme") && line.contains("llama-3.1-70b")), "{text}");
    assert!(text.contains("8.03 B") && text.contains("21.0 GB"), "{text}");
    assert!(fits_table(&rows, style(120)).contains("dram: gradients, optimizer"));
    assert!(fits_table(&[], style(80)).contains("nothing fits"));
}

#[test]
fn plan_against_measured_shows_both_and_their_ratio() {
    let plan = samples::full_beside_a_card().plan;
    let measured = Measured {
        peak_bytes: plan.memory.peak_bytes / 2,
        step_seconds_median: Some(plan.time.step_seconds * 1.25),
        tokens_per_second: None,
        nvme_written_bytes: 3_000_000,
        nvme_planned_bytes: Some(2_000_000),
    };
    let text = against_measured(&plan, measured);
    let ends = |start: &str| {
        text.lines().find(|line| line.starts_with(start)).unwrap().rsplit(' ').next().unwrap().to_string()
    };
    assert_eq!(ends("peak memory"), "0.500");
    assert_eq!(ends("step, median"), "1.25");
    assert_eq!(ends("written to nvme"), "1.50");
    assert!(!text.contains("tokens/s"), "{text}");
}
