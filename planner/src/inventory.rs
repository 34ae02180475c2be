//! What a model is made of, whether or not this program can train it: counted from its configuration, or known by name.
//!
//! In:    the text of a `config.json`, GGUF metadata, or a name of the built-in list.
//! Out:   an [`Inventory`]: exact numbers of parameters by kind.
//! Never: opens a file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::architecture::DecoderSpec;

/// Numbers of parameters by kind, and the sizes that memory follows from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Inventory {
    /// `llama-3.1-8b`, or what the file says.
    pub name: String,
    /// Repository on the hub, where known: `meta-llama/Llama-3.1-8B`.
    pub repository: Option<String>,
    /// All parameters, a tied head once.
    pub parameters: u64,
    /// Parameters that one token uses; less than `parameters` for mixtures of experts.
    pub active_parameters: u64,
    /// Weights of linear layers inside blocks: what 4-bit formats store.
    pub linear_parameters: u64,
    /// Token embedding.
    pub embedding_parameters: u64,
    /// Head, 0 if tied.
    pub head_parameters: u64,
    /// Blocks.
    pub layers: u32,
    /// Width of the residual stream.
    pub hidden: u64,
    /// Rows of the embedding.
    pub vocabulary: u64,
    /// Longest position.
    pub max_positions: u64,
    /// Numbers that the key/value cache keeps for one token, all layers that see everything.
    pub cache_elements_per_token: u64,
    /// Numbers that it keeps at most for layers with a window: window times width, all such layers.
    pub cache_elements_windowed: u64,
    /// What the trainer needs; `None` where it cannot train this family yet.
    pub spec: Option<DecoderSpec>,
}
