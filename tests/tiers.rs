//! Full fine-tuning and offload through the program: what a run leaves, that it goes on from there, what it counts.
//!
//! In:    the built program, tiny models; directories that stand for drives.
//! Out:   facts about files, numbers and exit codes.
//! Never: a tolerance between runs that differ only in where bytes live.

mod devices;
mod gguf_file;
mod kills;
mod profiles;
mod refusals;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use checkpoints::tensors::TensorFile;
use checkpoints::weights::Weights;
use serde_json::Value;

use crate::parity::fixture;

const ALL_NVME: [&str; 4] =
    ["offload.weights=nvme", "offload.gradients=nvme", "offload.optimizer=nvme", "offload.activations=nvme"];
const ALL_DEVICE: [&str; 4] =
    ["offload.weights=device", "offload.gradients=device", "offload.optimizer=device", "offload.activations=device"];
const LORA: [&str; 3] = ["method.kind=lora", "method.rank=4", "method.alpha=8"];

/// A folder with a recipe for full training of the tiny Llama, every class on NVMe, and a directory for a drive.
struct Runs {
    folder: tempfile::TempDir,
}

impl Runs {
    fn new() -> Runs {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("drive")).unwrap();
        let text = format!(
            r#"name = "tiny"
[model]
source = "{model}"
precision = "f32"
[method]
kind = "full"
[data]
sequence_length = 128
too_long = "truncate"
[[data.sources]]
path = "{train}"
[train]
steps = 4
tokens_per_step = 256
micro_batch = 1
[optimizer]
kind = "adamw"
learning_rate = 1e-2
max_grad_norm = "none"
[schedule]
kind = "constant"
[offload]
weights = "nvme"
gradients = "nvme"
optimizer = "nvme"
activations = "nvme"
nvme = ["{drive}"]
chunk = "64KiB"
queue_depth = 8
[checkpoint]
every_steps = 2
[eval]
source = {{ path = "{held}" }}
[log]
tensorboard = false
"#,
            model = fixture("llama").display(),
            train = fixture("data/train.jsonl").display(),
            held = fixture("data/heldout.jsonl").display(),
            drive = folder.path().join("drive").display(),
        );
        fs::write(folder.path().join("recipe.toml"), text).unwrap();
        Runs { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `tune run` into `output`; `set` are overrides, but for words that begin with a dash.
    fn command(&self, output: &str, set: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tune"));
        command.current_dir(self.folder.path()).env("TUNE_CACHE", self.path("cache"));
        command.args(["run", "recipe.toml", "--output", output]);
        for word in set {
            match word.starts_with('-') {
                true => command.arg(word),
                false => command.args(["--set", word]),
            };
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Another command of the program, in the same folder.
    fn tune(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tune"));
        command.current_dir(self.folder.path()).env("TUNE_CACHE", self.path("cache"));
        command.args(arguments).output().unwrap()
    }

    fn run(&self, output: &str, set: &[&str]) -> Output {
        self.command(output, set).output().unwrap()
    }

    /// Runs to the end; returns what was said on stderr. Nothing stays on the drive.
    fn succeeds(&self, output: &str, set: &[&str]) -> String {
        let result = self.run(output, set);
        let text = said(&result);
        assert_eq!(result.status.code(), Some(0), "{set:?}: {text}");
        assert!(self.left_on_drive().is_empty(), "{:?}", self.left_on_drive());
        text
    }

    fn left_on_drive(&self) -> Vec<PathBuf> {
        fs::read_dir(self.path("drive")).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    fn metrics(&self, output: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(output).join("metrics.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn steps(&self, output: &str) -> Vec<Value> {
        self.metrics(output).into_iter().filter(|line| line["loss"].is_f64()).collect()
    }

    /// Held-out losses in the order they were measured.
    fn held_out(&self, output: &str) -> Vec<f64> {
        self.metrics(output).iter().filter_map(|line| line["evaluation"]["loss"].as_f64()).collect()
    }

    fn model(&self, output: &str) -> Vec<u8> {
        fs::read(self.path(output).join("model/model.safetensors")).unwrap()
    }

    /// Weights and optimizer state at the end.
    fn state(&self, output: &str, step: u64) -> Vec<u8> {
        fs::read(self.path(output).join(format!("checkpoints/step-{step:06}/state.safetensors"))).unwrap()
    }

    /// The program fails with `code`, one line with all of `words`, and leaves no run directory and nothing on the drive.
    fn refuses(&self, set: &[&str], code: i32, words: &[&str]) -> String {
        let line = error_line(&self.run("refused", set), code);
        for word in words {
            assert!(line.contains(word), "`{word}` is not in: {line}");
        }
        assert!(!self.path("refused").exists(), "a run directory was left behind: {line}");
        assert!(self.left_on_drive().is_empty(), "{:?}", self.left_on_drive());
        line
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The only `error:` line, which comes last.
fn error_line(output: &Output, code: i32) -> String {
    let text = said(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(output.stdout.is_empty(), "stdout is for results");
    let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("error:")).collect();
    assert_eq!(errors.len(), 1, "one line: {text}");
    assert_eq!(text.lines().last(), errors.first().copied(), "the error comes last: {text}");
    errors[0].to_string()
}

fn source(path: &Path) -> String {
    format!("model.source={}", path.display())
}

/// A run from `model` leaves a folder that loads, and a second run from that folder begins where the first one ended. Returns both
/// held-out losses of that point.
fn trains_and_goes_on(runs: &Runs, model: &Path, precision: &str) -> [f64; 2] {
    let precision = format!("model.precision={precision}");
    runs.succeeds("first", &[&source(model), &precision]);
    let trained = runs.path("first/model");
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        assert!(trained.join(file).is_file(), "{file}");
    }
    let (before, after) = (Weights::open(model).unwrap(), Weights::open(&trained).unwrap());
    assert_eq!(before.spec().tensors(), after.spec().tensors());
    let is_changed = |name: &str| before.read(name).unwrap().data != after.read(name).unwrap().data;
    assert!(after.spec().tensors().iter().all(|(name, _)| is_changed(name)), "every tensor is trained");
    runs.succeeds("second", &[&source(&trained), &precision]);
    let (first, second) = (runs.held_out("first"), runs.held_out("second"));
    assert!(first[1] < first[0] && second[1] < second[0], "the losses fall: {first:?} {second:?}");
    [first[1], second[0]]
}

#[test]
fn a_model_from_a_folder_is_trained_on_nvme_and_trained_on_from_where_it_ended() {
    for precision in ["f32", "bf16"] {
        let [ended, began] = trains_and_goes_on(&Runs::new(), &fixture("llama"), precision);
        assert_eq!(ended.to_bits(), began.to_bits(), "{precision}: {ended} {began}");
    }
}

#[test]
fn a_model_from_a_gguf_file_is_trained_on_nvme_and_trained_on_from_where_it_ended() {
    let [ended, began] = trains_and_goes_on(&Runs::new(), &fixture("gguf/tiny-llama.gguf"), "f32");
    assert_eq!(ended.to_bits(), began.to_bits(), "{ended} {began}");
}

#[test]
fn gemma_from_a_gguf_file_is_written_with_the_norms_that_hugging_face_files_hold() {
    let runs = Runs::new();
    let model = runs.path("gemma.gguf");
    gguf_file::gemma_with_tokenizer(&model);
    let [ended, began] = trains_and_goes_on(&runs, &model, "f32");
    // Subtracting 1 and adding it again rounds.
    assert!((ended - began).abs() < 1e-6, "{ended} {began}");
    let trained = TensorFile::open(&runs.path("first/checkpoints/step-000004/state.safetensors")).unwrap();
    let written = TensorFile::open(&runs.path("first/model/model.safetensors")).unwrap();
    let mut norms = 0;
    for (name, _) in written.tensors() {
        let offset = if name.ends_with("norm.weight") { 1.0 } else { 0.0 };
        norms += offset as usize;
        let masters = trained.read(&format!("parameter.{name}")).unwrap().data;
        let expected: Vec<f32> = masters.iter().map(|value| value - offset).collect();
        assert_eq!(written.read(name).unwrap().data, expected, "{name}");
    }
    assert_eq!(norms, 3 * 6 + 1, "six norms a block and the last one");
}

#[test]
fn every_placement_gives_the_model_of_the_device() {
    let runs = Runs::new();
    runs.succeeds("device", &ALL_DEVICE);
    runs.succeeds("nvme", &ALL_NVME);
    let mixed = ["offload.weights=dram", "offload.gradients=device", "offload.activations=dram", "offload.chunk=1MiB"];
    runs.succeeds("mixed", &mixed);
    for other in ["nvme", "mixed"] {
        assert_eq!(runs.model(other), runs.model("device"), "{other}");
        assert_eq!(runs.state(other, 4), runs.state("device", 4), "{other}");
    }
}

#[test]
fn adapters_are_the_same_with_the_base_on_nvme() {
    let runs = Runs::new();
    let adapter = |output: &str, placement: &[&str]| {
        runs.succeeds(output, &[&LORA, placement].concat());
        fs::read(runs.path(output).join("adapter/adapter_model.safetensors")).unwrap()
    };
    let device = adapter("device", &ALL_DEVICE);
    let weights = [&ALL_DEVICE[1..], &["offload.weights=nvme"]].concat();
    assert_eq!(adapter("weights", &weights), device);
    assert_eq!(adapter("all", &ALL_NVME), device);
}

#[test]
fn adapters_over_a_base_in_4_bits_are_the_same_in_every_tier_and_so_is_what_is_measured_and_exported() {
    adapters_over_a_packed_base(4, 0.05);
}

#[test]
fn adapters_over_a_base_in_8_bits_are_the_same_in_every_tier_and_so_is_what_is_measured_and_exported() {
    adapters_over_a_packed_base(8, 0.005);
}

/// A packed base pages as it is. Its numbers are others than the files': the losses must say so, and by no more than the bits explain.
fn adapters_over_a_packed_base(bits: u32, difference_max: f64) {
    let runs = Runs::new();
    let bits_key = format!("method.bits={bits}");
    let qlora = ["method.kind=qlora", "method.rank=4", "method.alpha=8", &bits_key];
    for precision in ["model.precision=f32", "model.precision=bf16"] {
        let adapter = |output: &str, placement: &[&str]| {
            runs.succeeds(output, &[&qlora, placement, &[precision]].concat());
            fs::read(runs.path(output).join("adapter/adapter_model.safetensors")).unwrap()
        };
        let name = |place: &str| format!("{}-{place}", &precision[16..]);
        let device = adapter(&name("device"), &ALL_DEVICE);
        assert_eq!(adapter(&name("nvme"), &ALL_NVME), device);
        let weights = [&ALL_DEVICE[1..], &["offload.weights=dram"]].concat();
        assert_eq!(adapter(&name("dram"), &weights), device);
        let measured = runs.tune(&["eval", &name("device"), "--compare", "--json"]);
        let figures: Value = serde_json::from_slice(&measured.stdout).unwrap_or_else(|_| panic!("{}", said(&measured)));
        let held = runs.held_out(&name("nvme"));
        assert_eq!(figures["base"]["loss"].as_f64(), held.first().copied());
        assert_eq!(figures["tuned"]["loss"].as_f64(), held.last().copied());
    }
    runs.succeeds("dense", &[&LORA, &ALL_DEVICE[..]].concat());
    let (dense, packed) = (runs.held_out("dense"), runs.held_out("f32-device"));
    let (before, rounded) = (dense[0], packed[0]);
    let difference = (before - rounded).abs();
    assert!(before != rounded && difference < difference_max * before, "{before} in f32, {rounded} in {bits} bits");
    // The export compares its logits with those of the adapter over the packed base before it ends.
    let exported = runs.tune(&["export", "f32-device", "--to", "safetensors", "--output", "merged"]);
    assert_eq!(exported.status.code(), Some(0), "{}", said(&exported));
    assert!(said(&exported).contains(&format!("{bits} bits")), "{}", said(&exported));
    let held = fixture("data/heldout.jsonl").display().to_string();
    let measured =
        runs.tune(&["eval", "merged", "--data", &held, "--sequence-length", "128", "--precision", "f32", "--json"]);
    let figures: Value = serde_json::from_slice(&measured.stdout).unwrap_or_else(|_| panic!("{}", said(&measured)));
    let (merged, own) = (figures["tuned"]["loss"].as_f64().unwrap(), packed[packed.len() - 1]);
    assert!((merged - own).abs() < 1e-2, "merged into bf16 {merged}, trained {own}");
}

/// Bytes of an array of `elements` numbers of 4 bytes in chunks of 64 KiB: the NVMe tier writes whole pages.
fn array_bytes(elements: usize) -> u64 {
    let (chunks, rest) = (elements as u64 * 4 / 65_536, elements as u64 * 4 % 65_536);
    chunks * 65_536 + rest.next_multiple_of(4096)
}

/// What a step of two micro-batches of 128 tokens writes: for each the inputs of the blocks and the gradients, then once masters and moments.
fn step_bytes() -> u64 {
    let weights = Weights::open(&fixture("llama")).unwrap();
    let spec = weights.spec();
    let padded = |tensors: Vec<(String, Vec<usize>)>| -> usize {
        tensors.iter().map(|(_, shape)| shape.iter().product::<usize>().next_multiple_of(256)).sum()
    };
    let blocks: Vec<usize> = (0..spec.n_layers()).map(|layer| padded(spec.block_tensors(layer))).collect();
    let all = padded(spec.tensors());
    let outer = all - blocks.iter().sum::<usize>();
    let arrays: u64 = blocks.iter().chain([&outer]).map(|&elements| array_bytes(elements)).sum();
    let inputs = spec.n_layers() as u64 * array_bytes(128 * spec.hidden);
    2 * (inputs + arrays) + 3 * arrays
}

#[test]
fn metrics_count_the_bytes_of_every_path_and_what_a_step_writes_is_what_arithmetic_says() {
    let runs = Runs::new();
    fs::create_dir(runs.path("other")).unwrap();
    let drives = format!("offload.nvme={:?}", [runs.path("drive"), runs.path("other")]);
    runs.succeeds("out", &[&drives]);
    assert_eq!(fs::read_dir(runs.path("other")).unwrap().count(), 0);
    let steps = runs.steps("out");
    assert_eq!(steps.len(), 4);
    for step in steps {
        assert_eq!(step["nvme_write_bytes"].as_u64(), Some(step_bytes()), "{step}");
        let paths = step["nvme"].as_array().unwrap();
        let sum = |key: &str| paths.iter().map(|path| path[key].as_u64().unwrap()).sum::<u64>();
        assert_eq!(Some(sum("written_bytes")), step["nvme_write_bytes"].as_u64());
        assert_eq!(Some(sum("read_bytes")), step["nvme_read_bytes"].as_u64());
        for (path, name) in paths.iter().zip(["drive", "other"]) {
            assert!(path["path"].as_str().unwrap().ends_with(name), "{path}");
            assert!(path["written_bytes"].as_u64() > Some(0) && path["read_bytes"].as_u64() > Some(0), "{path}");
        }
        let causes = ["weights_ms", "activations_ms", "gradients_ms", "optimizer_ms"];
        let stalls: Vec<f64> = causes.iter().map(|cause| step["stalls"][cause].as_f64().unwrap()).collect();
        assert!((stalls.iter().sum::<f64>() - step["stall_ms"].as_f64().unwrap()).abs() < 1e-6, "{step}");
        assert!(stalls.iter().all(|&ms| ms >= 0.0 && ms <= step["step_ms"].as_f64().unwrap() + 1e3), "{step}");
    }
}
