//! Facts about the page of `tune plan` and the short form.

use super::super::style::{Colour, Style};
use super::super::{page, ten_lines};
use super::samples;
use crate::io_profile::Origin;
use planner::report::Report;
use planner::units::bytes_text;

fn page_of(report: &Report, width: usize) -> String {
    page::text(report, Origin::Usual, Style { colour: Colour::Never, width })
}

fn reports() -> [Report; 4] {
    [samples::lora_on_a_processor(), samples::full_beside_a_card(), samples::eight_cards(), samples::does_not_fit()]
}

fn line<'a>(text: &'a str, start: &str) -> &'a str {
    text.lines()
        .find(|line| line.starts_with(start))
        .unwrap_or_else(|| panic!("no line starts with {start:?}:\n{text}"))
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for width in [60, 80, 100, 120, 200] {
        for report in reports() {
            for line in page_of(&report, width).lines() {
                assert!(line.chars().count() <= width, "{width}: {}: {line}", line.chars().count());
            }
        }
    }
}

#[test]
fn without_a_terminal_no_line_of_facts_is_folded_and_no_code_is_written() {
    let text = page_of(&samples::full_beside_a_card(), usize::MAX);
    assert!(!text.contains('\u{1b}'));
    let offload = line(&text, "offload");
    assert!(offload.contains("depth 32") && offload.contains("not measured yet"), "{offload}");
}

#[test]
fn colours_change_no_word_of_the_page() {
    let report = samples::full_beside_a_card();
    let painted = page::text(&report, Origin::Usual, Style { colour: Colour::Always, width: 100 });
    assert!(painted.contains("\u{1b}["));
    let (mut stripped, mut inside) = (String::new(), false);
    for c in painted.chars() {
        match c {
            '\u{1b}' => inside = true,
            'm' if inside => inside = false,
            c if !inside => stripped.push(c),
            _ => {}
        }
    }
    let words = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).collect::<String>();
    assert_eq!(words(&stripped), words(&page_of(&report, 100)));
}

#[test]
fn what_does_not_fit_is_said_first_with_the_bytes_short_and_a_remedy() {
    let report = samples::does_not_fit();
    let text = page_of(&report, 80);
    let short = report.shortfall.as_ref().unwrap();
    let first: Vec<&str> = text.lines().take(3).collect();
    assert!(first[0].ends_with("does not fit"), "{}", first[0]);
    assert!(
        first[1].contains(&format!("{} short", bytes_text(short.needed_bytes - short.budget_bytes))),
        "{}",
        first[1]
    );
    assert!(first[2].contains("method.kind = \"lora\"") && first[2].contains("12.5 s"), "{}", first[2]);
    let bar = text.lines().find(|line| line.starts_with("  █")).unwrap();
    let budget = bar.chars().position(|c| c == '│').unwrap();
    assert!(bar.chars().skip(budget).any(|c| c == '▓'), "the bar goes on beyond its budget: {bar}");
}

#[test]
fn a_bar_is_as_long_as_its_share_of_the_budget() {
    let report = samples::lora_on_a_processor();
    let text = page_of(&report, 100);
    let bar = text.lines().find(|line| line.ends_with('│')).unwrap();
    let free = bar.chars().filter(|&c| c == '·').count() as f64;
    let cells = bar.chars().count() as f64 - 3.0;
    let share = report.plan.memory.peak_bytes as f64 / report.plan.memory.budget_bytes as f64;
    assert!((1.0 - free / cells - share).abs() < 1.0 / cells, "{} of {cells} free, {share} used", free);
}

#[test]
fn every_memory_has_a_bar_and_the_pinned_part_is_marked() {
    let report = samples::full_beside_a_card();
    let text = page_of(&report, 80);
    line(&text, "  GeForce RTX 4090, fullest in");
    line(&text, "  dram, fullest in");
    let nvme = line(&text, "  nvme ");
    assert!(nvme.contains(&format!("{} of 2.00 TB", bytes_text(report.plan.memory.nvme_bytes))), "{nvme}");
    assert!(line(&text, "  ▔").contains("pinned"));
    line(&page_of(&samples::eight_cards(), 80), "  each of 8 x RTX PRO 6000");
}

#[test]
fn a_legend_adds_up_to_its_bar() {
    let report = samples::full_beside_a_card();
    for tier in super::super::tiers::tiers(&report) {
        assert_eq!(tier.parts.iter().map(|part| part.bytes).sum::<u64>(), tier.used_bytes, "{}", tier.name);
        assert!(tier.parts.iter().filter(|part| part.name == "other").count() <= 1, "{:?}", tier.parts);
    }
}

#[test]
fn each_phase_of_a_step_names_what_bounds_it() {
    let text = page_of(&samples::full_beside_a_card(), 120);
    let bounded = |line: &str| line.starts_with("  update") && line.contains("NVMe writes; NVMe reads 16.1 s");
    assert!(text.lines().any(bounded), "{text}");
    let time = line(&text, "time");
    assert!(
        time.contains("52.5 s a step (42.0 s to 68.2 s)") && time.contains("1248 tokens/s (960 to 1560)"),
        "{time}"
    );
    assert!(text.contains("1.52x    34.6 s  a second drive"), "{text}");
    assert!(line(&text, "next best").contains("offload.optimizer = \"dram\""), "{text}");
}

#[test]
fn costs_wear_and_serving_are_shown_where_they_are_known_and_nowhere_else() {
    let text = page_of(&samples::full_beside_a_card(), 120);
    for start in ["power", "  to buy", "  PCIe", "wear", "price", "serving", "  q4_k_m", "note"] {
        line(&text, start);
    }
    let bare = page_of(&samples::lora_on_a_processor(), 120);
    for start in ["power", "wear", "price", "serving", "next best", "note"] {
        assert!(!bare.lines().any(|line| line.starts_with(start)), "{start}: {bare}");
    }
}

#[test]
fn the_short_form_has_at_most_twelve_lines_with_peak_step_and_run() {
    for report in reports() {
        let text = ten_lines(&report.plan, Origin::Usual);
        assert!(text.lines().count() <= 12, "{text}");
        assert!(line(&text, "memory").contains(&bytes_text(report.plan.memory.peak_bytes)), "{text}");
        let time = line(&text, "time");
        assert!(time.contains(" a step (") && time.contains("1000 steps in"), "{time}");
    }
}
