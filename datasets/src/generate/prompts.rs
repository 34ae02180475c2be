//! The texts sent with every chunk, in files a user can edit.
//!
//! In:    `system.txt` and `user.txt`, or the built-in ones.
//! Out:   [`Prompts`], filled in for a chunk.
//! Never: fills in placeholders that stand in the document itself; overlooks one it does not know.

use std::path::{Path, PathBuf};

use offload::durable::publish_file;

use super::chunks::Chunk;
use super::error::GenerateError;

const SYSTEM: &str = include_str!("system.txt");
const USER: &str = include_str!("user.txt");
/// What can stand between `{{` and `}}`.
const NAMES: [&str; 6] = ["chunk", "title", "headings", "pairs", "language", "document"];
/// Most bytes of a prompt file.
const BYTES_MAX: u64 = 1 << 20;

/// Both prompts, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompts {
    system: String,
    user: String,
}

impl Default for Prompts {
    fn default() -> Prompts {
        Prompts { system: SYSTEM.trim_end().to_string(), user: USER.trim_end().to_string() }
    }
}

impl Prompts {
    /// Reads `system.txt` and `user.txt` in `folder`.
    pub fn load(folder: &Path) -> Result<Prompts, GenerateError> {
        let (system, user) = (folder.join("system.txt"), folder.join("user.txt"));
        let prompts = Prompts { system: read(&system)?, user: read(&user)? };
        check(&system, &prompts.system)?;
        check(&user, &prompts.user)?;
        if !prompts.user.contains("{{chunk}}") {
            return Err(wrong(&user, "does not hold {{chunk}}, so the model would not see the document"));
        }
        Ok(prompts)
    }

    /// Writes the built-in prompts into `folder` and says which files; refuses to overwrite.
    pub fn write(folder: &Path) -> Result<[PathBuf; 2], GenerateError> {
        let files = [folder.join("system.txt"), folder.join("user.txt")];
        if let Some(there) = files.iter().find(|file| file.exists()) {
            return Err(wrong(there, "exists already; remove it or choose another folder"));
        }
        publish_file(&files[0], SYSTEM.as_bytes())?;
        publish_file(&files[1], USER.as_bytes())?;
        Ok(files)
    }

    /// System and user text for `chunk`.
    pub(crate) fn render(&self, chunk: &Chunk, pairs: usize, language: &str) -> (String, String) {
        let value = |name: &str| match name {
            "chunk" => chunk.text.clone(),
            "title" => chunk.title.clone(),
            "headings" => chunk.headings.join(" > "),
            "pairs" => pairs.to_string(),
            "language" => language.to_string(),
            _ => chunk.document.clone(),
        };
        (fill(&self.system, &value), fill(&self.user, &value))
    }
}

/// One pass: what is filled in is not looked at again.
fn fill(template: &str, value: &dyn Fn(&str) -> String) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, name, after)) = placeholder(rest) {
        out.push_str(before);
        out.push_str(&value(name));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The first `{{name}}`: what stands before it, its name, what stands after it.
fn placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let open = text.find("{{")?;
    let close = open + text[open..].find("}}")?;
    Some((&text[..open], text[open + 2..close].trim(), &text[close + 2..]))
}

fn check(path: &Path, text: &str) -> Result<(), GenerateError> {
    let mut rest = text;
    while let Some((_, name, after)) = placeholder(rest) {
        if !NAMES.contains(&name) {
            let line = text[..text.len() - after.len()].lines().count();
            let known = NAMES.join("}}, {{");
            let name = super::error::short(name, 40);
            return Err(wrong(
                path,
                &format!("line {line}: unknown placeholder {{{{{name}}}}}; known: {{{{{known}}}}}"),
            ));
        }
        rest = after;
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, GenerateError> {
    let bytes = std::fs::metadata(path).map_err(|error| wrong(path, &error.to_string()))?.len();
    if bytes > BYTES_MAX {
        return Err(wrong(path, &format!("{bytes} bytes, a prompt has at most {BYTES_MAX}")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| wrong(path, &error.to_string()))?;
    Ok(text.trim_end().to_string())
}

fn wrong(path: &Path, reason: &str) -> GenerateError {
    GenerateError::Prompt { path: path.to_path_buf(), reason: reason.to_string() }
}
