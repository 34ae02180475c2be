//! What one process tried out and the next one takes, on Vulkan in software.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use burn::tensor::Tensor;

use super::*;

/// Variables of the child: where it keeps trials, where it lists them.
const FOLDER: &str = "TRIALS_FOLDER";
const LIST: &str = "TRIALS_LIST";

#[test]
#[ignore = "the next test starts it in processes of its own: settings are the process's"]
fn child() {
    let (Some(folder), Some(list)) = (std::env::var_os(FOLDER), std::env::var_os(LIST)) else { return };
    let mut config = config(Path::new(&folder));
    config.autotune.decisions.file = Some(list.into());
    assert!(CubeClRuntimeConfig::try_set(config));
    let device = crate::devices::vulkan(0).unwrap();
    let ones = Tensor::<2>::ones([48, 48], &device);
    let product = crate::check::values(ones.clone().matmul(ones));
    assert!(product.iter().all(|&value| value == 48.0));
}

fn start(folder: &Path, list: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "devices::trials::tests::child", "--ignored"]).env(FOLDER, folder).env(LIST, list);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// Trials that a process made.
fn made(child: Child, list: &Path) -> usize {
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
    fs::read_to_string(list).unwrap_or_default().lines().count()
}

fn trials(folder: &Path, list: &Path) -> usize {
    made(start(folder, list), list)
}

/// A folder for a test; `None`, visibly, where the machine has no Vulkan device.
fn folder(name: &str) -> Option<PathBuf> {
    if let Err(missing) = crate::devices::vulkan_cards() {
        eprintln!("SKIPPED: {missing}");
        return None;
    }
    let folder = std::env::temp_dir().join(format!("tune-trials-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    Some(folder)
}

#[test]
fn what_won_in_one_process_is_taken_by_the_next() {
    let Some(root) = folder("kept") else { return };
    let kept = root.join("devices");
    assert!(trials(&kept, &root.join("first")) > 0);
    assert!(kept.join(format!("{NAME}.db")).is_file());
    assert_eq!(trials(&kept, &root.join("second")), 0);
    fs::remove_dir_all(&root).unwrap();
}

#[test]
fn a_store_that_cannot_be_opened_costs_the_trials_and_nothing_else() {
    let Some(root) = folder("broken") else { return };
    let (file, broken) = (root.join("file"), root.join("broken"));
    fs::write(&file, "no folder").unwrap();
    assert!(trials(&file, &root.join("first")) > 0);
    fs::create_dir(&broken).unwrap();
    fs::write(broken.join(format!("{NAME}.db")), [7u8; 10_000]).unwrap();
    assert!(trials(&broken, &root.join("second")) > 0);
    fs::remove_dir_all(&root).unwrap();
}

#[test]
fn two_processes_keep_their_trials_in_one_store() {
    let Some(root) = folder("two") else { return };
    let lists = [root.join("first"), root.join("second")];
    let children = lists.each_ref().map(|list| start(&root.join("devices"), list));
    for (child, list) in children.into_iter().zip(&lists) {
        made(child, list);
    }
    assert_eq!(trials(&root.join("devices"), &root.join("third")), 0);
    fs::remove_dir_all(&root).unwrap();
}
