//! How each NVMe drive is best read and written: measured once, then kept in the cache folder.
//!
//! In:    a recipe's directories; `io-profiles.json` in the cache folder; the system's list of mounts.
//! Out:   [`IoProfile`]s for the planner.
//! Never: measures for `tune plan`, or where the recipe gives both numbers; fails because of the cache file.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use offload::bench_io::{IoBench, IoReport, sweep};
use offload::durable::publish_file;
use offload::error::TierError;
use planner::IoProfile;
use planner::plan::Plan;
use planner::units::bytes_text;
use recipes::Recipe;
use recipes::recipe::{ChunkSize, QueueDepth};

use crate::failure::{Failure, OrFail};
use crate::prepare::cache_folder;

const CACHE_FILE: &str = "io-profiles.json";
/// Written and read for each of the sweep's points: enough for all transfers of the deepest one.
const SWEEP_BYTES: u64 = 256 << 20;
/// Points as good as the best: repeated measurements differ by as much.
const AS_GOOD: f64 = 1.03;
/// What a cached profile may hold: the ranges of the recipe's keys.
const CHUNK_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=64 << 20;
const QUEUE_DEPTH: std::ops::RangeInclusive<usize> = 1..=4096;

/// Where the numbers of transfers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The recipe.
    Recipe,
    /// The drives.
    Measured,
    /// Usual ones: a drive was never measured.
    Usual,
}

/// By drive, see [`Mount::key`]; the paths are those they were measured on.
type Profiles = BTreeMap<String, IoProfile>;

/// Where the numbers of a plan made with these profiles come from.
pub fn origin(recipe: &Recipe, io: &[IoProfile]) -> Origin {
    let offload = &recipe.offload;
    let is_known = |path: &PathBuf| io.iter().any(|profile| &profile.path == path);
    match is_given(recipe) {
        true => Origin::Recipe,
        false if offload.nvme.iter().all(is_known) => Origin::Measured,
        false => Origin::Usual,
    }
}

fn is_given(recipe: &Recipe) -> bool {
    recipe.offload.chunk != ChunkSize::Auto && recipe.offload.queue_depth != QueueDepth::Auto
}

/// Profiles of those directories whose drives were measured earlier.
pub fn known(recipe: &Recipe) -> Vec<IoProfile> {
    let file = cache_folder().map(|folder| folder.join(CACHE_FILE));
    let Ok(Ok(kept)) = file.map(|file| read(&file)) else { return Vec::new() };
    let profile = |path: &PathBuf| Some(of_path(kept.get(&Mount::of(path)?.key)?, path));
    recipe.offload.nvme.iter().filter_map(profile).collect()
}

/// Looks at the directories that a run is about to use, and measures those that nobody has; all profiles, or `None` if nothing is new.
pub fn measure(recipe: &Recipe, plan: &Plan, tell: &mut dyn FnMut(&str)) -> Result<Option<Vec<IoProfile>>, Failure> {
    if !plan.offload.uses_nvme() {
        return Ok(None);
    }
    for path in &plan.offload.nvme {
        if !path.is_dir() {
            return Err(anyhow!("no such directory: offload.nvme: {}; make it, or name another", path.display()))
                .or_input();
        }
        if let Some(mount) = Mount::of(path).filter(|mount| mount.is_memory) {
            let (path, mount) = (path.display(), mount.point.display());
            tell(&format!("nvme: {path} is on {mount}, a file system in memory: what is put there stays in memory"));
        }
    }
    if is_given(recipe) {
        return Ok(None);
    }
    let mut cache = Cache::open(tell);
    let mut profiles = Vec::new();
    let mut is_new = false;
    for path in &plan.offload.nvme {
        let Some(mount) = Mount::of(path) else { continue };
        if !cache.profiles.contains_key(&mount.key) {
            let Some(kept) = measured(path, SWEEP_BYTES, tell)? else { continue };
            cache.profiles.insert(mount.key.clone(), kept);
            cache.write(tell);
            is_new = true;
        }
        profiles.extend(cache.profiles.get(&mount.key).map(|kept| of_path(kept, path)));
    }
    Ok(is_new.then_some(profiles))
}

/// What to do about a drive that was measured before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Earlier {
    /// Its figures count.
    Keep,
    /// It is measured again.
    Replace,
}

/// The profile of the drive under one directory, measured with at most `bytes_max` bytes on it at a time, and kept in the cache.
/// `None` without room to try, and for a file system in memory.
pub fn of_directory(
    path: &Path,
    bytes_max: u64,
    earlier: Earlier,
    tell: &mut dyn FnMut(&str),
) -> Result<Option<IoProfile>, Failure> {
    let Some(mount) = Mount::of(path).filter(|mount| !mount.is_memory) else { return Ok(None) };
    let mut cache = Cache::open(tell);
    if let Some(kept) = cache.profiles.get(&mount.key).filter(|_| earlier == Earlier::Keep) {
        return Ok(Some(of_path(kept, path)));
    }
    let profile = measured(path, bytes_max.min(SWEEP_BYTES), tell)?;
    if let Some(profile) = &profile {
        cache.profiles.insert(mount.key, profile.clone());
        cache.write(tell);
    }
    Ok(profile)
}

/// The profile that was measured earlier on the drive under a directory.
pub fn kept(path: &Path) -> Option<IoProfile> {
    let kept = read(&cache_folder().ok()?.join(CACHE_FILE)).ok()?;
    Some(of_path(kept.get(&Mount::of(path)?.key)?, path))
}

/// The best way to use a drive; `None` if it has no room to try with `sweep_bytes`.
fn measured(path: &Path, sweep_bytes: u64, tell: &mut dyn FnMut(&str)) -> Result<Option<IoProfile>, Failure> {
    let place = path.display();
    tell(&format!("nvme: {place}: measuring, once for this drive"));
    let bench = IoBench { total_bytes: sweep_bytes, ..IoBench::new(vec![path.to_path_buf()]) };
    let points: Vec<Point> = match sweep(&bench) {
        Ok(sweeps) => sweeps.iter().flat_map(|sweep| &sweep.points).map(Point::of).collect(),
        Err(TierError::NoSpace { needed_bytes, free_bytes, .. }) => {
            let (needed, free) = (bytes_text(needed_bytes), bytes_text(free_bytes));
            tell(&format!("nvme: {place}: not measured: that needs {needed} and {free} are free"));
            return Ok(None);
        }
        Err(error) => return Err(error).or_input(),
    };
    let Some(best) = best(path, &points) else { return Ok(None) };
    tell(&format!(
        "nvme: {place}: chunks of {}, {} in flight: reads {}/s, writes {}/s",
        bytes_text(best.chunk_bytes),
        best.queue_depth,
        bytes_text(best.read_bytes_per_second),
        bytes_text(best.write_bytes_per_second)
    ));
    Ok(Some(best))
}

/// One combination that was measured.
#[derive(Debug, Clone, Copy)]
struct Point {
    chunk_bytes: u64,
    queue_depth: usize,
    /// Bytes per second.
    read: f64,
    /// Bytes per second.
    write: f64,
}

impl Point {
    fn of(report: &IoReport) -> Point {
        Point {
            chunk_bytes: report.chunk_bytes as u64,
            queue_depth: report.queue_depth,
            read: report.read.bytes_per_second(),
            write: report.write.bytes_per_second(),
        }
    }

    /// Time to read a byte and to write one.
    fn cost(&self) -> f64 {
        1.0 / self.read.max(1.0) + 1.0 / self.write.max(1.0)
    }
}

/// The smallest chunk that is as good as any with few transfers in flight, and then the fewest transfers that are as good as more.
///
/// An update has one span of each of its arrays on the way, four or five transfers: a chunk that needs 64 of them to be fast would
/// never be.
fn best(path: &Path, points: &[Point]) -> Option<IoProfile> {
    let least = |points: &[Point]| points.iter().map(Point::cost).fold(f64::INFINITY, f64::min);
    let smallest = |points: &[Point], size: &dyn Fn(&Point) -> u64| {
        let good = points.iter().filter(|point| point.cost() <= AS_GOOD * least(points));
        good.min_by_key(|point| size(point)).copied()
    };
    let few = points.iter().map(|point| point.queue_depth).min()?;
    let shallow: Vec<Point> = points.iter().filter(|point| point.queue_depth == few).copied().collect();
    let chunk_bytes = smallest(&shallow, &|point| point.chunk_bytes)?.chunk_bytes;
    let of_chunk: Vec<Point> = points.iter().filter(|point| point.chunk_bytes == chunk_bytes).copied().collect();
    let chosen = smallest(&of_chunk, &|point| point.queue_depth as u64)?;
    Some(IoProfile {
        path: path.to_path_buf(),
        chunk_bytes,
        queue_depth: chosen.queue_depth,
        read_bytes_per_second: chosen.read as u64,
        write_bytes_per_second: chosen.write as u64,
    })
}

fn of_path(profile: &IoProfile, path: &Path) -> IoProfile {
    IoProfile { path: path.to_path_buf(), ..profile.clone() }
}

fn is_possible(profile: &IoProfile) -> bool {
    let chunk_bytes = profile.chunk_bytes;
    CHUNK_BYTES.contains(&chunk_bytes) && chunk_bytes.is_multiple_of(4096) && QUEUE_DEPTH.contains(&profile.queue_depth)
}

/// The cache file; without a folder for it, profiles last as long as the process.
struct Cache {
    file: Option<PathBuf>,
    profiles: Profiles,
}

impl Cache {
    fn open(tell: &mut dyn FnMut(&str)) -> Cache {
        let file = cache_folder().ok().map(|folder| folder.join(CACHE_FILE));
        let profiles = file.as_deref().map_or(Ok(Profiles::new()), read).unwrap_or_else(|problem| {
            let place = file.as_deref().unwrap_or(Path::new("")).display();
            tell(&format!("{place}: ignored, and written anew: {problem}"));
            Profiles::new()
        });
        Cache { file, profiles }
    }

    fn write(&self, tell: &mut dyn FnMut(&str)) {
        let Some(file) = &self.file else { return };
        let text = serde_json::to_vec_pretty(&self.profiles).expect("plain numbers serialise");
        let folder = file.parent().unwrap_or(Path::new(""));
        let made = std::fs::create_dir_all(folder).map_err(anyhow::Error::from);
        if let Err(error) = made.and_then(|()| Ok(publish_file(file, &text)?)) {
            tell(&format!("{}: cannot be written, so the next run measures again: {error}", file.display()));
        }
    }
}

/// The profiles of a cache file; none if there is no file.
fn read(file: &Path) -> Result<Profiles, String> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Profiles::new()),
        Err(error) => return Err(error.to_string()),
    };
    let profiles: Profiles = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    match profiles.iter().find(|(_, kept)| !is_possible(kept)) {
        Some((key, _)) => Err(format!("impossible numbers for {key}")),
        None => Ok(profiles),
    }
}

/// The file system that a directory is on.
struct Mount {
    /// Device number and mount point: a drive that was replaced or mounted elsewhere is another one.
    key: String,
    point: PathBuf,
    is_memory: bool,
}

impl Mount {
    /// `None` if the directory does not exist.
    fn of(path: &Path) -> Option<Mount> {
        let path = path.canonicalize().ok()?;
        let device = path.metadata().ok()?.dev();
        // Only Linux has the file; elsewhere the device number has to do.
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let holding = mounts.lines().filter_map(mount_of_line).filter(|(point, _)| path.starts_with(point));
        // Of two mounts on one point the later one hides the earlier.
        let (point, kind) = holding.max_by_key(|(point, _)| point.components().count()).unwrap_or_default();
        let is_memory = ["tmpfs", "ramfs"].contains(&kind);
        Some(Mount { key: format!("{device:#x} {}", point.display()), point, is_memory })
    }
}

/// Mount point and type; proc(5) describes the fields.
fn mount_of_line(line: &str) -> Option<(PathBuf, &str)> {
    let (mount, source) = line.split_once(" - ")?;
    // The kernel writes a space as \040.
    let point = mount.split(' ').nth(4)?.replace("\\040", " ");
    Some((PathBuf::from(point), source.split(' ').next()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn point(chunk_bytes: u64, queue_depth: usize, rate: f64) -> Point {
        Point { chunk_bytes, queue_depth, read: rate, write: rate }
    }

    #[test]
    fn the_smallest_chunk_that_is_fast_with_few_transfers_is_chosen_and_then_the_fewest_transfers() {
        let points = [
            point(256 << 10, 4, 1.0e9),
            point(256 << 10, 64, 4.0e9),
            point(1 << 20, 4, 2.95e9),
            point(1 << 20, 16, 3.95e9),
            point(1 << 20, 64, 4.0e9),
            point(4 << 20, 4, 3.0e9),
            point(4 << 20, 64, 4.0e9),
        ];
        let best = best(Path::new("/a"), &points).unwrap();
        assert_eq!((best.chunk_bytes, best.queue_depth), (1 << 20, 16));
        assert_eq!(best.read_bytes_per_second, 3_950_000_000);
        assert!(super::best(Path::new("/a"), &[]).is_none());
    }

    #[test]
    fn a_line_of_the_mount_table_gives_point_and_type() {
        let line = "36 35 98:0 /mnt1 /mnt/a\\040b rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        assert_eq!(mount_of_line(line), Some((PathBuf::from("/mnt/a b"), "ext3")));
        assert_eq!(mount_of_line("nothing"), None);
    }

    #[test]
    fn numbers_that_no_recipe_may_have_make_the_cache_unusable() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(CACHE_FILE);
        assert_eq!(read(&file), Ok(Profiles::new()));
        let text = |chunk: u64| {
            format!(
                r#"{{"1 /": {{"path": "/a", "chunk_bytes": {chunk}, "queue_depth": 8, "read_bytes_per_second": 1, "write_bytes_per_second": 1}}}}"#
            )
        };
        std::fs::write(&file, text(1 << 20)).unwrap();
        assert_eq!(read(&file).unwrap()["1 /"].queue_depth, 8);
        std::fs::write(&file, text(1000)).unwrap();
        assert!(read(&file).unwrap_err().contains("impossible"));
        std::fs::write(&file, "not JSON").unwrap();
        assert!(read(&file).is_err());
    }
}
