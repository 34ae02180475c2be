//! `tune migrate`: an Axolotl or LLaMA-Factory YAML becomes a recipe.
//!
//! In:    a file.
//! Out:   the recipe on stdout or in a new file; on stderr every key that is not carried as it stands, with its line.
//! Never: replaces a file without `--force`.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::Args;
use offload::durable::publish_file;
use recipes::migrate::{Migrated, What, migrate};

use crate::failure::{Failure, OrFail};

/// `tune migrate`
#[derive(Debug, Args)]
pub struct MigrateArguments {
    /// An Axolotl or LLaMA-Factory YAML
    pub file: PathBuf,
    /// Write the recipe to this file instead of stdout
    #[arg(long, value_name = "RECIPE.toml")]
    pub output: Option<PathBuf>,
    /// Replace the output file if it is there
    #[arg(long, requires = "output")]
    pub force: bool,
}

/// Writes the recipe and says what needs a word.
pub fn print(arguments: &MigrateArguments) -> Result<(), Failure> {
    let name = arguments.file.display().to_string();
    let yaml = std::fs::read_to_string(&arguments.file).with_context(|| format!("cannot read {name}")).or_input()?;
    let migrated = migrate(&yaml, &name).or_input()?;
    match &arguments.output {
        None => print!("{}", migrated.toml),
        Some(path) => {
            if !arguments.force && path.symlink_metadata().is_ok() {
                let text = format!("{} is there already; choose another name or add --force", path.display());
                return Err(Failure::Input(anyhow!(text)));
            }
            publish_file(path, migrated.toml.as_bytes()).or_run()?;
            println!("{}", path.display());
        }
    }
    eprint!("{}", account(&migrated, &name));
    Ok(())
}

/// The notes, a heading for each kind, and a line with the sums.
fn account(migrated: &Migrated, file: &str) -> String {
    let mut text = String::new();
    for what in [What::NoCounterpart, What::CarriedDifferently, What::NotNeeded] {
        let notes: Vec<_> = migrated.notes.iter().filter(|note| note.what == what).collect();
        if notes.is_empty() {
            continue;
        }
        text.push_str(&format!("{what}:\n"));
        for note in notes {
            text.push_str(&format!("  {file}:{}: {} = {}: {}\n", note.line, note.key, note.value, note.why));
        }
    }
    let (carried, noted, empty) = (migrated.carried.len(), migrated.notes.len(), migrated.empty.len());
    text.push_str(&format!(
        "{}: {carried} keys carried as they stand, {noted} listed above, {empty} without a value\n",
        migrated.kind
    ));
    text
}
