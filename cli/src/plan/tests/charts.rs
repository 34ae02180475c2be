//! Facts about the chart.

use super::super::svg;
use super::samples;
use planner::units::bytes_text;

/// Tags are closed in the order they were opened; gives back how many there were.
fn well_formed(text: &str) -> usize {
    let (mut open, mut count) = (Vec::new(), 0);
    for tag in text.split('<').skip(1) {
        let tag = tag.split('>').next().unwrap();
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap().to_string();
        match (tag.starts_with('/'), tag.ends_with('/')) {
            (true, _) => assert_eq!(open.pop(), Some(name), "{tag}"),
            (false, false) => open.push(name),
            (false, true) => {}
        }
        count += 1;
    }
    assert!(open.is_empty(), "{open:?}");
    count
}

#[test]
fn the_chart_is_well_formed_and_loads_nothing() {
    for report in
        [samples::lora_on_a_processor(), samples::full_beside_a_card(), samples::eight_cards(), samples::does_not_fit()]
    {
        let text = svg(&report);
        assert!(well_formed(&text) > 40);
        assert_eq!(text.matches("http").count(), 1, "only the name space");
        assert!(!text.contains("<script") && !text.contains("@import") && !text.contains("url("));
        assert!(text.contains("prefers-color-scheme: dark"));
    }
}

#[test]
fn names_of_users_are_escaped() {
    let mut report = samples::eight_cards();
    report.plan.name = "</text><script>\"&'\u{1}".into();
    let text = svg(&report);
    assert!(!text.contains("<script>") && text.contains("&lt;/text&gt;&lt;script&gt;&quot;&amp;&#39;"), "{text}");
    assert!(text.contains("&lt;96 GB &amp; more"));
    assert!(!text.contains('\u{1}'));
    well_formed(&text);
}

#[test]
fn nothing_is_drawn_outside_the_page() {
    for report in [samples::full_beside_a_card(), samples::eight_cards(), samples::does_not_fit()] {
        let text = svg(&report);
        for rect in text.split("<rect ").skip(1) {
            let number = |key: &str| -> f64 {
                let from = rect.split(&format!("{key}=\"")).nth(1).unwrap();
                from.split('"').next().unwrap().parse().unwrap()
            };
            assert!(number("x") >= 0.0 && number("x") + number("width") <= 960.5, "{}", rect.lines().next().unwrap());
        }
    }
}

#[test]
fn a_plan_that_does_not_fit_says_so_in_the_chart() {
    let report = samples::does_not_fit();
    let short = report.shortfall.as_ref().unwrap();
    let words = format!("does not fit: {} short", bytes_text(short.needed_bytes - short.budget_bytes));
    assert!(svg(&report).contains(&words));
    assert!(svg(&samples::lora_on_a_processor()).contains(">fits<"));
}
