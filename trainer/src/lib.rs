//! The loop: reads as the story of a run.
//!
//! In:    a plan, opened weights, a run directory.
//! Out:   a trained adapter, metrics, checkpoints; what happens on the way as [`Event`]s.
//! Never: prints, reads the environment or sees the recipe.

mod adapters;
mod engine;
mod error;
mod evaluate;
mod events;
mod load;
mod metrics;
mod residency;
mod run;
mod schedule;
mod survive;

pub use adapters::AdapterStore;
pub use engine::{Engine, MicroLoss};
pub use error::TrainError;
pub use events::{EvaluationReport, Event, Job, Outcome, StepMetrics, Summary};
pub use load::{decoder, device, gguf_vocabulary, tokenizer};
pub use metrics::peak_rss_bytes;
pub use residency::Residency;
pub use run::{Listener, train};
pub use schedule::learning_rate;
