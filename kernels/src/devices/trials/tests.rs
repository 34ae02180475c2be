//! What one process tried out and the next one takes, on Vulkan in software.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::Command;

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

/// Trials that a process made.
fn trials(folder: &Path, list: &Path) -> usize {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "devices::trials::tests::child", "--ignored"]).env(FOLDER, folder).env(LIST, list);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    fs::read_to_string(list).unwrap_or_default().lines().count()
}

#[test]
fn what_won_in_one_process_is_taken_by_the_next_and_a_folder_that_cannot_be_is_no_obstacle() {
    if let Err(missing) = crate::devices::vulkan_cards() {
        eprintln!("SKIPPED: {missing}");
        return;
    }
    let root = std::env::temp_dir().join(format!("tune-trials-{}", std::process::id()));
    fs::create_dir_all(&root).unwrap();
    let (kept, file) = (root.join("kept"), root.join("file"));
    fs::write(&file, "no folder").unwrap();
    assert!(trials(&kept, &root.join("first")) > 0);
    assert!(kept.join(format!("{NAME}.db")).is_file());
    assert_eq!(trials(&kept, &root.join("second")), 0);
    assert!(trials(&file, &root.join("third")) > 0);
    fs::remove_dir_all(&root).unwrap();
}
