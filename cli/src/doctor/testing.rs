//! Recorded machines for tests.
//!
//! In:    `tests/fixtures/doctor/*.txt`: `=== PATH` starts a file, `=== PATH -> TARGET` is a link.
//! Out:   a [`Tree`] in a temporary folder; [`Inventory`]s of it.
//! Never: looks at the machine the tests run on.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use planner::IoProfile;

use super::devices::Kinds;
use super::fact::{Fact, Tree};
use super::folders::{Engine, Room, Tried};
use super::inventory::{Asked, Inventory};
use super::link::{Lanes, Link};
use super::nvidia::{Driver, DriverCard};
use kernels::devices::Throttle;

/// A recorded machine, there as long as this lives.
pub struct Recorded {
    pub folder: tempfile::TempDir,
    pub tree: Tree,
}

/// Paths and contents of a fixture; a link's content is its target.
pub enum Entry {
    File(String, String),
    Link(String, String),
}

pub fn entries(name: &str) -> Vec<Entry> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/doctor").join(format!("{name}.txt"));
    let text = fs::read_to_string(file).unwrap();
    let mut found = Vec::new();
    for block in text.split("\n=== ").skip(1) {
        let (path, content) = block.split_once('\n').unwrap_or((block.trim(), ""));
        match path.split_once(" -> ") {
            Some((path, target)) => found.push(Entry::Link(path.to_string(), target.to_string())),
            None => found.push(Entry::File(path.to_string(), content.to_string())),
        }
    }
    assert!(found.len() > 8, "{name} is nearly empty");
    found
}

impl Recorded {
    pub fn empty() -> Recorded {
        // Thousands of small files: in memory where there is such a place.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        Recorded { tree: Tree::at(folder.path()), folder }
    }

    pub fn of(name: &str) -> Recorded {
        let recorded = Recorded::empty();
        for entry in entries(name) {
            match entry {
                Entry::File(path, content) => recorded.write(&path, content.as_bytes()),
                Entry::Link(path, target) => symlink(recorded.place(&target), recorded.made(&path)).unwrap(),
            }
        }
        recorded
    }

    pub fn place(&self, path: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(path.trim_start_matches('/'))
    }

    /// The place of a path whose folder is made.
    pub fn made(&self, path: &str) -> PathBuf {
        let place = self.place(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        place
    }

    pub fn write(&self, path: &str, content: &[u8]) {
        fs::write(self.made(path), content).unwrap();
    }

    pub fn inventory(&self, asked: Asked) -> Inventory {
        Inventory::of(&self.tree, asked)
    }
}

/// Nothing but folders.
pub fn asked(folders: Vec<Tried>) -> Asked {
    let none = || Fact::unknown("not asked");
    Asked {
        nvidia: Fact::unknown("no NVIDIA driver library (libnvidia-ml.so.1)"),
        built_for_cuda: true,
        devices: Kinds { cuda: none(), vulkan: none() },
        folders,
    }
}

/// A folder where all is well.
pub fn tried(path: &str) -> Tried {
    Tried {
        path: PathBuf::from(path),
        room: Fact::Known(Room { total_bytes: 2_000_000_000_000, free_bytes: 1_500_000_000_000 }),
        engine: Fact::Known(Engine {
            kind: "io_uring".to_string(),
            why: "io_uring: runs here".to_string(),
            is_direct: true,
            has_registered_buffers: true,
            notes: Vec::new(),
        }),
        profile: Fact::unknown("not measured"),
    }
}

/// What a measurement found.
pub fn profile(read: u64, write: u64) -> Fact<IoProfile> {
    Fact::Known(IoProfile {
        path: PathBuf::from("/x"),
        chunk_bytes: 1 << 20,
        queue_depth: 8,
        read_bytes_per_second: read,
        write_bytes_per_second: write,
    })
}

/// What the driver of the workstation says.
pub fn driver(cuda: i32, throttle: Vec<Throttle>) -> Fact<Driver> {
    Fact::Known(Driver {
        version: Fact::Known("550.54.14".to_string()),
        cuda_version: Fact::Known(cuda),
        cards: vec![DriverCard {
            address: "0000:0a:00.0".to_string(),
            name: Fact::Known("NVIDIA GeForce RTX 4090".to_string()),
            memory_bytes: Fact::Known(25_757_220_864),
            memory_free_bytes: Fact::Known(25_000_000_000),
            link: Fact::Known(Link {
                now: Lanes { generation: 1, lanes: 4 },
                device_max: Lanes { generation: 4, lanes: 16 },
                slot_max: None,
            }),
            celsius: Fact::Known(71.0),
            celsius_max: Some(90.0),
            watts: Fact::Known(120.0),
            watts_cap: Fact::Known(300.0),
            watts_default: Some(450.0),
            throttle: Fact::Known(throttle),
        }],
    })
}
