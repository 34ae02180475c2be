//! The files that a source names.
//!
//! In:    a source's path (file, folder or glob) and `file_format`.
//! Out:   [`InputFile`]s in order of path.
//! Never: opens a file; leaves out a file that was named by itself or by a glob.

use std::path::{Path, PathBuf};

use planner::plan::{DataSource, FileFormat};

use super::error::FileError;

/// Endings by which a format is known, for messages.
pub(super) const KNOWN: &str =
    "jsonl, ndjson, json, csv, tsv, tab, parquet, pq, arrow, feather, ipc, txt, text, md, markdown";

/// One file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFile {
    /// Where.
    pub path: PathBuf,
    /// As what.
    pub format: FileFormat,
    /// Size on disk, bytes.
    pub bytes: u64,
}

/// The files of `source`: itself, all data files below a folder (hidden ones left out), or a glob's matches; in order of path.
pub fn list(source: &DataSource) -> Result<Vec<InputFile>, FileError> {
    let path = &source.path;
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => folder(path, source.file_format),
        Ok(_) => Ok(vec![input(path, source.file_format)?]),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => matches(path, source.file_format, cause),
        Err(cause) => Err(FileError::Read { path: path.clone(), source: cause }),
    }
}

/// What the name says: the ending before `.gz` or `.zst`, in any case.
pub(super) fn format_of(path: &Path) -> Option<FileFormat> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let plain = [".gz", ".zst"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(&name);
    match plain.rsplit_once('.')?.1 {
        "jsonl" | "ndjson" => Some(FileFormat::Jsonl),
        "json" => Some(FileFormat::Json),
        "csv" => Some(FileFormat::Csv),
        "tsv" | "tab" => Some(FileFormat::Tsv),
        "parquet" | "pq" => Some(FileFormat::Parquet),
        "arrow" | "feather" | "ipc" => Some(FileFormat::Arrow),
        "txt" | "text" | "md" | "markdown" => Some(FileFormat::Text),
        _ => None,
    }
}

fn input(path: &Path, format: Option<FileFormat>) -> Result<InputFile, FileError> {
    let Some(format) = format.or_else(|| format_of(path)) else {
        return Err(FileError::UnknownFormat { path: path.to_path_buf(), known: KNOWN });
    };
    let found = std::fs::metadata(path).map_err(|source| FileError::Read { path: path.to_path_buf(), source })?;
    Ok(InputFile { path: path.to_path_buf(), format, bytes: found.len() })
}

fn matches(path: &Path, format: Option<FileFormat>, absent: std::io::Error) -> Result<Vec<InputFile>, FileError> {
    let pattern = path.to_string_lossy().into_owned();
    if !pattern.contains(['*', '?', '[']) {
        return Err(FileError::Read { path: path.to_path_buf(), source: absent });
    }
    let options =
        glob::MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
    let found = glob::glob_with(&pattern, options)
        .map_err(|cause| FileError::Glob { pattern: pattern.clone(), reason: cause.msg.to_owned() })?;
    let mut files = Vec::new();
    for entry in found {
        let path = entry.map_err(|cause| FileError::Read { path: cause.path().into(), source: cause.into() })?;
        if !path.is_dir() {
            files.push(input(&path, format)?);
        }
    }
    if files.is_empty() {
        return Err(FileError::NoMatch { pattern });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn folder(folder: &Path, format: Option<FileFormat>) -> Result<Vec<InputFile>, FileError> {
    let mut paths = Vec::new();
    walk(folder, &mut Vec::new(), &mut paths)?;
    paths.sort();
    let mut kept: Vec<&PathBuf> = match format {
        Some(format) => paths.iter().filter(|path| format_of(path).is_some_and(|named| akin(named, format))).collect(),
        None => paths.iter().filter(|path| format_of(path).is_some()).collect(),
    };
    if format.is_some() && kept.is_empty() {
        // Names that say nothing are taken at the recipe's word; names that say something else are not.
        kept = paths.iter().filter(|path| format_of(path).is_none()).collect();
    }
    if kept.is_empty() {
        return Err(FileError::NoDataFiles { folder: folder.to_path_buf(), files: paths.len(), known: KNOWN });
    }
    if format.is_none() {
        let is_document = |path: &&&PathBuf| format_of(path) == Some(FileFormat::Text);
        let rows = kept.iter().find(|path| !is_document(path));
        if let (Some(document), Some(rows)) = (kept.iter().find(is_document), rows) {
            let (rows, document) = (rows.to_path_buf(), document.to_path_buf());
            return Err(FileError::MixedFolder { folder: folder.to_path_buf(), rows, document });
        }
    }
    kept.into_iter().map(|path| input(path, format)).collect()
}

/// Whether a file named as `named` may hold `format`: people call JSONL `.json`, and tabs `.csv`.
fn akin(named: FileFormat, format: FileFormat) -> bool {
    let family = |format| match format {
        FileFormat::Jsonl | FileFormat::Json => FileFormat::Json,
        FileFormat::Csv | FileFormat::Tsv => FileFormat::Csv,
        other => other,
    };
    family(named) == family(format)
}

/// All files below `folder`, links followed; `above` are the folders on the way, as the system names them.
fn walk(folder: &Path, above: &mut Vec<PathBuf>, files: &mut Vec<PathBuf>) -> Result<(), FileError> {
    let failed = |source| FileError::Read { path: folder.to_path_buf(), source };
    let real = folder.canonicalize().map_err(failed)?;
    if above.contains(&real) {
        return Err(FileError::FolderLoop { path: folder.to_path_buf() });
    }
    above.push(real);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        let found = std::fs::metadata(&path).map_err(|source| FileError::Read { path: path.clone(), source })?;
        if found.is_dir() {
            walk(&path, above, files)?;
        } else {
            files.push(path);
        }
    }
    above.pop();
    Ok(())
}
