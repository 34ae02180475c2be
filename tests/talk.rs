//! What was trained, opened again: sessions, evaluation, chat, and what cannot be opened.
//!
//! In:    the tiny fixtures of every family; the built program and a run of it on the tiny Llama.
//! Out:   facts: nothing read twice and nothing changed by it; the run's own figures to the bit; one clear line for what is wrong.
//! Never: a network or a template of its own.

mod chat;
mod measured;
mod refused;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use checkpoints::tensors::TensorFile;
use checkpoints::weights::Weights;
use models::generate::Stack;
use models::{BlockAdapters, Session};
use planner::inference::{InferencePlan, Request};
use planner::memory::Work;
use planner::plan::{BaseStorage, DeviceChoice, Precision, Tier};
use serde_json::Value;
use trainer::{Engine, Network, Subject, Tuned};

use crate::parity::{FAMILIES, base, batch, fixture, golden, logits};

/// A plan for a tiny model on any machine.
fn plan(weights: &Weights, precision: Precision) -> InferencePlan {
    let request = Request {
        name: "talk".to_string(),
        spec: weights.spec(),
        precision,
        base: BaseStorage::Dense,
        device: DeviceChoice::Cpu,
        work: Work { loss_tokens: 256, rows: 1, cached_tokens: 512, read_tokens: 256, adapter_numbers: 1 << 16 },
        memory_bytes: Some(4_000_000_000),
        nvme: Vec::new(),
    };
    let machine = planner::Machine {
        memory_available_bytes: 16_000_000_000,
        memory_total_bytes: 16_000_000_000,
        cgroup_available_bytes: None,
        cores: 2,
        fast_bf16: false,
        cuda: Vec::new(),
        vulkan: Vec::new(),
        missing: Default::default(),
        device_rates: Vec::new(),
        io: Vec::new(),
        cards: 1,
        rates: planner::rates::Rates::usual(2),
    };
    planner::inference::plan(&request, &machine).unwrap()
}

fn tokens(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// All rows of a family's golden file as one sequence: longer than every sliding window.
fn long_sequence(family: &str) -> Vec<u32> {
    golden(family)["rows"].as_array().unwrap().iter().flat_map(|row| tokens(&row["tokens"])).collect()
}

fn largest_difference(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn argmax(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a))).unwrap()
}

/// Logits after each of the new tokens, read on in `session`.
fn read_on(engine: &Engine, adapters: &[BlockAdapters], session: &mut Session, new: &[u32]) -> Vec<f32> {
    let outer = engine.residency.outer();
    let x_td = outer.read(Stack { blocks: &engine.residency, adapters }, session, &[new]).unwrap();
    let rows: Vec<u32> = (0..new.len() as u32).collect();
    outer.logits(x_td, &rows).into_data().convert::<f32>().iter::<f32>().collect()
}

/// Turns of several lengths, one token among them, as a conversation has them.
#[test]
fn a_conversation_read_by_turns_has_the_logits_of_reading_it_whole_in_every_family() {
    for family in FAMILIES {
        let engine = &base(&fixture(family), "f32").engine;
        let adapters = engine.residency.adapters();
        let sequence = long_sequence(family);
        let whole = whole_logits(engine, &sequence);
        let vocabulary = engine.residency.outer().spec.vocabulary;
        let mut session = Session::new(adapters.len(), 1);
        let mut at = 0;
        for turn in [7, 1, 1, 9, 2].into_iter().cycle() {
            let new = &sequence[at..(at + turn).min(sequence.len())];
            let ours = read_on(engine, &adapters, &mut session, new);
            let theirs = &whole[at * vocabulary..(at + new.len()) * vocabulary];
            let difference = largest_difference(&ours, theirs);
            assert!(difference < 1e-4, "{family}, {} tokens from {at}: {difference}", new.len());
            for (ours, theirs) in ours.chunks(vocabulary).zip(theirs.chunks(vocabulary)) {
                assert_eq!(argmax(ours), argmax(theirs), "{family}, from {at}");
            }
            at += new.len();
            if at == sequence.len() {
                break;
            }
        }
        assert_eq!(session.length(0), sequence.len());
    }
}

fn whole_logits(engine: &Engine, sequence: &[u32]) -> Vec<f32> {
    let segments = vec![0, sequence.len() as u32];
    logits(engine, &datasets::Batch { tokens: sequence.to_vec(), segments, ..datasets::Batch::default() })
}

#[test]
fn tokens_that_are_taken_back_leave_no_trace() {
    for family in ["gemma3", "qwen3"] {
        let engine = &base(&fixture(family), "f32").engine;
        let adapters = engine.residency.adapters();
        let sequence = long_sequence(family);
        let (first, rest) = sequence.split_at(6);
        let mut straight = Session::new(adapters.len(), 1);
        read_on(engine, &adapters, &mut straight, first);
        let mut detour = straight.clone();
        read_on(engine, &adapters, &mut detour, &[3, 1, 4, 1, 5]);
        detour.truncate(0, first.len());
        let bits = |logits: Vec<f32>| logits.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let expected = bits(read_on(engine, &adapters, &mut straight, rest));
        assert!(bits(read_on(engine, &adapters, &mut detour, rest)) == expected, "{family}");
    }
}

fn opened(path: &Path) -> Tuned {
    match trainer::subject(path, None).unwrap() {
        Subject::Adapter { tuned, .. } => tuned,
        Subject::Model(_) => Tuned::Nothing,
        Subject::Run(_) => panic!("{} is no run", path.display()),
    }
}

#[test]
fn an_opened_adapter_gives_pefts_logits_and_without_it_those_of_the_base() {
    for family in FAMILIES {
        let weights = Weights::open(&fixture(family)).unwrap();
        let tuned = opened(&fixture(family).join("adapter"));
        let network = Network::open(&weights, &tuned, &plan(&weights, Precision::F32)).unwrap();
        let golden_json = golden(family);
        let file = TensorFile::open(&fixture(family).join("golden.safetensors")).unwrap();
        for row in golden_json["adapter_logit_rows"].as_array().unwrap() {
            let row = row.as_u64().unwrap() as usize;
            let tokens = tokens(&golden_json["rows"][row]["tokens"]);
            for (network, name) in [(network.clone(), "adapter_logits"), (network.bare(), "logits")] {
                let ours = network.logits(&tokens).unwrap().concat();
                let theirs = file.read(&format!("{name}.{row}")).unwrap().data;
                let difference = largest_difference(&ours, &theirs);
                assert!(difference < 1e-4, "{family}, row {row}, {name}: {difference}");
            }
        }
    }
}

#[test]
fn a_network_on_a_drive_has_the_bits_of_one_in_memory() {
    let drive = tempfile::tempdir().unwrap();
    for (family, precision) in [("llama", Precision::F32), ("gemma3", Precision::Bf16)] {
        let weights = Weights::open(&fixture(family)).unwrap();
        let tuned = opened(&fixture(family).join("adapter"));
        let near = plan(&weights, precision);
        let mut far = near.clone();
        far.offload.weights = Tier::Nvme;
        far.offload.nvme = vec![drive.path().to_path_buf()];
        let rows = golden(family)["rows"].as_array().unwrap().clone();
        let batch = batch(&rows);
        let loss =
            |plan: &InferencePlan| Network::open(&weights, &tuned, plan).unwrap().loss(&batch).unwrap().sum.to_bits();
        assert_eq!(loss(&near), loss(&far), "{family}");
        assert_eq!(fs::read_dir(drive.path()).unwrap().count(), 0, "files of the tier are gone");
    }
}

#[test]
fn an_adapter_of_another_model_is_refused_with_both_shapes() {
    let weights = Weights::open(&fixture("llama")).unwrap();
    let tuned = opened(&fixture("gemma3").join("adapter"));
    let error = Network::open(&weights, &tuned, &plan(&weights, Precision::F32)).unwrap_err();
    assert!(error.is_bad_input() && error.to_string().contains("the adapter does not fit the model"), "{error}");
}

/// A recipe for the tiny Llama and the program run beside it.
struct Place {
    folder: tempfile::TempDir,
}

const LORA: &str = "kind = \"lora\"\nrank = 4\nalpha = 8";

impl Place {
    fn new(method: &str, precision: &str) -> Place {
        let place = Place { folder: tempfile::tempdir().unwrap() };
        let text = format!(
            r#"name = "tiny"
[model]
source = "{model}"
precision = "{precision}"
[method]
{method}
[data]
sequence_length = 128
too_long = "truncate"
[[data.sources]]
path = "{train}"
[train]
steps = 9
tokens_per_step = 512
micro_batch = 2
[optimizer]
kind = "adamw"
learning_rate = 1e-2
[schedule]
kind = "cosine"
warmup = 2
[checkpoint]
every_steps = 7
keep_last = 3
[eval]
source = {{ path = "{held}" }}
every_steps = 7
exact_match = true
max_new_tokens = 8
[log]
tensorboard = false
"#,
            model = fixture("llama").display(),
            train = fixture("data/train.jsonl").display(),
            held = fixture("data/heldout.jsonl").display(),
        );
        fs::write(place.path("recipe.toml"), text).unwrap();
        place
    }

    /// A LoRA run that has ended, made once for all tests, which only read it.
    fn ended() -> &'static Place {
        static ENDED: OnceLock<Place> = OnceLock::new();
        ENDED.get_or_init(|| Place::new(LORA, "f32").trained())
    }

    fn trained(self) -> Place {
        self.succeeds(&["run", "recipe.toml", "--output", "out"]);
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tune"));
        command.current_dir(self.folder.path()).env("TUNE_CACHE", self.path("cache")).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn tune(&self, arguments: &[&str], typed: &str) -> Output {
        let mut child = self.command(arguments).spawn().unwrap();
        // The program may end before it has read all of it.
        let _ = child.stdin.take().unwrap().write_all(typed.as_bytes());
        child.wait_with_output().unwrap()
    }

    fn succeeds(&self, arguments: &[&str]) -> String {
        self.hears(arguments, "")
    }

    fn hears(&self, arguments: &[&str], typed: &str) -> String {
        let output = self.tune(arguments, typed);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.succeeds(arguments)).unwrap()
    }

    /// One `error:` line with all of `words`, the exit code, nothing on stdout.
    fn refuses(&self, arguments: &[&str], code: i32, words: &[&str]) {
        let output = self.tune(arguments, "");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{arguments:?}: {stderr}");
        for word in words {
            assert!(errors[0].contains(word), "{arguments:?}: `{word}` is not in: {}", errors[0]);
        }
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}
