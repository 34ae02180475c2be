//! Facts about files that become no recipe: one line each, and never a panic.
#![allow(clippy::unwrap_used)]

use super::*;

const GOOD: &str = "base_model: a/b\nlearning_rate: 1e-4\nmicro_batch_size: 1\ngradient_accumulation_steps: 1\ndatasets:\n  - path: rows.jsonl\n    type: chat_template\n";

fn refusal(yaml: &str) -> String {
    let line = migrate(yaml, "old.yml").unwrap_err().to_string();
    assert!(!line.contains('\n'), "{line}");
    assert!(line.chars().count() < 600, "{line}");
    line
}

#[test]
fn the_good_file_of_these_tests_is_good() {
    assert!(migrate(GOOD, "old.yml").is_ok());
}

#[test]
fn a_file_of_neither_tool_is_refused() {
    for yaml in
        ["", "# only a word\n", "version: 3\nservices: {}\n", "[1, 2]", "{\"a\": 1}", "just text", "12", "---\n...\n"]
    {
        assert!(refusal(yaml).starts_with("old.yml: neither an Axolotl file"), "{yaml:?}");
    }
}

#[test]
fn keys_of_both_tools_are_refused_with_the_line_of_the_second() {
    assert!(refusal("base_model: a/b\nmodel_name_or_path: a/b\n").starts_with("old.yml:2:"));
}

#[test]
fn a_wrong_type_names_line_key_value_and_what_is_expected() {
    let cases = [
        ("sequence_len: long\n", "old.yml:8: sequence_len is long; expected a number >= 0 without a fraction"),
        ("micro_batch_size: [1]\n", "old.yml:3: micro_batch_size is [1]"),
        ("sample_packing: 3\n", "old.yml:8: sample_packing is 3; expected true or false"),
        ("num_epochs: {a: b}\n", "old.yml:8: num_epochs is {a: b}; expected a number"),
        ("chat_template: [x]\n", "old.yml:8: chat_template is [x]; expected a text"),
        ("excess_length_strategy: cut\n", "old.yml:8: excess_length_strategy is cut; expected drop, truncate or raise"),
        ("test_datasets: rows.jsonl\n", "old.yml:8: test_datasets is rows.jsonl; expected a list of mappings"),
        ("max_grad_norm: .nan\n", "old.yml:8: not valid YAML: non-finite float"),
        ("seed: -1\n", "old.yml:8: seed is -1"),
    ];
    for (text, expected) in cases {
        let yaml = match text.starts_with("micro") {
            true => GOOD.replace("micro_batch_size: 1\n", text),
            false => format!("{GOOD}{text}"),
        };
        let line = refusal(&yaml);
        assert!(line.starts_with(expected), "{line}");
    }
}

#[test]
fn a_value_out_of_range_names_its_line_and_the_recipes_words() {
    let line = refusal(&GOOD.replace("1e-4", "-3"));
    assert_eq!(
        line,
        "old.yml:2: the recipe would be refused: value out of range: optimizer.learning_rate = -3; expected > 0 and finite"
    );
    assert!(
        refusal(&GOOD.replace("micro_batch_size: 1", "micro_batch_size: 0"))
            .starts_with("old.yml:4: the recipe would be refused: 0 rows")
    );
    assert!(refusal(&format!("{GOOD}sequence_len: 9007199254740991\n")).contains("the recipe would be refused"));
}

#[test]
fn what_is_missing_is_named() {
    assert!(refusal("base_model: a/b\nlearning_rate: 1\n").contains("`datasets` is missing"));
    assert!(refusal(&GOOD.replace("learning_rate: 1e-4\n", "")).contains("`learning_rate` is missing"));
    assert!(refusal("base_model:\n").contains("`base_model` is missing"));
    assert!(refusal(&format!("{GOOD}adapter: lora\nlora_r: 8\n")).contains("`lora_alpha` is missing"));
    assert!(refusal("model_name_or_path: a/b\nstage: sft\n").contains("`dataset` is missing"));
}

#[test]
fn a_method_that_does_not_exist_here_is_refused_with_its_line() {
    let dpo = refusal("model_name_or_path: a/b\nstage: dpo\ndataset: x\n");
    assert!(dpo.starts_with("old.yml:2: stage: dpo has no counterpart: supervised fine-tuning"), "{dpo}");
    assert!(
        refusal("model_name_or_path: a/b\nfinetuning_type: freeze\ndataset: x\n")
            .starts_with("old.yml:2: finetuning_type: freeze")
    );
    assert!(refusal(&format!("{GOOD}rl: dpo\n")).starts_with("old.yml:8: rl: dpo has no counterpart"));
    assert!(refusal(&format!("{GOOD}adapter: llama-adapter\n")).starts_with("old.yml:8: adapter: llama-adapter"));
}

#[test]
fn broken_yaml_names_the_line() {
    let tabs = refusal("base_model: a/b\nspecial_tokens:\n\tpad_token: x\n");
    assert!(tabs.starts_with("old.yml:3: not valid YAML"), "{tabs}");
    assert!(
        refusal(&format!("{GOOD}learning_rate: 2e-4\n")).starts_with("old.yml:8: not valid YAML"),
        "duplicate keys"
    );
    assert!(refusal("base_model: [a\nb: c").contains("not valid YAML"));
    assert!(refusal("base_model: a\n---\nbase_model: b\n").contains("not valid YAML"), "two documents");
    assert!(refusal("base_model: *nowhere\n").contains("not valid YAML"));
}

#[test]
fn long_deep_and_exploding_files_are_refused_at_once() {
    let started = std::time::Instant::now();
    let long = format!("base_model: a/b\nnotes: \"{}\"\n", "x".repeat(10_000_000));
    assert!(refusal(&long).contains("10000026 bytes are no configuration; at most 1048576 are read"));
    let deep = format!("base_model: {}1{}", "[".repeat(5000), "]".repeat(5000));
    assert!(refusal(&deep).contains("not valid YAML"));
    let block: String = (0..400).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert!(refusal(&block).contains("not valid YAML"));
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_string();
    for level in 1..12 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    assert!(refusal(&bomb).contains("not valid YAML"));
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

#[test]
fn no_cut_or_changed_byte_of_an_example_panics() {
    let example = include_str!("examples/axolotl-lora-chat.yml");
    let factory = include_str!("examples/llama-factory-qlora.yaml");
    for text in [example, factory] {
        for end in (0..text.len()).step_by(7) {
            let _ = migrate(&text[..end], "old.yml");
        }
        for place in (0..text.len()).step_by(5) {
            for byte in ["-", "{", ":", "\u{0}", "é", "&", "*", "\n"] {
                let changed = format!("{}{byte}{}", &text[..place], &text[place + 1..]);
                if let Err(error) = migrate(&changed, "old.yml") {
                    assert!(!error.to_string().contains('\n'), "{error}");
                }
            }
        }
    }
}
