//! Models known by name.
//!
//! In:    `planner/models/models.toml`, compiled in; a name in any usual spelling.
//! Out:   the entry or its [`Inventory`]; for unknown names the nearest ones.
//! Never: opens a file; reads a configuration that was not asked for.

use std::sync::OnceLock;

use serde::Deserialize;

use super::{Inventory, InventoryError, shortened};

const LIST: &str = include_str!("../../models/models.toml");

/// Words that variants of one network differ by, and that its size does not depend on.
const VARIANT_WORDS: [&str; 8] = ["instruct", "it", "chat", "base", "pt", "hf", "meta", "text"];

/// Nearest names that an error proposes.
const NEAREST: usize = 3;

/// One model of the list.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelEntry {
    /// `llama-3.1-8b`.
    pub name: String,
    /// `meta-llama/Llama-3.1-8B`.
    pub repository: String,
    /// Repositories of the same network and other names. Epsilon and longest position of theirs may differ.
    #[serde(default)]
    pub variants: Vec<String>,
    /// Parameters that the publisher states exactly, vision included, prediction modules not.
    pub published_parameters: Option<u64>,
    /// Parameters that the publisher states in round figures, billions.
    pub published_billions: Option<f64>,
    /// Parameters that one token uses, as the publisher states them, billions.
    pub published_active_billions: Option<f64>,
    /// Where the published figures stand.
    pub source: String,
    /// The keys of its `config.json` that matter, as JSON.
    pub config: String,
}

impl ModelEntry {
    /// Counts the model.
    pub fn inventory(&self) -> Result<Inventory, InventoryError> {
        let counted = Inventory::from_hf(&self.config)?;
        Ok(Inventory { name: self.name.clone(), repository: Some(self.repository.clone()), ..counted })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    model: Vec<ModelEntry>,
}

/// All entries, in the order of the file. The first call reads the list; configurations are read by
/// [`ModelEntry::inventory`].
pub fn known() -> &'static [ModelEntry] {
    static ENTRIES: OnceLock<Vec<ModelEntry>> = OnceLock::new();
    ENTRIES.get_or_init(|| {
        let list: List = toml::from_str(LIST).expect("the list is part of this program and read by its tests");
        list.model
    })
}

/// Counts the model called `name`: the short name, a hub repository (`hf:` in front and `@revision` behind are allowed), a
/// variant of it, in any case and with any separators.
pub fn find(name: &str) -> Result<Inventory, InventoryError> {
    let wanted = key(name);
    let matches = |entry: &&ModelEntry| names(entry).any(|known| key(known) == wanted);
    match known().iter().find(matches) {
        Some(entry) => entry.inventory(),
        None => Err(InventoryError::Unknown {
            name: shortened(name.trim()),
            nearest: nearest(&wanted),
            known: known().len(),
        }),
    }
}

fn names(entry: &ModelEntry) -> impl Iterator<Item = &str> {
    let first = [entry.name.as_str(), entry.repository.as_str()];
    first.into_iter().chain(entry.variants.iter().map(String::as_str))
}

/// What two spellings of one name have in common: no owner, revision, case, separators or words of variants.
pub(super) fn key(name: &str) -> String {
    let name = name.trim().to_lowercase();
    let name = name.strip_prefix("hf:").unwrap_or(&name);
    let name = name.split('@').next().unwrap_or(name);
    let name = name.trim_end_matches('/').rsplit('/').next().unwrap_or(name);
    let words = name.split(['-', '_', ' ', ':']).filter(|word| !VARIANT_WORDS.contains(word));
    words.flat_map(str::chars).filter(|letter| *letter != '.').collect()
}

fn nearest(wanted: &str) -> Vec<String> {
    let wanted: String = wanted.chars().take(80).collect();
    let score =
        |entry: &ModelEntry| names(entry).map(|known| strsim::jaro_winkler(&key(known), &wanted)).fold(0.0, f64::max);
    let mut scored: Vec<(f64, &ModelEntry)> = known().iter().map(|entry| (score(entry), entry)).collect();
    scored.sort_by(|left, right| right.0.total_cmp(&left.0));
    scored.into_iter().take(NEAREST).map(|(_, entry)| entry.name.clone()).collect()
}
