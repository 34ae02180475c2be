//! The recipe while it is written: keys in the order of the documents, with a comment where a choice was made.
//!
//! In:    dotted keys, values, comments.
//! Out:   TOML text.
//! Never: a key twice.

use std::collections::BTreeMap;
use std::path::Path;

use toml::Value;

use super::Kind;
use super::tree::one_line;

/// Order of the sections.
const SECTIONS: [&str; 8] = ["", "model", "method", "data", "train", "optimizer", "schedule", "checkpoint"];

struct Line {
    key: String,
    value: Value,
    comment: Option<String>,
}

/// A recipe that grows.
pub(super) struct Draft {
    kind: Kind,
    head: String,
    sections: BTreeMap<&'static str, Vec<Line>>,
    sources: Vec<Source>,
    /// Lines of `[eval]`, which stands in the recipe only if rows are held out.
    pub held_out: Option<HeldOut>,
    /// `eval.every_steps`.
    pub eval_every_steps: Option<u64>,
}

/// The rows that are held out.
pub(super) enum HeldOut {
    /// `eval.share`
    Share(f64),
    /// `eval.source`
    Source(Source),
}

/// One `[[data.sources]]`.
#[derive(Debug, Clone, Default)]
pub(super) struct Source {
    pub path: String,
    pub file_format: Option<&'static str>,
    pub format: Option<&'static str>,
    pub columns: BTreeMap<&'static str, String>,
    pub max_rows: Option<u64>,
    /// Why the path is no path of the file.
    pub comment: Option<String>,
}

impl Source {
    fn table(&self) -> toml::Table {
        let mut table = toml::Table::new();
        table.insert("path".to_string(), Value::String(self.path.clone()));
        let words = [("file_format", self.file_format), ("format", self.format)];
        for (key, word) in words.into_iter().filter_map(|(key, word)| Some((key, word?))) {
            table.insert(key.to_string(), Value::String(word.to_string()));
        }
        if !self.columns.is_empty() {
            let columns = self.columns.iter().map(|(field, column)| (field.to_string(), Value::String(column.clone())));
            table.insert("columns".to_string(), Value::Table(columns.collect()));
        }
        if let Some(rows) = self.max_rows {
            table.insert("max_rows".to_string(), whole(rows));
        }
        table
    }
}

/// A count as TOML. Counts are below 2^53.
pub(super) fn whole(count: u64) -> Value {
    Value::Integer(i64::try_from(count).unwrap_or(i64::MAX))
}

/// Text as TOML.
pub(super) fn word(text: impl Into<String>) -> Value {
    Value::String(text.into())
}

impl Draft {
    pub fn new(kind: Kind, file: &str) -> Draft {
        let name = Path::new(file).file_name().map_or(file.to_string(), |name| name.to_string_lossy().to_string());
        let head = format!("# Migrated from {kind}'s {}.", one_line(&name));
        let (sections, sources) = (BTreeMap::new(), Vec::new());
        Draft { kind, head, sections, sources, held_out: None, eval_every_steps: None }
    }

    /// Writes `section.key`; a later value wins.
    pub fn put(&mut self, dotted: &str, value: Value) {
        self.line(dotted, value, None);
    }

    /// As [`Draft::put`], with a word on why.
    pub fn put_because(&mut self, dotted: &str, value: Value, comment: impl Into<String>) {
        self.line(dotted, value, Some(one_line(&comment.into())));
    }

    /// Writes what the tool would have taken where the file is silent.
    pub fn put_default(&mut self, dotted: &str, value: Value) {
        if !self.has(dotted) {
            self.put_because(dotted, value, format!("{}'s default; the file does not say it", self.kind));
        }
    }

    /// Whether the key is written.
    pub fn has(&self, dotted: &str) -> bool {
        self.get(dotted).is_some()
    }

    /// What is written so far.
    pub fn get(&self, dotted: &str) -> Option<&Value> {
        let (section, key) = split(dotted);
        self.sections.get(section)?.iter().find(|line| line.key == key).map(|line| &line.value)
    }

    /// Adds a `[[data.sources]]`. Two that would have one path get different ones.
    pub fn add(&mut self, mut source: Source) {
        if source.comment.is_some() {
            let taken = |path: &str| self.sources.iter().any(|other| other.path == path);
            let stem = source.path.trim_end_matches(".jsonl").to_string();
            let mut copy = 2;
            while taken(&source.path) {
                source.path = format!("{stem}-{copy}.jsonl");
                copy += 1;
            }
        }
        self.sources.push(source);
    }

    /// All sources so far, to change them.
    pub fn sources_mut(&mut self) -> &mut [Source] {
        &mut self.sources
    }

    fn line(&mut self, dotted: &str, value: Value, comment: Option<String>) {
        let (section, key) = split(dotted);
        let section = SECTIONS.iter().find(|name| **name == section).copied().unwrap_or_default();
        let lines = self.sections.entry(section).or_default();
        let line = Line { key: key.to_string(), value, comment };
        match lines.iter_mut().find(|line| line.key == key) {
            Some(old) => *old = line,
            None => lines.push(line),
        }
    }

    /// The recipe's text.
    pub fn to_toml(&self) -> String {
        let mut text = format!("{}\n# A comment above a key says that a choice was made.\n", self.head);
        for section in SECTIONS {
            let Some(lines) = self.sections.get(section) else { continue };
            if !section.is_empty() {
                text.push_str(&format!("\n[{section}]\n"));
            }
            lines.iter().for_each(|line| text.push_str(&written(&line.key, &line.value, line.comment.as_deref())));
            if section == "data" {
                self.sources.iter().for_each(|source| text.push_str(&source_text(source)));
            }
        }
        if let Some(held_out) = &self.held_out {
            text.push_str("\n[eval]\n");
            text.push_str(&match held_out {
                HeldOut::Share(share) => written("share", &Value::Float(*share), None),
                HeldOut::Source(source) => written("source", &Value::Table(source.table()), source.comment.as_deref()),
            });
            let every = self.eval_every_steps.map(|steps| written("every_steps", &whole(steps), None));
            text.push_str(&every.unwrap_or_default());
        }
        text
    }
}

fn source_text(source: &Source) -> String {
    let mut text = "\n[[data.sources]]\n".to_string();
    for (key, value) in source.table() {
        let comment = if key == "path" { source.comment.as_deref() } else { None };
        text.push_str(&written(&key, &value, comment));
    }
    text
}

/// A text with line breaks keeps them in TOML's triple quotes, so its comment stands above.
fn written(key: &str, value: &Value, comment: Option<&str>) -> String {
    let value = value.to_string();
    match comment {
        None => format!("{key} = {value}\n"),
        Some(comment) => format!("# {comment}\n{key} = {value}\n"),
    }
}

fn split(dotted: &str) -> (&str, &str) {
    dotted.split_once('.').unwrap_or(("", dotted))
}
