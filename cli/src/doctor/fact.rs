//! A value, or why it is not known; and the kernel's files, read from any root.
//!
//! In:    a path below a root: `/` on a running machine, a recorded tree in tests.
//! Out:   texts, numbers, names.
//! Never: fails: a file that is missing, closed, binary or endless is a fact about the machine; writes.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Serialize;

/// Most bytes read of one file: `/proc/cpuinfo` of 512 threads has 1 MB.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Most characters of a name that is shown.
const WORD_CHARACTERS_MAX: usize = 120;
/// Most entries of a folder that are looked at.
const NAMES_MAX: usize = 4096;

/// A value, or why it is not known.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Fact<T> {
    /// The value.
    Known(T),
    /// Why there is none.
    Unknown {
        /// For people: `/sys/block: not there`.
        unknown: String,
    },
}

impl<T> Fact<T> {
    /// Not known, and why.
    pub fn unknown(why: impl Into<String>) -> Fact<T> {
        Fact::Unknown { unknown: why.into() }
    }

    /// The value if there is one.
    pub fn known(&self) -> Option<&T> {
        match self {
            Fact::Known(value) => Some(value),
            Fact::Unknown { .. } => None,
        }
    }

    /// Another value made of this one.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Fact<U> {
        match self {
            Fact::Known(value) => Fact::Known(change(value)),
            Fact::Unknown { unknown } => Fact::Unknown { unknown },
        }
    }

    /// The value or the reason as a text.
    pub fn text(&self, of: impl FnOnce(&T) -> String) -> String {
        match self {
            Fact::Known(value) => of(value),
            Fact::Unknown { unknown } => format!("not known: {unknown}"),
        }
    }

    /// The value if there is one, else `why` it is missing.
    pub fn or(value: Option<T>, why: impl Into<String>) -> Fact<T> {
        value.map_or_else(|| Fact::unknown(why), Fact::Known)
    }
}

impl<T> From<Result<T, String>> for Fact<T> {
    fn from(result: Result<T, String>) -> Fact<T> {
        result.map_or_else(Fact::unknown, Fact::Known)
    }
}

/// The files of a machine.
#[derive(Debug, Clone)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// The machine this runs on.
    pub fn system() -> Tree {
        Tree { root: PathBuf::from("/") }
    }

    /// A recorded one.
    #[cfg(test)]
    pub fn at(root: &Path) -> Tree {
        Tree { root: root.canonicalize().expect("the tree was just made") }
    }

    fn place(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Whether something has this name.
    pub fn has(&self, path: &str) -> bool {
        self.place(path).symlink_metadata().is_ok()
    }

    /// A file's bytes up to a bound, or why there are none.
    pub fn bytes(&self, path: &str) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let read = File::open(self.place(path)).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
        read.map(|_| bytes).map_err(|error| format!("{path}: {}", why(&error)))
    }

    /// A file's text, as far as it is text, or why there is none.
    pub fn text(&self, path: &str) -> Result<String, String> {
        self.bytes(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A file's first line without what a terminal would obey; `None` if it is missing or empty.
    pub fn word(&self, path: &str) -> Option<String> {
        let word = clean(self.text(path).ok()?.lines().next()?);
        (!word.is_empty()).then_some(word)
    }

    /// A file that holds one number.
    pub fn number<T: FromStr>(&self, path: &str) -> Option<T> {
        self.text(path).ok()?.trim().parse().ok()
    }

    /// Names in a folder, sorted, or why there are none.
    pub fn names(&self, folder: &str) -> Result<Vec<String>, String> {
        let entries = std::fs::read_dir(self.place(folder)).map_err(|error| format!("{folder}: {}", why(&error)))?;
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.take(NAMES_MAX).collect();
        names.sort();
        Ok(names)
    }

    /// Where a path leads when every link is followed; `None` if it is missing or leaves the tree.
    pub fn real(&self, path: &str) -> Option<String> {
        let real = self.place(path).canonicalize().ok()?;
        Some(format!("/{}", real.strip_prefix(&self.root).ok()?.to_str()?))
    }

    /// Last part of where a link leads: the driver of a device.
    pub fn link_name(&self, path: &str) -> Option<String> {
        Some(clean(Path::new(&self.real(path)?).file_name()?.to_str()?))
    }
}

fn why(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "not there".to_string(),
        ErrorKind::PermissionDenied => "no permission to read it".to_string(),
        _ => error.to_string(),
    }
}

/// One line for people: no control characters, no ends of spaces, not longer than a line.
pub fn clean(text: &str) -> String {
    let plain = text.chars().filter(|c| !c.is_control() && *c != char::REPLACEMENT_CHARACTER);
    plain.take(WORD_CHARACTERS_MAX).collect::<String>().trim().to_string()
}

/// How many numbers a list such as `0-3,8,10-11` names; `None` if it is no such list.
pub fn list_count(list: &str) -> Option<u64> {
    let mut count = 0u64;
    for part in list.trim().split(',') {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let (low, high) = (low.trim().parse::<u64>().ok()?, high.trim().parse::<u64>().ok()?);
        count = count.checked_add(high.checked_sub(low)?.checked_add(1)?)?;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_list_of_processors_is_counted_and_nonsense_is_not() {
        assert_eq!(list_count("0-3,8,10-11\n"), Some(7));
        for nonsense in ["", "a", "3-1", "-1", "0-", "0-18446744073709551615", "1,,2"] {
            assert_eq!(list_count(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_file_that_is_missing_is_a_reason_and_a_binary_one_is_text_without_controls() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::at(folder.path());
        assert_eq!(tree.text("/proc/none").unwrap_err(), "/proc/none: not there");
        assert_eq!(tree.names("/sys/block").unwrap_err(), "/sys/block: not there");
        std::fs::write(folder.path().join("model"), b"\x1b[31mDisk\xff\x00 9000\nsecond").unwrap();
        assert_eq!(tree.word("/model").unwrap(), "[31mDisk 9000");
        assert_eq!(tree.number::<u64>("/model"), None);
        assert!(tree.text("/").is_err(), "a folder is not a file");
    }

    #[test]
    fn a_file_without_end_is_read_up_to_a_bound() {
        assert_eq!(Tree::system().text("/dev/zero").unwrap().len() as u64, FILE_BYTES_MAX);
    }
}
