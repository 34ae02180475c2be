//! Random models of the families' shapes, each with a tokenizer that fills its vocabulary.
//!
//! In:    sizes.
//! Out:   a Hugging Face folder, made once for all tests of a process.
//! Never: the same number for two places of a tensor, or another one in another run.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use checkpoints::model_folder::{SideFile, write_model};
use checkpoints::stream::{Fill, Format, StreamedTensor};
use serde_json::{Value, json};

use crate::parity::fixture;

/// Sizes of a model.
#[derive(Debug)]
pub struct Sizes {
    pub name: &'static str,
    family: &'static str,
    vocabulary: usize,
    hidden: usize,
    intermediate: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    tied: bool,
}

/// 17 million parameters.
pub const TINY: Sizes = Sizes {
    name: "tiny",
    family: "llama",
    vocabulary: 4096,
    hidden: 384,
    intermediate: 1024,
    layers: 8,
    heads: 6,
    kv_heads: 2,
    head_dim: 64,
    tied: false,
};
/// 57 million, feed-forward four times as wide as the residual stream.
pub const DEEP: Sizes =
    Sizes { name: "deep", hidden: 512, intermediate: 2048, layers: 14, heads: 8, kv_heads: 2, ..TINY };
/// 84 million, wider than what products pack.
pub const WIDE: Sizes = Sizes {
    name: "wide",
    vocabulary: 8192,
    hidden: 1024,
    intermediate: 2816,
    layers: 6,
    heads: 16,
    kv_heads: 4,
    ..TINY
};
/// 100 million, three quarters of them embedding; biases on q, k, v.
pub const QWEN: Sizes = Sizes {
    name: "qwen",
    family: "qwen2",
    vocabulary: 151_936,
    hidden: 512,
    intermediate: 1408,
    heads: 8,
    tied: true,
    ..TINY
};
/// 75 million; norms on q and k and after sublayers, heads 256 wide, sliding windows.
pub const GEMMA: Sizes = Sizes {
    name: "gemma",
    family: "gemma3",
    vocabulary: 65_536,
    hidden: 640,
    intermediate: 2048,
    layers: 6,
    heads: 4,
    kv_heads: 1,
    head_dim: 256,
    tied: true,
};

impl Sizes {
    /// The model's folder.
    pub fn folder(&self) -> PathBuf {
        static MADE: Mutex<Option<(tempfile::TempDir, HashMap<&'static str, PathBuf>)>> = Mutex::new(None);
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        let (folder, known) =
            made.get_or_insert_with(|| (tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(), HashMap::new()));
        let path = known.entry(self.name).or_insert_with(|| {
            let path = folder.path().join(self.name);
            self.write(&path);
            path
        });
        path.clone()
    }

    fn config(&self) -> String {
        let text = fs::read_to_string(fixture(self.family).join("config.json")).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        let sizes = json!({
            "vocab_size": self.vocabulary, "hidden_size": self.hidden, "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers, "num_attention_heads": self.heads, "head_dim": self.head_dim,
            "num_key_value_heads": self.kv_heads, "max_position_embeddings": 16384, "torch_dtype": "bfloat16",
            "tie_word_embeddings": self.tied, "rope_scaling": null, "sliding_window": 512,
            "query_pre_attn_scalar": self.head_dim,
        });
        let config = config.as_object_mut().unwrap();
        sizes.as_object().unwrap().iter().for_each(|(key, value)| drop(config.insert(key.clone(), value.clone())));
        Value::from(config.clone()).to_string()
    }

    /// The fixture's tokenizer with pairs of capital letters, and pairs of those, until the vocabulary is full.
    fn tokenizer(&self) -> String {
        let text = fs::read_to_string(fixture("llama").join("tokenizer.json")).unwrap();
        let mut tokenizer: Value = serde_json::from_str(&text).unwrap();
        let letters: Vec<String> = ('A'..='Z').map(String::from).collect();
        let pairs = |of: &[String]| -> Vec<[String; 2]> {
            of.iter().flat_map(|left| of.iter().map(move |right| [left.clone(), right.clone()])).collect()
        };
        let twos = pairs(&letters);
        let fours = pairs(&twos.iter().map(|pair| pair.concat()).collect::<Vec<_>>());
        for pair in twos.iter().chain(&fours) {
            let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
            if vocabulary.len() == self.vocabulary {
                break;
            }
            let id = vocabulary.len();
            vocabulary.entry(pair.concat()).or_insert(id.into());
            tokenizer["model"]["merges"].as_array_mut().unwrap().push(json!(pair));
        }
        tokenizer.to_string()
    }

    fn write(&self, folder: &Path) {
        let config = self.config();
        let spec = planner::config::from_hf(&config).unwrap();
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
        let side = |name: &str, bytes: Vec<u8>| SideFile { name: name.into(), bytes };
        let template = fs::read(fixture("llama").join("tokenizer_config.json")).unwrap();
        let files = [
            side("config.json", config.into_bytes()),
            side("tokenizer.json", self.tokenizer().into_bytes()),
            side("tokenizer_config.json", template),
        ];
        write_model(folder, tensors.collect(), &files).unwrap();
    }
}

/// Uniform with a standard deviation of 0.02: a multiplicative hash of a counter.
fn random(counter: u64) -> f32 {
    let mixed = (counter ^ counter >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let unit = ((mixed ^ mixed >> 31).wrapping_mul(0x94d0_49bb_1331_11eb) >> 40) as f32 / (1u32 << 24) as f32;
    (unit - 0.5) * 0.02 * 12f32.sqrt()
}
