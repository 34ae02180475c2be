//! `tune export` where it must refuse: every wrong thing has its own error and exit code, and what was there stays.
//!
//! In:    the built program; runs and adapters of tiny models, damaged, moved, or exchanged.
//! Out:   facts about exit codes, words and folders.
//! Never: a mock: full disks are a real file system of one megabyte.

use std::fs;
use std::path::Path;

use checkpoints::peft::read_adapter;

use crate::export::{Place, names, text};
use crate::parity::fixture;
use crate::survival::SmallDisk;

#[test]
fn what_cannot_be_exported_is_refused_by_name_and_leaves_nothing() {
    let place = Place::new();
    let (adapter, model) = (text(&fixture("llama/adapter")), text(&fixture("llama")));
    let to = ["--to", "safetensors", "--output", "new"];
    let refuses = |subject: &[&str], words: &[&str]| {
        place.refuses(&[&["export"], subject, &to].concat(), 2, words);
        let left: Vec<String> = names(&place.path("")).into_iter().filter(|name| name.contains("new")).collect();
        assert!(left.is_empty(), "{subject:?} left {left:?}");
    };
    refuses(&["nowhere"], &["nowhere", "no such run"]);
    refuses(&[&model], &["is a model"]);
    refuses(&[&adapter], &["base model of the adapter", "--model"]);
    refuses(&[&adapter, "--model", "gone"], &["gone", "no such file or folder"]);
    refuses(&[&adapter, "--model", &text(&fixture("qwen2"))], &["belongs to another model"]);
    fs::create_dir(place.path("empty")).unwrap();
    refuses(&["empty"], &["empty", "neither a run"]);
    fs::create_dir(place.path("cut")).unwrap();
    fs::copy(fixture("llama/adapter/adapter_config.json"), place.path("cut/adapter_config.json")).unwrap();
    let whole = fs::read(fixture("llama/adapter/adapter_model.safetensors")).unwrap();
    fs::write(place.path("cut/adapter_model.safetensors"), &whole[..whole.len() / 2]).unwrap();
    refuses(&["cut", "--model", &model], &["adapter_model.safetensors"]);
    place.refuses(&["export", &adapter, "--model", &model, "--to", "peft"], 2, &["--output"]);
    let mixed = ["export", &adapter, "--model", &model, "--to", "peft", "--precision", "f16", "--output", "new"];
    place.refuses(&mixed, 2, &["--precision"]);
}

#[test]
fn a_run_without_a_result_gives_its_newest_checkpoint_and_says_so() {
    let place = Place::new();
    place.train("out", &[]);
    fs::remove_dir_all(place.path("out/adapter")).unwrap();
    let output = place.tune(&["export", "out", "--to", "peft"]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{words}");
    assert!(words.contains("has not ended") && words.contains("step-000004"), "{words}");
    assert!(place.path("out/export/step-000004-peft").is_dir());
    // A damaged newer one is named, and the one before it taken.
    flip(&place.path("out/checkpoints/step-000004/state.safetensors"));
    let output = place.tune(&["export", "out", "--to", "peft"]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{words}");
    assert!(words.contains("step-000004") && words.contains("SHA-256"), "{words}");
    assert!(place.path("out/export/step-000002-peft").is_dir());
    place.refuses(
        &["export", "out/checkpoints/step-000004", "--to", "peft", "--output", "x"],
        2,
        &["step-000004", "SHA-256"],
    );
    place.refuses(
        &["export", "out", "--checkpoint", "step-000003", "--to", "peft"],
        2,
        &["step-000003", "step-000002"],
    );
    fs::remove_dir_all(place.path("out/checkpoints")).unwrap();
    place.refuses(&["export", "out", "--to", "peft"], 2, &["no result yet"]);
}

fn flip(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
}

/// A copy of the tiny Llama model that tests may change.
fn own_model(place: &Place, name: &str) {
    fs::create_dir_all(place.path(name)).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(fixture("llama").join(file), place.path(name).join(file)).unwrap();
    }
}

#[test]
fn a_base_that_is_gone_or_another_one_is_refused_with_the_way_out() {
    let place = Place::new();
    own_model(&place, "base");
    place.train("out", &[&format!("model.source=\"{}\"", place.path("base").display())]);
    fs::rename(place.path("base"), place.path("moved")).unwrap();
    place.refuses(&["export", "out", "--to", "peft"], 2, &["base model of out", "--model"]);
    place.succeeds(&["export", "out", "--to", "peft", "--model", "moved"]);
    let other = text(&fixture("llama3"));
    place.refuses(
        &["export", "out", "--to", "peft", "--model", &other, "--force"],
        2,
        &["not the model", "vocabulary"],
    );
    assert!(place.path("out/export/peft/adapter_model.safetensors").is_file(), "what was there stays");
}

#[test]
fn a_base_whose_numbers_changed_is_refused_and_taken_only_by_name() {
    let place = Place::new();
    own_model(&place, "base");
    place.train("out", &[&format!("model.source=\"{}\"", place.path("base").display())]);
    // As a file that was trained further: every byte of the last tensors is another.
    let mut bytes = fs::read(place.path("base/model.safetensors")).unwrap();
    bytes[65_000..].iter_mut().for_each(|byte| *byte ^= 1);
    fs::write(place.path("base/model.safetensors"), bytes).unwrap();
    place.refuses(&["export", "out", "--to", "peft"], 2, &["has changed", "--model"]);
    let output = place.tune(&["export", "out", "--to", "peft", "--model", "base"]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{words}");
    assert!(words.contains("holds other numbers"), "{words}");
}

#[test]
fn a_number_that_f16_cannot_hold_is_refused_with_its_tensor_and_the_old_export_stays() {
    let place = Place::new();
    let (adapter, model) = (text(&fixture("llama/adapter")), text(&fixture("llama")));
    let to = ["--to", "safetensors", "--output", "out"];
    place.succeeds(&[&["export", &adapter, "--model", &model, "--precision", "f16"], &to[..]].concat());
    let old = fs::read(place.path("out/model.safetensors")).unwrap();
    // The same adapter with a B that is far too large.
    fs::create_dir(place.path("huge")).unwrap();
    let mut pairs = read_adapter(&fixture("llama/adapter")).unwrap();
    let pair = pairs.pairs.get_mut("model.layers.1.mlp.up_proj").unwrap();
    pair.b.data.iter_mut().for_each(|value| *value *= 1e9);
    checkpoints::peft::write_adapter(&place.path("huge"), &pairs.config, &pairs.tensors()).unwrap();
    let arguments = [&["export", "huge", "--model", &model, "--precision", "f16", "--force"], &to[..]].concat();
    place.refuses(&arguments, 2, &["model.layers.1.mlp.up_proj.weight", "65504", "e", "bf16"]);
    assert_eq!(fs::read(place.path("out/model.safetensors")).unwrap(), old);
    assert_eq!(names(&place.path("")), ["huge", "out"], "no staging folder is left");
    place.refuses(&[&["export", &adapter, "--model", &model], &to[..]].concat(), 2, &["earlier export", "--force"]);
    place.succeeds(&[&["export", &adapter, "--model", &model, "--precision", "f32", "--force"], &to[..]].concat());
    assert_ne!(fs::read(place.path("out/model.safetensors")).unwrap(), old);
}

#[test]
fn a_folder_that_no_export_wrote_is_never_replaced() {
    let place = Place::new();
    fs::create_dir(place.path("mine")).unwrap();
    fs::write(place.path("mine/thesis.txt"), "years of work").unwrap();
    let (adapter, model) = (text(&fixture("llama/adapter")), text(&fixture("llama")));
    let arguments = ["export", &adapter, "--model", &model, "--to", "peft", "--output", "mine", "--force"];
    place.refuses(&arguments, 2, &["no export wrote it"]);
    assert_eq!(fs::read_to_string(place.path("mine/thesis.txt")).unwrap(), "years of work");
    fs::write(place.path("file"), "x").unwrap();
    place.refuses(&["export", &adapter, "--model", &model, "--to", "peft", "--output", "file"], 2, &["file"]);
    place.refuses(&["export", &adapter, "--model", &model, "--to", "peft", "--output", "file/x"], 2, &["file"]);
}

#[test]
fn a_full_disk_ends_the_export_with_one_line_and_keeps_what_was_there() {
    let Some(small) = SmallDisk::mount() else {
        eprintln!("SKIPPED a_full_disk_ends_the_export...: no right to mount a tmpfs here");
        return;
    };
    let place = Place::new();
    let (adapter, model) = (text(&fixture("llama/adapter")), text(&fixture("llama")));
    let output = text(&small.path.join("out"));
    let arguments = ["export", &adapter, "--model", &model, "--to", "safetensors", "--output", &output, "--force"];
    place.succeeds(&[&arguments[..], &["--precision", "f16"]].concat());
    let old = fs::read(small.path.join("out/model.safetensors")).unwrap();
    fs::write(small.path.join("filler"), vec![0u8; (1 << 20) - 160_000]).unwrap();
    place.refuses(&[&arguments[..], &["--precision", "f32"]].concat(), 1, &["no space left"]);
    assert_eq!(fs::read(small.path.join("out/model.safetensors")).unwrap(), old);
    assert_eq!(names(&small.path), ["filler", "out"]);
}
