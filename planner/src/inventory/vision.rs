//! Counts the vision tower of a multimodal configuration, which the trainer leaves out.
//!
//! In:    a `config.json` whose `vision_config` is a SigLIP encoder (Gemma 3).
//! Out:   a [`LeftOut`] with its parameters and those of the projector into the text model.
//! Never: counts a tower that the configuration does not describe.

use serde_json::{Map, Value};

use super::LeftOut;
use super::fields::{Fields, LAYERS_MAX, WIDTH_MAX, refused};
use crate::config::ConfigError;

/// Tower and projector, where the configuration holds a SigLIP one. `hidden` is the width of the text model.
pub(super) fn left_out(root: &Map<String, Value>, hidden: u64) -> Result<Option<LeftOut>, ConfigError> {
    let Some(vision) = Fields(root).object("vision_config")? else { return Ok(None) };
    if vision.0.get("model_type").and_then(Value::as_str) != Some("siglip_vision_model") {
        return Ok(None);
    }
    let width = vision.size("hidden_size", WIDTH_MAX)?;
    let between = vision.size("intermediate_size", WIDTH_MAX)?;
    let layers = vision.size("num_hidden_layers", LAYERS_MAX)?;
    let patch = vision.size("patch_size", WIDTH_MAX)?;
    let image = vision.size("image_size", WIDTH_MAX)?;
    let channels = vision.size_or("num_channels", 1 << 10, Some(3))?;
    if patch > image {
        return Err(refused("patch_size", patch, format!("larger than image_size ({image})")));
    }
    let product = |sides: &[u64]| sides.iter().map(|&side| u128::from(side)).product::<u128>();
    // Four attention layers and two of feed-forward, all with biases; two layer norms with weight and bias.
    let block =
        4 * product(&[width, width + 1]) + product(&[2, width, between]) + u128::from(between + width + 4 * width);
    let patches = u128::from(image / patch);
    let embeddings =
        product(&[channels, patch, patch, width]) + u128::from(width) + patches * patches * u128::from(width);
    let tower = embeddings + u128::from(layers) * block + u128::from(2 * width);
    let projector = product(&[width, hidden]) + u128::from(width);
    let parameters = u64::try_from(tower + projector).unwrap_or(u64::MAX);
    Ok(Some(LeftOut { part: "vision tower and projector".into(), parameters }))
}
