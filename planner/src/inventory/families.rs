//! Counts networks that the trainer does not know yet: fused projections, mixtures of experts, latent attention.
//!
//! In:    the top level of a `config.json`; missing keys get the defaults of transformers' configuration classes.
//! Out:   an [`Inventory`] without a [`crate::architecture::DecoderSpec`].
//! Never: counts an architecture whose tensors it does not know.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::fields::{
    EXPERTS_MAX, Fields, HEAD_DIM_MAX, HEADS_MAX, LAYERS_MAX, POSITIONS_MAX, VOCABULARY_MAX, WIDTH_MAX, refused,
};
use super::tally::{Cache, Tally};
use super::{Inventory, InventoryError, LeftOut, MatrixKind, shortened};
use crate::config::ConfigError;

/// Architectures of this file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Phi3,
    SmolLm3,
    Mixtral,
    Qwen2Moe,
    Qwen3Moe,
    GptOss,
    DeepseekV2,
    DeepseekV3,
}

/// Reads one of the architectures of this file.
pub(super) fn read(name: &str, root: &Map<String, Value>) -> Result<Inventory, InventoryError> {
    let fields = Fields(root);
    let family = family(&fields)?;
    let layers = fields.size("num_hidden_layers", LAYERS_MAX)?;
    let hidden = fields.size("hidden_size", WIDTH_MAX)?;
    let mut tally = Tally::new(name, fields.size("vocab_size", VOCABULARY_MAX)?, hidden, layers);
    tally.max_positions = fields.size("max_position_embeddings", POSITIONS_MAX)?;
    if !fields.flag_or("tie_word_embeddings", family == Family::SmolLm3)? {
        tally.untied_head();
    }
    // Two norms a block and the last one.
    tally.rest(2 * layers + 1, hidden);
    match family {
        Family::DeepseekV2 | Family::DeepseekV3 => latent_attention(&fields, hidden, layers, &mut tally)?,
        _ => grouped_attention(family, &fields, hidden, layers, &mut tally)?,
    }
    match family {
        Family::Phi3 | Family::SmolLm3 => {
            let width = fields.size("intermediate_size", WIDTH_MAX)?;
            dense(family, width, hidden, layers, &mut tally);
        }
        _ => mixture(family, &fields, hidden, layers, &mut tally)?,
    }
    if family == Family::DeepseekV3 {
        tally.left_out.extend(prediction_module(&fields, hidden)?);
    }
    Ok(tally.inventory())
}

fn family(fields: &Fields) -> Result<Family, InventoryError> {
    let named = match fields.list("architectures")? {
        Some(names) => names.first().and_then(Value::as_str),
        None => fields.0.get("model_type").and_then(Value::as_str),
    };
    match named.ok_or(ConfigError::Missing { key: "architectures".into() })? {
        "Phi3ForCausalLM" | "phi3" => Ok(Family::Phi3),
        "SmolLM3ForCausalLM" | "smollm3" => Ok(Family::SmolLm3),
        "MixtralForCausalLM" | "mixtral" => Ok(Family::Mixtral),
        "Qwen2MoeForCausalLM" | "qwen2_moe" => Ok(Family::Qwen2Moe),
        "Qwen3MoeForCausalLM" | "qwen3_moe" => Ok(Family::Qwen3Moe),
        "GptOssForCausalLM" | "gpt_oss" => Ok(Family::GptOss),
        "DeepseekV2ForCausalLM" | "deepseek_v2" => Ok(Family::DeepseekV2),
        "DeepseekV3ForCausalLM" | "deepseek_v3" => Ok(Family::DeepseekV3),
        other => Err(InventoryError::Architecture { found: shortened(other) }),
    }
}

/// Query heads in groups that share keys and values.
fn grouped_attention(
    family: Family,
    fields: &Fields,
    hidden: u64,
    layers: u64,
    tally: &mut Tally,
) -> Result<(), ConfigError> {
    let heads = fields.size("num_attention_heads", HEADS_MAX)?;
    let kv_heads = fields.size_or("num_key_value_heads", HEADS_MAX, Some(heads))?;
    let divided = hidden.is_multiple_of(heads).then(|| hidden / heads);
    let head_dim = fields.size_or("head_dim", HEAD_DIM_MAX, divided)?;
    if !heads.is_multiple_of(kv_heads) {
        let rule = format!("num_attention_heads ({heads}) must be a multiple of it");
        return Err(refused("num_key_value_heads", kv_heads, rule));
    }
    let (query, key) = (heads * head_dim, kv_heads * head_dim);
    match family {
        Family::Phi3 => tally.every_layer(MatrixKind::FusedAttention, hidden, query + 2 * key),
        _ => {
            tally.every_layer(MatrixKind::Query, hidden, query);
            tally.every_layer(MatrixKind::Key, hidden, key);
            tally.every_layer(MatrixKind::Value, hidden, key);
        }
    }
    tally.every_layer(MatrixKind::AttentionOutput, query, hidden);
    let biased = fields.flag_or("attention_bias", family == Family::GptOss)?;
    match family {
        // Biases on q, k and v whatever the file says; none on the output.
        Family::Qwen2Moe => tally.rest(layers, query + 2 * key),
        Family::SmolLm3 | Family::Qwen3Moe | Family::GptOss if biased => tally.rest(layers, query + 2 * key + hidden),
        _ => {}
    }
    match family {
        Family::Qwen3Moe => tally.rest(layers, 2 * head_dim),
        // One learned sink a head.
        Family::GptOss => tally.rest(layers, heads),
        _ => {}
    }
    let (windowed_layers, window) = windows(family, fields, layers)?;
    tally.cache = Cache { elements: 2 * key, windowed_layers, window };
    Ok(())
}

/// Layers with a window, and the window. Only gpt-oss mixes them; elsewhere a window is on every layer or off.
fn windows(family: Family, fields: &Fields, layers: u64) -> Result<(u64, u64), ConfigError> {
    if family != Family::GptOss {
        return Ok((0, 0));
    }
    let window = fields.size_or("sliding_window", POSITIONS_MAX, Some(128))?;
    let slides = |kind: &&Value| kind.as_str() == Some("sliding_attention");
    let windowed = match fields.list("layer_types")? {
        // transformers: every layer of even index slides.
        None => layers.div_ceil(2),
        Some(types) if types.len() as u64 == layers => types.iter().filter(slides).count() as u64,
        Some(types) => {
            return Err(refused(
                "layer_types",
                types.len() as u64,
                format!("one entry for each of the {layers} layers"),
            ));
        }
    };
    Ok((windowed, window))
}

/// Keys and values compressed to one narrow vector a token (DeepSeek-V2, arXiv:2405.04434, section 2.1).
fn latent_attention(fields: &Fields, hidden: u64, layers: u64, tally: &mut Tally) -> Result<(), ConfigError> {
    let heads = fields.size("num_attention_heads", HEADS_MAX)?;
    let latent = fields.size("kv_lora_rank", WIDTH_MAX)?;
    let rotated = fields.size("qk_rope_head_dim", HEAD_DIM_MAX)?;
    let plain = fields.size("qk_nope_head_dim", HEAD_DIM_MAX)?;
    let value = fields.size("v_head_dim", HEAD_DIM_MAX)?;
    let query = heads * (plain + rotated);
    match fields.size_or_none("q_lora_rank", WIDTH_MAX)? {
        0 => tally.every_layer(MatrixKind::Query, hidden, query),
        rank => {
            tally.every_layer(MatrixKind::LatentAttention, hidden, rank);
            tally.every_layer(MatrixKind::LatentAttention, rank, query);
            tally.rest(layers, rank);
        }
    }
    tally.every_layer(MatrixKind::LatentAttention, hidden, latent + rotated);
    tally.every_layer(MatrixKind::LatentAttention, latent, heads * (plain + value));
    tally.rest(layers, latent);
    tally.every_layer(MatrixKind::AttentionOutput, heads * value, hidden);
    tally.cache = Cache { elements: latent + rotated, windowed_layers: 0, window: 0 };
    Ok(())
}

fn dense(family: Family, width: u64, hidden: u64, layers: u64, tally: &mut Tally) {
    match family {
        Family::Phi3 => tally.some_layers(MatrixKind::GateUp, hidden, 2 * width, layers),
        _ => tally.some_layers(MatrixKind::GateUp, hidden, width, 2 * layers),
    }
    tally.some_layers(MatrixKind::Down, width, hidden, layers);
}

/// Feed-forward parts of which a router chooses some for each token.
fn mixture(family: Family, fields: &Fields, hidden: u64, layers: u64, tally: &mut Tally) -> Result<(), ConfigError> {
    let experts = Experts::read(family, fields)?;
    let dense_layers = dense_layers(family, fields, layers)?;
    let sparse = layers - dense_layers;
    if dense_layers > 0 {
        dense(family, fields.size("intermediate_size", WIDTH_MAX)?, hidden, dense_layers, tally);
    }
    tally.experts = (experts.all, experts.used);
    match family {
        Family::GptOss => {
            tally.experts(MatrixKind::ExpertGateUp, hidden, 2 * experts.width, sparse);
            tally.expert_rest(sparse, 2 * experts.width + hidden);
            tally.rest(sparse, experts.all);
        }
        _ => tally.experts(MatrixKind::ExpertGateUp, hidden, experts.width, 2 * sparse),
    }
    tally.experts(MatrixKind::ExpertDown, experts.width, hidden, sparse);
    tally.rest(sparse, hidden * experts.all);
    if experts.shared_width > 0 {
        dense(family, experts.shared_width, hidden, sparse, tally);
    }
    match family {
        // The gate of the shared expert.
        Family::Qwen2Moe => tally.rest(sparse, hidden),
        // `e_score_correction_bias`.
        Family::DeepseekV3 => tally.rest(sparse, experts.all),
        _ => {}
    }
    Ok(())
}

/// Sizes of a mixture.
struct Experts {
    all: u64,
    used: u64,
    width: u64,
    shared_width: u64,
}

impl Experts {
    fn read(family: Family, fields: &Fields) -> Result<Experts, ConfigError> {
        let (count_key, width_key) = match family {
            Family::Mixtral | Family::GptOss => ("num_local_experts", "intermediate_size"),
            Family::DeepseekV2 | Family::DeepseekV3 => ("n_routed_experts", "moe_intermediate_size"),
            _ => ("num_experts", "moe_intermediate_size"),
        };
        let all = fields.size(count_key, EXPERTS_MAX)?;
        let used = fields.size("num_experts_per_tok", EXPERTS_MAX)?;
        if used > all {
            return Err(refused("num_experts_per_tok", used, format!("larger than {count_key} ({all})")));
        }
        let width = fields.size(width_key, WIDTH_MAX)?;
        let shared_width = match family {
            Family::Qwen2Moe => fields.size_or_none("shared_expert_intermediate_size", WIDTH_MAX)?,
            Family::DeepseekV2 | Family::DeepseekV3 => width * fields.size_or_none("n_shared_experts", EXPERTS_MAX)?,
            _ => 0,
        };
        Ok(Experts { all, used, width, shared_width })
    }
}

/// Layers of a mixture that have a plain feed-forward part.
fn dense_layers(family: Family, fields: &Fields, layers: u64) -> Result<u64, ConfigError> {
    match family {
        Family::DeepseekV2 | Family::DeepseekV3 => {
            let first = fields.size_or_none("first_k_dense_replace", LAYERS_MAX)?.min(layers);
            let step = fields.size_or("moe_layer_freq", LAYERS_MAX, Some(1))?;
            let sparse = (first..layers).filter(|layer| layer.is_multiple_of(step)).count() as u64;
            Ok(layers - sparse)
        }
        Family::Qwen2Moe | Family::Qwen3Moe => {
            let step = fields.size_or("decoder_sparse_step", LAYERS_MAX, Some(1))?;
            let plain: BTreeSet<u64> =
                fields.list("mlp_only_layers")?.into_iter().flatten().filter_map(Value::as_u64).collect();
            let sparse = |layer: &u64| !plain.contains(layer) && (layer + 1).is_multiple_of(step);
            Ok(layers - (0..layers).filter(sparse).count() as u64)
        }
        _ => Ok(0),
    }
}

/// The extra block of DeepSeek-V3 that predicts the token after the next; its embedding and head are the model's own.
fn prediction_module(fields: &Fields, hidden: u64) -> Result<Option<LeftOut>, ConfigError> {
    let modules = fields.size_or_none("num_nextn_predict_layers", LAYERS_MAX)?;
    if modules == 0 {
        return Ok(None);
    }
    let mut tally = Tally::new("", 0, 0, modules);
    latent_attention(fields, hidden, modules, &mut tally)?;
    let mut single = fields.0.clone();
    single.insert("first_k_dense_replace".into(), 0.into());
    mixture(Family::DeepseekV3, &Fields(&single), hidden, modules, &mut tally)?;
    // A projection of two states to one, and five norms: of both states, of the block twice, before the head.
    tally.every_layer(MatrixKind::LatentAttention, 2 * hidden, hidden);
    tally.rest(5 * modules, hidden);
    let parameters = tally.inventory().parameters;
    Ok(Some(LeftOut { part: "multi-token prediction module".into(), parameters }))
}
