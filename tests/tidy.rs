//! The rules of the tree, read from the tree itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who may use whom. After planning no room sees the recipe, so the trainer does not use `recipes`.
const ARROWS: [(&str, &[&str]); 10] = [
    ("recipes", &[]),
    ("planner", &["recipes"]),
    ("datasets", &["planner", "offload"]),
    ("kernels", &["cube"]),
    ("cube", &[]),
    ("models", &["kernels", "planner"]),
    ("offload", &[]),
    ("checkpoints", &["offload", "planner"]),
    ("trainer", &["planner", "datasets", "kernels", "models", "offload", "checkpoints"]),
    ("tune", &["recipes", "planner", "datasets", "kernels", "models", "offload", "checkpoints", "trainer"]),
];
const MAY_BE_UNSAFE: [&str; 2] = ["offload", "kernels"];
/// Printing, the environment and the end of the process belong to `cli/`.
const ONLY_IN_CLI: [&str; 10] = [
    "println!",
    "eprintln!",
    "print!",
    "dbg!",
    "env::var",
    "env::var_os",
    "env::vars",
    "env::args",
    "env::current_dir",
    "process::exit",
];
const LINES_MAX: usize = 400;
/// Files that may be longer, each with its reason in its own head.
const MAY_BE_LONG: [&str; 0] = [];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

struct Source {
    /// Relative to the root.
    path: String,
    text: String,
}

impl Source {
    fn room(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }

    /// Tests, examples and scripts that no user runs.
    fn is_test(&self) -> bool {
        let inside = |part: &str| self.path.split('/').any(|piece| piece == part);
        let name = self.path.rsplit('/').next().unwrap_or_default();
        inside("tests")
            || inside("examples")
            || inside("benches")
            || name.ends_with("tests.rs")
            || name.starts_with("test_")
    }

    /// Lines of code with line numbers, without comments and the content of texts; ends where an inline test module begins.
    fn code(&self) -> Vec<(usize, String)> {
        let lines: Vec<&str> = self.text.lines().collect();
        let ends =
            |pair: &[&str]| pair[0].trim() == "#[cfg(test)]" && pair[1].contains("mod ") && pair[1].ends_with('{');
        let end = lines.windows(2).position(ends).unwrap_or(lines.len());
        lines[..end].iter().enumerate().map(|(index, line)| (index + 1, without_texts(line))).collect()
    }
}

fn without_texts(line: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\\' if inside => drop(characters.next()),
            '\'' if !inside && characters.peek() == Some(&'"') => drop(characters.next()),
            '"' => inside = !inside,
            '/' if !inside && characters.peek() == Some(&'/') => break,
            _ if !inside => out.push(c),
            _ => {}
        }
    }
    out
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for (room, _) in ARROWS
        .iter()
        .filter(|(room, _)| !["tune", "cube"].contains(room))
        .chain(&[("cli", &[] as &[&str]), ("tests", &[])])
    {
        collect(&root().join(room), &mut found);
    }
    assert!(found.len() > 30, "only {} sources found", found.len());
    found
}

fn collect(folder: &Path, found: &mut Vec<Source>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let relative = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
            found.push(Source { path: relative, text: fs::read_to_string(&path).unwrap() });
        }
    }
}

fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        let after = line[at + word.len()..].chars().next();
        !is_part(line[..at].chars().next_back()) && (word.ends_with('!') || !is_part(after))
    })
}

fn none(offences: Vec<String>) {
    assert!(offences.is_empty(), "{} offences:\n{}", offences.len(), offences.join("\n"));
}

#[test]
fn every_arrow_between_rooms_is_listed() {
    let arguments = ["metadata", "--format-version", "1", "--no-deps", "--offline"];
    let output = Command::new(env!("CARGO")).current_dir(root()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert_eq!(packages.len(), ARROWS.len(), "a room is not listed");
    let mut offences = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let (_, allowed) = ARROWS.iter().find(|(room, _)| *room == name).unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            let other = dependency["name"].as_str().unwrap();
            let is_ours = !dependency["path"].is_null() && dependency["kind"] != "dev";
            if is_ours && !allowed.contains(&other) {
                offences.push(format!("{name} -> {other}"));
            }
        }
    }
    none(offences);
}

#[test]
fn only_offload_and_kernels_hold_unsafe_code() {
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| !MAY_BE_UNSAFE.contains(&source.room())) {
        for (number, line) in source.code().iter().filter(|(_, line)| has_word(line, "unsafe")) {
            offences.push(format!("{}:{number}: {line}", source.path));
        }
    }
    none(offences);
}

#[test]
fn only_cli_prints_reads_the_environment_or_exits() {
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| source.room() != "cli" && !source.is_test()) {
        for (number, line) in source.code() {
            if ONLY_IN_CLI.iter().any(|word| has_word(&line, word)) {
                offences.push(format!("{}:{number}: {line}", source.path));
            }
        }
    }
    none(offences);
}

#[test]
fn no_source_is_longer_than_400_lines() {
    let long = |source: &&Source| source.text.lines().count() > LINES_MAX;
    let found: Vec<Source> = sources();
    let listed = |source: &&Source| !MAY_BE_LONG.contains(&source.path.as_str());
    none(found.iter().filter(long).filter(listed).map(|s| format!("{}: {}", s.path, s.text.lines().count())).collect());
}

#[test]
fn every_source_opens_with_what_it_does() {
    let silent = sources().into_iter().filter(|source| !source.text.starts_with("//! "));
    none(silent.map(|source| source.path).collect());
}

/// Lines of a fenced block that start with `prefix`, without trailing comments.
fn commands(text: &str, prefix: &str) -> Vec<String> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if inside && line.trim_start().starts_with(prefix) {
            found.push(line.split(" #").next().unwrap_or(line).trim().to_string());
        }
    }
    found
}

#[test]
fn every_tune_command_in_the_readme_exists() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let mut lines = commands(&readme, "cargo run --release -- ");
    lines.extend(commands(&readme, "tune "));
    assert!(!lines.is_empty(), "the README shows no command");
    for line in lines {
        let words = line.trim_start_matches("cargo run --release -- ").trim_start_matches("tune ");
        let mut arguments: Vec<&str> = words.split_whitespace().collect();
        for recipe in arguments.iter().filter(|word| word.ends_with(".toml") && word.starts_with("recipes/")) {
            assert!(root().join(recipe).is_file(), "{line}: {recipe} does not exist");
        }
        arguments.push("--help");
        let output = Command::new(env!("CARGO_BIN_EXE_tune")).args(&arguments).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn ci_runs_the_readmes_test_command() {
    let command = "cargo test --release";
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(commands(&readme, "cargo test").contains(&command.to_string()), "the README shows `{command}`");
    let ci = fs::read_to_string(root().join(".ci/run")).unwrap();
    assert!(ci.lines().any(|line| line.trim() == command), ".ci/run calls `{command}`");
}

#[test]
fn every_recipe_that_ships_is_valid() {
    let mut found = 0;
    for entry in fs::read_dir(root().join("recipes")).unwrap() {
        let path = entry.unwrap().path();
        let is_recipe = path.extension().is_some_and(|e| e == "toml") && !path.ends_with("Cargo.toml");
        if is_recipe {
            let recipe = recipes::read(&path, &[]).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(path.file_stem().unwrap().to_string_lossy(), recipe.name);
            found += 1;
        }
    }
    assert!(found >= 1);
}
