//! Facts about jobs against a real HTTP server that behaves well, badly or not at all.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::test_server::{Respond, TestServer, good, says};
use super::*;

static NEVER: AtomicBool = AtomicBool::new(false);

struct Work {
    folder: tempfile::TempDir,
}

impl Work {
    /// `documents` text files of three paragraphs each, and prompts whose chunk the test server can find.
    fn new(documents: usize) -> Work {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("docs")).unwrap();
        for number in 0..documents {
            let paragraph = |part: &str| {
                format!("{part}{number} tells about wheel{number}{part} and its {number} spokes. ").repeat(5)
            };
            let text = ["alpha", "beta", "gamma"].map(paragraph).join("\n\n");
            fs::write(folder.path().join(format!("docs/{number:02}.txt")), text).unwrap();
        }
        fs::write(folder.path().join("system.txt"), "Answer in JSON.").unwrap();
        fs::write(folder.path().join("user.txt"), "{{pairs}} pairs in {{language}}\n\nTEXT\n{{chunk}}").unwrap();
        Work { folder }
    }

    fn job(&self, address: &str) -> Job {
        let short = Duration::from_millis(2);
        Job {
            input: Input {
                documents: vec![self.folder.path().join("docs").display().to_string()],
                chunking: Chunking { target: 300, bound: 400, overlap: 0 },
                chunks_max: None,
            },
            asking: Asking {
                model: "test".to_string(),
                prompts: Prompts::load(self.folder.path()).unwrap(),
                pairs: 1,
                language: "English".to_string(),
                temperature: 0.3,
                seed: 7,
                reply_tokens_max: 500,
            },
            address: Address::parse(address, Reach::Private).unwrap(),
            key: None,
            limits: Limits { pause: short, attempts: 4, timeout: Duration::from_secs(20), ..Limits::default() },
            rules: Rules::default(),
            output: self.folder.path().join("out/rows.jsonl"),
            row_shape: RowShape::QuestionAnswer,
            start: Start::GoOn,
        }
    }

    fn run(&self, server: &TestServer) -> Result<Summary, GenerateError> {
        generate(&self.job(&server.address), &NEVER, &|_| ())
    }
}

fn rows(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn good_answers_become_rows_in_document_order_with_their_provenance() {
    let work = Work::new(4);
    // The later a request, the sooner its answer.
    let server = TestServer::start(|asked| {
        Respond::Late(Duration::from_millis(40_u64.saturating_sub(3 * asked.number as u64)), Box::new(good(asked)))
    });
    let job = work.job(&server.address);
    let summary = generate(&job, &NEVER, &|_| ()).unwrap();
    assert_eq!((summary.documents, summary.chunks, summary.chunks_done, summary.rows), (4, 12, 12, 12));
    assert_eq!((summary.prompt_tokens, summary.reply_tokens), (1200, 240));
    let rows = rows(&job.output);
    let ranges: Vec<(String, u64)> = rows
        .iter()
        .map(|row| {
            (row["source"]["document"].as_str().unwrap().to_string(), row["source"]["characters"][0].as_u64().unwrap())
        })
        .collect();
    assert!(ranges.is_sorted(), "{ranges:?}");
    for row in &rows {
        let text = fs::read_to_string(row["source"]["document"].as_str().unwrap()).unwrap();
        assert!(text.contains(row["answer"].as_str().unwrap()));
    }
    let body = &server.asked.lock().unwrap()[0];
    assert_eq!((&body["seed"], &body["model"], &body["temperature"]), (&7.into(), &"test".into(), &0.3.into()));
    assert!(
        body["response_format"].is_object() && server.heads.lock().unwrap()[0].starts_with("POST /v1/chat/completions")
    );
}

#[test]
fn messages_rows_hold_the_same_pairs() {
    let work = Work::new(1);
    let server = TestServer::start(good);
    let job = Job { row_shape: RowShape::Messages, ..work.job(&server.address) };
    generate(&job, &NEVER, &|_| ()).unwrap();
    let row = &rows(&job.output)[0];
    assert_eq!((&row["messages"][0]["role"], &row["messages"][1]["role"]), (&"user".into(), &"assistant".into()));
    assert!(row["source"]["document"].is_string());
}

/// Bad `times` times, then good.
fn recovers(times: usize, bad: impl Fn() -> Respond + Send + Sync + 'static) -> (Summary, usize) {
    let work = Work::new(1);
    let server = TestServer::start(move |asked| if asked.number < times { bad() } else { good(asked) });
    let mut job = work.job(&server.address);
    job.limits.concurrency = 1;
    job.limits.timeout = Duration::from_millis(1500);
    let summary = generate(&job, &NEVER, &|_| ()).unwrap();
    (summary, server.requests())
}

#[test]
fn passing_faults_are_tried_again() {
    let faults: [fn() -> Respond; 7] = [
        || Respond::With(500, "", "oops".to_string()),
        || Respond::With(429, "Retry-After: 0\r\n", "{}".to_string()),
        || Respond::With(200, "", "<html>not the API</html>".to_string()),
        || Respond::With(200, "", "{\"object\": \"list\"}".to_string()),
        || Respond::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{\"choices\": [{\"mess".to_vec()),
        || Respond::Raw(Vec::new()),
        || Respond::Late(Duration::from_secs(3), Box::new(says("late"))),
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        let (summary, requests) = recovers(2, fault);
        assert_eq!((summary.rows, requests), (3, 5), "fault {number}: {summary:?}");
    }
}

#[test]
fn a_reply_without_json_is_asked_for_again_with_another_seed_and_then_counted() {
    let work = Work::new(1);
    let server = TestServer::start(|asked| match asked.body["seed"].as_u64() {
        Some(7) => says("I would rather not."),
        _ => good(asked),
    });
    assert_eq!(work.run(&server).unwrap().rows, 3);
    let work = Work::new(1);
    let server = TestServer::start(|asked| {
        let first = asked.body["messages"][1]["content"].as_str().unwrap().contains("alpha");
        if first { says("No.") } else { good(asked) }
    });
    let summary = work.run(&server).unwrap();
    assert_eq!((summary.rows, summary.rejected["no JSON in the reply"], server.requests()), (2, 1, 5));
    let rejects = rows(&rejects_path(&work.job(&server.address).output));
    assert_eq!(rejects[0]["reply"], "No.");
}

#[test]
fn retry_after_is_waited_for() {
    let begin = Instant::now();
    let (summary, requests) = recovers(1, || Respond::With(429, "Retry-After: 1\r\n", String::new()));
    assert!(begin.elapsed() >= Duration::from_secs(1));
    assert_eq!((summary.rows, requests), (3, 4));
}

#[test]
fn a_server_that_keeps_failing_ends_the_job_after_three_chunks_with_its_own_words() {
    let work = Work::new(4);
    let server =
        TestServer::start(|_| Respond::With(503, "", "{\"error\": {\"message\": \"out of memory\"}}".to_string()));
    let mut job = work.job(&server.address);
    job.limits.concurrency = 1;
    let error = generate(&job, &NEVER, &|_| ()).unwrap_err().to_string();
    assert!(error.contains("3 chunks failed in a row") && error.contains("503: out of memory (4 attempts)"), "{error}");
    assert_eq!(server.requests(), 12);
}

#[test]
fn refusals_are_told_once_and_not_tried_again() {
    let long = "x".repeat(100_000);
    for (status, word) in [(401, "--key-env"), (404, "model's name"), (418, "418")] {
        let (work, body) = (Work::new(1), format!("{{\"error\": {{\"message\": \"no: {long}\"}}}}"));
        let server = TestServer::start(move |_| Respond::With(status, "", body.clone()));
        let mut job = work.job(&server.address);
        job.limits.concurrency = 1;
        let error = generate(&job, &NEVER, &|_| ()).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("no: xxx") && error.len() < 600, "{error}");
        assert_eq!(server.requests(), 1);
        assert!(!job.output.exists());
    }
}

#[test]
fn one_chunk_that_the_server_refuses_does_not_cost_the_others() {
    let work = Work::new(2);
    let server = TestServer::start(|asked| {
        let user = asked.body["messages"][1]["content"].as_str().unwrap();
        if user.contains("beta1") { Respond::With(400, "", "context too long".to_string()) } else { good(asked) }
    });
    let summary = work.run(&server).unwrap();
    assert_eq!((summary.rows, summary.chunks_done, summary.chunks_failed.len()), (5, 5, 1));
    assert!(summary.chunks_failed[0].1.contains("answers 400: context too long"), "{summary:?}");
}

#[test]
fn a_server_without_response_format_is_asked_without() {
    let work = Work::new(1);
    let server = TestServer::start(|asked| match asked.body["response_format"].is_object() {
        true => Respond::With(400, "", "{\"error\": \"unknown field response_format\"}".to_string()),
        false => good(asked),
    });
    let mut job = work.job(&server.address);
    job.limits.concurrency = 1;
    assert_eq!(generate(&job, &NEVER, &|_| ()).unwrap().rows, 3);
    assert_eq!(server.requests(), 4);
}

#[test]
fn a_huge_body_is_not_read_to_its_end() {
    let work = Work::new(1);
    let server = TestServer::start(|asked| match asked.number {
        0 => Respond::With(200, "", " ".repeat(3 << 20)),
        _ => good(asked),
    });
    let mut job = work.job(&server.address);
    job.limits.reply_bytes_max = 1 << 20;
    let summary = generate(&job, &NEVER, &|_| ()).unwrap();
    assert_eq!(summary.chunks_failed.len(), 1);
    assert!(summary.chunks_failed[0].1.contains("longer than 1048576 bytes"), "{summary:?}");
}

#[test]
fn a_redirect_is_refused_and_its_target_is_not_contacted() {
    let work = Work::new(1);
    let target = TestServer::start(good);
    for status in [301, 302, 307, 308] {
        let location: &'static str =
            Box::leak(format!("Location: {}/chat/completions\r\n", target.address).into_boxed_str());
        let server = TestServer::start(move |_| Respond::With(status, location, String::new()));
        let error = work.run(&server).unwrap_err();
        assert!(
            matches!(&error, GenerateError::Redirected { target: to, .. } if to.starts_with(&target.address)),
            "{error}"
        );
    }
    assert_eq!(target.requests(), 0);
}

#[test]
fn nobody_listening_is_one_line_that_says_what_to_start() {
    let work = Work::new(1);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = generate(&work.job(&format!("http://127.0.0.1:{port}/v1")), &NEVER, &|_| ()).unwrap_err();
    assert!(matches!(error, GenerateError::NotListening { .. }), "{error}");
    assert!(error.to_string().contains("ollama serve") && !error.to_string().contains('\n'));
}

#[test]
fn the_bound_on_concurrency_is_reached_and_kept() {
    let work = Work::new(8);
    let server = TestServer::start(|asked| Respond::Late(Duration::from_millis(60), Box::new(good(asked))));
    let mut job = work.job(&server.address);
    job.limits.concurrency = 3;
    generate(&job, &NEVER, &|_| ()).unwrap();
    assert_eq!(server.most_at_once.load(Ordering::SeqCst), 3);
}

#[test]
fn a_job_stopped_in_the_middle_and_started_again_gives_the_bytes_of_one_go() {
    let work = Work::new(5);
    let server = TestServer::start(good);
    let job = work.job(&server.address);
    generate(&job, &NEVER, &|_| ()).unwrap();
    let whole = (fs::read(&job.output).unwrap(), fs::read(rejects_path(&job.output)).unwrap());
    for stop_after in [1, 4, 9] {
        let parts = Job { output: work.folder.path().join(format!("{stop_after}/rows.jsonl")), ..job.clone() };
        let stop = AtomicBool::new(false);
        let before = server.requests();
        let halted = generate(&parts, &stop, &|event| {
            if matches!(event, Event::Done { done, .. } if done >= stop_after) {
                stop.store(true, Ordering::SeqCst);
            }
        });
        let halted = halted.unwrap();
        assert!(halted.stopped && halted.chunks_done >= stop_after && halted.chunks_done < 15, "{halted:?}");
        assert!(!parts.output.exists());
        let resumed = generate(&parts, &NEVER, &|_| ()).unwrap();
        assert_eq!((resumed.chunks_resumed, resumed.rows), (halted.chunks_done, 15));
        assert_eq!(server.requests() - before, 15);
        assert_eq!(fs::read(&parts.output).unwrap(), whole.0);
        assert_eq!(fs::read(rejects_path(&parts.output)).unwrap(), whole.1);
    }
}

#[test]
fn a_second_run_asks_nothing_a_changed_document_only_its_chunk_and_a_restart_all() {
    let work = Work::new(3);
    let server = TestServer::start(good);
    let mut job = work.job(&server.address);
    let asked = |job: &Job| {
        let before = server.requests();
        generate(job, &NEVER, &|_| ()).unwrap();
        server.requests() - before
    };
    assert_eq!(asked(&job), 9);
    assert_eq!(asked(&job), 0);
    job.rules.grounded_min = Some(0.9);
    assert_eq!(asked(&job), 0);
    let path = work.folder.path().join("docs/01.txt");
    let text = fs::read_to_string(&path).unwrap().replace("gamma1 tells", "delta1 tells");
    fs::write(&path, text).unwrap();
    assert_eq!(asked(&job), 1);
    job.start = Start::Anew;
    assert_eq!(asked(&job), 9);
}

#[test]
fn duplicates_and_pairs_without_an_answer_are_counted_and_kept_aside() {
    let work = Work::new(1);
    let server = TestServer::start(|_| {
        says(
            r#"{"pairs": [{"question": "What is a wheel made of?", "answer": "Spokes."}, {"question": "Why so?", "answer": " "}]}"#,
        )
    });
    let summary = work.run(&server).unwrap();
    assert_eq!(summary.rows, 1);
    assert_eq!(summary.rejected["same question as an earlier one"], 2);
    assert_eq!(summary.rejected["empty answer"], 3);
    assert_eq!(rows(&rejects_path(&work.job(&server.address).output)).len(), 5);
}

#[test]
fn a_job_without_a_single_row_is_an_error_that_names_the_rejects() {
    let work = Work::new(1);
    let server = TestServer::start(|_| says("{\"pairs\": []}"));
    let error = work.run(&server).unwrap_err().to_string();
    assert!(error.contains("3 chunks gave no row") && error.contains("rows.jsonl.rejects"), "{error}");
}

#[test]
fn the_key_is_sent_and_stands_in_no_file() {
    let work = Work::new(1);
    let server = TestServer::start(good);
    let job = Job { key: Some("sekret-word".to_string()), ..work.job(&server.address) };
    generate(&job, &NEVER, &|_| ()).unwrap();
    let head = server.heads.lock().unwrap()[0].to_ascii_lowercase();
    assert!(head.contains("authorization: bearer sekret-word"), "{head}");
    for path in [job.output.clone(), journal_path(&job.output), rejects_path(&job.output)] {
        assert!(!fs::read_to_string(path).unwrap().contains("sekret"));
    }
}

#[test]
fn a_preview_shows_the_chunks_and_the_first_prompt_and_leaves_nothing() {
    let work = Work::new(2);
    let job = work.job("http://127.0.0.1:9/v1");
    let input = Input { chunks_max: Some(4), ..job.input.clone() };
    let preview = preview(&input, &job.asking).unwrap();
    assert_eq!((preview.documents, preview.chunks.len()), (2, 4));
    assert!(preview.first_user.starts_with("1 pairs in English\n\nTEXT\nalpha0 tells"), "{}", preview.first_user);
    assert!(!job.output.parent().unwrap().exists());
}

#[test]
fn progress_counts_every_chunk_once() {
    let work = Work::new(2);
    let server = TestServer::start(good);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let keep = seen.clone();
    generate(&work.job(&server.address), &NEVER, &move |event| keep.lock().unwrap().push(event)).unwrap();
    let mut done: Vec<usize> = seen
        .lock()
        .unwrap()
        .iter()
        .filter_map(|event| match event {
            Event::Done { done, chunks: 6 } => Some(*done),
            _ => None,
        })
        .collect();
    done.sort_unstable();
    assert_eq!(done, [1, 2, 3, 4, 5, 6]);
}
