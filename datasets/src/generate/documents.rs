//! The user's documents as plain text.
//!
//! In:    files, folders, globs; `.txt`, `.text`, `.md`, `.markdown`, `.html`, `.htm`, `.pdf`.
//! Out:   paths in a fixed order; per path a [`Document`]: normalised text, title, where pages begin.
//! Never: follows a linked folder; reads a file beyond its size limit; lets a document's fault end the job.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use unicode_normalization::UnicodeNormalization;

use super::error::GenerateError;
use super::{html, pdf};

/// Most bytes of a text document.
const TEXT_BYTES_MAX: u64 = 64 << 20;
/// Most bytes of a PDF.
const PDF_BYTES_MAX: u64 = 256 << 20;
/// Folders below folders: a bound against loops of mounts.
const DEPTH_MAX: usize = 64;

/// A document that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// Why, and what to do.
    pub reason: String,
}

/// What kind of text a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No marks: `#` is a character.
    Plain,
    /// Headings by `#`, code between fences.
    Markdown,
    /// Turned into Markdown.
    Html,
    /// Pages of text.
    Pdf,
}

/// One document, ready to be cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Document {
    /// As found.
    pub(crate) path: PathBuf,
    /// From the document, else the file's name.
    pub(crate) title: String,
    /// Line ends are `\n`, composed (NFC), no control characters, no runs of empty lines.
    pub(crate) text: String,
    /// Whether `text` has headings and fences.
    pub(crate) marked: Marks,
    /// Byte offsets at which pages begin; empty where there are none.
    pub(crate) pages: Vec<usize>,
}

/// Whether a text's `#` lines are headings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marks {
    /// They are.
    Markdown,
    /// They are not.
    None,
}

/// All documents of `patterns`, each once, in the order of the patterns and by name within one.
pub(crate) fn list(patterns: &[String]) -> Result<Vec<PathBuf>, GenerateError> {
    let mut found = Vec::new();
    for pattern in patterns {
        let before = found.len();
        one_pattern(pattern, &mut found)?;
        if found.len() == before {
            return Err(no_document(pattern, "holds no .txt, .md, .html or .pdf file"));
        }
    }
    let mut seen = HashSet::new();
    found.retain(|path| seen.insert(fs::canonicalize(path).unwrap_or_else(|_| path.clone())));
    match found.is_empty() {
        true => Err(no_document("documents", "none given")),
        false => Ok(found),
    }
}

fn one_pattern(pattern: &str, found: &mut Vec<PathBuf>) -> Result<(), GenerateError> {
    let path = Path::new(pattern);
    if path.is_dir() {
        return walk(path, 0, found);
    }
    if path.exists() {
        kind_of(path)
            .ok_or_else(|| no_document(pattern, "is not .txt, .md, .html or .pdf; convert it to one of these"))?;
        found.push(path.to_path_buf());
        return Ok(());
    }
    if !pattern.contains(['*', '?', '[']) {
        return Err(no_document(pattern, "does not exist"));
    }
    let matches = glob::glob(pattern).map_err(|error| no_document(pattern, &format!("not a pattern: {error}")))?;
    for path in matches {
        let path = path.map_err(|error| no_document(pattern, &error.to_string()))?;
        if path.is_file() && kind_of(&path).is_some() {
            found.push(path);
        }
    }
    Ok(())
}

fn walk(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), GenerateError> {
    let failed = |error: std::io::Error| no_document(&folder.display().to_string(), &error.to_string());
    let mut entries = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(failed)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() && !hidden && depth < DEPTH_MAX {
            walk(&path, depth + 1, found)?;
        } else if !hidden && path.is_file() && kind_of(&path).is_some() {
            found.push(path);
        }
    }
    Ok(())
}

fn no_document(pattern: &str, reason: &str) -> GenerateError {
    GenerateError::NoDocument { pattern: pattern.to_string(), reason: reason.to_string() }
}

fn kind_of(path: &Path) -> Option<Kind> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "txt" | "text" => Some(Kind::Plain),
        "md" | "markdown" => Some(Kind::Markdown),
        "html" | "htm" => Some(Kind::Html),
        "pdf" => Some(Kind::Pdf),
        _ => None,
    }
}

/// Reads one document.
pub(crate) fn read(path: &Path) -> Result<Document, Skipped> {
    let skip = |reason: String| Skipped { path: path.to_path_buf(), reason };
    let kind = kind_of(path).ok_or_else(|| skip("unknown kind of file".to_string()))?;
    let bytes_max = if kind == Kind::Pdf { PDF_BYTES_MAX } else { TEXT_BYTES_MAX };
    let bytes = fs::metadata(path).map_err(|error| skip(error.to_string()))?.len();
    if bytes > bytes_max {
        return Err(skip(format!("{bytes} bytes, at most {bytes_max} are read: split the document")));
    }
    let content = fs::read(path).map_err(|error| skip(error.to_string()))?;
    let document = match kind {
        Kind::Pdf => from_pages(path, pdf::pages(content, pdf::TIME_MAX).map_err(skip)?),
        Kind::Html => from_html(path, &decode(content).map_err(skip)?),
        Kind::Markdown => from_text(path, &decode(content).map_err(skip)?, Marks::Markdown),
        Kind::Plain => from_text(path, &decode(content).map_err(skip)?, Marks::None),
    };
    if document.text.chars().any(char::is_alphanumeric) {
        return Ok(document);
    }
    let why = if kind == Kind::Pdf { "no text: scanned pages need text recognition (OCR) first" } else { "no text" };
    Err(skip(why.to_string()))
}

fn from_text(path: &Path, raw: &str, marked: Marks) -> Document {
    let text = normalise(raw);
    let heading = text.lines().find_map(|line| line.strip_prefix("# ")).map(str::trim);
    let heading = heading.filter(|title| marked == Marks::Markdown && !title.is_empty()).map(str::to_string);
    Document { path: path.to_path_buf(), title: heading.unwrap_or_else(|| stem(path)), text, marked, pages: Vec::new() }
}

fn from_html(path: &Path, raw: &str) -> Document {
    let page = html::to_markdown(raw);
    let mut document = from_text(path, &page.markdown, Marks::Markdown);
    if let Some(title) = page.title {
        document.title = normalise(&title);
    }
    document
}

fn from_pages(path: &Path, pages: Vec<String>) -> Document {
    let mut text = String::new();
    let mut begins = Vec::new();
    for page in pages {
        if !text.is_empty() {
            text.push_str("\n\n");
        }
        begins.push(text.len());
        text.push_str(&normalise(&page));
    }
    Document { path: path.to_path_buf(), title: stem(path), text, marked: Marks::None, pages: begins }
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// UTF-8, or UTF-16 with a byte order mark.
fn decode(bytes: Vec<u8>) -> Result<String, String> {
    let wide = match bytes.get(..2) {
        Some([0xff, 0xfe]) => Some(u16::from_le_bytes as fn([u8; 2]) -> u16),
        Some([0xfe, 0xff]) => Some(u16::from_be_bytes as fn([u8; 2]) -> u16),
        _ => None,
    };
    if let Some(unit) = wide {
        let units: Vec<u16> = bytes[2..].chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect();
        return String::from_utf16(&units).map_err(|_| "not valid UTF-16; save it as UTF-8".to_string());
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        format!("not valid UTF-8 at byte {at}; save it as UTF-8 (for example with iconv)")
    })
}

/// One way to write the same text, so that chunks and their hashes do not depend on an editor's habits.
pub(crate) fn normalise(raw: &str) -> String {
    let unix = raw.trim_start_matches('\u{feff}').replace("\r\n", "\n").replace(['\r', '\u{c}', '\u{2028}'], "\n");
    let composed: String = unix.nfc().filter(|&c| c == '\n' || c == '\t' || !c.is_control()).collect();
    let mut text = String::with_capacity(composed.len());
    let mut empty_lines = 0;
    for line in composed.lines() {
        let line = line.trim_end();
        empty_lines = if line.is_empty() { empty_lines + 1 } else { 0 };
        if empty_lines > 1 || (line.is_empty() && text.is_empty()) {
            continue;
        }
        text.push_str(line);
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text
}
