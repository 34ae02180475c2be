//! Facts about reading `metrics.jsonl`.
#![allow(clippy::unwrap_used)]

use super::*;

fn read(text: &str) -> Metrics {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    std::fs::write(&path, text).unwrap();
    Metrics::read(&path, 600).unwrap()
}

fn step(step: u64, loss: f64) -> String {
    format!("{{\"step\":{step},\"steps\":20,\"loss\":{loss},\"step_ms\":{},\"tokens\":10}}\n", step * 10)
}

fn evaluation(step: u64, loss: f64) -> String {
    format!("{{\"step\":{step},\"evaluation\":{{\"loss\":{loss},\"rows\":4,\"exact\":null}}}}\n")
}

fn losses(metrics: &Metrics) -> Vec<(u64, f64)> {
    metrics.of(Figure::Loss).points().iter().map(|(step, loss)| (*step as u64, *loss)).collect()
}

#[test]
fn steps_that_were_done_again_have_the_later_figures_and_abandoned_ones_are_gone() {
    let first: String = (1..=10).map(|at| step(at, 1.0)).collect();
    let again: String = (6..=8).map(|at| step(at, 2.0)).collect();
    let text = evaluation(0, 9.0) + &first + &evaluation(5, 5.0) + &evaluation(10, 8.0) + &again;
    let metrics = read(&text);
    let expected: Vec<(u64, f64)> = (1..=8).map(|at| (at, if at < 6 { 1.0 } else { 2.0 })).collect();
    assert_eq!(losses(&metrics), expected);
    assert_eq!((metrics.last_step, metrics.steps_planned, metrics.steps_known), (Some(8), Some(20), 8));
    assert_eq!(metrics.resumed_at, [(6, 5)]);
    assert_eq!(metrics.evaluations.keys().copied().collect::<Vec<_>>(), [0, 5], "step 10 was never reached again");
    assert_eq!((metrics.tokens, metrics.step_ms_median), (80.0, Some(50.0)));
}

#[test]
fn a_line_of_a_save_that_ends_some_steps_later_sends_no_step_back() {
    let saved = "{\"step\":2,\"checkpoint\":{\"path\":\"step-000002\",\"seconds\":0.5}}\n";
    let text = step(1, 1.0) + &step(2, 2.0) + &step(3, 3.0) + saved + &step(4, 4.0);
    let metrics = read(&text);
    assert_eq!(losses(&metrics), [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]);
    assert!(metrics.resumed_at.is_empty() && metrics.unreadable == 0);
}

#[test]
fn of_three_processes_only_the_lines_that_still_count_are_taken() {
    let lines = [(1..=9, 1.0), (4..=12, 2.0), (8..=10, 3.0)];
    let text: String = lines.iter().flat_map(|(steps, loss)| steps.clone().map(|at| step(at, *loss))).collect();
    let metrics = read(&text);
    let of = |at: u64| {
        if at < 4 {
            1.0
        } else if at < 8 {
            2.0
        } else {
            3.0
        }
    };
    assert_eq!(losses(&metrics), (1..=10).map(|at| (at, of(at))).collect::<Vec<_>>());
    assert_eq!(metrics.resumed_at, [(4, 6), (8, 5)]);
}

#[test]
fn a_cut_last_line_is_left_out_and_told() {
    let metrics = read(&format!("{}{}{{\"step\":3,\"lo", step(1, 1.0), step(2, 0.5)));
    assert!(metrics.cut_at_the_end);
    assert_eq!((losses(&metrics), metrics.unreadable), (vec![(1, 1.0), (2, 0.5)], 0));
    let whole = read(step(1, 1.0).trim_end());
    assert!(!whole.cut_at_the_end && whole.last_step == Some(1), "a line without its end may be whole");
}

#[test]
fn lines_that_cannot_be_read_are_counted_and_the_first_is_named() {
    let long = format!("{{\"step\":2,\"text\":\"{}\"}}\n", "x".repeat(3 << 20));
    let text = format!("{}not json\n\n[1,2]\n{long}{}", step(1, 1.0), step(3, 0.5));
    let metrics = read(&text);
    assert_eq!((metrics.unreadable, metrics.first_unreadable, metrics.cut_at_the_end), (3, Some(2), false));
    assert_eq!(losses(&metrics), [(1, 1.0), (3, 0.5)]);
}

#[test]
fn a_loss_that_is_no_number_leaves_a_gap() {
    let metrics = read(&format!("{}{{\"step\":2,\"loss\":null}}\n{}", step(1, 1.0), step(3, 0.5)));
    assert_eq!((losses(&metrics), metrics.last_step), (vec![(1, 1.0), (3, 0.5)], Some(3)));
}

#[test]
fn bytes_written_are_added_up_where_an_older_run_does_not_say() {
    let line = |at: u64, more: &str| format!("{{\"step\":{at},\"nvme_write_bytes\":100{more}}}\n");
    let old: String = (1..=4).map(|at| line(at, "")).collect();
    assert_eq!(read(&old).nvme_written_bytes(), 400);
    let new: String = (1..=4).map(|at| line(at, &format!(",\"nvme_written_bytes\":{}", 1000 + at * 100))).collect();
    assert_eq!(read(&new).nvme_written_bytes(), 1400);
}

#[test]
fn an_empty_file_is_a_run_before_its_first_step() {
    let metrics = read("");
    assert_eq!((metrics.last_step, metrics.unreadable, metrics.steps_known), (None, 0, 0));
    let only = read(&evaluation(0, 3.0));
    assert_eq!((only.last_step, only.evaluations.len()), (None, 1));
}
