//! What survives: model files, adapters, checkpoints, and the lock of a run directory.
//!
//! In:    paths and places of model files; tensors and facts to keep.
//! Out:   tensors under Hugging Face names, whatever the file format was; files that are published whole or not at all.
//! Never: trusts a length, an offset or a count that a file states; prints.

pub mod checkpoint;
pub mod difference;
pub mod gguf;
pub mod lock;
pub mod merged;
pub mod model_folder;
pub mod narrow;
pub mod peft;
pub mod source;
pub mod stream;
pub mod tensors;
pub mod weights;
