//! Facts about reading a run directory.
#![allow(clippy::unwrap_used)]

use std::fs;

use super::*;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = Folder(tempfile::tempdir().unwrap());
        folder.write(
            RECIPE_FILE,
            "name = \"tiny\"\n[train]\nsteps = 2\nfuture_key = 1\n[[data.sources]]\npath = \"a\"\n",
        );
        folder.write(METRICS_FILE, "{\"step\":1,\"steps\":2,\"loss\":2.0}\n{\"step\":2,\"steps\":2,\"loss\":1.0}\n");
        folder
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    fn read(&self) -> anyhow::Result<Run> {
        Run::read(self.0.path(), 600, Lock::Others)
    }
}

#[test]
fn a_run_without_plan_answers_or_checkpoints_is_read_and_the_plan_is_missed() {
    let run = Folder::new().read().unwrap();
    assert_eq!(
        (run.name.as_str(), run.key("train.future_key"), run.key("train.steps")),
        ("tiny", Some("1"), Some("2"))
    );
    assert!(run.plan.is_none() && run.samples.is_empty() && run.checkpoints.is_empty());
    assert!(run.notes.iter().any(|note| note.contains("plan.json")), "{:?}", run.notes);
    assert_eq!(run.standing, Standing::Stopped, "all steps are done, but there is no result");
}

#[test]
fn a_run_is_finished_running_or_stopped() {
    let folder = Folder::new();
    fs::create_dir(folder.0.path().join("adapter")).unwrap();
    assert_eq!(folder.read().unwrap().standing, Standing::Finished);
    let lock = lock::RunLock::acquire(folder.0.path()).unwrap();
    assert_eq!(folder.read().unwrap().standing, Standing::Running(std::process::id().to_string()));
    assert_eq!(Run::read(folder.0.path(), 600, Lock::Own).unwrap().standing, Standing::Finished);
    drop(lock);
    folder.write(METRICS_FILE, "{\"step\":1,\"steps\":2,\"loss\":2.0}\n");
    assert_eq!(folder.read().unwrap().standing, Standing::Stopped);
}

#[test]
fn what_is_no_run_is_named() {
    let folder = Folder::new();
    let error = |folder: &Folder| folder.read().unwrap_err().to_string();
    folder.write(METRICS_FILE, "no\nmetrics\n");
    assert!(error(&folder).contains("metrics.jsonl: line 1"), "{}", error(&folder));
    folder.write(METRICS_FILE, "");
    folder.write(PLAN_FILE, "{\"memory\":");
    assert!(error(&folder).contains("damaged") && error(&folder).contains("plan.json"), "{}", error(&folder));
    folder.write(PLAN_FILE, "{\"memory\":{}}");
    assert!(folder.read().unwrap().plan.is_none());
    folder.write(RECIPE_FILE, "name = ");
    assert!(error(&folder).contains("recipe.toml"), "{}", error(&folder));
    fs::write(folder.0.path().join(RECIPE_FILE), [0xff, 0xfe]).unwrap();
    assert!(error(&folder).contains("UTF-8"), "{}", error(&folder));
    fs::remove_file(folder.0.path().join(RECIPE_FILE)).unwrap();
    assert!(error(&folder).contains("not a run directory"), "{}", error(&folder));
    let missing = Run::read(Path::new("/no/such/run"), 600, Lock::Others).unwrap_err().to_string();
    assert!(missing.contains("no such run directory: /no/such/run"), "{missing}");
}

#[test]
fn answers_of_one_question_stand_together_and_twins_apart() {
    let folder = Folder::new();
    let line = |step: u64, question: &str, answer: &str| {
        format!("{}\n", serde_json::json!({"step": step, "question": question, "expected": "4", "answer": answer}))
    };
    let lines =
        [line(0, "2+2", "5"), line(0, "2+2", "6"), line(0, "1+3", "3"), line(9, "2+2", "4"), line(9, "2+2", "7")];
    folder.write(SAMPLES_FILE, &format!("{}{{\"cut", lines.concat()));
    let samples = folder.read().unwrap().samples;
    let answers: Vec<Vec<&str>> =
        samples.iter().map(|one| one.answers.iter().map(|(_, answer)| answer.as_str()).collect()).collect();
    assert_eq!(answers, [vec!["5", "4"], vec!["6", "7"], vec!["3"]]);
}
