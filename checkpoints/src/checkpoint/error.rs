//! Why a checkpoint cannot be written or read: one variant for each way in which a folder can lie.
//!
//! In:    paths and numbers of the check that failed.
//! Out:   one line each, with what to do.
//! Never: one word for two causes.

use std::path::PathBuf;

use offload::durable::DurableError;

use super::manifest::{MANIFEST, VERSION};
use crate::tensors::TensorsError;

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// It could not be published.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// A folder or file that the system refuses.
    #[error("{path}: cannot be read: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file is not there: the folder was never finished, or something was removed from it.
    #[error("{path}: checkpoint is incomplete: {file} is missing; go on from another one", path = path.display())]
    Missing {
        /// The checkpoint.
        path: PathBuf,
        /// The file.
        file: String,
    },
    /// A file was cut or has grown.
    #[error("{path}: checkpoint is damaged: {file} has {bytes} bytes, {MANIFEST} says {expected}", path = path.display())]
    Size {
        /// The checkpoint.
        path: PathBuf,
        /// The file.
        file: String,
        /// Its size.
        bytes: u64,
        /// Its size when it was written.
        expected: u64,
    },
    /// A file has other bytes than were written.
    #[error(
        "{path}: checkpoint is damaged: {file} has SHA-256 {found}, {MANIFEST} says {expected}: bits changed after it was written; \
         check the disk", path = path.display()
    )]
    Digest {
        /// The checkpoint.
        path: PathBuf,
        /// The file.
        file: String,
        /// Digest of what is there.
        found: String,
        /// Digest of what was written.
        expected: String,
    },
    /// The manifest was changed.
    #[error("{path}: checkpoint is damaged: {MANIFEST}: {reason}", path = path.display())]
    Manifest {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The manifest is not one that this program writes.
    #[error("{path}: {MANIFEST} is not that of a checkpoint of this program: {reason}", path = path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// What it lacks.
        reason: String,
    },
    /// A file that the manifest does not know.
    #[error("{path}: holds {file}, which {MANIFEST} does not list; move it elsewhere", path = path.display())]
    ForeignFile {
        /// The checkpoint.
        path: PathBuf,
        /// The file.
        file: String,
    },
    /// Written by another version of the program.
    #[error(
        "{path}: checkpoint has format version {found}; this program reads {VERSION}: go on with the version that wrote it ({tool})",
        path = path.display()
    )]
    Version {
        /// The checkpoint.
        path: PathBuf,
        /// Its format version.
        found: u64,
        /// The version of the program that wrote it, as far as it says.
        tool: String,
    },
    /// No checkpoint of this step.
    #[error("{folder}: no checkpoint of step {step}; there are: {there}", folder = folder.display())]
    NoStep {
        /// The run directory.
        folder: PathBuf,
        /// The step asked for.
        step: u64,
        /// Those that exist.
        there: String,
    },
    /// No complete checkpoint at all.
    #[error("{folder}: holds no complete checkpoint{damaged}", folder = folder.display())]
    NoneComplete {
        /// The run directory.
        folder: PathBuf,
        /// Damaged ones, named.
        damaged: String,
    },
    /// A state that must not be kept.
    #[error("step {step}: the loss {loss} is not finite; the state is not kept")]
    NotFinite {
        /// The step.
        step: u64,
        /// The loss.
        loss: f64,
    },
    /// The state's tensor file is damaged.
    #[error(transparent)]
    Tensors(#[from] TensorsError),
}

impl CheckpointError {
    /// Whether the folder is not what was written, so that an older checkpoint may take its place.
    pub fn is_damage(&self) -> bool {
        use CheckpointError::{Digest, Foreign, ForeignFile, Manifest, Missing, Size};
        matches!(
            self,
            Missing { .. } | Size { .. } | Digest { .. } | Manifest { .. } | Foreign { .. } | ForeignFile { .. }
        )
    }

    /// Whether what the user named cannot be used, rather than that the system failed.
    pub fn is_bad_input(&self) -> bool {
        use CheckpointError::{NoStep, NoneComplete, Tensors, Version};
        self.is_damage() || matches!(self, NoStep { .. } | NoneComplete { .. } | Tensors(_) | Version { .. })
    }
}
