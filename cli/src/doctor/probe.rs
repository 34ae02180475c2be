//! What only trying tells: room in a folder, and which way the kernel lets bytes move there.
//!
//! In:    a folder.
//! Out:   its [`Room`]; its [`Engine`], as a run would get it.
//! Never: leaves a file; writes more than a page.

use std::path::Path;
use std::process::Command;

use offload::store::{EngineChoice, Store, StoreOptions};

use super::fact::{Fact, clean};
use super::folders::{Engine, Room};

/// Transfers in flight and bytes of each: usual ones.
pub const TRANSFERS: usize = 32;
/// See [`TRANSFERS`].
pub const TRANSFER_BYTES: usize = 1 << 20;

/// Opens the nvme tier in a folder and closes it again.
pub fn engine(path: &Path) -> Fact<Engine> {
    let opened = Store::open(StoreOptions {
        run: format!("doctor-{}", std::process::id()),
        paths: vec![path.to_path_buf()],
        engine: EngineChoice::Auto,
        buffers: TRANSFERS,
        buffer_bytes: TRANSFER_BYTES,
        queue_depth: TRANSFERS,
        write_budget_bytes: None,
        faults: None,
    });
    let store = match opened {
        Ok(store) => store,
        Err(error) => return Fact::unknown(error.to_string()),
    };
    let report = store.engine();
    Fact::Known(Engine {
        kind: report.kind.to_string(),
        why: report.why,
        is_direct: report.direct.iter().all(|direct| *direct),
        has_registered_buffers: report.registered_buffers,
        notes: store.notes(),
    })
}

/// Room by `df`, which knows every file system; without it, by the system's list of drives.
pub fn room(path: &Path) -> Fact<Room> {
    df(path).or_else(|why| listed(path).ok_or(why)).into()
}

fn listed(path: &Path) -> Option<Room> {
    let disks = sysinfo::Disks::new_with_refreshed_list();
    let holding = disks.list().iter().filter(|disk| path.starts_with(disk.mount_point()));
    let nearest = holding.max_by_key(|disk| disk.mount_point().components().count())?;
    let room = Room { total_bytes: nearest.total_space(), free_bytes: nearest.available_space() };
    Some(room).filter(|room| room.total_bytes > 0)
}

/// POSIX fixes the form: a heading, then name, size, used, available in KiB.
fn df(path: &Path) -> Result<Room, String> {
    let output = Command::new("df").arg("-Pk").arg(path).env("LC_ALL", "C").output();
    let output = output.map_err(|error| format!("df: {error}"))?;
    if !output.status.success() {
        return Err(format!("df: {}", clean(&String::from_utf8_lossy(&output.stderr))));
    }
    room_of_df(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| "df: a table of another form".to_string())
}

/// The name may hold spaces, the mount point too: the numbers are the first three in a row.
fn room_of_df(text: &str) -> Option<Room> {
    let words: Vec<&str> = text.lines().nth(1)?.split_whitespace().collect();
    let numbers = words.windows(3).find_map(|three| {
        let parsed: Vec<u64> = three.iter().filter_map(|word| word.parse().ok()).collect();
        (parsed.len() == 3).then_some(parsed)
    })?;
    Some(Room { total_bytes: numbers[0].checked_mul(1024)?, free_bytes: numbers[2].checked_mul(1024)? })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_table_of_df_gives_size_and_room() {
        let text = "Filesystem 1024-blocks Used Available Capacity Mounted on\n//nas/my share 2000 500 1500 25% /mnt/my share\n";
        assert_eq!(room_of_df(text), Some(Room { total_bytes: 2_048_000, free_bytes: 1_536_000 }));
        assert_eq!(room_of_df("df: no\n"), None);
        assert_eq!(room_of_df("a\nb 1 2 18446744073709551615 3% /\n"), None);
    }

    #[test]
    fn a_folder_that_can_be_written_tells_its_engine_and_keeps_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let engine = engine(folder.path());
        let engine = engine.known().unwrap();
        assert!(["io_uring", "threads"].contains(&engine.kind.as_str()) && !engine.why.is_empty());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let room = room(folder.path());
        let room = room.known().unwrap();
        assert!(room.total_bytes > 0 && room.free_bytes <= room.total_bytes);
    }

    #[test]
    fn a_folder_that_is_not_there_is_a_fact() {
        let gone = Path::new("/nowhere/at/all");
        assert!(engine(gone).text(|_| String::new()).contains("/nowhere/at/all"));
    }
}
