//! Bad input: one clear line, the promised exit code, nothing written. Good input: what the commands promise.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::parity::fixture;

/// A folder with a recipe for the tiny Llama fixture, and the program run in it.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let place = Place { folder: tempfile::tempdir().unwrap() };
        let text = format!(
            r#"name = "tiny"
[model]
source = "{model}"
precision = "f32"
[method]
kind = "lora"
rank = 2
alpha = 4
[data]
sequence_length = 128
too_long = "truncate"
[[data.sources]]
path = "{rows}"
[train]
steps = 1
tokens_per_step = 128
[optimizer]
kind = "adamw"
learning_rate = 1e-3
[schedule]
kind = "constant"
[log]
tensorboard = false
"#,
            model = fixture("llama").display(),
            rows = fixture("data/train.jsonl").display(),
        );
        place.write("recipe.toml", text.as_bytes());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    fn tune(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tune"));
        command.current_dir(self.folder.path()).env("TUNE_CACHE", self.path("cache"));
        command.args(arguments).output().unwrap()
    }

    fn run_with(&self, set: &[String]) -> Output {
        let mut arguments = vec!["run", "recipe.toml", "--output", "out"];
        for one in set {
            arguments.extend(["--set", one]);
        }
        self.tune(&arguments)
    }

    /// Runs with overrides; expects `code`, one `error:` line with all of `words`, and no run directory.
    fn refuses(&self, set: &[String], code: i32, words: &[&str]) {
        let output = self.run_with(set);
        let line = self.error_line(&output, code);
        for word in words {
            assert!(line.contains(word), "`{word}` is not in: {line}");
        }
        assert!(!self.path("out").exists(), "a run directory was left behind: {line}");
    }

    fn error_line(&self, output: &Output, code: i32) -> String {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(output.stdout.is_empty(), "stdout is for results");
        let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("error:")).collect();
        assert_eq!(errors.len(), 1, "one line: {text}");
        assert_eq!(text.lines().last(), errors.first().copied(), "the error comes last: {text}");
        errors[0].to_string()
    }
}

fn set(key: &str, value: impl std::fmt::Display) -> Vec<String> {
    vec![format!("{key}={value}")]
}

#[test]
fn unknown_key_is_refused_with_line_and_nearest_key() {
    let place = Place::new();
    let text = fs::read_to_string(place.path("recipe.toml")).unwrap().replace("rank = 2", "rnk = 2");
    place.write("recipe.toml", text.as_bytes());
    place.refuses(&[], 2, &["unknown key `rnk`", "recipe.toml:7", "did you mean `rank`?"]);
}

#[test]
fn unknown_key_in_an_override_is_refused() {
    Place::new().refuses(&set("train.step", 5), 2, &["--set train.step=5", "`steps`"]);
}

#[test]
fn wrong_type_is_refused() {
    Place::new().refuses(&set("method.rank", "many"), 2, &["--set method.rank=many", "invalid type"]);
}

#[test]
fn value_out_of_range_is_refused_with_its_number() {
    Place::new().refuses(&set("method.dropout", 1.5), 2, &["method.dropout = 1.5", "dropout < 1"]);
}

#[test]
fn missing_recipe_is_refused() {
    let place = Place::new();
    let output = place.tune(&["run", "nowhere.toml"]);
    assert!(place.error_line(&output, 2).contains("nowhere.toml"));
    assert!(!place.path("runs").exists());
}

#[test]
fn missing_data_file_is_refused_by_name() {
    Place::new().refuses(&set("data.sources", "[{path=\"gone.jsonl\"}]"), 2, &["data.sources.path", "gone.jsonl"]);
}

#[test]
fn missing_model_is_refused_by_name() {
    Place::new().refuses(&set("model.source", "gone.gguf"), 2, &["gone.gguf"]);
}

#[test]
fn file_that_is_no_gguf_is_refused() {
    let place = Place::new();
    let file = place.write("model.gguf", b"this is a text, not a model, and long enough to have a header");
    place.refuses(&set("model.source", file.display()), 2, &["model.gguf", "GGUF"]);
}

#[test]
fn truncated_gguf_is_refused_at_every_cut() {
    let place = Place::new();
    let whole = fs::read(fixture("gguf/tiny-llama.gguf")).unwrap();
    for cut in [3, 20, 200, 2000, whole.len() / 2, whole.len() - 1] {
        let file = place.write("cut.gguf", &whole[..cut]);
        place.refuses(&set("model.source", file.display()), 2, &["cut.gguf"]);
    }
}

fn copy_llama(place: &Place) -> PathBuf {
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        place.write(&format!("model/{name}"), &fs::read(fixture("llama").join(name)).unwrap());
    }
    place.path("model")
}

#[test]
fn truncated_safetensors_is_refused_at_every_cut() {
    let place = Place::new();
    let model = copy_llama(&place);
    let whole = fs::read(model.join("model.safetensors")).unwrap();
    for cut in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
        place.write("model/model.safetensors", &whole[..cut]);
        place.refuses(&set("model.source", model.display()), 2, &["model.safetensors"]);
    }
}

#[test]
fn safetensors_header_that_lies_about_its_length_is_refused() {
    let place = Place::new();
    let model = copy_llama(&place);
    let mut bytes = fs::read(model.join("model.safetensors")).unwrap();
    bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    place.write("model/model.safetensors", &bytes);
    place.refuses(&set("model.source", model.display()), 2, &["model.safetensors"]);
}

#[test]
fn unsupported_architecture_is_named_with_the_supported_ones() {
    let place = Place::new();
    let model = copy_llama(&place);
    let config = fs::read_to_string(model.join("config.json")).unwrap();
    let config = config.replace("LlamaForCausalLM", "MambaForCausalLM").replace("\"llama\"", "\"mamba\"");
    place.write("model/config.json", config.as_bytes());
    place.refuses(&set("model.source", model.display()), 2, &["amba", "lama", "wen"]);
}

#[test]
fn target_that_matches_nothing_is_refused_with_the_known_layers() {
    let words = ["method.targets", "\"query\"", "q_proj"];
    Place::new().refuses(&set("method.targets", "[\"query\"]"), 2, &words);
}

#[test]
fn what_does_not_fit_exits_3_with_both_numbers() {
    Place::new().refuses(&set("hardware.memory", "1MB"), 3, &["does not fit", "budget is 1.00 MB"]);
}

#[test]
fn card_that_is_not_there_is_refused() {
    Place::new().refuses(&set("hardware.device", "cuda:77"), 2, &["cuda:77"]);
}

#[test]
fn row_without_an_answer_is_refused_with_file_and_line() {
    let place = Place::new();
    let good = r#"{"messages":[{"role":"user","content":"1 GB?"},{"role":"assistant","content":"1 GB"}]}"#;
    let rows = format!("{good}\n{}\n", r#"{"messages":[{"role":"user","content":"1 GB and 1 GB?"}]}"#);
    let file = place.write("rows.jsonl", rows.as_bytes());
    let sources = format!("[{{path=\"{}\"}}]", file.display());
    place.refuses(&set("data.sources", sources), 2, &["rows.jsonl:2"]);
}

#[test]
fn line_that_is_no_json_is_refused_with_file_and_line() {
    let place = Place::new();
    let file = place.write("rows.jsonl", b"{\"messages\": [\n");
    let sources = format!("[{{path=\"{}\"}}]", file.display());
    place.refuses(&set("data.sources", sources), 2, &["rows.jsonl:1"]);
}

#[test]
fn empty_data_file_is_refused() {
    let place = Place::new();
    let file = place.write("rows.jsonl", b"");
    let sources = format!("[{{path=\"{}\"}}]", file.display());
    place.refuses(&set("data.sources", sources), 2, &["rows.jsonl"]);
}

#[test]
fn row_longer_than_the_sequence_is_refused_with_the_count() {
    let short = ["data.too_long=error", "data.sequence_length=8", "train.tokens_per_step=8"];
    let place = Place::new();
    place.refuses(&short.map(str::to_string), 2, &["8", "too_long"]);
}

#[test]
fn directory_that_holds_a_run_is_refused_and_left_alone() {
    let place = Place::new();
    place.write("out/recipe.toml", b"name = \"other\"\n");
    let line = place.error_line(&place.run_with(&[]), 2);
    assert!(line.contains("--resume") && line.contains("--output"), "{line}");
    assert_eq!(fs::read(place.path("out/recipe.toml")).unwrap(), b"name = \"other\"\n");
    assert_eq!(fs::read_dir(place.path("out")).unwrap().count(), 1);
}

#[test]
fn directory_locked_by_another_process_is_refused() {
    let place = Place::new();
    let lock = fs::File::create(place.write("out/run.lock", b"1\n")).unwrap();
    lock.lock().unwrap();
    let line = place.error_line(&place.run_with(&[]), 2);
    assert!(line.contains("in use"), "{line}");
}

#[test]
fn resume_without_a_run_is_refused() {
    let place = Place::new();
    let output = place.tune(&["run", "recipe.toml", "--output", "out", "--resume"]);
    assert!(place.error_line(&output, 2).contains("nothing to resume"));
    assert!(!place.path("out").exists());
}

#[test]
fn unknown_command_exits_2() {
    let place = Place::new();
    assert_eq!(place.tune(&["fly"]).status.code(), Some(2));
}

#[test]
fn plan_prints_json_that_names_every_answer() {
    let place = Place::new();
    let output = place.tune(&["plan", "recipe.toml", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let plan = &report["plan"];
    assert_eq!((&report["schema"], &plan["name"]), (&1.into(), &"tiny".into()));
    assert_eq!(plan["model"]["precision"], "f32");
    assert_eq!(plan["model"]["keep"].as_array().unwrap().len(), 2);
    assert!(plan["memory"]["peak_bytes"].as_u64().unwrap() <= plan["memory"]["budget_bytes"].as_u64().unwrap());
    assert_eq!(fs::read_dir(place.folder.path()).unwrap().count(), 1, "plan writes nothing");
}
