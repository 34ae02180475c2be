//! `tune export` from outside: what is written loads again and says what was trained; every wrong thing has its own error.
//!
//! In:    the built program; tiny models of every family with PEFT's own adapters and logits; runs on the tiny Llama fixture.
//! Out:   facts about exported folders and exit codes.
//! Never: takes the export's own word: logits are compared with PEFT's, files are read by the rooms' readers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use checkpoints::peft::read_adapter;
use checkpoints::tensors::TensorFile;
use checkpoints::weights::Weights;
use serde_json::Value;

use crate::parity::{FAMILIES, base, batch, fixture, golden, largest_difference, logits};

/// A folder in which the program runs.
pub struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Place {
        Place { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn tune(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tune"));
        command.current_dir(self.folder.path()).env("TUNE_CACHE", self.path("cache"));
        command.args(arguments).output().unwrap()
    }

    pub fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.tune(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The program ends with `code` and one line that holds all of `words`.
    pub fn refuses(&self, arguments: &[&str], code: i32, words: &[&str]) {
        let output = self.tune(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}");
        let line = text.lines().rfind(|line| line.starts_with("error:")).unwrap_or_default();
        for word in words {
            assert!(line.contains(word), "`{word}` is not in: {text}");
        }
    }

    /// Trains the tiny Llama fixture, or what `set` says.
    pub fn train(&self, output: &str, set: &[&str]) {
        let text = format!(
            r#"name = "tiny"
[model]
source = "{model}"
precision = "f32"
[method]
kind = "lora"
rank = 4
alpha = 8
[data]
sequence_length = 128
too_long = "truncate"
[[data.sources]]
path = "{train}"
[train]
steps = 4
tokens_per_step = 256
[optimizer]
kind = "adamw"
learning_rate = 1e-2
[schedule]
kind = "constant"
[checkpoint]
every_steps = 2
keep_last = 3
[eval]
source = {{ path = "{held}" }}
exact_match = true
max_new_tokens = 4
"#,
            model = fixture("llama").display(),
            train = fixture("data/train.jsonl").display(),
            held = fixture("data/heldout.jsonl").display(),
        );
        fs::write(self.path("recipe.toml"), text).unwrap();
        let mut arguments = vec!["run", "recipe.toml", "--output", output];
        for one in set {
            arguments.extend(["--set", one]);
        }
        self.succeeds(&arguments);
    }
}

pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

pub fn text(path: &Path) -> String {
    path.to_str().unwrap().to_string()
}

/// Largest difference of a model's logits from those that PEFT wrote for the family's adapter, and the largest of PEFT's.
fn from_peft(family: &str, model: &Path) -> (f32, f32) {
    let learner = base(model, "f32");
    let file = TensorFile::open(&fixture(family).join("golden.safetensors")).unwrap();
    let golden_json = golden(family);
    let (mut difference, mut largest) = (0f32, 0f32);
    for row in golden_json["adapter_logit_rows"].as_array().unwrap() {
        let value = &golden_json["rows"][row.as_u64().unwrap() as usize];
        let ours = logits(&learner.engine, &batch(std::slice::from_ref(value)));
        let theirs = file.read(&format!("adapter_logits.{row}")).unwrap().data;
        difference = difference.max(largest_difference(&ours, &theirs));
        largest = theirs.iter().fold(largest, |most, logit| most.max(logit.abs()));
    }
    (difference, largest)
}

#[test]
fn a_merged_folder_of_every_family_says_what_peft_says_with_the_adapter() {
    for family in FAMILIES {
        let place = Place::new();
        let (adapter, model) = (text(&fixture(family).join("adapter")), text(&fixture(family)));
        // f32 is as exact as PEFT; the others err by the rounding of the weights.
        for (precision, share) in [("f32", 1e-5), ("f16", 1e-2), ("bf16", 5e-2)] {
            let arguments = ["export", &adapter, "--model", &model, "--to", "safetensors", "--precision", precision];
            let table = place.succeeds(&[&arguments[..], &["--output", precision]].concat());
            assert!(table.contains("read back equal, bit for bit"), "{table}");
            let (difference, largest) = from_peft(family, &place.path(precision));
            assert!(difference < share * largest.max(1.0), "{family} in {precision}: {difference} of {largest}");
            let config = json(&place.path(precision).join("config.json"));
            let dtype = config.get("dtype").or(config.get("torch_dtype")).unwrap().as_str().unwrap();
            let expected = [("f32", "float32"), ("f16", "float16"), ("bf16", "bfloat16")];
            assert!(expected.contains(&(precision, dtype)), "{family}: {dtype} for {precision}");
        }
    }
}

#[test]
fn an_adapter_of_every_family_is_written_bit_for_bit_in_the_layout_that_peft_reads() {
    for family in FAMILIES {
        let place = Place::new();
        let (adapter, model) = (fixture(family).join("adapter"), text(&fixture(family)));
        place.succeeds(&["export", &text(&adapter), "--model", &model, "--to", "peft", "--output", "out"]);
        let (theirs, ours) = (read_adapter(&adapter).unwrap(), read_adapter(&place.path("out")).unwrap());
        assert_eq!(ours.pairs, theirs.pairs, "{family}");
        assert_eq!((ours.config.rank, ours.config.alpha), (theirs.config.rank, theirs.config.alpha));
        let config = json(&place.path("out/adapter_config.json"));
        assert!(config["lora_alpha"].is_u64(), "{family}: Ollama wants a whole number");
        let leaves = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"];
        let mut named: Vec<&str> =
            config["target_modules"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        named.sort_unstable();
        assert_eq!(named, leaves, "{family}: all layers, so leaf names say it");
    }
}

#[test]
fn an_rslora_adapter_of_two_layers_keeps_its_scale_merged_or_not() {
    let place = Place::new();
    let (adapter, model) = (text(&fixture("llama/adapter-rslora")), text(&fixture("llama")));
    place.succeeds(&["export", &adapter, "--model", &model, "--to", "peft", "--output", "adapter"]);
    assert!(read_adapter(&place.path("adapter")).unwrap().config.rank_stabilized);
    place.succeeds(&[
        "export",
        &adapter,
        "--model",
        &model,
        "--to",
        "safetensors",
        "--precision",
        "f32",
        "--output",
        "m",
    ]);
    let (weights, merged) = (Weights::open(&fixture("llama")).unwrap(), Weights::open(&place.path("m")).unwrap());
    let pairs = read_adapter(&fixture("llama/adapter-rslora")).unwrap();
    let scale = (pairs.config.alpha / (pairs.config.rank as f64).sqrt()) as f32;
    for (name, _) in weights.spec().tensors() {
        let mut expected = weights.read(&name).unwrap();
        if let Some(pair) = pairs.pairs.get(name.trim_end_matches(".weight")) {
            let (rank, inputs) = (pair.a.shape[0], pair.a.shape[1]);
            for (at, value) in expected.data.iter_mut().enumerate() {
                let (row, column) = (at / inputs, at % inputs);
                let terms = (0..rank).map(|r| pair.b.data[row * rank + r] * pair.a.data[r * inputs + column]);
                *value += scale * terms.sum::<f32>();
            }
        }
        let difference = largest_difference(&merged.read(&name).unwrap().data, &expected.data);
        assert!(difference < 1e-6, "{name}: {difference}");
    }
}

#[test]
fn shards_with_their_index_hold_the_same_model_as_one_file() {
    let place = Place::new();
    let (adapter, model) = (text(&fixture("llama/adapter")), text(&fixture("llama")));
    let arguments = ["export", &adapter, "--model", &model, "--to", "safetensors", "--precision", "f32"];
    place.succeeds(&[&arguments[..], &["--output", "one"]].concat());
    place.succeeds(&[&arguments[..], &["--output", "many", "--shard-size", "40KB"]].concat());
    let shards: Vec<String> = names(&place.path("many")).into_iter().filter(|name| name.contains("-of-")).collect();
    assert!(shards.len() > 2 && shards[0] == format!("model-00001-of-{:05}.safetensors", shards.len()), "{shards:?}");
    for shard in &shards {
        let bytes = fs::metadata(place.path("many").join(shard)).unwrap().len();
        assert!(bytes < 42_000, "{shard} has {bytes} bytes");
    }
    let (one, many) = (Weights::open(&place.path("one")).unwrap(), Weights::open(&place.path("many")).unwrap());
    let index = json(&place.path("many/model.safetensors.index.json"));
    assert_eq!(index["metadata"]["total_parameters"], one.spec().parameters());
    assert_eq!(index["metadata"]["total_size"], 4 * one.spec().parameters());
    for (name, _) in one.spec().tensors() {
        assert_eq!(one.read(&name).unwrap(), many.read(&name).unwrap(), "{name}");
        assert!(shards.contains(&index["weight_map"][&name].as_str().unwrap().to_string()));
    }
}

/// A random adapter of all layers of a model.
pub fn random_adapter(model: &Path, folder: &Path) {
    let weights = Weights::open(model).unwrap();
    let (spec, rank) = (weights.spec(), 2usize);
    let mut seed = 7u32;
    let mut numbers = |count: usize| -> Vec<f32> {
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..count).map(|_| next()).collect()
    };
    let mut tensors = Vec::new();
    for layer in 0..spec.n_layers() {
        for linear in planner::architecture::Linear::ALL {
            let [outputs, inputs] = spec.linear_shape(linear);
            for (factor, shape) in [
                (checkpoints::peft::Factor::A, vec![rank, inputs]),
                (checkpoints::peft::Factor::B, vec![outputs, rank]),
            ] {
                let name = checkpoints::peft::factor_name(&linear.path(layer), factor);
                tensors.push((name, shape.clone(), numbers(shape.iter().product())));
            }
        }
    }
    let config = checkpoints::peft::AdapterConfig {
        base_model: Some(text(model)),
        rank,
        alpha: 3.0,
        dropout: 0.0,
        target_modules: planner::architecture::Linear::ALL.iter().map(|linear| linear.leaf().to_string()).collect(),
        rank_stabilized: false,
    };
    let named: Vec<_> = tensors
        .iter()
        .map(|(name, shape, data)| checkpoints::peft::AdapterTensor { name: name.clone(), shape: shape.clone(), data })
        .collect();
    checkpoints::peft::write_adapter(folder, &config, &named).unwrap();
}

#[test]
fn a_gguf_base_is_merged_into_a_folder_that_transformers_conventions_read() {
    for name in ["tiny-llama", "tiny-qwen3", "tiny-gemma3"] {
        let place = Place::new();
        let model = fixture(&format!("gguf/{name}.gguf"));
        random_adapter(&model, &place.path("adapter"));
        // The adapter names its base, so it needs no --model.
        place.succeeds(&["export", "adapter", "--to", "safetensors", "--precision", "f32", "--output", "merged"]);
        let trained = crate::plans::adapted(&model, &place.path("adapter"));
        let merged = base(&place.path("merged"), "f32");
        let tokens: Vec<u32> = (0..20).map(|at| (5 * at + 1) % 40).collect();
        let rows = datasets::Batch { segments: vec![0, 20], tokens, ..datasets::Batch::default() };
        let (ours, theirs) = (logits(&trained.engine, &rows), logits(&merged.engine, &rows));
        let bare = logits(&base(&model, "f32").engine, &rows);
        assert!(largest_difference(&bare, &ours) > 0.1, "{name}: the adapter does something");
        assert!(largest_difference(&ours, &theirs) < 2e-4, "{name}: {}", largest_difference(&ours, &theirs));
        let default = place.succeeds(&["export", "adapter", "--to", "safetensors", "--output", "default"]);
        assert!(default.contains("token ids"), "{default}");
        let config = json(&place.path("default/config.json"));
        assert_eq!(config["dtype"], "bfloat16", "{name}: no folder holds GGUF blocks");
    }
}

#[test]
fn a_run_its_checkpoint_and_its_adapter_folder_export_what_each_of_them_holds() {
    let place = Place::new();
    place.train("out", &[]);
    let before = names(&place.path("out"));
    place.succeeds(&["export", "out", "--to", "peft"]);
    place.succeeds(&["export", "out/checkpoints/step-000002", "--to", "peft"]);
    place.succeeds(&["export", "out/adapter", "--to", "peft", "--output", "again"]);
    let adapter = |folder: &str| read_adapter(&place.path(folder)).unwrap();
    let result = adapter("out/adapter");
    assert_eq!(adapter("out/export/peft").pairs, result.pairs);
    assert_eq!(adapter("again").pairs, result.pairs);
    assert_ne!(adapter("out/export/step-000002-peft").pairs, result.pairs, "two steps before the end");
    place.succeeds(&["export", "out", "--checkpoint", "step-000004", "--to", "peft", "--output", "last"]);
    assert_eq!(adapter("last").pairs, result.pairs, "the last checkpoint is the result");
    let mut after = names(&place.path("out"));
    after.retain(|name| name != "export");
    assert_eq!(after, before, "nothing else in the run directory changed");
}

#[test]
fn a_card_states_base_data_recipe_figures_and_what_was_compared() {
    let place = Place::new();
    place.train("out", &[]);
    place.succeeds(&["export", "out", "--to", "safetensors"]);
    let folder = place.path("out/export/safetensors-f16");
    let card = fs::read_to_string(folder.join("README.md")).unwrap();
    let loss = |line: &str| {
        let line = card.lines().find(|found| found.starts_with(line)).unwrap_or_else(|| panic!("{line} in {card}"));
        line.split('|').filter_map(|cell| cell.trim().parse::<f64>().ok()).collect::<Vec<_>>()
    };
    let losses = loss("| loss ");
    assert!(losses.len() == 2 && losses[1] < losses[0], "{losses:?}");
    assert!(card.contains("| exact answers"), "{card}");
    for words in
        ["train.jsonl", "```toml", "rank = 4", "learning_rate = 0.01", "library_name: transformers", "bit for bit"]
    {
        assert!(card.contains(words), "`{words}` is not in {card}");
    }
    assert!(!card.contains("license:"), "the fixture states none, so the card states none");
    let record = json(&folder.join("export.json"));
    assert!(record["compared"]["token_ids"].as_u64().unwrap() > 100);
    let logits = &record["compared"]["logits"];
    assert!(logits["largest_difference"].as_f64().unwrap() <= logits["bound"].as_f64().unwrap());
    place.succeeds(&["export", "out/checkpoints/step-000002", "--to", "safetensors", "--output", "early"]);
    let early = fs::read_to_string(place.path("early/README.md")).unwrap();
    assert!(early.contains("checkpoint step-000002") && early.contains("2 steps;"), "{early}");
    assert!(early.contains("| not measured |"), "the end's figures are not those of step 2: {early}");
}

#[test]
fn a_licence_that_the_base_states_stands_in_the_card() {
    let place = Place::new();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        fs::create_dir_all(place.path("model")).unwrap();
        fs::copy(fixture("llama").join(name), place.path("model").join(name)).unwrap();
    }
    fs::write(place.path("model/README.md"), "---\nlicense: apache-2.0\ntags: [x]\n---\n# A model\n").unwrap();
    let adapter = text(&fixture("llama/adapter"));
    place.succeeds(&["export", &adapter, "--model", "model", "--to", "peft", "--output", "out"]);
    assert!(fs::read_to_string(place.path("out/README.md")).unwrap().contains("license: apache-2.0\n"));
}

#[test]
fn a_full_run_and_its_checkpoint_export_their_own_weights() {
    let place = Place::new();
    place.train("out", &["method={kind=\"full\"}"]);
    place.succeeds(&["export", "out", "--to", "safetensors", "--precision", "f32"]);
    place.succeeds(&["export", "out/checkpoints/step-000002", "--to", "safetensors", "--precision", "f32"]);
    let (result, exported) = (place.path("out/model"), place.path("out/export/safetensors-f32"));
    let open = |path: &Path| Weights::open(path).unwrap();
    let (result, exported) = (open(&result), open(&exported));
    let early = open(&place.path("out/export/step-000002-safetensors-f32"));
    let mut changed = 0;
    for (name, _) in result.spec().tensors() {
        assert_eq!(exported.read(&name).unwrap(), result.read(&name).unwrap(), "{name}");
        changed += usize::from(early.read(&name).unwrap() != result.read(&name).unwrap());
    }
    assert!(changed > 10, "two more steps changed nearly every tensor: {changed}");
    let files = ["config.json", "tokenizer.json", "tokenizer_config.json", "README.md", "export.json"];
    for name in files {
        assert!(place.path("out/export/safetensors-f32").join(name).is_file(), "{name}");
    }
    place.refuses(&["export", "out", "--to", "peft"], 2, &["every weight", "--to safetensors"]);
    assert!(!place.path("out/export/peft").exists());
}

#[test]
fn a_template_of_training_goes_with_the_model() {
    let place = Place::new();
    let own = "{%- for message in messages -%}{{ '<|im_start|>' + message['role'] + ': ' + message['content'] + '<|im_end|>' }}\
               {%- endfor -%}{%- if add_generation_prompt -%}{{ '<|im_start|>assistant: ' }}{%- endif -%}";
    fs::write(place.path("own.jinja"), own).unwrap();
    let template = format!("data.chat_template=\"{}\"", place.path("own.jinja").display());
    place.train("out", &[&template, "data.allow=[\"serving-template\"]"]);
    place.succeeds(&["export", "out", "--to", "safetensors", "--output", "merged"]);
    assert_eq!(fs::read_to_string(place.path("merged/chat_template.jinja")).unwrap(), own);
    assert_eq!(json(&place.path("merged/tokenizer_config.json"))["chat_template"], own);
    assert!(fs::read_to_string(place.path("merged/README.md")).unwrap().contains("the one that training used"));
}
