//! Where Axolotl's rows lie: files on this machine, or a placeholder for what is not.
//!
//! In:    `path`, `data_files`, `ds_type`, `name` and `split` of a data set.
//! Out:   one source a file.
//! Never: looks at the disk.

use super::draft::Source;
use super::ledger::Ledger;
use super::scope::Scope;
use super::tree::one_line;
use super::{MigrateError, What};

/// Endings of data files.
const ENDINGS: [&str; 12] =
    [".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".txt", ".md", ".gz", ".zst", ".ndjson", ".text"];

/// Paths: the data set's files, or a placeholder for what is on the hub.
pub(super) fn files(set: &Scope, source: Source, ledger: &mut Ledger) -> Result<Vec<Source>, MigrateError> {
    let (path, listed) = (set.text("path")?, set.texts("data_files")?);
    let mut source = Source { file_format: file_format(set, ledger)?, ..source };
    let builder = |path: &str| matches!(path, "json" | "csv" | "parquet" | "arrow" | "text");
    let remote = path.as_ref().filter(|path| !builder(&path.value) && !is_local(&path.value, source.file_format));
    let name = set.text("name")?;
    split(set, remote.is_some(), ledger)?;
    if let Some(remote) = remote {
        let place = placeholder(&remote.value, name.as_ref().map(|name| name.value.as_str()));
        let why = format!("{} is not on this machine: fetch it and write its files here", one_line(&remote.value));
        ledger.note(&remote.at, What::CarriedDifferently, format!("{why}; the recipe names {place} in its place"));
        for at in [name.map(|name| name.at), listed.map(|files| files.at)].into_iter().flatten() {
            ledger.note(&at, What::CarriedDifferently, "a part of that data set: fetch this part");
        }
        source = Source { path: place, comment: Some(why), file_format: None, ..source };
        return Ok(vec![source]);
    }
    name.iter().for_each(|name| ledger.note(&name.at, What::NotNeeded, "local files have no configurations"));
    let place = |path: String| Source { path, ..source.clone() };
    match (path, listed) {
        (path, Some(listed)) if !listed.value.is_empty() => {
            path.iter().for_each(|path| ledger.carry(&path.at, "data.sources.path"));
            ledger.carry(&listed.at, "data.sources.path");
            let folder = path.map(|path| path.value).filter(|path| !builder(path) && !is_file(path));
            let within = |file: String| match &folder {
                Some(folder) => format!("{}/{file}", folder.trim_end_matches('/')),
                None => file,
            };
            Ok(listed.value.into_iter().map(within).map(place).collect())
        }
        (Some(path), listed) => {
            ledger.carry(&path.at, "data.sources.path");
            listed.iter().for_each(|listed| ledger.note(&listed.at, What::NotNeeded, "an empty list"));
            Ok(vec![place(path.value)])
        }
        (None, _) => {
            Err(MigrateError::Missing { file: set.file.to_string(), key: "path", why: "each data set needs a place" })
        }
    }
}

fn split(set: &Scope, remote: bool, ledger: &mut Ledger) -> Result<(), MigrateError> {
    let Some(split) = set.text("split")? else { return Ok(()) };
    match (split.value == "train", remote) {
        (true, false) => ledger.note(&split.at, What::NotNeeded, "local files have one part, which `train` means"),
        (_, true) => ledger.note(&split.at, What::CarriedDifferently, "a part of that data set: fetch this part"),
        (false, false) => {
            ledger.note(&split.at, What::NoCounterpart, "it took a part of the rows; here all of the file, or max_rows")
        }
    }
    Ok(())
}

/// `file_format` where the path may not tell.
fn file_format(set: &Scope, ledger: &mut Ledger) -> Result<Option<&'static str>, MigrateError> {
    let Some(found) = set.text("ds_type")? else { return Ok(None) };
    // The tools' `json` is one object a line or one list; the file's name and first bytes tell which.
    let format = match found.value.as_str() {
        "csv" => Some("csv"),
        "parquet" => Some("parquet"),
        "arrow" => Some("arrow"),
        "text" => Some("text"),
        _ => None,
    };
    match (format, found.value.as_str()) {
        (Some(_), _) => ledger.carry(&found.at, "data.sources.file_format"),
        (None, "json") => ledger.note(&found.at, What::NotNeeded, "JSON lines or a JSON list: the file tells"),
        (None, _) => {
            ledger.note(&found.at, What::NoCounterpart, "jsonl, json, csv, tsv, parquet, arrow and text are read")
        }
    }
    Ok(format)
}

fn is_file(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    ENDINGS.iter().any(|ending| lower.ends_with(ending))
}

/// A path on this machine: it looks like one, or has a file's ending, or the file's kind is said beside it.
fn is_local(path: &str, format: Option<&str>) -> bool {
    if path.contains("://") {
        return false;
    }
    let rooted = ["/", "./", "../", "~"].iter().any(|start| path.starts_with(start)) || path.contains('\\');
    rooted || is_file(path) || format.is_some() || path.matches('/').count() > 1
}

/// A file name for a hub's data set.
pub(super) fn placeholder(path: &str, part: Option<&str>) -> String {
    let leaf = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let name = part.map_or(leaf.to_string(), |part| format!("{leaf}-{part}"));
    let plain = |c: char| if c.is_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = name.chars().map(plain).take(80).collect();
    let name = name.trim_start_matches('.').trim_end_matches(".jsonl");
    format!("data/{}.jsonl", if name.is_empty() { "rows" } else { name })
}
