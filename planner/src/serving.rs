//! Memory of the result once it serves: weights and key/value cache.
//!
//! In:    the inventory of a model.
//! Out:   [`Serving`], one a format of the weights.
//! Never: the workspace of a particular server beyond a stated allowance.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Memory to serve one request at a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Serving {
    /// Format of the weights: `bf16`, `q8_0`, `q4_k_m`, `nf4`.
    pub format: String,
    /// Weights, bytes.
    pub weights_bytes: u64,
    /// Context, tokens.
    pub context_tokens: u64,
    /// Keys and values of that context, bytes, in f16.
    pub cache_bytes: u64,
    /// Workspace and runtime allowance, bytes.
    pub workspace_bytes: u64,
    /// All together.
    pub total_bytes: u64,
}
