//! The report fits its terminal.
#![allow(clippy::unwrap_used)]

use super::super::Report;
use super::super::fact::Fact;
use super::super::findings::findings;
use super::super::testing::{Recorded, asked, driver, profile, tried};
use super::{text, wrap};

fn report() -> Report {
    let mut folder = tried("/data/a-folder-with-a-name-that-is-longer-than-any-line-should-be/and/goes/on/and/on");
    folder.profile = profile(180_000_000, 160_000_000);
    let mut asked = asked(vec![tried("/home/me"), folder]);
    asked.nvidia = driver(11_040, vec![]);
    let inventory = Recorded::of("workstation").inventory(asked);
    let rates = planner::rates::Rates::usual(12);
    let findings = findings(&inventory, Some(&rates));
    Report { version: "0", inventory, rates: Fact::Known(rates), findings }
}

#[test]
fn no_line_is_wider_than_the_terminal_and_no_finding_is_left_out() {
    let report = report();
    assert!(report.findings.len() > 8);
    for width in [60, 80, 110, 120, 140] {
        let plain = anstream::adapter::strip_str(&text(&report, width)).to_string();
        for line in plain.lines() {
            let is_path = line.trim_start().starts_with("/data/");
            assert!(line.chars().count() <= width || is_path, "{width}: {line}");
        }
        let joined = plain.split_whitespace().collect::<String>();
        if width < 110 {
            for finding in &report.findings {
                let symptom = finding.symptom.split_whitespace().collect::<String>();
                assert!(joined.contains(&symptom), "{width}: {}", finding.symptom);
            }
        }
        let starts = |line: &&str| ["  stops ", "  slows ", "  note  "].iter().any(|start| line.starts_with(start));
        assert_eq!(plain.lines().filter(starts).count(), report.findings.len(), "{width}: {plain}");
    }
}

#[test]
fn a_text_is_broken_at_spaces_and_a_long_word_where_it_must() {
    assert_eq!(wrap("one two three", 8), ["one two", "three"]);
    assert_eq!(wrap("abcdefghijklmnop x", 8), ["abcdefgh", "ijklmnop", "x"]);
    assert_eq!(wrap("", 8), [""]);
    assert_eq!(wrap("ü°ü°ü°ü° ü", 8), ["ü°ü°ü°ü°", "ü"]);
}
