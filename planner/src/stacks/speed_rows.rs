//! The published speeds, each beside the band that the estimate gives.
//!
//! In:    `rows/speed.toml` and the networks, compiled in.
//! Out:   [`speed_calibration`]: one [`SpeedResult`] a row.
//! Never: leaves a row out.

use serde::Deserialize;

use super::cards::{Card, PUBLISHED_CARDS};
use super::network::Network;
use super::rows::{Quality, RowError, RowSet, networks, parsed};
use super::speed::{
    Band, Drives, EngineClass, Overlap, Placement, Products, Recompute, SpeedRun, Trained, tokens_per_second,
};

const SPEED: &str = include_str!("rows/speed.toml");

/// One row of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct SpeedResult {
    /// Number in the collection of published runs.
    pub id: String,
    /// Who published it.
    pub source: String,
    /// How well its conditions are known.
    pub quality: Quality,
    /// Whether the bands were set with it in view.
    pub set: RowSet,
    /// Cards, network and conditions in words.
    pub what: String,
    /// What the source does not say.
    pub assumed: Option<String>,
    /// Why the figure is outside, where it is.
    pub reason: Option<String>,
    /// Published, tokens a second of all cards.
    pub published: f64,
    /// Predicted.
    pub band: Band,
}

impl SpeedResult {
    /// The published figure lies in the band.
    pub fn inside(&self) -> bool {
        (self.band.low..=self.band.high).contains(&self.published)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpeedFile {
    defaults: toml::Table,
    rows: Vec<toml::Table>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: String,
    source: String,
    quality: Quality,
    set: RowSet,
    network: String,
    card: String,
    cards: u32,
    engine: EngineClass,
    trained: Trained,
    products: Products,
    recompute: Recompute,
    placement: Placement,
    overlap: Overlap,
    drives: Option<Drives>,
    sequence: u32,
    micro_tokens: u32,
    step_tokens: u32,
    #[serde(default)]
    what: String,
    tokens_per_second: Option<f64>,
    tflops: Option<f64>,
    assumed: Option<String>,
    reason: Option<String>,
}

/// Every published speed beside its band.
///
/// # Errors
/// If a table that is compiled in is malformed: a test reads them all.
pub fn speed_calibration() -> Result<Vec<SpeedResult>, RowError> {
    let networks = networks()?;
    let file: SpeedFile = parsed("speed.toml", SPEED)?;
    let mut results = Vec::with_capacity(file.rows.len());
    for given in file.rows {
        let mut table = file.defaults.clone();
        table.extend(given);
        let row: Row =
            table.try_into().map_err(|source| RowError::Malformed { file: "speed.toml", source: Box::new(source) })?;
        let unknown = |kind, name: &str| RowError::Unknown { row: row.id.clone(), kind, name: name.to_string() };
        let network = networks.get(&row.network).ok_or_else(|| unknown("network", &row.network))?;
        let card = PUBLISHED_CARDS.iter().find(|card| card.name == row.card);
        let card = card.ok_or_else(|| unknown("card", &row.card))?;
        results.push(result(&row, network, card)?);
    }
    Ok(results)
}

fn result(row: &Row, network: &Network, card: &Card) -> Result<SpeedResult, RowError> {
    let run = SpeedRun {
        card,
        cards: f64::from(row.cards),
        network,
        engine: row.engine,
        trained: row.trained,
        products: row.products,
        recompute: row.recompute,
        placement: row.placement,
        overlap: row.overlap,
        drives: row.drives,
        sequence: f64::from(row.sequence),
        micro_tokens: f64::from(row.micro_tokens),
        step_tokens: f64::from(row.step_tokens),
    };
    Ok(SpeedResult {
        id: row.id.clone(),
        source: row.source.clone(),
        quality: row.quality,
        set: row.set,
        what: described(row),
        assumed: row.assumed.clone(),
        reason: row.reason.clone(),
        published: published(row, network)?,
        band: tokens_per_second(&run),
    })
}

fn described(row: &Row) -> String {
    let cards = if row.cards == 1 { row.card.clone() } else { format!("{} x {}", row.cards, row.card) };
    let method = match row.trained {
        Trained::Full => "full",
        Trained::Lora => "LoRA",
        Trained::Qlora => "QLoRA",
    };
    let products = if row.products == Products::EightBit { ", 8-bit products" } else { "" };
    let what = if row.what.is_empty() { String::new() } else { format!(", {}", row.what) };
    format!("{cards}, {} {method}{products}{what}, rows of {}", row.network, row.sequence)
}

/// Tokens a second; TFLOPS are counted by their sources as 6 operations a weight and token.
fn published(row: &Row, network: &Network) -> Result<f64, RowError> {
    match (row.tokens_per_second, row.tflops) {
        (Some(tokens), None) => Ok(tokens),
        (None, Some(tflops)) => Ok(tflops * 1e12 / (6.0 * network.parameters() as f64)),
        (tokens, _) => Err(RowError::Figures { row: row.id.clone(), given: if tokens.is_some() { 2 } else { 0 } }),
    }
}
