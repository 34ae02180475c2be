//! Facts about full training, update rules and offload in recipes, on real texts.
#![allow(clippy::unwrap_used)]

use crate::recipe::*;
use crate::*;

const FULL: &str = r#"name = "full"
[model]
source = "model.gguf"
[method]
kind = "full"
[data]
sequence_length = 64
[[data.sources]]
path = "rows.jsonl"
[train]
steps = 2
tokens_per_step = 256
[optimizer]
kind = "adamw"
learning_rate = 1e-5
[schedule]
kind = "constant"
[offload]
nvme = ["/var/tmp"]
"#;

fn parse_with(set: &[&str]) -> Result<Recipe, String> {
    let set: Vec<String> = set.iter().map(|s| s.to_string()).collect();
    parse(FULL, "full.toml", &set).map_err(|e| e.to_string())
}

fn parse_text(from: &str, to: &str) -> Result<Recipe, String> {
    assert!(FULL.contains(from), "{from}");
    parse(&FULL.replace(from, to), "full.toml", &[]).map_err(|e| e.to_string())
}

#[test]
fn full_training_trains_embedding_and_head_unless_told_otherwise() {
    let both = FullSection { train_embeddings: true, train_head: true };
    assert_eq!(parse_with(&[]).unwrap().method, MethodSection::Full(both));
    let recipe = parse_with(&["method.train_embeddings=false", "method.train_head=false"]).unwrap();
    assert_eq!(recipe.method, MethodSection::Full(FullSection { train_embeddings: false, train_head: false }));
}

#[test]
fn keys_of_the_other_kind_are_refused_by_name_with_their_line() {
    let error = parse_text("kind = \"full\"", "kind = \"full\"\nrank = 8").unwrap_err();
    assert!(error.starts_with("wrong recipe: full.toml:4: method.rank belongs to method.kind = \"lora\""), "{error}");
    let lora = "kind = \"lora\"\nrank = 8\nalpha = 16\ntrain_head = true";
    let error = parse_text("kind = \"full\"", lora).unwrap_err();
    assert!(error.contains("method.train_head belongs to method.kind = \"full\"; leave it out"), "{error}");
    let error = parse_with(&["method.dropout=0.1"]).unwrap_err();
    assert!(error.contains("--set method.dropout=0.1: method.dropout belongs to"), "{error}");
}

#[test]
fn lora_needs_rank_and_alpha() {
    let error = parse_text("kind = \"full\"", "kind = \"lora\"\nalpha = 16").unwrap_err();
    assert_eq!(error, "wrong recipe: full.toml:4: missing key `rank`, which method.kind = \"lora\" needs");
    let error = parse_text("kind = \"full\"", "kind = \"lora\"\nrank = 16").unwrap_err();
    assert!(error.contains("missing key `alpha`"), "{error}");
}

#[test]
fn kind_that_does_not_exist_is_refused_with_those_that_do() {
    let error = parse_text("kind = \"full\"", "kind = \"dora\"").unwrap_err();
    let known = "method.kind \"dora\" is not known; \"lora\", \"qlora\" and \"full\" are";
    assert_eq!(error, format!("wrong recipe: full.toml:5: {known}"));
}

#[test]
fn setting_a_kind_drops_the_keys_of_the_old_one() {
    let text = FULL.replace("kind = \"full\"", "kind = \"lora\"\nrank = 8\nalpha = 16");
    let recipe = parse(&text, "x.toml", &["method.kind=full".to_string()]).unwrap();
    assert_eq!(recipe.method, parse_with(&[]).unwrap().method);
    let text = FULL.replace("learning_rate", "betas = [0.8, 0.9]\nepsilon = 1e-6\nlearning_rate");
    let recipe = parse(&text, "x.toml", &["optimizer.kind=lion".to_string()]).unwrap();
    assert_eq!((recipe.optimizer.betas, recipe.optimizer.epsilon), ([0.8, 0.9], 0.0));
    let recipe = parse(&text, "x.toml", &["optimizer.kind=sgd".to_string()]).unwrap();
    assert_eq!(recipe.optimizer.betas, [0.0, 0.0]);
    let set = ["method.kind=lora", "method.rank=4", "method.alpha=8"];
    assert_eq!(parse_with(&set).unwrap().method.lora().unwrap().rank, 4);
}

#[test]
fn each_rule_has_its_own_defaults() {
    let numbers = |kind: &str| {
        let optimizer = parse_with(&[&format!("optimizer.kind={kind}")]).unwrap().optimizer;
        (optimizer.betas, optimizer.epsilon, optimizer.momentum)
    };
    for kind in ["adamw", "adamw8bit", "adamw_bf16"] {
        assert_eq!(numbers(kind), ([0.9, 0.999], 1e-8, 0.0), "{kind}");
    }
    assert_eq!(numbers("lion"), ([0.9, 0.99], 0.0, 0.0));
    assert_eq!(numbers("adafactor"), ([0.0, 0.0], 1e-30, 0.0));
    assert_eq!(numbers("sgd"), ([0.0, 0.0], 0.0, 0.0));
}

#[test]
fn numbers_without_effect_are_refused() {
    for (kind, key, value) in [
        ("adamw", "momentum", "0.9"),
        ("lion", "momentum", "0.9"),
        ("lion", "epsilon", "1e-8"),
        ("adafactor", "betas", "[0.9, 0.999]"),
        ("sgd", "betas", "[0.9, 0.999]"),
        ("sgd", "epsilon", "1e-8"),
    ] {
        let text = FULL.replace("kind = \"adamw\"", &format!("kind = \"{kind}\"\n{key} = {value}"));
        let error = parse(&text, "full.toml", &[]).unwrap_err().to_string();
        assert!(error.starts_with(&format!("wrong recipe: full.toml:13: optimizer.{key} belongs to ")), "{error}");
        assert!(error.ends_with(&format!("leave it out with optimizer.kind = \"{kind}\"")), "{error}");
    }
}

#[test]
fn unknown_rule_is_refused_with_the_known_ones() {
    let error = parse_with(&["optimizer.kind=adam"]).unwrap_err();
    assert!(error.contains("--set optimizer.kind=adam") && error.contains("adamw_bf16"), "{error}");
}

#[test]
fn absent_offload_keys_get_the_documented_defaults() {
    let offload = parse_text("[offload]\nnvme = [\"/var/tmp\"]\n", "").unwrap().offload;
    assert_eq!(offload, OffloadSection::default());
    assert_eq!((offload.weights, offload.engine), (TierChoice::Auto, EngineChoice::Auto));
    assert_eq!((offload.chunk, offload.queue_depth), (ChunkSize::Auto, QueueDepth::Auto));
    assert_eq!((offload.nvme.len(), offload.write_budget_tb), (0, None));
    assert_eq!(offload.update_during_backward, UpdateDuringBackward::Auto);
}

#[test]
fn resolved_offload_text_reads_back_as_the_same_recipe() {
    let set = [
        "offload.weights=nvme",
        "offload.optimizer=dram",
        "offload.dram_budget=1GiB",
        "offload.engine=io_uring",
        "offload.chunk=1MiB",
        "offload.queue_depth=auto",
        "offload.write_budget_tb=0.5",
        "offload.update_during_backward=false",
        "optimizer.kind=sgd",
        "optimizer.momentum=0.9",
    ];
    let recipe = parse_with(&set).unwrap();
    let text = recipe.to_toml();
    assert_eq!(parse(&text, "again.toml", &[]).unwrap(), recipe);
    for shown in [
        "engine = \"io_uring\"",
        "chunk = \"1048576B\"",
        "queue_depth = \"auto\"",
        "weights = \"nvme\"",
        "momentum = 0.9",
        "train_head = true",
    ] {
        assert!(text.contains(shown), "{shown} is not in:\n{text}");
    }
    assert!(!text.contains("betas"), "{text}");
}

#[test]
fn nvme_without_a_directory_is_refused_for_every_class() {
    for class in ["weights", "gradients", "optimizer", "activations"] {
        let text = FULL.replace("nvme = [\"/var/tmp\"]", &format!("{class} = \"nvme\""));
        let error = parse(&text, "full.toml", &[]).unwrap_err().to_string();
        let expected =
            format!("value out of range: offload.{class} = \"nvme\"; expected offload.nvme = [\"DIRECTORY\", ...]");
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn offload_values_out_of_range_are_refused_with_their_number() {
    for (set, part) in [
        ("offload.chunk=32KiB", "offload.chunk = \"32768B\"; expected \"64KiB\" to \"64MiB\""),
        ("offload.chunk=128MiB", "offload.chunk = \"134217728B\""),
        ("offload.chunk=100000B", "a multiple of 4 KiB"),
        ("offload.chunk=4", "expected \"auto\" or a size such as \"4MiB\""),
        ("offload.queue_depth=0", "offload.queue_depth = 0; expected 1 to 4096"),
        ("offload.queue_depth=many", "expected \"auto\" or 1 to 4096"),
        ("offload.write_budget_tb=0.0", "offload.write_budget_tb = 0; expected > 0"),
        ("offload.nvme=[\"/a\", \"/b\", \"/a\"]", "offload.nvme = \"/a\"; expected different directories"),
        ("offload.nvme=[\"\"]", "offload.nvme = \"\""),
        ("offload.dram_budget=much", "expected \"auto\" or a size"),
        ("offload.weights=disk", "unknown variant `disk`"),
        ("offload.engine=aio", "unknown variant `aio`"),
        ("offload.update_during_backward=1", "expected \"auto\", true or false"),
        ("offload.update_during_backward=true", "expected optimizer.max_grad_norm = \"none\" with it"),
        ("optimizer.epsilon=0.0", "optimizer.epsilon = 0"),
    ] {
        let error = parse_with(&[set]).unwrap_err();
        assert!(error.contains(part), "{set}: {error}");
    }
    let error = parse_with(&["optimizer.kind=sgd", "optimizer.momentum=1.0"]).unwrap_err();
    assert!(error.contains("optimizer.momentum = 1; expected 0 <= momentum < 1"), "{error}");
    assert!(parse_with(&["optimizer.max_grad_norm=none", "offload.update_during_backward=true"]).is_ok());
}

#[test]
fn drives_are_relative_to_the_current_directory() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("swap")).unwrap();
    let path = folder.path().join("full.toml");
    std::fs::write(&path, FULL).unwrap();
    let recipe = read(&path, &["offload.nvme=[\"swap\"]".to_string()]).unwrap();
    assert_eq!(recipe.offload.nvme, [std::path::absolute("swap").unwrap()]);
}
