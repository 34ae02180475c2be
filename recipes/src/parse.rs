//! From a file and overrides to a checked recipe.
//!
//! In:    a path, `--set` texts.
//! Out:   a [`Recipe`] whose paths are resolved and whose ranges hold.
//! Never: loses the line of a mistake that stands in the file.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Table;

use crate::recipe::TemplateChoice;
use crate::{Recipe, RecipeError, check, overrides};

/// A scheme before a colon means: not a local path.
const SCHEMES: [&str; 2] = ["hf:", "pypi:"];

/// Reads, overrides, resolves paths and checks.
pub fn read(path: &Path, set: &[String]) -> Result<Recipe, RecipeError> {
    let text = std::fs::read_to_string(path).map_err(|cause| RecipeError::Read { path: path.to_path_buf(), cause })?;
    let mut recipe = parse(&text, &path.display().to_string(), set)?;
    resolve_paths(&mut recipe, path.parent().unwrap_or(Path::new("")));
    Ok(recipe)
}

/// Parses and checks a recipe's text; `file` is used in messages only, and paths stay as written.
pub fn parse(text: &str, file: &str, set: &[String]) -> Result<Recipe, RecipeError> {
    let mut table: Table = text.parse().map_err(|error: toml::de::Error| RecipeError::Syntax {
        place: place_in(text, file, &error),
        message: one_line(error.message()),
    })?;
    // The text first, because only the text has line numbers. An override may still supply a missing key.
    let written = toml::from_str::<Recipe>(text);
    if let Err(error) = &written
        && (set.is_empty() || !is_missing(error))
    {
        return Err(explain(error, place_in(text, file, error)));
    }
    for argument in set {
        overrides::apply(&mut table, argument)?;
        if let Err(error) = Recipe::deserialize(table.clone())
            && !is_missing(&error)
        {
            return Err(explain(&error, format!("--set {argument}")));
        }
    }
    let recipe = Recipe::deserialize(table).map_err(|error| explain(&error, format!("{file} with --set")))?;
    check::check(&recipe)?;
    Ok(recipe)
}

fn is_missing(error: &toml::de::Error) -> bool {
    error.message().starts_with("missing field")
}

fn place_in(text: &str, file: &str, error: &toml::de::Error) -> String {
    match error.span() {
        Some(span) => {
            let before = text.as_bytes().get(..span.start).unwrap_or(text.as_bytes());
            format!("{file}:{}", 1 + before.iter().filter(|&&byte| byte == b'\n').count())
        }
        None => file.to_string(),
    }
}

/// serde's words for an unknown key are ``unknown field `x`, expected one of `a`, `b` ``; the tests hold that.
fn explain(error: &toml::de::Error, place: String) -> RecipeError {
    let message = error.message();
    if message.starts_with("unknown field") {
        let mut names = message.split('`').skip(1).step_by(2);
        let key = names.next().unwrap_or_default().to_string();
        let known: Vec<&str> = names.collect();
        return RecipeError::UnknownKey { place, hint: nearest(&key, &known), key };
    }
    RecipeError::Invalid { place, message: one_line(message).replace("missing field", "missing key") }
}

fn nearest(key: &str, known: &[&str]) -> String {
    let score = |name: &&&str| (strsim::jaro_winkler(key, name) * 1e6) as u64;
    match known.iter().max_by_key(score) {
        Some(best) if strsim::jaro_winkler(key, best) >= 0.7 => format!("did you mean `{best}`?"),
        _ => format!("known here: {}", known.join(", ")),
    }
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Relative paths are the recipe's neighbours if such files exist, else relative to the current directory; what exists becomes absolute.
/// Directories of `offload.nvme` are relative to the current directory.
fn resolve_paths(recipe: &mut Recipe, folder: &Path) {
    for place in &mut recipe.model.source.0 {
        if !SCHEMES.iter().any(|scheme| place.starts_with(scheme)) {
            *place = resolved(Path::new(place.as_str()), folder).display().to_string();
        }
    }
    let data = recipe.data.sources.iter_mut().map(|source| &mut source.path);
    let eval = recipe.eval.iter_mut().filter_map(|eval| eval.source.as_mut()).map(|source| &mut source.path);
    let adapter = recipe.method.lora_mut().and_then(|lora| lora.start_from.as_mut());
    let template = match &mut recipe.data.chat_template {
        TemplateChoice::File(path) => Some(path),
        _ => None,
    };
    for path in data.chain(eval).chain(adapter).chain(template) {
        *path = resolved(path, folder);
    }
    // Written to, not read: beside a shipped recipe is no place for that.
    for path in &mut recipe.offload.nvme {
        if let Ok(absolute) = std::path::absolute(&*path) {
            *path = absolute;
        }
    }
}

fn resolved(path: &Path, folder: &Path) -> PathBuf {
    let beside = folder.join(path);
    let chosen = if fixed_part(&beside).exists() { beside } else { path.to_path_buf() };
    if !fixed_part(&chosen).exists() {
        return path.to_path_buf();
    }
    std::path::absolute(&chosen).unwrap_or(chosen)
}

/// What a glob names without its pattern: the folders before the first component with `*`, `?` or `[`. Other paths stay as they are.
fn fixed_part(path: &Path) -> PathBuf {
    if path.exists() {
        return path.to_path_buf();
    }
    let plain = |part: &std::path::Component| !part.as_os_str().to_string_lossy().contains(['*', '?', '[']);
    path.components().take_while(plain).collect()
}

impl Recipe {
    /// The recipe as TOML with every default written out.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a recipe holds only tables, lists, texts and numbers")
    }
}
