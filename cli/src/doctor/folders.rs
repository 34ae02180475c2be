//! Folders that training would write to: file system, drive, room, and how the kernel lets bytes move.
//!
//! In:    the table of mounts, `/sys/dev/block`, room and engine as [`super::probe`] found them.
//! Out:   [`Folder`]s.
//! Never: writes.

use std::path::{Path, PathBuf};

use planner::IoProfile;
use serde::Serialize;

use super::fact::{Fact, Tree};

/// File systems by what is below them.
const IN_MEMORY: [&str; 3] = ["tmpfs", "ramfs", "devtmpfs"];
const OVER_NETWORK: [&str; 14] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "ceph",
    "glusterfs",
    "lustre",
    "beegfs",
    "afs",
    "9p",
    "virtiofs",
    "fuse.sshfs",
    "fuse.rclone",
];
const LAYERED: [&str; 3] = ["overlay", "aufs", "fuse.fuse-overlayfs"];

/// What is below a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A drive.
    Drive,
    /// Memory.
    Memory,
    /// Another machine, or the machine around this virtual one.
    Network,
    /// A container's layers.
    Layers,
    /// A program.
    Program,
}

/// Room in a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Room {
    /// In all, bytes.
    pub total_bytes: u64,
    /// For this user, bytes.
    pub free_bytes: u64,
}

/// How bytes would move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Engine {
    /// `io_uring` or `threads`.
    pub kind: String,
    /// Why that one.
    pub why: String,
    /// Whether the page cache is passed by (O_DIRECT).
    pub is_direct: bool,
    /// Whether the kernel keeps the buffers mapped.
    pub has_registered_buffers: bool,
    /// What did not go as planned.
    pub notes: Vec<String>,
}

/// A folder and what was found out about it by trying.
#[derive(Debug, Clone, PartialEq)]
pub struct Tried {
    /// The folder, without links.
    pub path: PathBuf,
    /// Its room.
    pub room: Fact<Room>,
    /// How bytes would move.
    pub engine: Fact<Engine>,
    /// What was measured on its drive.
    pub profile: Fact<IoProfile>,
}

/// A folder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    /// Where its file system is mounted.
    pub mount: Fact<String>,
    /// `ext4`, `tmpfs`.
    pub file_system: Fact<String>,
    /// What is below it.
    pub kind: Fact<Kind>,
    /// Whether nothing can be written.
    pub is_read_only: bool,
    /// Name of the drive in `/sys/block`.
    pub drive: Fact<String>,
    /// Its room.
    pub room: Fact<Room>,
    /// How bytes would move.
    pub engine: Fact<Engine>,
    /// What was measured on its drive.
    pub profile: Fact<IoProfile>,
}

impl Folder {
    /// Everything about one folder.
    pub fn of(tree: &Tree, tried: Tried) -> Folder {
        let mount = mount(tree, &tried.path);
        let known =
            |value: fn(&Mount) -> String| -> Fact<String> { mount.as_ref().map(value).map_err(Clone::clone).into() };
        Folder {
            mount: known(|mount| mount.point.clone()),
            file_system: known(|mount| mount.file_system.clone()),
            kind: mount.as_ref().map(|mount| kind(&mount.file_system)).map_err(Clone::clone).into(),
            is_read_only: mount.as_ref().is_ok_and(|mount| mount.is_read_only),
            drive: mount.as_ref().map_err(Clone::clone).and_then(|mount| drive(tree, mount)).into(),
            path: tried.path,
            room: tried.room,
            engine: tried.engine,
            profile: tried.profile,
        }
    }
}

/// A line of the table of mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    /// `259:2`.
    number: String,
    point: String,
    file_system: String,
    /// `/dev/nvme0n1p2`, or the file system's own word.
    source: String,
    is_read_only: bool,
}

/// The mount that holds a path. Of two mounts on one point the later one hides the earlier.
fn mount(tree: &Tree, path: &Path) -> Result<Mount, String> {
    let table = tree.text("/proc/self/mountinfo")?;
    let holding = table.lines().filter_map(mount_of_line).filter(|mount| path.starts_with(&mount.point));
    let nearest = holding.max_by_key(|mount| Path::new(&mount.point).components().count());
    nearest.ok_or_else(|| "/proc/self/mountinfo does not list it".to_string())
}

/// proc(5) describes the fields.
fn mount_of_line(line: &str) -> Option<Mount> {
    let (mount, source) = line.split_once(" - ")?;
    let fields: Vec<&str> = mount.split(' ').collect();
    let mut source = source.split(' ');
    let file_system = source.next()?.to_string();
    Some(Mount {
        number: fields.get(2)?.to_string(),
        // The kernel writes a space as \040.
        point: fields.get(4)?.replace("\\040", " "),
        is_read_only: fields.get(5)?.split(',').any(|option| option == "ro"),
        file_system,
        source: source.next()?.replace("\\040", " "),
    })
}

fn kind(file_system: &str) -> Kind {
    match file_system {
        name if IN_MEMORY.contains(&name) => Kind::Memory,
        name if OVER_NETWORK.contains(&name) => Kind::Network,
        name if LAYERED.contains(&name) => Kind::Layers,
        name if name.starts_with("fuse") && name != "fuseblk" => Kind::Program,
        _ => Kind::Drive,
    }
}

/// The whole drive under a mount: by its number, or by the source's name where the file system has a number of its own (btrfs).
fn drive(tree: &Tree, mount: &Mount) -> Result<String, String> {
    if kind(&mount.file_system) != Kind::Drive {
        return Err(format!("{} has no drive of its own", mount.file_system));
    }
    let by_number = tree.real(&format!("/sys/dev/block/{}", mount.number));
    let by_name = || {
        let device = tree.real(&mount.source).unwrap_or_else(|| mount.source.clone());
        tree.real(&format!("/sys/class/block/{}", device.strip_prefix("/dev/")?))
    };
    let found = by_number.or_else(by_name);
    let found = found.ok_or_else(|| format!("no block device is listed for {}", mount.source))?;
    let whole = match tree.has(&format!("{found}/partition")) {
        true => found.rsplit_once('/').map_or(found.as_str(), |(above, _)| above),
        false => found.as_str(),
    };
    Ok(whole.rsplit('/').next().unwrap_or_default().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_with_a_space_and_optional_fields_is_read() {
        let line = "36 35 259:2 / /mnt/a\\040b rw,noatime shared:1 master:2 - ext4 /dev/nvme0n1p2 rw";
        let mount = mount_of_line(line);
        let point = mount.as_ref().map(|mount| (mount.point.as_str(), mount.file_system.as_str(), mount.is_read_only));
        assert_eq!(point, Some(("/mnt/a b", "ext4", false)));
        for nonsense in ["", "a - b", "1 2 3 4 5 6 7", " - ", "1 2 3 4 5 6 - "] {
            assert_eq!(mount_of_line(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn file_systems_are_told_apart_by_what_is_below() {
        let table = [
            ("tmpfs", Kind::Memory),
            ("nfs4", Kind::Network),
            ("virtiofs", Kind::Network),
            ("overlay", Kind::Layers),
            ("fuse.bindfs", Kind::Program),
            ("fuseblk", Kind::Drive),
            ("btrfs", Kind::Drive),
        ];
        table.iter().for_each(|(name, expected)| assert_eq!(kind(name), *expected, "{name}"));
    }
}
