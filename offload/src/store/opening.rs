//! How a store comes up.
//!
//! In:    its options.
//! Out:   locked directories, open files, allocated buffers, a running I/O thread.
//! Never: leaves anything behind when one of the steps fails.

use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};

use super::choice::{EngineParts, choose};
use super::driver::Driver;
use super::files::SwapFile;
use super::*;

/// How long no request may complete before the disk counts as hanging.
const STALL_AFTER: Duration = Duration::from_secs(60);
/// Longest run name: directory names have 255 bytes.
const RUN_NAME_MAX: usize = 200;

/// Opens a store, see [`Store::open`].
pub(super) fn open(options: StoreOptions) -> Result<Store, TierError> {
    check(&options)?;
    let notes = Arc::new(Notes::default());
    let mut directories = Vec::with_capacity(options.paths.len());
    let mut files = Vec::with_capacity(options.paths.len());
    for path in &options.paths {
        let directory = RunDirectory::claim(path, &options.run, &notes)?;
        directory::remove_dead(path, &notes)?;
        files.push(SwapFile::create(directory.path(), &notes)?);
        directories.push(directory);
    }
    let pool = BufferPool::new(options.buffers, options.buffer_bytes)?;
    let layout = Arc::new(Layout::new(files, Arc::clone(&notes)));
    let stall_after = options.faults.as_ref().map_or(STALL_AFTER, |plan| plan.stall_after);
    let parts = EngineParts {
        layout: Arc::clone(&layout),
        pool: pool.clone(),
        queue_depth: options.queue_depth,
        stall_after,
        faults: options.faults,
        notes: Arc::clone(&notes),
    };
    let (links, ended) = spawn(options.engine, parts)?;
    Ok(Store {
        shared: Arc::new(Shared {
            paths: options.paths,
            pool,
            layout,
            links,
            notes,
            write_budget_bytes: options.write_budget_bytes,
            spent_bytes: AtomicU64::new(0),
            verify: AtomicBool::new(true),
            patience: stall_after,
            ended: Mutex::new(ended),
            _directories: directories,
        }),
    })
}

/// Starts the I/O thread and waits until it has an engine.
fn spawn(choice: EngineChoice, parts: EngineParts) -> Result<(DriverLinks, Receiver<()>), TierError> {
    let inbox = Arc::new(Inbox::new(Waker::new()));
    let (started, starts) = sync_channel(1);
    let (ends, ended) = channel();
    let builder = std::thread::Builder::new().name("tune-nvme".to_owned());
    let spawned = builder.spawn(move || drive(choice, parts, inbox, &started, ends));
    let refused = |reason: String| TierError::EngineRefused { engine: "disk", reason };
    spawned.map_err(|error| refused(format!("no thread for it: {error}")))?;
    let links = starts.recv().map_err(|_| refused("its thread ended at once".to_owned()))??;
    Ok((links, ended))
}

/// The life of the I/O thread; `_ends` tells of its end by going away.
fn drive(
    choice: EngineChoice,
    parts: EngineParts,
    inbox: Arc<Inbox>,
    started: &SyncSender<Result<DriverLinks, TierError>>,
    _ends: Sender<()>,
) {
    let (engine, report) = match choose(choice, &parts, &inbox) {
        Ok(chosen) => chosen,
        Err(error) => return drop(started.send(Err(error))),
    };
    let links =
        DriverLinks { inbox, traffic: counters(parts.layout.files.len()), report: Arc::new(Mutex::new(report)) };
    if started.send(Ok(links.clone())).is_ok() {
        Driver::new(links, parts, engine).run();
    }
}

/// Refuses what cannot work before anything is touched.
fn check(options: &StoreOptions) -> Result<(), TierError> {
    let refuse =
        |path: &Path, reason: &str| Err(TierError::NotATier { path: path.to_owned(), reason: reason.to_owned() });
    let Some(first) = options.paths.first() else {
        return Err(TierError::NoNvme { what: format!("the swap of run {}", options.run) });
    };
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    if options.run.is_empty() || options.run.len() > RUN_NAME_MAX || !options.run.chars().all(allowed) {
        return refuse(first, "the run's name must be 1 to 200 letters, digits, dots, dashes and underscores");
    }
    if options.buffers == 0 || options.buffer_bytes == 0 || options.queue_depth == 0 {
        return refuse(first, "it needs at least one buffer of at least one byte and a queue depth of at least 1");
    }
    if options.buffer_bytes > 1 << 30 {
        return refuse(first, "a buffer is larger than 1 GiB, more than one request can move");
    }
    let mut seen = Vec::new();
    for path in &options.paths {
        let real = match path.canonicalize() {
            Ok(real) => real,
            Err(source) => return Err(directory::refused("find the directory", path, source)),
        };
        if !real.is_dir() {
            return refuse(path, "it is no directory; give one on the disk");
        }
        if seen.contains(&real) {
            return refuse(path, "it is given twice; give each disk once");
        }
        seen.push(real);
    }
    Ok(())
}
