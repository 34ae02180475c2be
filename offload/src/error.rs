//! Why bytes could not be kept in, or brought back from, a memory tier.
//!
//! In:    what the system said, and where.
//! Out:   one variant a cause, with the file, the offset, the tensor and the numbers.
//! Never: prints, and never hides which tensor is concerned.

use std::io;
use std::path::PathBuf;

/// Where in a file and for which tensor; nothing for errors that concern no tensor.
fn place(offset: u64, tensor: &str) -> String {
    match tensor {
        "-" => String::new(),
        tensor => format!(" at byte {offset}, tensor {tensor}"),
    }
}

/// What went wrong in a tier. Offsets and sizes are bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TierError {
    /// The system refused an operation on a file.
    #[error("{path}: cannot {operation}{}: {source}", place(*offset, tensor), path = path.display())]
    Io {
        /// What was tried, a verb.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Where in the file; 0 where no place is concerned.
        offset: u64,
        /// The tensor whose bytes they are; `-` where none is concerned.
        tensor: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file system is full.
    #[error(
        "{path}: {needed_bytes} bytes are needed for tensor {tensor} but {free_bytes} are free; free some space or give another path",
        path = path.display()
    )]
    NoSpace {
        /// The file.
        path: PathBuf,
        /// The tensor that had to be placed or written.
        tensor: String,
        /// How much was asked for.
        needed_bytes: u64,
        /// How much the file system has for this user.
        free_bytes: u64,
    },
    /// What was read is not what had been written.
    #[error(
        "{path}: the bytes at {offset} of tensor {tensor} changed on the disk: checksum {found:016x} instead of {expected:016x}; \
         resume from the last checkpoint, and check this disk",
        path = path.display()
    )]
    Checksum {
        /// The file.
        path: PathBuf,
        /// First byte of the chunk.
        offset: u64,
        /// The tensor.
        tensor: String,
        /// XXH3-64 of what was written.
        expected: u64,
        /// XXH3-64 of what came back.
        found: u64,
    },
    /// A file ended before the bytes that had been reserved in it.
    #[error(
        "{path}: the file ends at {end} but tensor {tensor} goes on for {missing_bytes} bytes; something else shortened it",
        path = path.display()
    )]
    ShortFile {
        /// The file.
        path: PathBuf,
        /// Where the read met the end.
        end: u64,
        /// The tensor.
        tensor: String,
        /// Bytes that should still have come.
        missing_bytes: u64,
    },
    /// A tier's budget is used up.
    #[error(
        "{what} needs {asked_bytes} bytes of {tier} memory, of which {used_bytes} of {budget_bytes} are in use; raise the budget or move a class to another tier"
    )]
    OverBudget {
        /// The tier.
        tier: &'static str,
        /// What the memory is for.
        what: String,
        /// Bytes asked for.
        asked_bytes: u64,
        /// Bytes in use.
        used_bytes: u64,
        /// The budget.
        budget_bytes: u64,
    },
    /// The system gave no memory although the budget allows it.
    #[error(
        "{what}: the system refused {bytes} bytes of memory: {source}; lower the budget, or the limit of the control group is too low"
    )]
    Memory {
        /// What the memory is for.
        what: String,
        /// Bytes asked for.
        bytes: u64,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The next write would spend more of the disk's life than allowed. It was not made.
    #[error(
        "the write budget of {budget_bytes} bytes is spent: {written_bytes} are written and {next_bytes} would follow; \
         raise offload.write_budget_tb to go on"
    )]
    WriteBudget {
        /// What may be written.
        budget_bytes: u64,
        /// What was written or is on its way.
        written_bytes: u64,
        /// The write that was refused.
        next_bytes: u64,
    },
    /// Another process runs under the same name.
    #[error("{path}: in use by another process of the same run; stop it or name the run differently", path = path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A path, or what is asked of a tier, cannot work at all.
    #[error("{path}: cannot be a tier: {reason}", path = path.display())]
    NotATier {
        /// The path.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// Tensors were to live on NVMe in a run without NVMe paths.
    #[error("{what} is to live on NVMe but no path is given; set offload.nvme")]
    NoNvme {
        /// The array.
        what: String,
    },
    /// The disk answers nothing at all.
    #[error(
        "{path}: no request was completed for {seconds:.1} s; one of them is tensor {tensor} at byte {offset}; the disk or its driver hangs",
        path = path.display()
    )]
    Stalled {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// The tensor.
        tensor: String,
        /// How long nothing came, seconds.
        seconds: f64,
    },
    /// The engine stopped with this request unfinished, and it could not be made again.
    #[error("{path}: the I/O engine stopped before tensor {tensor} at byte {offset} was done: {reason}", path = path.display())]
    EngineLost {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// The tensor.
        tensor: String,
        /// Why.
        reason: String,
    },
    /// The engine that was asked for does not run here.
    #[error("the {engine} engine does not run here: {reason}; leave the choice to `auto`")]
    EngineRefused {
        /// The engine.
        engine: &'static str,
        /// Why.
        reason: String,
    },
    /// Fewer transfer buffers than one span of a walk needs at the same time.
    #[error(
        "{needed} transfer buffers are needed at the same time but the pool has {count}; give the store at least three times {needed}"
    )]
    TooFewBuffers {
        /// Arrays on NVMe that are walked together.
        needed: usize,
        /// Buffers in the pool.
        count: usize,
    },
    /// A change of a group's arrays failed half-way earlier: some spans are before it and some after.
    #[error("group {group} was left half-way by an earlier error; resume from the last checkpoint")]
    Torn {
        /// The group.
        group: String,
    },
}

impl TierError {
    /// Whether the write budget stopped the run, which can be resumed.
    pub fn is_write_budget(&self) -> bool {
        matches!(self, TierError::WriteBudget { .. })
    }
}
