//! `tune report` from outside: what the page says of real and of made runs, and that it can do no harm.
//!
//! In:    the built program, tiny real runs, run directories with made metrics.
//! Out:   facts about the page, its elements and its exit codes.
//! Never: looks at pixels: `report/browser.rs` asks a real browser.

mod browser;
mod made;
mod page;

use std::fs;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use crate::survival::Runs;
use made::Made;
use page::Page;

#[test]
fn a_real_run_leaves_a_page_with_its_curves_answers_plan_and_recipe() {
    let runs = Runs::new(9);
    runs.succeeds("out", &["--set", "eval.every_steps=3"]);
    let page = Page::of(&fs::read_to_string(runs.path("out/report.html")).unwrap());
    let text = page.text();
    for said in
        ["finished: all 9 steps", "held-out loss", "exact answers", "peak memory", "rank = 4", "Before training"]
    {
        assert!(text.contains(said), "{said} is not in: {text}");
    }
    for said in ["After step 9", "step 7", "step 9", "Processor", "rows", "events.out.tfevents"] {
        assert!(text.contains(said), "{said} is not in: {text}");
    }
    for chart in ["loss", "learning-rate", "gradient-norm", "speed", "step-time", "memory"] {
        assert!(page.has("figure", "id", &format!("chart-{chart}")), "{chart} is drawn");
    }
    assert_eq!(page.count("circle"), 2 * 4, "held-out loss before, at 3 and 6, and after; on both scales");
    let metrics = runs.steps_of("out");
    let figures = page.figures();
    let losses: Vec<f64> = figures["charts"][0]["curves"][0]["v"].as_array().unwrap().iter().map(number).collect();
    assert_eq!(losses.len(), 9);
    for (drawn, line) in losses.iter().zip(&metrics) {
        let loss = line["loss"].as_f64().unwrap();
        assert!((drawn - loss).abs() <= 1e-4 * loss, "{drawn} is drawn for {loss}");
    }
}

#[test]
fn samples_are_the_first_questions_before_and_after_and_the_same_in_every_run() {
    let runs = Runs::new(5);
    runs.succeeds("one", &[]);
    runs.succeeds("two", &[]);
    let text = fs::read_to_string(runs.path("one/samples.jsonl")).unwrap();
    assert_eq!(text, fs::read_to_string(runs.path("two/samples.jsonl")).unwrap());
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |step: u64| lines.iter().filter(|line| line["step"] == step).collect::<Vec<_>>();
    assert_eq!((of(0).len(), of(5).len(), lines.len()), (8, 8, 16), "{text}");
    for (before, after) in of(0).into_iter().zip(of(5)) {
        assert_eq!((&before["question"], &before["expected"]), (&after["question"], &after["expected"]));
        assert!(!before["expected"].as_str().unwrap().is_empty());
    }
}

#[test]
fn json_tells_the_figures_of_the_metrics() {
    let runs = Runs::new(6);
    runs.succeeds("out", &[]);
    let output = tune(&["report", runs.path("out").to_str().unwrap(), "--json"]);
    assert_eq!(output.0, 0, "{}", output.2);
    let told: Value = serde_json::from_str(&output.1).unwrap();
    let (run, lines) = (&told["runs"][0], runs.steps_of("out"));
    assert_eq!(
        (run["status"].as_str(), run["step"].as_u64(), run["steps"].as_u64()),
        (Some("finished"), Some(6), Some(6))
    );
    assert_eq!(run["loss_last"], lines[5]["loss"]);
    assert_eq!(run["peak_rss_bytes"], lines[5]["peak_rss_bytes"]);
    let tokens: u64 = lines.iter().map(|line| line["tokens"].as_u64().unwrap()).sum();
    assert_eq!(run["tokens"].as_u64(), Some(tokens));
    assert!(run["held_out_before"]["loss"].as_f64() > run["held_out_after"]["loss"].as_f64());
    assert_eq!(told["bytes"].as_u64().unwrap(), fs::metadata(told["report"].as_str().unwrap()).unwrap().len());
}

#[test]
fn a_run_with_everything_recorded_shows_every_chart_against_the_plan_and_its_budget() {
    let made = Made::new();
    made.run("all", 40, &|step, line| {
        line["nvme"] = json!([{"path": "/mnt/a", "read_bytes": 5_000_000, "written_bytes": 3_000_000},
            {"path": "/mnt/b", "read_bytes": 4_000_000, "written_bytes": 2_000_000}]);
        line["nvme_read_bytes"] = json!(9_000_000);
        line["nvme_write_bytes"] = json!(5_000_000);
        line["nvme_written_bytes"] = json!(100_000_000 + 5_000_000 * step);
        line["stalls"] =
            json!({"weights_ms": 10, "activations_ms": 0.0, "gradients_ms": 3, "optimizer_ms": 20, "cosmic_ms": 1});
        line["stall_ms"] = json!(34);
        line["gpu_celsius"] = json!(60 + step / 4);
        line["gpu_watts"] = json!(250);
        line["throttle"] = json!(if (20..25).contains(&step) { "heat" } else { "none" });
        line["device_bytes"] = json!(700_000_000);
        line["dram_tier_bytes"] = json!(300_000_000);
    });
    let page = made.report(&["all"]);
    for chart in ["read", "write", "written", "temperature", "power"] {
        assert!(page.has("figure", "id", &format!("chart-{chart}")), "{chart} is drawn");
    }
    let text = page.text();
    for said in
        ["/mnt/a", "/mnt/b", "write budget 400 MB", "waiting for weights", "for the optimizer", "for cosmic", "heat: 5"]
    {
        assert!(text.contains(said), "{said} is not in: {text}");
    }
    assert!(!text.contains("for block inputs"), "a cause that never made a step wait has no entry");
    for said in ["planned peak 1.1 GB", "device tier 700 MB", "dram tier 300 MB", "70 °C", "250 W"] {
        assert!(text.contains(said), "{said} is not in: {text}");
    }
    assert!(!text.contains("Not recorded"), "{text}");
    assert_eq!(page.count_class("rect", "throttled"), 1, "five steps side by side are one stretch");
}

#[test]
fn what_a_run_did_not_record_is_named() {
    let made = Made::new();
    made.run("plain", 5, &|_, _| {});
    let page = made.report(&["plain"]);
    let text = page.text();
    assert!(
        text.contains(
            "Not recorded: bytes moved to and from NVMe (nothing lives there), temperature, power, throttling."
        ),
        "{text}"
    );
    for chart in ["read", "write", "written", "temperature", "power", "waiting"] {
        assert!(!page.has("figure", "id", &format!("chart-{chart}")), "{chart} is not drawn");
    }
}

#[test]
fn several_runs_stand_side_by_side_with_what_differs() {
    let made = Made::new();
    made.run("slow", 30, &|_, _| {});
    made.run("fast", 50, &|step, line| {
        line["loss"] = json!(1.0 / (step as f64));
        line["tokens_per_second"] = json!(999);
    });
    made.edit("fast", "recipe.toml", &|text| text.replace("learning_rate = 0.001", "learning_rate = 0.02"));
    let page = made.report(&["slow", "fast"]);
    let text = page.text();
    assert!(text.contains("optimizer.learning_rate 0.001 0.02"), "{text}");
    assert!(!text.contains("optimizer.kind \""), "equal keys are not among those that differ");
    assert!(text.contains("stopped after step 30 of 100") && text.contains("stopped after step 50 of 100"), "{text}");
    assert_eq!(page.count_where("input", "class", "run-shown"), 2);
    for run in ["0", "1"] {
        assert!(page.elements.iter().any(|one| one.name == "path" && one.is("data-run", run)), "curves of run {run}");
    }
    assert_eq!(page.figures()["charts"][0]["curves"].as_array().unwrap().len(), 2);
}

#[test]
fn runs_of_one_name_are_told_apart_by_their_folders() {
    let made = Made::new();
    for name in ["first", "second"] {
        made.run(name, 3, &|_, _| {});
        made.edit(name, "recipe.toml", &|text| text.replace(&format!("name = \"{name}\""), "name = \"same\""));
    }
    let text = made.report(&["first", "second"]).text();
    assert!(text.contains("first: stopped after") || text.contains("first second"), "{text}");
}

#[test]
fn hostile_text_stays_text_wherever_it_stands() {
    const HOSTILE: &str = "</script></title></style><script>alert(1)</script><img src=x onerror=alert(2)>\"' onload='x' &amp;\u{0}\u{202e}";
    let made = Made::new();
    let words = json!(HOSTILE);
    made.run("bad", 6, &|_, line| {
        line["nvme"] = json!([{"path": words, "read_bytes": 5, "written_bytes": 3}]);
        line["nvme_read_bytes"] = json!(5);
        line["stalls"] = json!({HOSTILE: 5});
        line["throttle"] = words.clone();
        line["gpu_celsius"] = json!(50);
    });
    let quoted = words.to_string().replace("\\u0000", "\\u0001");
    made.edit("bad", "recipe.toml", &|text| text.replace("name = \"bad\"", &format!("name = {quoted}")));
    let sample = json!({"step": 0, "question": HOSTILE, "expected": HOSTILE, "answer": HOSTILE});
    made.write("bad", "samples.jsonl", &format!("{sample}\n"));
    let session =
        json!({"first_step": 1, "version": HOSTILE, "machine": [[HOSTILE, [[HOSTILE, HOSTILE]]]], "data": [HOSTILE]});
    made.write("bad", "sessions.jsonl", &format!("{session}\n"));
    made.write("bad", "events.out.tfevents.<img src=x>", "");
    made.run("good", 6, &|_, _| {});
    for runs in [&["bad"][..], &["bad", "good"]] {
        let page = made.report(runs);
        assert_eq!(page.count("script"), 2, "the figures and the page's own script");
        assert_eq!(page.count("img") + page.count("iframe") + page.count("style") - 1, 0);
        for element in &page.elements {
            for (name, value) in &element.attributes {
                assert!(!name.starts_with("on"), "{element:?}");
                assert!(name != "src" && (name != "href" || value == "data:,"), "{element:?}");
            }
        }
        assert!(page.text().contains("<script>alert(1)</script><img src=x onerror=alert(2)>"), "it is shown as it is");
        assert!(!page.source.contains('\u{0}') && !page.source.contains('\u{1}'));
        serde_json::from_str::<Value>(&page.script("application/json")).unwrap();
    }
}

#[test]
fn a_page_needs_nothing_from_outside_and_forbids_it() {
    let made = Made::new();
    made.run("one", 20, &|_, _| {});
    let page = made.report(&["one"]);
    for word in ["http:", "https:", "//www", "@import", "url(", "fetch(", "XMLHttpRequest", "import("] {
        assert!(!page.source.contains(word), "{word}");
    }
    let policy = page.elements.iter().find(|one| one.is("http-equiv", "Content-Security-Policy")).unwrap();
    assert!(policy.attribute("content").unwrap().starts_with("default-src 'none'"));
}

#[test]
fn charts_and_tables_can_be_heard() {
    let made = Made::new();
    made.run("one", 20, &|_, _| {});
    let page = made.report(&["one"]);
    let charts = page.elements.iter().filter(|one| one.name == "svg").count();
    assert!(charts >= 6 && page.count("desc") == charts, "a description for each of {charts} drawings");
    assert!(page.text().contains("training: from 4.000 to"), "the description tells the curve");
    assert_eq!(page.count("caption"), page.count("table"));
    assert!(page.count_where("th", "scope", "row") > 8 && page.count_where("th", "scope", "col") > 3);
    assert!(page.has("html", "lang", "en"));
}

#[test]
fn a_cut_line_and_steps_done_again_are_told_and_the_later_figures_shown() {
    let made = Made::new();
    made.run("again", 10, &|_, _| {});
    made.edit("again", "metrics.jsonl", &|text| {
        let line = text.lines().nth(7).unwrap();
        let mut line: Value = serde_json::from_str(line).unwrap();
        line["loss"] = json!(7.75);
        format!("{text}{line}\n{{\"step\":8,\"lo")
    });
    let page = made.report(&["again"]);
    let text = page.text();
    assert!(text.contains("4 steps from step 7 were done again after a resume"), "{text}");
    assert!(
        text.contains("The last line of metrics.jsonl is cut") && text.contains("stopped after step 7 of 100"),
        "{text}"
    );
    let figures = page.figures();
    let losses = figures["charts"][0]["curves"][0]["v"].as_array().unwrap();
    assert_eq!((losses.len(), losses[6].as_f64()), (7, Some(7.75)));
}

#[test]
fn a_run_that_another_process_writes_is_running_and_is_not_touched() {
    let made = Made::new();
    made.run("now", 10, &|_, _| {});
    let _lock = checkpoints::lock::RunLock::acquire(&made.path("now")).unwrap();
    let text = made.report(&["now"]).text();
    assert!(
        text.contains(&format!("running: step 10 of 100, process {}, about 18.4 s left", std::process::id())),
        "{text}"
    );
    fs::write(made.path("now").join("metrics.jsonl"), "").unwrap();
    assert!(made.report(&["now"]).text().contains("running: step 0"));
}

#[test]
fn a_hundred_thousand_steps_are_quick_small_and_hide_no_spike() {
    let made = Made::new();
    made.long("long", 100_000);
    let begun = Instant::now();
    let page = made.report(&["long"]);
    let seconds = begun.elapsed().as_secs_f64();
    let bytes = page.source.len();
    eprintln!("100,000 steps: {seconds:.2} s, {bytes} bytes");
    assert!(bytes < 2_000_000, "{bytes} bytes");
    assert!(seconds < 15.0, "{seconds} s on a busy machine");
    let figures = page.figures();
    let curve = &figures["charts"][0]["curves"][0];
    let values = |key: &str| curve[key].as_array().unwrap().iter().map(number).collect::<Vec<f64>>();
    assert!(values("hi").contains(&42.0) && values("lo").contains(&0.125), "the one spike and the one dip are kept");
    let width = figures["runs"][0]["width"].as_u64().unwrap();
    assert!(
        width > 1
            && page.text().contains(&format!("of every {width} steps the smallest and the largest figure are drawn"))
    );
    made.long("shorter", 20_000);
    let several = made.report(&["shorter"; 8]);
    assert!(several.source.len() < 2_000_000, "{} bytes for eight", several.source.len());
}

#[test]
fn what_is_no_run_is_one_line_and_exit_code_2() {
    let made = Made::new();
    made.run("good", 3, &|_, _| {});
    made.run("broken", 3, &|_, _| {});
    made.write("broken", "metrics.jsonl", "\u{1}\u{2}\n\u{3}\n");
    fs::create_dir(made.path("foreign")).unwrap();
    made.write("foreign", "metrics.jsonl", "{\"step\":1}\n");
    let path = |name: &str| made.path(name).display().to_string();
    let nine = vec![path("good"); 9];
    let mut many = vec!["report"];
    many.extend(nine.iter().map(String::as_str));
    let (good, missing, foreign, broken, nowhere) =
        (path("good"), path("missing"), path("foreign"), path("broken"), path("no/such/folder.html"));
    for (arguments, words) in [
        (vec!["report", &missing], "no such run directory"),
        (vec!["report", &foreign], "not a run directory"),
        (vec!["report", &broken], "damaged run directory"),
        (vec!["report", &good, &missing], "no such run directory"),
        (vec!["report", &good, "--output", &nowhere], "a folder that exists"),
        (many, "at most 8"),
    ] {
        let (code, stdout, stderr) = tune(&arguments);
        assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
        assert!(stderr.starts_with("error: ") && stderr.lines().count() == 1 && stderr.contains(words), "{stderr}");
    }
    assert!(!made.path("good").join("report.html").exists());
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

/// Exit code, stdout, stderr.
fn tune(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tune")).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}
