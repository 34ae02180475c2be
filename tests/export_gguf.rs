//! `tune export --to gguf` and `--to ollama` from outside.
//!
//! In:    the built program; a run on the tiny Llama fixture; tiny GGUF models.
//! Out:   facts about files on disk, read by the reader that opens anyone's. What llama.cpp makes of them is `tests/peers/gguf_elsewhere.py`.
//! Never: takes the export's own word.

use std::fs;

use checkpoints::gguf::File;
use datasets::Batch;

use crate::export::{Place, json, names, random_adapter, text};
use crate::parity::{base, fixture, largest_difference, logits};

fn rows() -> Batch {
    let tokens: Vec<u32> = (0..20).map(|at| (11 * at + 3) % 280).collect();
    Batch { segments: vec![0, 20], tokens, ..Batch::default() }
}

#[test]
fn a_run_as_a_gguf_file_in_f32_is_the_trained_network() {
    let place = Place::new();
    place.train("out", &[]);
    place.succeeds(&["export", "out", "--to", "gguf", "--quantize", "f32"]);
    let folder = place.path("out/export/gguf-f32");
    assert_eq!(names(&folder), ["README.md", "export.json", "tiny-f32.gguf"]);
    let trained = crate::plans::adapted(&fixture("llama"), &place.path("out/adapter"));
    let (ours, theirs) =
        (logits(&trained.engine, &rows()), logits(&base(&folder.join("tiny-f32.gguf"), "f32").engine, &rows()));
    let bare = logits(&base(&fixture("llama"), "f32").engine, &rows());
    assert!(largest_difference(&ours, &bare) > 0.05, "training did something");
    assert!(largest_difference(&ours, &theirs) < 1e-4, "{}", largest_difference(&ours, &theirs));
    let written = File::open(&folder.join("tiny-f32.gguf")).unwrap();
    assert!(written.metadata().text("tokenizer.chat_template").unwrap().unwrap().contains("<|im_start|>"));
}

#[test]
fn quantised_files_are_smaller_and_state_their_rounding() {
    let place = Place::new();
    place.train("out", &[]);
    let mut sizes = Vec::new();
    for format in ["f16", "q8_0", "q4_0"] {
        let table = place.succeeds(&["export", "out", "--to", "gguf", "--quantize", format]);
        assert!(table.contains("rounding"), "{table}");
        let folder = place.path(&format!("out/export/gguf-{format}"));
        sizes.push(fs::metadata(folder.join(format!("tiny-{format}.gguf"))).unwrap().len());
        let record = json(&folder.join("export.json"));
        assert!(record["compared"]["token_ids"].as_u64().unwrap() > 10, "{record}");
    }
    assert!(sizes[0] > sizes[1] && sizes[1] > sizes[2], "{sizes:?}");
}

#[test]
fn ollama_gets_the_model_its_template_and_what_ends_an_answer() {
    let place = Place::new();
    place.train("out", &[]);
    place.succeeds(&["export", "out", "--to", "ollama"]);
    let folder = place.path("out/export/ollama-f16");
    let modelfile = fs::read_to_string(folder.join("Modelfile")).unwrap();
    assert!(modelfile.starts_with("FROM ./tiny-f16.gguf\n") && folder.join("tiny-f16.gguf").is_file(), "{modelfile}");
    assert!(modelfile.contains("PARAMETER stop \"<|im_end|>\""), "{modelfile}");
    place.refuses(&["export", "out", "--to", "ollama", "--adapter-only"], 2, &["not a GGUF file", "--adapter-only"]);
}

#[test]
fn an_adapter_alone_goes_over_the_gguf_base_that_it_was_trained_on() {
    let place = Place::new();
    let model = fixture("gguf/tiny-llama.gguf");
    random_adapter(&model, &place.path("adapter"));
    place.succeeds(&["export", "adapter", "--to", "gguf", "--adapter-only", "--quantize", "f32", "--output", "gguf"]);
    place.succeeds(&["export", "adapter", "--to", "ollama", "--adapter-only", "--output", "ollama"]);
    let written = File::open(&place.path("gguf/model-adapter-f32.gguf")).unwrap();
    assert_eq!(written.metadata().text("general.type").unwrap(), Some("adapter"));
    assert_eq!(written.metadata().f32("adapter.lora.alpha").unwrap(), Some(3.0));
    let modelfile = fs::read_to_string(place.path("ollama/Modelfile")).unwrap();
    let from = format!("FROM {}\nADAPTER ./model-adapter-f16.gguf\n", text(&model));
    assert!(modelfile.starts_with(&from), "{modelfile}");
    let words = ["--adapter-only", "q8_0".to_uppercase().as_str()].map(str::to_string);
    let mixed = ["export", "adapter", "--to", "gguf", "--adapter-only", "--quantize", "q8_0", "--output", "x"];
    place.refuses(&mixed, 2, &words.each_ref().map(String::as_str));
    place.refuses(&["export", "adapter", "--to", "peft", "--quantize", "f16", "--output", "x"], 2, &["--quantize"]);
    assert!(!place.path("x").exists());
}
