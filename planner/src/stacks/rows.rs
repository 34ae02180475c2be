//! The published peaks of memory, each beside what the estimate says.
//!
//! In:    `rows/networks.toml` and `rows/memory.toml`, compiled in.
//! Out:   [`calibration`]: one [`RowResult`] a row, in the order of the file.
//! Never: leaves a row out.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::memory::{Estimate, Run, estimate};
use super::network::Network;
use super::stack::{Counter, Stack};

const NETWORKS: &str = include_str!("rows/networks.toml");
const MEMORY: &str = include_str!("rows/memory.toml");
const GIB: f64 = 1_073_741_824.0;

/// Why a table of published rows cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RowError {
    /// The text is not what the table's types say.
    #[error("published rows, {file}: {source}; see the types in planner/src/stacks")]
    Malformed {
        /// Which table.
        file: &'static str,
        /// What is wrong, with its line.
        source: Box<toml::de::Error>,
    },
    /// A row names what no table has.
    #[error("published row {row}: unknown {kind} `{name}`; add it to planner/src/stacks/rows or correct the name")]
    Unknown {
        /// Row.
        row: String,
        /// `network`, `stack` or `card`.
        kind: &'static str,
        /// As written.
        name: String,
    },
    /// A row gives no figure, or two.
    #[error("published row {row}: {given} figures given, 1 wanted (gib, gb, mib or more_than_gb)")]
    Figures {
        /// Row.
        row: String,
        /// How many.
        given: usize,
    },
}

/// How well a row's conditions are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Quality {
    /// All published.
    A,
    /// One missing.
    B,
    /// By a vendor, or incomplete.
    C,
}

/// What a row is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowSet {
    /// Constants come from such rows.
    Calibration,
    /// Kept out: no constant comes from them.
    HeldOut,
    /// Looked up after the constants stood.
    Aside,
}

/// The published figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Measured {
    /// Peak, bytes.
    Bytes(f64),
    /// The run failed with so many bytes.
    MoreThan(f64),
}

/// One row of the table.
#[derive(Debug, Clone)]
pub struct RowResult {
    /// Number in the collection of published runs, with a letter where it holds several figures.
    pub id: String,
    /// Who published it.
    pub source: String,
    /// How well its conditions are known.
    pub quality: Quality,
    /// What it is used for.
    pub set: RowSet,
    /// Network and conditions in words.
    pub what: String,
    /// What the source does not say.
    pub assumed: Option<String>,
    /// Why the estimate is off, where it is by more than 10 %.
    pub reason: Option<String>,
    /// What the published figure counts.
    pub counter: Counter,
    /// Published.
    pub measured: Measured,
    /// The estimate.
    pub estimate: Estimate,
}

impl RowResult {
    /// Predicted over published.
    pub fn ratio(&self) -> f64 {
        let (Measured::Bytes(bytes) | Measured::MoreThan(bytes)) = self.measured;
        self.estimate.counted_bytes as f64 / bytes
    }

    /// Within `share` of the published figure; a run that failed counts if it was predicted to fail.
    pub fn within(&self, share: f64) -> bool {
        match self.measured {
            Measured::Bytes(_) => (self.ratio() - 1.0).abs() <= share,
            Measured::MoreThan(_) => self.ratio() > 1.0,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkFile {
    networks: Vec<Network>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MemoryFile {
    stacks: BTreeMap<String, toml::Table>,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: String,
    source: String,
    quality: Quality,
    set: RowSet,
    network: String,
    what: String,
    stack: String,
    #[serde(default)]
    set_stack: toml::Table,
    micro_batch: u64,
    sequence: u64,
    cards: u64,
    gib: Option<f64>,
    gb: Option<f64>,
    mib: Option<f64>,
    more_than_gb: Option<f64>,
    assumed: Option<String>,
    reason: Option<String>,
}

/// Every published peak beside its estimate.
///
/// # Errors
/// If a table that is compiled in is malformed: a test reads them all.
pub fn calibration() -> Result<Vec<RowResult>, RowError> {
    calibrated(MEMORY)
}

/// The rows of a table in the form of `memory.toml`.
pub(super) fn calibrated(memory: &str) -> Result<Vec<RowResult>, RowError> {
    let networks = networks()?;
    let file: MemoryFile = parsed("memory.toml", memory)?;
    file.rows.iter().map(|row| result(row, &networks, &file.stacks)).collect()
}

/// The networks by name.
pub(super) fn networks() -> Result<BTreeMap<String, Network>, RowError> {
    let file: NetworkFile = parsed("networks.toml", NETWORKS)?;
    Ok(file.networks.into_iter().map(|network| (network.name.clone(), network)).collect())
}

/// A table as types.
pub(super) fn parsed<T: serde::de::DeserializeOwned>(file: &'static str, text: &str) -> Result<T, RowError> {
    toml::from_str(text).map_err(|source| RowError::Malformed { file, source: Box::new(source) })
}

fn result(
    row: &Row,
    networks: &BTreeMap<String, Network>,
    stacks: &BTreeMap<String, toml::Table>,
) -> Result<RowResult, RowError> {
    let unknown = |kind, name: &str| RowError::Unknown { row: row.id.clone(), kind, name: name.to_string() };
    let network = networks.get(&row.network).ok_or_else(|| unknown("network", &row.network))?;
    let mut table = stacks.get(&row.stack).ok_or_else(|| unknown("stack", &row.stack))?.clone();
    table.extend(row.set_stack.clone());
    let stack: Stack =
        table.try_into().map_err(|source| RowError::Malformed { file: "memory.toml", source: Box::new(source) })?;
    let run = Run { network, stack: &stack, micro_batch: row.micro_batch, sequence: row.sequence, cards: row.cards };
    Ok(RowResult {
        id: row.id.clone(),
        source: row.source.clone(),
        quality: row.quality,
        set: row.set,
        what: format!("{}, {}, {}x{}", row.network, row.what, row.micro_batch, row.sequence),
        assumed: row.assumed.clone(),
        reason: row.reason.clone(),
        counter: stack.counter,
        measured: measured(row)?,
        estimate: estimate(&run),
    })
}

fn measured(row: &Row) -> Result<Measured, RowError> {
    let figures = [
        row.gib.map(|gib| Measured::Bytes(gib * GIB)),
        row.gb.map(|gb| Measured::Bytes(gb * 1e9)),
        row.mib.map(|mib| Measured::Bytes(mib * GIB / 1024.0)),
        row.more_than_gb.map(|gb| Measured::MoreThan(gb * 1e9)),
    ];
    let given: Vec<Measured> = figures.into_iter().flatten().collect();
    match given.as_slice() {
        [one] => Ok(*one),
        _ => Err(RowError::Figures { row: row.id.clone(), given: given.len() }),
    }
}
