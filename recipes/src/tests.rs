//! Facts about recipes, on real texts.
#![allow(clippy::unwrap_used)]

use crate::recipe::{PrecisionChoice, RowFormat, TooLong};
use crate::*;

const SMALL: &str = r#"name = "small"
[model]
source = "model.gguf"
[method]
kind = "lora"
rank = 8
alpha = 16
[data]
sequence_length = 64
[[data.sources]]
path = "rows.jsonl"
format = "prompt-completion"
[train]
epochs = 2
tokens_per_step = 256
[optimizer]
kind = "adamw"
learning_rate = 1e-3
[schedule]
kind = "cosine"
warmup = 0.1
"#;

fn parse_with(set: &[&str]) -> Result<Recipe, String> {
    let set: Vec<String> = set.iter().map(|s| s.to_string()).collect();
    parse(SMALL, "small.toml", &set).map_err(|e| e.to_string())
}

fn parse_text(from: &str, to: &str) -> Result<Recipe, String> {
    assert!(SMALL.contains(from), "{from}");
    parse(&SMALL.replace(from, to), "small.toml", &[]).map_err(|e| e.to_string())
}

#[test]
fn absent_keys_get_the_documented_defaults() {
    let recipe = parse_with(&[]).unwrap();
    assert_eq!(recipe.model.precision, PrecisionChoice::Auto);
    assert_eq!(recipe.method.lora().unwrap().targets, TargetNames::AllLinear);
    assert_eq!(recipe.data.too_long, TooLong::Error);
    assert_eq!(recipe.data.sources[0].format, Some(RowFormat::PromptCompletion));
    assert_eq!((recipe.optimizer.betas, recipe.optimizer.epsilon), ([0.9, 0.999], 1e-8));
    assert_eq!(recipe.optimizer.weight_decay, 0.0);
    assert_eq!(recipe.optimizer.max_grad_norm, MaxGradNorm::Bound(1.0));
    assert_eq!(recipe.schedule.warmup, WarmupLength::Share(0.1));
    assert_eq!(recipe.train.seed, 42);
}

#[test]
fn resolved_text_reads_back_as_the_same_recipe_and_shows_defaults() {
    let recipe = parse_with(&["hardware.memory=7.5GiB", "train.keep=3", "optimizer.max_grad_norm=none"]).unwrap();
    let text = recipe.to_toml();
    assert_eq!(parse(&text, "again.toml", &[]).unwrap(), recipe);
    for shown in
        ["epsilon = 0.00000001", "dropout = 0.0", "tensorboard = true", "seed = 42", "memory = \"8053063680B\""]
    {
        assert!(text.contains(shown), "{shown} is not in:\n{text}");
    }
}

#[test]
fn unknown_key_names_file_line_and_nearest_key() {
    let error = parse_text("rank = 8", "rnk = 8").unwrap_err();
    assert_eq!(error, "unknown key `rnk`: small.toml:6; did you mean `rank`?");
    let error = parse_text("[schedule]", "[shedule]").unwrap_err();
    assert_eq!(error, "unknown key `shedule`: small.toml:19; did you mean `schedule`?");
    let error = parse_text("rank = 8", "rank = 8\nzzz = 1").unwrap_err();
    assert!(error.contains("known here: kind, rank, alpha"), "{error}");
}

#[test]
fn unknown_key_in_an_override_names_the_override() {
    let error = parse_with(&["train.step=50"]).unwrap_err();
    assert_eq!(error, "unknown key `step`: --set train.step=50; did you mean `steps`?");
    let error = parse_with(&["trian.steps=50"]).unwrap_err();
    assert!(error.contains("did you mean `train`?"), "{error}");
}

#[test]
fn wrong_type_names_the_line() {
    let error = parse_text("rank = 8", "rank = \"eight\"").unwrap_err();
    assert!(error.starts_with("wrong recipe: small.toml:6: ") && error.contains("invalid type"), "{error}");
    let error = parse_text("epochs = 2", "epochs = 2\nmicro_batch = \"big\"").unwrap_err();
    assert!(error.contains("expected \"auto\" or rows >= 1"), "{error}");
    assert!(!error.contains('\n'));
}

#[test]
fn missing_key_is_named_and_may_come_from_an_override() {
    let text = SMALL.replace("rank = 8\n", "");
    let error = parse(&text, "small.toml", &[]).unwrap_err().to_string();
    assert!(error.contains("missing key `rank`"), "{error}");
    assert_eq!(parse(&text, "small.toml", &["method.rank=4".to_string()]).unwrap().method.lora().unwrap().rank, 4);
}

#[test]
fn override_values_are_toml_and_bare_words_are_text() {
    let recipe = parse_with(&["model.source=/tmp/other.gguf", "method.targets=[\"q_proj\"]", "name=x", "train.seed=7"]);
    let recipe = recipe.unwrap();
    assert_eq!(recipe.model.source.0, ["/tmp/other.gguf"]);
    assert_eq!(recipe.method.lora().unwrap().targets, TargetNames::Named(vec!["q_proj".to_string()]));
    assert_eq!((recipe.name.as_str(), recipe.train.seed), ("x", 7));
    assert!(parse_with(&["method.targets=[\"q_proj\""]).unwrap_err().contains("not valid TOML"));
    assert!(parse_with(&["train.steps"]).unwrap_err().contains("KEY=VALUE"));
}

#[test]
fn setting_steps_replaces_epochs() {
    let recipe = parse_with(&["train.steps=50"]).unwrap();
    assert_eq!((recipe.train.epochs, recipe.train.steps), (None, Some(50)));
    assert!(parse_text("epochs = 2", "epochs = 2\nsteps = 3").unwrap_err().contains("one of the two"));
}

#[test]
fn qlora_is_lora_on_a_base_in_four_bits_and_is_written_back_as_qlora() {
    let recipe = parse_with(&["method.kind=qlora"]).unwrap();
    assert_eq!(recipe.method.lora().unwrap().base, crate::recipe::BaseChoice::Nf4);
    let text = toml::to_string(&recipe.method).unwrap();
    assert!(text.contains("kind = \"qlora\""), "{text}");
    assert_eq!(toml::from_str::<crate::recipe::MethodSection>(&text).unwrap(), recipe.method);
}

#[test]
fn values_out_of_range_are_refused_with_their_number() {
    for (set, part) in [
        ("method.rank=0", "method.rank = 0"),
        ("method.dropout=1.0", "method.dropout = 1"),
        ("optimizer.learning_rate=nan", "learning_rate = NaN"),
        ("optimizer.learning_rate=0", "learning_rate = 0"),
        ("train.tokens_per_step=100", "multiple of data.sequence_length = 64"),
        ("train.micro_batch=3", "divisor of the 4 rows"),
        ("train.epochs=0", "train.epochs = 0"),
        ("schedule.warmup=1.5", "share of all steps"),
        ("name=../up", "it names a directory"),
        ("model.sha256=abc", "64 hexadecimal"),
        ("hardware.memory=lots", "\"8GB\""),
        ("hardware.device=tpu", "\"cuda:0\""),
        ("checkpoint.keep_last=0", "expected >= 1"),
        ("checkpoint.every_minutes=0", "expected > 0"),
        ("checkpoint.every_minutes=nan", "expected > 0"),
        ("checkpoint.keep_best=2", "expected eval.every_steps with it"),
    ] {
        let error = parse_with(&[set]).unwrap_err();
        assert!(error.contains(part), "{set}: {error}");
    }
}

#[test]
fn negative_count_is_refused() {
    let error = parse_with(&["method.rank=-1"]).unwrap_err();
    assert!(error.contains("invalid value") && error.contains("--set method.rank=-1"), "{error}");
}

#[test]
fn syntax_mistake_names_the_line() {
    let error = parse_text("alpha = 16", "alpha = = 16").unwrap_err();
    assert!(error.starts_with("not valid TOML: small.toml:7: "), "{error}");
}

#[test]
fn relative_paths_are_the_recipes_neighbours_if_they_exist() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rows.jsonl"), "").unwrap();
    let path = folder.path().join("small.toml");
    std::fs::write(&path, SMALL).unwrap();
    let recipe = read(&path, &[]).unwrap();
    assert_eq!(recipe.data.sources[0].path, folder.path().join("rows.jsonl"));
    assert_eq!(recipe.model.source.0, ["model.gguf"]);
}

#[test]
fn missing_recipe_is_named() {
    let error = read(std::path::Path::new("/nowhere/x.toml"), &[]).unwrap_err().to_string();
    assert!(error.starts_with("cannot read the recipe: /nowhere/x.toml: "), "{error}");
}
