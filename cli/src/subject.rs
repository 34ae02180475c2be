//! The model that a plan is about, from as little as can be: a name, a `config.json`, a header; or the opened files.
//!
//! In:    `model.source` of a recipe.
//! Out:   a [`Subject`]: the inventory, the opened weights where they are at hand, and a line on where it comes from.
//! Never: downloads weights.

use std::path::Path;

use checkpoints::source::Place;
use checkpoints::weights::Weights;
use planner::inventory::{self, Inventory};
use recipes::Recipe;

use crate::failure::{Failure, OrFail};
use crate::prepare;

/// What is known about a model before a plan.
pub struct Subject {
    /// What it is made of.
    pub inventory: Inventory,
    /// Its files, where they are on this machine.
    pub weights: Option<Weights>,
    /// Where the inventory comes from, if not from the files.
    pub note: Option<String>,
}

/// Looks a recipe's model up: files at hand first, then the built-in list, then the hub's `config.json`, then a package.
pub fn subject(recipe: &Recipe) -> Result<Subject, Failure> {
    let texts = &recipe.model.source.0;
    for text in texts {
        if let Place::Local(path) = Place::parse(text).or_input()? {
            if path.exists() {
                return local(text, &path);
            }
            if let Ok(inventory) = inventory::find(text) {
                return Ok(listed(inventory));
            }
        }
    }
    for text in texts {
        if let Place::Hub { repo, revision, file: None } = Place::parse(text).or_input()? {
            if let Ok(inventory) = inventory::find(&repo) {
                return Ok(listed(inventory));
            }
            let config = Place::Hub { repo: repo.clone(), revision, file: Some("config.json".to_string()) };
            let path = prepare::fetch_places(&[config], None)?;
            let inventory = of_config(text, &path)?;
            return Ok(Subject {
                inventory,
                weights: None,
                note: Some(format!("model from {repo}'s config.json alone")),
            });
        }
    }
    let weights = Weights::open(&prepare::fetch(recipe)?).or_input()?;
    Ok(opened(&texts[0], weights))
}

fn listed(inventory: Inventory) -> Subject {
    let note = format!("model {} from the built-in list; nothing was fetched", inventory.name);
    Subject { inventory, weights: None, note: Some(note) }
}

fn opened(text: &str, weights: Weights) -> Subject {
    Subject { inventory: Inventory::of_spec(text, weights.spec().clone()), weights: Some(weights), note: None }
}

/// A folder may hold nothing but the configuration; a configuration may stand alone.
fn local(text: &str, path: &Path) -> Result<Subject, Failure> {
    let alone = |config: &Path| -> Result<Subject, Failure> {
        let note = Some(format!("model from {} alone", config.display()));
        Ok(Subject { inventory: of_config(text, config)?, weights: None, note })
    };
    if path.extension().is_some_and(|extension| extension == "json") {
        return alone(path);
    }
    match Weights::open(path) {
        Ok(weights) => Ok(opened(text, weights)),
        // What cannot be trained, or has no weights yet, can still be counted.
        Err(error) => match alone(&path.join("config.json")) {
            Ok(subject) => Ok(subject),
            Err(_) => Err(error).or_input(),
        },
    }
}

fn of_config(name: &str, path: &Path) -> Result<Inventory, Failure> {
    use anyhow::Context;
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string()).or_input()?;
    let inventory = Inventory::from_hf(&text).with_context(|| path.display().to_string()).or_input()?;
    Ok(Inventory { name: name.to_string(), ..inventory })
}
