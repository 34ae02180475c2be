//! The loop: reads as the story of a run.
//!
//! In:    a plan, opened weights, a run directory.
//! Out:   a trained adapter, metrics, checkpoints; what happens on the way as [`Event`]s.
//! Never: prints, reads the environment or sees the recipe.

mod activations;
mod adapters;
mod begin_from;
mod beginning;
mod blocks;
mod board;
mod conversation;
mod engine;
mod error;
mod evaluate;
mod events;
pub mod export;
mod gate;
pub mod gguf;
mod layout;
mod learner;
mod load;
mod metrics;
mod model_folder;
mod network;
mod numbers;
mod optimizer;
mod pager;
mod parameters;
mod patient;
mod residency;
mod rule;
mod run;
mod samples;
mod sampling;
mod saver;
mod saving;
mod schedule;
mod stalls;
mod state;
mod subject;
mod survive;
mod traffic;

pub use blocks::base_rounding;
pub use conversation::{Answer, Answering, Conversation, Ended, READ_TOKENS};
pub use engine::{Engine, MicroLoss, Pass};
pub use error::TrainError;
pub use evaluate::{HeldOut, evaluation_tokens};
pub use events::{
    CardMetrics, EvaluationReport, Event, Job, Outcome, PathBytes, PoolMetrics, Resume, StepMetrics, Summary,
};
pub use layout::{GroupLayout, Slot};
pub use learner::{Learner, StepResult, tiers};
pub use load::{device, gguf_vocabulary, tokenizer};
pub use metrics::peak_rss_bytes;
pub use network::{Network, Tuned};
pub use optimizer::Finish;
pub use parameters::Parameters;
pub use residency::Residency;
pub use run::{Listener, steps, train};
pub use sampling::Sampling;
pub use saver::SaveReport;
pub use schedule::learning_rate;
pub use stalls::StallReport;
pub use subject::{PLAN_FILE, RECIPE_FILE, Subject, Trained, subject};
