//! `tune data` from outside: what is shown is what is trained on, every gate refuses by name and place, a cache is used again.
//!
//! In:    the built program, the tiny Llama fixture with its tokenizer, rows written here.
//! Out:   facts about output, exit codes and files.
//! Never: the network.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::parity::fixture;

struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    /// A recipe whose `[data]` section is `data`.
    fn with(data: &str) -> Desk {
        let desk = Desk { folder: tempfile::tempdir().unwrap() };
        let model = fixture("llama");
        let text = format!(
            "name = \"tiny\"\n[model]\nsource = \"{}\"\nprecision = \"f32\"\n[method]\nkind = \"lora\"\nrank = 2\nalpha = 4\n\
             {data}\n[train]\nsteps = 4\ntokens_per_step = 64\n[optimizer]\nkind = \"adamw\"\nlearning_rate = 1e-3\n\
             [schedule]\nkind = \"constant\"\n[checkpoint]\nevery_steps = 2\n",
            model.display()
        );
        desk.write("recipe.toml", text);
        desk
    }

    /// The shortest `[data]` section.
    fn of(file: &str) -> Desk {
        Desk::with(&format!("[data]\nsources = [{{ path = \"{file}\" }}]\nsequence_length = 64\npacking = true"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn tune(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tune"));
        command.current_dir(self.folder.path()).env("TUNE_CACHE", self.path("cache"));
        command.args(arguments).output().unwrap()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.tune(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(arguments)).unwrap()
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.tune(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}");
        let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("error:")).collect();
        assert_eq!(errors.len(), 1, "one line: {text}");
        errors[0].to_string()
    }
}

fn answered(question: &str, answer: &str) -> Value {
    json!({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]})
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

/// Ids and trained ranges of every row.
fn encoded(desk: &Desk) -> Vec<(Value, Value)> {
    let rows = desk.json(&["data", "inspect", "recipe.toml", "--rows", "100", "--json"]);
    let rows = rows.as_array().unwrap().clone();
    rows.into_iter().map(|row| (row["ids"].clone(), row["trained"].clone())).collect()
}

#[test]
fn a_four_line_data_section_prepares_and_trains_on_questions_and_answers() {
    let rows: Vec<Value> =
        (1..20).map(|n| json!({"question": format!("{n} GB and 1 GB?"), "answer": format!("{} GB", n + 1)})).collect();
    let desk = Desk::of("rows.jsonl");
    desk.write("rows.jsonl", lines(&rows));
    let prepared = desk.json(&["data", "prepare", "recipe.toml", "--json"]);
    assert_eq!((&prepared["report"]["rows"], &prepared["reused"]), (&json!(19), &json!(false)));
    let said = String::from_utf8(desk.tune(&["run", "recipe.toml"]).stderr).unwrap();
    assert!(said.contains("data: 19 rows") && said.contains("as prepared before"), "{said}");
    assert!(desk.path("runs/tiny/adapter/adapter_model.safetensors").is_file(), "{said}");
}

#[test]
fn inspect_brackets_exactly_the_answers_with_their_ends() {
    let desk = Desk::of("rows.jsonl");
    let row = json!({"messages": [
        {"role": "user", "content": "1 GB and 1 GB?"}, {"role": "assistant", "content": "2 GB"},
        {"role": "user", "content": "2 GB and 1 GB?"}, {"role": "assistant", "content": "3 GB", "train": false},
        {"role": "user", "content": "3 GB and 1 GB?"}, {"role": "assistant", "content": "4 GB"}]});
    desk.write("rows.jsonl", lines(&[row]));
    let long = ["--set", "data.sequence_length=128", "--set", "train.tokens_per_step=128"];
    let shown = desk.ok(&[&["data", "inspect", "recipe.toml"], &long[..]].concat());
    assert!(shown.contains("assistant\n⟦2 GB<|im_end|>⟧\n<|im_start|>user"), "{shown}");
    assert!(shown.contains("assistant\n3 GB<|im_end|>") && shown.contains("assistant\n⟦4 GB<|im_end|>⟧"), "{shown}");
    let last = desk.ok(&[&["data", "inspect", "recipe.toml", "--set", "data.train_on=last"], &long[..]].concat());
    assert_eq!(last.matches('⟦').count(), 2, "the legend and one answer: {last}");
}

#[test]
fn packed_rows_show_their_borders_and_hold_every_token_once() {
    let desk = Desk::of("rows.jsonl");
    desk.write("rows.jsonl", lines(&[answered("1 GB?", "1 GB"), answered("2 GB?", "2 GB"), answered("3 GB?", "3 GB")]));
    let shown = desk.ok(&["data", "inspect", "recipe.toml", "--packed", "--ids"]);
    let alone: usize = encoded(&desk).iter().map(|(ids, _)| ids.as_array().unwrap().len()).sum();
    let packed: usize = shown
        .lines()
        .filter(|line| line.starts_with("packed row"))
        .map(|line| line.split(" · ").nth(2).unwrap().split(' ').next().unwrap().parse::<usize>().unwrap())
        .sum();
    assert_eq!(shown.matches("──── segment").count(), 3, "{shown}");
    assert_eq!(packed, alone, "{shown}");
}

#[test]
fn one_row_in_every_file_format_gives_the_same_tokens() {
    let quoted = "question,answer\n\"1 GB, or \"\"2\"\"?\",\"2 GB\nor so\"\n";
    let row = json!({"question": "1 GB, or \"2\"?", "answer": "2 GB\nor so"});
    let files = [
        ("rows.jsonl", format!("{row}\n")),
        ("rows.json", format!("[\n{row}\n]")),
        ("rows.csv", quoted.to_string()),
        ("rows.tsv", quoted.replace("question,", "question\t").replace("\",\"", "\"\t\"")),
    ];
    let of = |name: &str, text: &str| {
        let desk = Desk::of(name);
        desk.write(name, text);
        encoded(&desk)
    };
    let expected = of(files[0].0, &files[0].1);
    assert_eq!(expected.len(), 1);
    for (name, text) in &files[1..] {
        assert_eq!(of(name, text), expected, "{name}");
    }
}

/// Name of the gate, rows that fail it, more of the `[data]` section.
fn gates() -> Vec<(&'static str, String, &'static str)> {
    let good = answered("1 GB?", "1 GB");
    let untrained = json!({"messages": [
        {"role": "user", "content": "1 GB?"}, {"role": "assistant", "content": "1 GB", "train": false}]});
    let asked_twice = json!({"messages": [{"role": "user", "content": "1 GB?"}, {"role": "user", "content": "2 GB?"},
        {"role": "assistant", "content": "1 GB"}]});
    let long = answered("1 GB?", &"1 GB and ".repeat(60));
    let mut invalid = lines(std::slice::from_ref(&good)).into_bytes();
    invalid.extend(br#"{"messages": [{"role": "user", "content": ""#);
    invalid.extend([0xff]);
    invalid.extend(b"\"}, {\"role\": \"assistant\", \"content\": \"1 GB\"}]}\n");
    // Written as text below: the byte that is no UTF-8 stands in for itself.
    let invalid = invalid.iter().map(|byte| *byte as char).collect::<String>();
    let endless = "chat_template = \"{% for m in messages %}{{ m.role }}: {{ m.content }}\\n{% endfor %}\"";
    vec![
        ("trained-tokens", lines(&[good.clone(), untrained]), ""),
        ("roles", lines(&[good.clone(), asked_twice]), ""),
        ("empty-answer", lines(&[good.clone(), answered("1 GB?", " \n")]), ""),
        ("truncated-answer", lines(&[good.clone(), long]), "too_long = \"truncate\""),
        ("utf8", invalid, ""),
        ("serving-template", lines(std::slice::from_ref(&good)), endless),
    ]
}

#[test]
fn every_gate_refuses_with_its_name_and_the_row_and_can_be_switched_off() {
    for (gate, rows, more) in gates() {
        let section = format!("[data]\nsources = [{{ path = \"rows.jsonl\" }}]\nsequence_length = 64\n{more}");
        let desk = Desk::with(&section);
        desk.write("rows.jsonl", rows.chars().map(|letter| letter as u8).collect::<Vec<u8>>());
        let line = desk.refused(&["data", "prepare", "recipe.toml"]);
        assert!(line.contains(gate), "{gate}: {line}");
        if gate != "serving-template" {
            assert!(line.contains("rows.jsonl:2"), "{gate}: {line}");
        }
        assert_eq!(desk.refused(&["run", "recipe.toml"]), line, "{gate}");
        assert!(!desk.path("runs/tiny").exists(), "{gate}: a run directory was left behind");
        // The template of that gate's row also ends no answer.
        let allow = format!("data.allow=[\"{gate}\", \"answer-end\"]");
        let report = desk.json(&["data", "prepare", "recipe.toml", "--json", "--set", &allow]);
        let allowed = report["report"]["allowed"].to_string() + &report["notes"].to_string();
        assert!(allowed.contains(gate) || gate == "serving-template", "{gate}: {report}");
    }
}

#[test]
fn a_template_that_ends_no_answer_is_refused_by_the_gate_answer_end() {
    let template = "chat_template = \"{% for m in messages %}{{ m.role }}: {{ m.content }}\\n{% endfor %}\"";
    let section =
        "[data]\nsources = [{ path = \"rows.jsonl\" }]\nsequence_length = 64\nallow = [\"serving-template\"]\n";
    let desk = Desk::with(&format!("{section}{template}"));
    desk.write("rows.jsonl", lines(&[answered("1 GB?", "1 GB"), answered("2 GB?", "2 GB")]));
    let line = desk.refused(&["data", "prepare", "recipe.toml"]);
    assert!(line.contains("gate answer-end") && line.contains("2 of 2 rows"), "{line}");
}

#[test]
fn a_held_out_row_that_stands_in_the_training_rows_is_refused_or_removed() {
    let desk = Desk::of("rows.jsonl");
    let twice =
        answered("How much is one GB and another one GB together, in GB?", "It is 2 GB, since one and one are two");
    let nearly =
        answered("How much is one GB and another one GB together, in GB?", "It is 2 GB, since one and one are two.");
    desk.write("rows.jsonl", lines(&[answered("1 GB?", "1 GB"), twice.clone(), nearly]));
    desk.write("held.jsonl", lines(&[answered("9 GB?", "9 GB"), twice]));
    let long = ["--set", "data.sequence_length=128", "--set", "train.tokens_per_step=128"];
    let held = [&["--set", "eval.source={path=\"held.jsonl\"}"], &long[..]].concat();
    let line = desk.refused(&[&["data", "prepare", "recipe.toml"], &held[..]].concat());
    assert!(line.contains("rows.jsonl:2") && line.contains("rows.jsonl:3") && line.contains("eval-overlap"), "{line}");
    let more = ["--set", "data.clean.deduplicate=near", "--json"];
    let report = desk.json(&[&["data", "prepare", "recipe.toml"], &held[..], &more[..]].concat());
    assert_eq!((&report["report"]["rows"], &report["report"]["held_out_rows"]), (&json!(1), &json!(2)), "{report}");
}

#[test]
fn duplicates_are_counted_and_removed_only_when_asked() {
    let desk = Desk::of("rows.jsonl");
    desk.write("rows.jsonl", lines(&[answered("1 GB?", "1 GB"), answered("2 GB?", "2 GB"), answered("1 GB?", "1 GB")]));
    let report = desk.json(&["data", "stats", "recipe.toml", "--json"]);
    assert_eq!((&report["report"]["rows"], &report["report"]["exact_duplicates"]), (&json!(3), &json!(1)));
    let example = &report["report"]["duplicate_examples"][0];
    assert_eq!((&example["row"][1], &example["earlier"][1]), (&json!(3), &json!(1)));
    let set = ["--set", "data.clean.deduplicate=exact"];
    let report = desk.json(&[&["data", "prepare", "recipe.toml", "--json"], &set[..]].concat());
    assert_eq!(report["report"]["rows"], json!(2));
    assert_eq!(report["report"]["removed"][0]["count"], json!(1));
}

#[test]
fn a_share_is_held_out_the_same_way_every_time_and_adding_rows_moves_none() {
    let rows: Vec<Value> = (0..400).map(|n| answered(&format!("{n} GB?"), &format!("{n} GB"))).collect();
    let held = |count: usize| {
        let desk = Desk::of("rows.jsonl");
        desk.write("rows.jsonl", lines(&rows[..count]));
        let set = ["--held-out", "--rows", "1000", "--json", "--set", "eval.share=0.1"];
        let shown = desk.json(&[&["data", "inspect", "recipe.toml"], &set[..]].concat());
        shown.as_array().unwrap().iter().map(|row| row["line"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let (some, all) = (held(300), held(400));
    assert!((15..=50).contains(&some.len()), "{some:?}");
    assert!(all.starts_with(&some), "{some:?} {all:?}");
}

#[test]
fn prepared_rows_are_found_again_and_made_anew_after_a_change_or_damage() {
    let desk = Desk::of("rows.jsonl");
    desk.write("rows.jsonl", lines(&[answered("1 GB?", "1 GB")]));
    let prepare = ["data", "prepare", "recipe.toml", "--json"];
    let first = desk.json(&prepare);
    assert_eq!(desk.json(&prepare)["reused"], json!(true));
    let shuffled = desk.json(&[&prepare[..], &["--set", "train.seed=7", "--set", "data.packing=false"]].concat());
    assert_eq!(shuffled["address"], first["address"], "order changes no token");
    desk.write("rows.jsonl", lines(&[answered("1 GB?", "2 GB")]));
    let changed = desk.json(&prepare);
    assert_eq!(changed["reused"], json!(false));
    assert_ne!(changed["address"], first["address"]);
    let folder = PathBuf::from(changed["folder"].as_str().unwrap());
    fs::write(folder.join("training.rows"), b"foreign").unwrap();
    let mended = desk.json(&prepare);
    assert_eq!(mended["reused"], json!(false));
    assert!(mended["notes"].to_string().contains("prepared anew"), "{mended}");
    assert_eq!(desk.json(&prepare)["reused"], json!(true));
}

#[test]
fn resuming_on_changed_rows_is_refused() {
    let desk = Desk::of("rows.jsonl");
    let rows: Vec<Value> = (1..9).map(|n| answered(&format!("{n} GB?"), &format!("{n} GB"))).collect();
    desk.write("rows.jsonl", lines(&rows));
    desk.ok(&["run", "recipe.toml"]);
    desk.write("rows.jsonl", lines(&rows[1..]));
    let line = desk.refused(&["run", "recipe.toml", "--resume"]);
    assert!(line.contains("rows was "), "{line}");
}

#[test]
fn the_page_of_stats_needs_nothing_else_and_lets_no_row_become_markup() {
    let desk = Desk::of("rows.jsonl");
    desk.write("rows.jsonl", lines(&[answered("<script>1 GB?</script>", "1 GB & 2 GB")]));
    let page = desk.ok(&["data", "stats", "recipe.toml", "--html", "data.html"]);
    assert!(page.contains("row length") && page.contains('█'), "{page}");
    let html = fs::read_to_string(desk.path("data.html")).unwrap();
    assert!(!html.contains("<script") && !html.contains("http"), "{html}");
    assert!(html.contains("&lt;script&gt;1 GB?") && html.contains("<mark>1 GB &amp; 2 GB</mark>"), "{html}");
}

#[test]
fn preference_rows_are_checked_and_cannot_be_trained_on() {
    let desk = Desk::of("rows.jsonl");
    desk.write("rows.jsonl", lines(&[json!({"prompt": "1 GB?", "chosen": "1 GB", "rejected": "2 GB"})]));
    let report = desk.json(&["data", "prepare", "recipe.toml", "--json"]);
    assert_eq!(report["report"]["preferences"], json!(1));
    assert!(desk.refused(&["run", "recipe.toml"]).contains("preference"));
}

#[test]
fn a_yaml_of_another_tool_becomes_a_recipe_and_what_is_lost_is_listed() {
    let desk = Desk::of("rows.jsonl");
    desk.write(
        "axolotl.yml",
        "base_model: ./model\nadapter: lora\nlora_r: 8\nlora_alpha: 16\nlora_target_linear: true\nsequence_len: 512\n\
         sample_packing: true\ndatasets:\n  - path: rows.jsonl\n    type: chat_template\nmicro_batch_size: 2\n\
         gradient_accumulation_steps: 4\nnum_epochs: 1\nlearning_rate: 0.0002\noptimizer: adamw_torch\n\
         lr_scheduler: cosine\nneftune_noise_alpha: 5\nwandb_project: mine\n",
    );
    let output = desk.tune(&["migrate", "axolotl.yml"]);
    let (recipe, told) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(recipe.contains("rank = 8") && recipe.contains("tokens_per_step = 4096"), "{recipe}");
    assert!(told.contains("neftune_noise_alpha"), "{told}");
    assert!(desk.refused(&["migrate", "rows.yml"]).contains("rows.yml"));
}
