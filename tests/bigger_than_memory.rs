//! Full training in less memory than its numbers need: a control group holds the program to what it planned.
//!
//! In:    random Llamas made on the spot, the built program, memory control groups.
//! Out:   facts: the losses and bytes of the run in memory, in a group where that run cannot live.
//! Never: a silent skip: without control groups a test says SKIPPED and why.

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use checkpoints::model_folder::{SideFile, write_model};
use checkpoints::stream::{Fill, Format, StreamedTensor};
use serde_json::{Value, json};

use crate::control_group::{Ended, MemoryGroup};
use crate::parity::fixture;

const CLASSES: [&str; 4] = ["weights", "gradients", "optimizer", "activations"];
const SIGKILL: i32 = 9;
/// Standard deviation of a fresh Llama's weights.
const DEVIATION: f32 = 0.02;

/// Sizes of a Llama; heads are 64 wide, embedding and head are two matrices.
struct Sizes {
    vocabulary: usize,
    hidden: usize,
    intermediate: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
}

/// 59 million parameters: 0.95 GB of weights, masters and moments.
const COUSIN: Sizes = Sizes { vocabulary: 4096, hidden: 512, intermediate: 2048, layers: 14, heads: 8, kv_heads: 2 };
/// The shape of TinyLlama-1.1B: 1.1 billion parameters, 13.2 GB of masters and moments.
const BILLION: Sizes =
    Sizes { vocabulary: 32_000, hidden: 2048, intermediate: 5632, layers: 22, heads: 32, kv_heads: 4 };

impl Sizes {
    fn config(&self) -> String {
        let config = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
            "vocab_size": self.vocabulary, "hidden_size": self.hidden, "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5,
            "hidden_act": "silu", "rope_theta": 10000.0, "tie_word_embeddings": false,
            "attention_bias": false, "mlp_bias": false, "bos_token_id": 0, "eos_token_id": 2,
        });
        config.to_string()
    }

    /// Writes the model; a number depends on its tensor and its place in it alone.
    fn write(&self, folder: &Path) {
        let spec = planner::config::from_hf(&self.config()).unwrap();
        let tensors = spec.tensors().into_iter().zip(1u64..).map(|((name, shape), seed)| {
            let is_matrix = shape.len() == 2;
            let fill: Fill<'static> = Box::new(move |at, out| {
                for (bytes, index) in out.as_chunks_mut::<2>().0.iter_mut().zip(at / 2..) {
                    let value = if is_matrix { random(seed << 40 | index) } else { 1.0 };
                    // bfloat16 is the upper half of an f32.
                    *bytes = ((value.to_bits() >> 16) as u16).to_le_bytes();
                }
                Ok(())
            });
            StreamedTensor { name, shape, format: Format::Bf16, fill }
        });
        let beside = |name: &str| SideFile { name: name.into(), bytes: fs::read(fixture("llama").join(name)).unwrap() };
        let config = SideFile { name: "config.json".into(), bytes: self.config().into_bytes() };
        let files = [config, beside("tokenizer.json"), beside("tokenizer_config.json")];
        write_model(folder, tensors.collect(), &files).unwrap();
        // The file cache belongs to the group that reads a page first: it is to be the program's.
        let file = format!("of={}", folder.join("model.safetensors").display());
        let dropped = Command::new("dd").args([&file, "oflag=nocache", "conv=notrunc", "count=0"]).output();
        assert!(dropped.unwrap().status.success(), "dd tells the kernel to drop the file's cache");
    }
}

/// Uniform with [`DEVIATION`]: the output function of SplitMix64 (Steele et al. 2014) of a counter.
fn random(counter: u64) -> f32 {
    let mut z = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    let unit = (z >> 40) as f32 / (1u32 << 24) as f32;
    (unit - 0.5) * DEVIATION * 12f32.sqrt()
}

/// A model, a recipe and run directories on a real disk, all removed at the end.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new(sizes: &Sizes, parent: &Path, steps: usize) -> Place {
        let place = Place { folder: tempfile::tempdir_in(parent).unwrap() };
        sizes.write(&place.path("model"));
        let rows = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/data/memory-arithmetic-train.jsonl");
        let text = format!(
            r#"name = "random-llama"
[model]
source = "{model}"
precision = "f32"
[method]
kind = "full"
[data]
sequence_length = 256
packing = true
[[data.sources]]
path = "{rows}"
[train]
steps = {steps}
tokens_per_step = 256
micro_batch = 1
keep = "recompute"
[optimizer]
kind = "adamw"
learning_rate = 1e-4
max_grad_norm = "none"
[schedule]
kind = "constant"
[offload]
chunk = "4MiB"
queue_depth = 32
nvme = ["{nvme}"]
[log]
tensorboard = false
[hardware]
device = "cpu"
"#,
            model = place.path("model").display(),
            rows = rows.display(),
            nvme = place.folder.path().display(),
        );
        fs::write(place.path("recipe.toml"), text).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `tune` with every class of tensors in `tier`.
    fn tune(&self, verb: &[&str], tier: &str, memory: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tune"));
        command.args(verb).arg(self.path("recipe.toml")).args(["--set", &format!("hardware.memory={memory}")]);
        for class in CLASSES {
            command.args(["--set", &format!("offload.{class}={tier}")]);
        }
        command
    }

    /// `tune run` in a group.
    fn run(&self, group: &MemoryGroup, output: &str, tier: &str, memory: &str) -> Ended {
        let command = self.tune(&["run", "--output", &self.path(output).to_string_lossy()], tier, memory);
        group.run(&command, &self.path("log"))
    }

    /// What the program plans to need with every class in `tier`, bytes.
    fn planned_bytes(&self, tier: &str) -> u64 {
        let output = self.tune(&["plan", "--json"], tier, "16GB").output().unwrap();
        let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
        plan["plan"]["memory"]["peak_bytes"].as_u64().unwrap()
    }

    fn steps(&self, output: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(output).join("metrics.jsonl")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["loss"].is_number()).collect()
    }

    /// The most memory that the program itself has seen, mapped files included, bytes.
    fn told_peak_bytes(&self, output: &str) -> u64 {
        self.steps(output).iter().map(|step| step["peak_rss_bytes"].as_u64().unwrap()).max().unwrap()
    }

    fn losses(&self, output: &str) -> Vec<u64> {
        self.steps(output).iter().map(|step| step["loss"].as_f64().unwrap().to_bits()).collect()
    }

    fn result(&self, output: &str) -> Vec<u8> {
        fs::read(self.path(output).join("model/model.safetensors")).unwrap()
    }
}

/// Says past the test harness, which shows what a test prints only if it fails, why there is no group.
fn group(limit_bytes: u64) -> Option<MemoryGroup> {
    let group = MemoryGroup::new(limit_bytes);
    let skipped =
        |why| std::io::stderr().write_all(format!("SKIPPED: no memory control group: {why}\n").as_bytes()).unwrap();
    group.map_err(skipped).ok()
}

#[test]
fn a_model_trains_on_nvme_to_the_same_bytes_in_a_group_where_it_cannot_train_in_memory() {
    let place = Place::new(&COUSIN, Path::new(env!("CARGO_TARGET_TMPDIR")), 3);
    let (planned, in_memory) = (place.planned_bytes("nvme"), place.planned_bytes("device"));
    assert!(planned * 2 < in_memory, "{planned} against {in_memory} bytes leave nothing to show");
    let Some(group) = group(planned) else { return };
    let refused = place.run(&group, "refused", "device", "auto");
    assert_eq!(refused.status.code(), Some(3), "{}", refused.said);
    let killed = place.run(&group, "killed", "device", "16GB");
    assert_eq!(killed.status.signal(), Some(SIGKILL), "the group does not bind: {}", killed.said);

    let paged = place.run(&group, "paged", "nvme", &format!("{planned}B"));
    assert!(paged.status.success(), "in {planned} bytes: {}\n{}", paged.status, paged.said);
    let (held, told) = (paged.peak_bytes, place.told_peak_bytes("paged"));
    assert!(held <= planned && told <= planned, "{held} and {told} bytes at the peak, {planned} planned");

    let free = place.tune(&["run", "--output", &place.path("free").to_string_lossy()], "device", "16GB").output();
    assert!(free.unwrap().status.success());
    let losses = place.losses("free");
    assert_eq!(losses.len(), 3);
    assert_eq!(place.losses("paged"), losses);
    assert!(place.result("paged") == place.result("free"), "the trained weights differ");
}

/// Takes minutes and 35 GB of disk. `tests/peers/bigger_than_memory.sh` runs it in a directory of choice.
#[test]
#[ignore = "takes minutes and 35 GB of disk; run tests/peers/bigger_than_memory.sh"]
fn a_model_of_1_1_billion_parameters_trains_in_3_gib() {
    const LIMIT_BYTES: u64 = 3 << 30;
    let parent = std::env::var_os("BIGGER_THAN_MEMORY_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let place = Place::new(&BILLION, &parent, 2);
    let planned = place.planned_bytes("nvme");
    let Some(group) = group(LIMIT_BYTES) else { return };
    let refused = place.run(&group, "refused", "device", "auto");
    assert_eq!(refused.status.code(), Some(3), "{}", refused.said);
    let ended = place.run(&group, "run", "nvme", &format!("{LIMIT_BYTES}B"));
    let counted = group.counted_peak_bytes();
    eprintln!("{}", ended.said);
    eprintln!("peak of the group: {} bytes; with file cache {counted:?}", ended.peak_bytes);
    assert!(ended.status.success(), "{}", ended.status);
    place.steps("run").iter().for_each(|step| eprintln!("{step}"));
    assert!(planned <= LIMIT_BYTES, "{planned} bytes planned");
    let (held, told) = (ended.peak_bytes, place.told_peak_bytes("run"));
    assert!(held <= planned && told <= planned, "{held} and {told} bytes at the peak, {planned} planned");
    assert_eq!(place.losses("run").len(), 2);
}
