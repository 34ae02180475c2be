//! One random run over the NVMe tier with random faults below it, held against plain vectors.
//!
//! In:    a seed and a directory.
//! Out:   how the run ended, or the promise it broke.
//! Never: accepts a wrong byte, an error without a place, a lost buffer or a file left behind.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use offload::{
    Array, Buffer, EngineChoice, EngineKind, Extent, FaultPlan, Place, Slabs, Store, StoreOptions, Ticket, TierError,
    Tiers,
};

/// A run of some milliseconds that takes so long hangs.
const HANG: Duration = Duration::from_secs(60);
/// Bytes per 256 elements of the arrays: absolute maxima, codes, bf16, f32.
const WIDTHS: [usize; 4] = [4, 256, 512, 1024];

/// How a run that kept its promises ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every byte as in the model.
    Correct {
        /// An engine was lost on the way and replaced.
        engine_replaced: bool,
    },
    /// A typed error that names its place; its variant.
    Refused(&'static str),
}

/// Makes runs number `first` to `first + count - 1` on `workers` threads, and calls `seen` for each.
///
/// # Errors
/// The first broken promise, or a hang.
pub fn run_many(first: u64, count: u64, workers: u64, mut seen: impl FnMut(u64, Ending)) -> Result<(), String> {
    let (sender, endings) = channel();
    let mut open: BTreeSet<u64> = (first..first + count).collect();
    for worker in 0..workers {
        let sender = sender.clone();
        std::thread::spawn(move || {
            for seed in (first + worker..first + count).step_by(workers as usize) {
                if sender.send((seed, run(seed))).is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    for _ in 0..count {
        match endings.recv_timeout(HANG) {
            Ok((seed, Ok(ending))) => {
                open.remove(&seed);
                seen(seed, ending);
            }
            Ok((seed, Err(broken))) => return Err(format!("seed {seed}: {broken}")),
            Err(RecvTimeoutError::Timeout) => return Err(format!("hangs for {HANG:?}; not ended: {open:?}")),
            Err(RecvTimeoutError::Disconnected) => return Err("a run panicked".to_owned()),
        }
    }
    Ok(())
}

/// One run in a directory of its own.
pub fn run(seed: u64) -> Result<Ending, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut random = Random(seed);
    let options = options(&mut random, folder.path(), seed)?;
    let harmless = is_harmless(&options);
    // A write beyond the budget is only told to who waits for it: then no ticket is dropped.
    let kinds = if options.write_budget_bytes.is_some() { 4 } else { 5 };
    let paths = options.paths.clone();
    let store = Store::open(options).map_err(|error| format!("cannot open: {error}"))?;
    let pool = store.pool().clone();
    let ended = use_store(&mut random, store, kinds);
    if pool.free_count() != pool.count() {
        return Err(format!("{} of {} buffers came back", pool.free_count(), pool.count()));
    }
    for path in &paths {
        if std::fs::read_dir(path).map_err(|error| error.to_string())?.next().is_some() {
            return Err(format!("files are left in {}", path.display()));
        }
    }
    match ended {
        Ok(ending) => Ok(ending),
        Err(Failure::Broken(broken)) => Err(broken),
        Err(Failure::Typed(error)) if harmless => Err(format!("an error without a fatal fault: {error}")),
        Err(Failure::Typed(error)) => named(&error, &paths).map(Ending::Refused),
    }
}

enum Failure {
    /// A typed error of the tier.
    Typed(TierError),
    /// A broken promise.
    Broken(String),
}

impl From<TierError> for Failure {
    fn from(error: TierError) -> Failure {
        Failure::Typed(error)
    }
}

fn options(random: &mut Random, folder: &Path, seed: u64) -> Result<StoreOptions, String> {
    let mut paths = vec![folder.join("first")];
    if random.below(2) == 0 {
        paths.push(folder.join("second"));
    }
    for path in &paths {
        std::fs::create_dir(path).map_err(|error| error.to_string())?;
    }
    let engine = if random.below(2) == 0 { EngineChoice::Auto } else { EngineChoice::Threads };
    let budget = (random.below(10) == 0).then(|| random.below(1 << 20));
    let faults = if random.below(10) == 0 { FaultPlan::none(seed) } else { FaultPlan::random(seed) };
    Ok(StoreOptions {
        run: format!("seed-{seed}"),
        paths,
        engine,
        buffers: 2 + random.below(6) as usize,
        buffer_bytes: 64 << 10,
        queue_depth: 1 + random.below(6) as usize,
        write_budget_bytes: budget,
        faults: Some(faults),
    })
}

/// Whether everything that happens in this run can be made good.
fn is_harmless(options: &StoreOptions) -> bool {
    let fatal = |plan: &FaultPlan| plan.eio + plan.enospc + plan.flip + plan.torn + plan.lost;
    options.write_budget_bytes.is_none() && options.faults.as_ref().is_none_or(|plan| fatal(plan) == 0.0)
}

/// Random reads and writes; the store is gone when this returns.
fn use_store(random: &mut Random, store: Store, kinds: u64) -> Result<Ending, Failure> {
    let first_kind = store.engine().kind;
    let tiers = Tiers { device: Slabs::new("device", 0), dram: Slabs::new("dram", 0), nvme: Some(store.clone()) };
    let mut arrays = Vec::new();
    for number in 0..1 + random.below(3) {
        let width = WIDTHS[random.below(4) as usize];
        let span = 256 * (1 + random.below(64) as usize);
        let elements = 256 * (1 + random.below(400));
        let array = tiers.array(Place::Nvme, &format!("tensor-{number}"), elements, width, span)?;
        let model = vec![0u8; array.bytes() as usize];
        arrays.push((array, model));
    }
    for _ in 0..10 + random.below(20) {
        let chosen = random.below(arrays.len() as u64) as usize;
        let (array, model) = &mut arrays[chosen];
        match random.below(kinds) {
            0 | 1 => write_range(random, array, model)?,
            2 => read_range(random, array, model)?,
            3 => burst(random, array, model)?,
            _ => drop_tickets(random, array, model),
        }
    }
    for (array, model) in &arrays {
        let mut all = vec![0xAA; model.len()];
        array.read(0, &mut all)?;
        same(array, 0, &all, model)?;
    }
    let engine_replaced = first_kind == EngineKind::IoUring && store.engine().kind == EngineKind::Threads;
    Ok(Ending::Correct { engine_replaced })
}

/// A random range of blocks, as bytes.
fn range(random: &mut Random, array: &Array) -> (u64, std::ops::Range<usize>) {
    let blocks = array.elements() / 256;
    let first = random.below(blocks);
    let count = 1 + random.below(blocks - first);
    let bytes = |block: u64| block as usize * array.bytes_per_256();
    (first * 256, bytes(first)..bytes(first + count))
}

fn write_range(random: &mut Random, array: &mut Array, model: &mut [u8]) -> Result<(), Failure> {
    let (first, bytes) = range(random, array);
    random.fill(&mut model[bytes.clone()]);
    array.write(first, &model[bytes])?;
    Ok(())
}

fn read_range(random: &mut Random, array: &Array, model: &[u8]) -> Result<(), Failure> {
    let (first, bytes) = range(random, array);
    let mut found = vec![0x55; bytes.len()];
    array.read(first, &mut found)?;
    same(array, bytes.start, &found, &model[bytes])
}

/// Several transfers in flight, also of the same chunk: they must happen in the order they were asked for.
fn burst(random: &mut Random, array: &Array, model: &mut [u8]) -> Result<(), Failure> {
    let Some((store, extent)) = array.on_nvme() else { return Ok(()) };
    let mut flying: Vec<(Ticket, usize, Vec<u8>)> = Vec::new();
    for _ in 0..2 + random.below(store.pool().count() as u64 - 1) {
        let buffer = store.pool().take();
        let chunk = random.below(extent.chunks() as u64) as usize;
        let ticket = transfer(random, (store, extent), chunk, buffer, model);
        flying.push((ticket, chunk, model[bytes_of(extent, chunk)].to_vec()));
    }
    for (ticket, chunk, expected) in flying {
        let buffer = ticket.wait()?;
        same(array, bytes_of(extent, chunk).start, &buffer[..expected.len()], &expected)?;
    }
    Ok(())
}

/// Transfers whose end nobody waits for.
fn drop_tickets(random: &mut Random, array: &Array, model: &mut [u8]) {
    let Some((store, extent)) = array.on_nvme() else { return };
    for _ in 0..1 + random.below(3) {
        let buffer = store.pool().take();
        let chunk = random.below(extent.chunks() as u64) as usize;
        drop(transfer(random, (store, extent), chunk, buffer, model));
    }
}

fn transfer(
    random: &mut Random,
    place: (&Store, &Extent),
    chunk: usize,
    mut buffer: Buffer,
    model: &mut [u8],
) -> Ticket {
    let (store, extent) = place;
    if random.below(2) == 0 {
        return store.read(extent, chunk, buffer);
    }
    let part = &mut model[bytes_of(extent, chunk)];
    random.fill(part);
    buffer[..part.len()].copy_from_slice(part);
    store.write(extent, chunk, buffer)
}

fn bytes_of(extent: &Extent, chunk: usize) -> std::ops::Range<usize> {
    let first = chunk * extent.chunk_bytes();
    first..first + extent.chunk_len(chunk)
}

fn same(array: &Array, first: usize, found: &[u8], expected: &[u8]) -> Result<(), Failure> {
    match found.iter().zip(expected).position(|(found, expected)| found != expected) {
        Some(at) => Err(Failure::Broken(format!("{}: byte {} is wrong", array.name(), first + at))),
        None => Ok(()),
    }
}

/// The variant of an error that says where it happened.
fn named(error: &TierError, paths: &[PathBuf]) -> Result<&'static str, String> {
    let (variant, path, tensor) = match error {
        TierError::WriteBudget { .. } => return Ok("WriteBudget"),
        TierError::Io { path, tensor, .. } => ("Io", path, tensor),
        TierError::NoSpace { path, tensor, .. } => ("NoSpace", path, tensor),
        TierError::Checksum { path, tensor, .. } => ("Checksum", path, tensor),
        TierError::Stalled { path, tensor, .. } => ("Stalled", path, tensor),
        TierError::EngineLost { path, tensor, .. } => ("EngineLost", path, tensor),
        other => return Err(format!("an error that no fault explains: {other}")),
    };
    let placed = paths.iter().any(|known| path.starts_with(known)) && tensor.starts_with("tensor-");
    placed.then_some(variant).ok_or_else(|| format!("an error without its place: {error}"))
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(&self.next().to_le_bytes()[..part.len()]);
        }
    }
}
