//! How GGUF files name and order what Hugging Face files hold.
//!
//! In:    Hugging Face tensor names.
//! Out:   GGUF names; rows of rotary projections in Hugging Face order, and in llama.cpp's.
//! Never: opens a file.

use planner::architecture::{DecoderSpec, EMBEDDING, FINAL_NORM, Family, HEAD};

/// The GGUF name of a Hugging Face tensor.
pub fn gguf(name: &str, family: Family) -> Option<String> {
    match name {
        EMBEDDING => return Some("token_embd.weight".into()),
        FINAL_NORM => return Some("output_norm.weight".into()),
        HEAD => return Some("output.weight".into()),
        _ => {}
    }
    let (layer, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (module, kind) = part.rsplit_once('.')?;
    let own = match module {
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        "input_layernorm" => "attn_norm",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        // The same Hugging Face name stands before the feed-forward part in Llama and after attention in Gemma.
        "post_attention_layernorm" if family == Family::Gemma3 => "post_attention_norm",
        "post_attention_layernorm" | "pre_feedforward_layernorm" => "ffn_norm",
        "post_feedforward_layernorm" => "post_ffw_norm",
        _ => return None,
    };
    Some(format!("blk.{layer}.{own}.{kind}"))
}

/// Heads of a projection that is rotated afterwards (weight or bias of q and k), or `None`.
pub fn rotary_heads(name: &str, spec: &DecoderSpec) -> Option<usize> {
    match name.rsplit('.').nth(1) {
        Some("q_proj") => Some(spec.n_heads),
        Some("k_proj") => Some(spec.n_kv_heads),
        _ => None,
    }
}

/// Undoes `permute` of llama.cpp's converter: it stores the two rotary halves of a head interleaved, row 2i from the first half and
/// row 2i + 1 from the second.
pub fn unpermuted(data: &[f32], heads: usize, head_dim: usize) -> Vec<f32> {
    let width = data.len() / (heads * head_dim);
    let mut out = Vec::with_capacity(data.len());
    for head in data.chunks_exact(head_dim * width) {
        for half in 0..2 {
            for row in head.chunks_exact(width).skip(half).step_by(2) {
                out.extend_from_slice(row);
            }
        }
    }
    out
}

/// Does what [`unpermuted`] undoes: the rows of each head's two halves in turn.
pub fn permuted(data: &[f32], heads: usize, head_dim: usize) -> Vec<f32> {
    let width = data.len() / (heads * head_dim);
    let mut out = Vec::with_capacity(data.len());
    for head in data.chunks_exact(head_dim * width) {
        let (first, second) = head.split_at(head.len() / 2);
        for (first, second) in first.chunks_exact(width).zip(second.chunks_exact(width)) {
            out.extend_from_slice(first);
            out.extend_from_slice(second);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permuting_interleaves_the_halves_of_each_head_and_unpermuting_undoes_it() {
        // Two heads of four rows of two numbers.
        let data: Vec<f32> = (0..16).map(|n| n as f32).collect();
        let there = permuted(&data, 2, 4);
        assert_eq!(there[..8], [0.0, 1.0, 4.0, 5.0, 2.0, 3.0, 6.0, 7.0]);
        assert_eq!(unpermuted(&there, 2, 4), data);
    }
}
