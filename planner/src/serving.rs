//! Memory of the result once it serves: weights and key/value cache.
//!
//! In:    the inventory of a model, a length of context.
//! Out:   [`Serving`], one a format of the weights.
//! Never: the workspace of a particular server beyond a stated allowance.

mod formats;
#[cfg(test)]
mod tests;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::inventory::Inventory;
use formats::Format;

/// Bytes of one number of the cache, f16.
const CACHE_BYTES: u64 = 2;
/// Tokens of a prompt that are worked on at once; llama.cpp's default `--ubatch-size`.
const PROMPT_TOKENS: u64 = 512;
/// What a CUDA process holds before its first tensor: 0.47 GiB with lazy loading (PyTorch 2.1, ml-engineering).
const RUNTIME_BYTES: u64 = 500_000_000;

/// Memory to serve one request at a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Serving {
    /// Format of the weights: `bf16`, `q8_0`, `q6_k`, `q4_k_m`, `nf4`, or the publisher's own: `mxfp4`, `fp8`.
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

/// What it takes to serve one request of `context_tokens`, one entry a format: `bf16`, llama.cpp's `q8_0`, `q6_k` and
/// `q4_k_m`, bitsandbytes' `nf4`, and the format that the publisher stores where it is `mxfp4` or `fp8`.
pub fn serving(inventory: &Inventory, context_tokens: u64) -> Vec<Serving> {
    let cache_bytes = cache_bytes(inventory, context_tokens);
    let workspace_bytes = workspace_bytes(inventory);
    let entry = |format: Format| {
        let weights_bytes = formats::weights_bytes(inventory, format);
        let total_bytes = weights_bytes.saturating_add(cache_bytes).saturating_add(workspace_bytes);
        let format = format.name().to_string();
        Serving { format, weights_bytes, context_tokens, cache_bytes, workspace_bytes, total_bytes }
    };
    Format::of(inventory).into_iter().map(entry).collect()
}

/// Layers with a window keep no more than it.
fn cache_bytes(inventory: &Inventory, context_tokens: u64) -> u64 {
    let whole = u128::from(inventory.cache_elements_per_token) * u128::from(context_tokens);
    let windowed = match inventory.window_tokens {
        0 => 0,
        window => {
            u128::from(inventory.cache_elements_windowed) / u128::from(window) * u128::from(context_tokens.min(window))
        }
    };
    u64::try_from(whole.saturating_add(windowed)).unwrap_or(u64::MAX).saturating_mul(CACHE_BYTES)
}

/// Logits and one hidden state of a part of a prompt in f32, and the runtime. llama.cpp logs compute buffers of 258.5 MiB for
/// Llama 3.1 8B with flash attention and of 70.5 MiB for Llama 2 7B: 512 tokens times vocabulary plus width, 4 bytes each.
fn workspace_bytes(inventory: &Inventory) -> u64 {
    let prompt = inventory.vocabulary.saturating_add(inventory.hidden).saturating_mul(4 * PROMPT_TOKENS);
    prompt.saturating_add(RUNTIME_BYTES)
}
