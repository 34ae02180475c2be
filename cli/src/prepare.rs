//! From a recipe file to a plan: parse, look at the data files, fetch and open the model, plan.
//!
//! In:    the recipe's path and overrides; the environment (cache folder, hub endpoint and token).
//! Out:   a [`Prepared`] run.
//! Never: writes outside the cache.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use checkpoints::source::{FetchEvent, FetchOptions, Place};
use checkpoints::weights::Weights;
use planner::IoProfile;
use planner::plan::Plan;
use recipes::Recipe;

use crate::args::RecipeArguments;
use crate::failure::{Failure, OrFail};
use crate::io_profile::{self, Origin};
use crate::{machine, progress};

/// Everything that is known before a run directory is made.
pub struct Prepared {
    /// The recipe with every `auto` answered.
    pub recipe: Recipe,
    /// What will be done.
    pub plan: Plan,
    /// Where the plan's numbers of transfers to NVMe come from.
    pub transfers: Origin,
    /// The opened model.
    pub weights: Weights,
}

/// Parses a recipe whose files are there.
pub fn recipe(arguments: &RecipeArguments) -> Result<Recipe, Failure> {
    let recipe = recipes::read(&arguments.recipe, &arguments.set).or_input()?;
    check_files(&recipe)?;
    Ok(recipe)
}

/// The files that a run reads are there.
pub fn check_files(recipe: &Recipe) -> Result<(), Failure> {
    let training = recipe.data.sources.iter().map(|source| ("data.sources.path", source));
    let held_out = recipe.eval.iter().filter_map(|eval| Some(("eval.source.path", eval.source.as_ref()?)));
    for (key, source) in training.chain(held_out) {
        let found = datasets::files_of(source);
        found.with_context(|| format!("{key}, looked for beside the recipe and here")).or_input()?;
    }
    if let Some(folder) = recipe.method.lora().and_then(|lora| lora.start_from.as_ref())
        && !folder.is_dir()
    {
        return Err(anyhow!("no such folder: method.start_from: {}; expected a PEFT adapter folder", folder.display()))
            .or_input();
    }
    Ok(())
}

/// Fetches and opens the model, then plans.
pub fn prepare(recipe: &Recipe) -> Result<Prepared, Failure> {
    planned(recipe, open(recipe)?, io_profile::known(recipe))
}

/// The recipe's model as other programs would look for it: `owner/name` of a hub's model, else the place itself.
pub fn base_name(recipe: &Recipe) -> String {
    let first = recipe.model.source.0.first().cloned().unwrap_or_default();
    match Place::parse(&first) {
        Ok(Place::Hub { repo, file: None, .. }) => repo,
        _ => first,
    }
}

/// Fetches and opens the model.
pub fn open(recipe: &Recipe) -> Result<Weights, Failure> {
    Weights::open(&fetch(recipe)?).or_input()
}

/// Plans with what was measured on the recipe's drives.
pub fn planned(recipe: &Recipe, weights: Weights, io: Vec<IoProfile>) -> Result<Prepared, Failure> {
    let transfers = io_profile::origin(recipe, &io);
    let machine = machine::read(io, recipe.hardware.device).or_run()?;
    let plan =
        planner::plan(recipe, weights.spec().clone(), &machine).map_err(|error| match error.is_does_not_fit() {
            true => Failure::DoesNotFit(error.into()),
            false => Failure::Input(error.into()),
        })?;
    Ok(Prepared { recipe: planner::resolved(recipe, &plan), plan, transfers, weights })
}

/// The recipe's model, fetched if it is not here.
pub fn fetch(recipe: &Recipe) -> Result<PathBuf, Failure> {
    let places =
        recipe.model.source.0.iter().map(|text| Place::parse(text)).collect::<Result<Vec<_>, _>>().or_input()?;
    fetch_places(&places, recipe.model.sha256.as_deref())
}

/// The first of `places` that can be had.
pub fn fetch_places(places: &[Place], sha256: Option<&str>) -> Result<PathBuf, Failure> {
    let options = FetchOptions {
        cache: cache_folder().or_input()?,
        search_path: std::env::var_os("PATH"),
        hub_endpoint: variable("HF_ENDPOINT"),
        hub_token: variable("HF_TOKEN"),
        offline: variable("HF_HUB_OFFLINE").is_some_and(|value| value != "0"),
    };
    let mut show = progress::FetchProgress::default();
    let events = &mut |event: FetchEvent| show.event(event);
    checkpoints::source::fetch(places, sha256, &options, events).or_input()
}

/// `$TUNE_CACHE`, else `$XDG_CACHE_HOME/tune`, else `~/.cache/tune`.
pub fn cache_folder() -> anyhow::Result<PathBuf> {
    if let Some(folder) = variable("TUNE_CACHE") {
        return Ok(PathBuf::from(folder));
    }
    if let Some(folder) = variable("XDG_CACHE_HOME") {
        return Ok(Path::new(&folder).join("tune"));
    }
    let home =
        variable("HOME").context("no place for downloads: neither TUNE_CACHE nor HOME is set; set TUNE_CACHE")?;
    Ok(Path::new(&home).join(".cache/tune"))
}

/// Where prepared rows lie, for all runs.
pub fn token_cache() -> anyhow::Result<PathBuf> {
    Ok(cache_folder()?.join("tokens"))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
