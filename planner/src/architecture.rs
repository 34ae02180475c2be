//! One decoder, described by data: every supported family is a value of [`DecoderSpec`], never a code path of its own.
//!
//! In:    numbers from a `config.json` or a GGUF header (parsed in [`crate::config`]).
//! Out:   a description complete enough to build, count and name every tensor of the network.
//! Never: opens a file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Architecture family. It names things in messages and in exports; computation reads the other fields only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Llama 2, Llama 3.x, SmolLM2.
    Llama,
    /// Mistral (Llama with a sliding window in some versions).
    Mistral,
    /// Qwen2 and Qwen2.5 (biases on q, k, v).
    Qwen2,
    /// Qwen3 dense (RMSNorm on q and k per head).
    Qwen3,
    /// Gemma 3, text part.
    Gemma3,
}

/// Gate activation of the feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU with the tanh approximation.
    GeluTanh,
}

/// How rotary frequencies are stretched beyond the trained context.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum RopeScaling {
    /// Frequencies as trained.
    None,
    /// All frequencies divided by `factor`.
    Linear {
        /// Divisor of every frequency.
        factor: f64,
    },
    /// Llama 3.1's piecewise scaling (transformers `_compute_llama3_parameters`).
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Low-frequency bound.
        low_freq_factor: f64,
        /// High-frequency bound.
        high_freq_factor: f64,
        /// Context length before stretching, tokens.
        original_max_positions: f64,
    },
}

/// One table of rotary frequencies (rotate-half layout, as in transformers).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RopeSpec {
    /// Base of the geometric series of frequencies.
    pub theta: f64,
    /// Stretching, if any.
    pub scaling: RopeScaling,
}

/// What differs from layer to layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LayerSpec {
    /// Sliding window in tokens: a query at `i` sees keys `j` with `i - j < window`. `None` sees all earlier ones.
    pub window: Option<usize>,
    /// Index into [`DecoderSpec::ropes`].
    pub rope: usize,
}

/// A decoder-only transformer. Tensor names are those of Hugging Face transformers, whatever the file format was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DecoderSpec {
    /// Family, for messages and exports.
    pub family: Family,
    /// Rows of the embedding.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width inside the feed-forward part.
    pub intermediate: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads (divides `n_heads`).
    pub n_kv_heads: usize,
    /// Width of one head; not always `hidden / n_heads`. Even.
    pub head_dim: usize,
    /// Epsilon of every RMSNorm.
    pub norm_epsilon: f64,
    /// Norm weights are stored as `w` and applied as `1 + w` (Gemma's safetensors; GGUF files hold `1 + w` already).
    pub norm_offset: bool,
    /// Gate activation.
    pub activation: Activation,
    /// q, k and v have biases.
    pub qkv_bias: bool,
    /// The attention output projection has a bias.
    pub output_bias: bool,
    /// Feed-forward projections have biases.
    pub mlp_bias: bool,
    /// RMSNorm over `head_dim` on q and k before rotation.
    pub qk_norm: bool,
    /// Norms after attention and after feed-forward too (Gemma 3).
    pub sandwich_norms: bool,
    /// Factor on embeddings before the first block (Gemma: sqrt(hidden)).
    pub embedding_scale: Option<f64>,
    /// Factor on q·k.
    pub attention_scale: f64,
    /// The head is the embedding, transposed.
    pub tied_head: bool,
    /// Each layer's own choices; the length is the number of layers.
    pub layers: Vec<LayerSpec>,
    /// Rotary tables that layers point to.
    pub ropes: Vec<RopeSpec>,
    /// Longest position trained for, tokens.
    pub max_positions: usize,
}

/// The seven linear layers of a block, in the order of the forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Linear {
    /// `self_attn.q_proj`
    Query,
    /// `self_attn.k_proj`
    Key,
    /// `self_attn.v_proj`
    Value,
    /// `self_attn.o_proj`
    Output,
    /// `mlp.gate_proj`
    Gate,
    /// `mlp.up_proj`
    Up,
    /// `mlp.down_proj`
    Down,
}

impl Linear {
    /// All seven, in forward order.
    pub const ALL: [Linear; 7] =
        [Linear::Query, Linear::Key, Linear::Value, Linear::Output, Linear::Gate, Linear::Up, Linear::Down];

    /// Leaf module name as PEFT's `target_modules` spells it.
    pub fn leaf(self) -> &'static str {
        match self {
            Linear::Query => "q_proj",
            Linear::Key => "k_proj",
            Linear::Value => "v_proj",
            Linear::Output => "o_proj",
            Linear::Gate => "gate_proj",
            Linear::Up => "up_proj",
            Linear::Down => "down_proj",
        }
    }

    /// Full module path in the transformers model, for example `model.layers.0.self_attn.q_proj`.
    pub fn path(self, layer: usize) -> String {
        let part = match self {
            Linear::Query | Linear::Key | Linear::Value | Linear::Output => "self_attn",
            Linear::Gate | Linear::Up | Linear::Down => "mlp",
        };
        format!("model.layers.{layer}.{part}.{}", self.leaf())
    }
}

impl DecoderSpec {
    /// Number of blocks.
    pub fn n_layers(&self) -> usize {
        self.layers.len()
    }

    /// `[outputs, inputs]` of a linear layer's weight.
    pub fn linear_shape(&self, linear: Linear) -> [usize; 2] {
        let (q, kv) = (self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim);
        match linear {
            Linear::Query => [q, self.hidden],
            Linear::Key | Linear::Value => [kv, self.hidden],
            Linear::Output => [self.hidden, q],
            Linear::Gate | Linear::Up => [self.intermediate, self.hidden],
            Linear::Down => [self.hidden, self.intermediate],
        }
    }

    /// Whether a linear layer has a bias.
    pub fn has_bias(&self, linear: Linear) -> bool {
        match linear {
            Linear::Query | Linear::Key | Linear::Value => self.qkv_bias,
            Linear::Output => self.output_bias,
            Linear::Gate | Linear::Up | Linear::Down => self.mlp_bias,
        }
    }

    /// Every norm of block `layer`: tensor name and width.
    pub fn block_norms(&self, layer: usize) -> Vec<(String, usize)> {
        let base = format!("model.layers.{layer}");
        let mut norms = vec![(format!("{base}.input_layernorm.weight"), self.hidden)];
        if self.qk_norm {
            norms.push((format!("{base}.self_attn.q_norm.weight"), self.head_dim));
            norms.push((format!("{base}.self_attn.k_norm.weight"), self.head_dim));
        }
        norms.push((format!("{base}.post_attention_layernorm.weight"), self.hidden));
        if self.sandwich_norms {
            norms.push((format!("{base}.pre_feedforward_layernorm.weight"), self.hidden));
            norms.push((format!("{base}.post_feedforward_layernorm.weight"), self.hidden));
        }
        norms
    }

    /// Every tensor of block `layer`: name and shape, in forward order of the linear layers, norms last.
    pub fn block_tensors(&self, layer: usize) -> Vec<(String, Vec<usize>)> {
        let mut tensors = Vec::new();
        for linear in Linear::ALL {
            let shape = self.linear_shape(linear);
            tensors.push((format!("{}.weight", linear.path(layer)), shape.to_vec()));
            if self.has_bias(linear) {
                tensors.push((format!("{}.bias", linear.path(layer)), vec![shape[0]]));
            }
        }
        tensors.extend(self.block_norms(layer).into_iter().map(|(name, width)| (name, vec![width])));
        tensors
    }

    /// Every tensor of the model: name and shape. Embedding first, then blocks, final norm, head if it is not tied.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let mut tensors = vec![(EMBEDDING.to_string(), vec![self.vocabulary, self.hidden])];
        for layer in 0..self.n_layers() {
            tensors.extend(self.block_tensors(layer));
        }
        tensors.push((FINAL_NORM.to_string(), vec![self.hidden]));
        if !self.tied_head {
            tensors.push((HEAD.to_string(), vec![self.vocabulary, self.hidden]));
        }
        tensors
    }

    /// Number of weights, each tensor counted once.
    pub fn parameters(&self) -> u64 {
        self.tensors().iter().map(|(_, shape)| shape.iter().map(|&n| n as u64).product::<u64>()).sum()
    }
}

/// Name of the embedding tensor.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// Name of the last norm.
pub const FINAL_NORM: &str = "model.norm.weight";
/// Name of the untied head.
pub const HEAD: &str = "lm_head.weight";
