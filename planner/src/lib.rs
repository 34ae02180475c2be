//! Decides, before anything is loaded, what a run will do and how much memory it needs.
//!
//! In:    a checked recipe, a description of the model, what the machine has.
//! Out:   a [`plan::Plan`]: every `auto` answered, every room's part separate.
//! Never: opens a file, touches a device, imports Burn. Same inputs, same plan.

pub mod architecture;
pub mod config;
pub mod costs;
pub mod decide;
pub mod hardware;
pub mod inference;
pub mod inventory;
pub mod machine;
pub mod memory;
pub mod plan;
pub mod rates;
pub mod report;
pub mod serving;
pub mod stacks;
pub mod time;
pub mod units;
pub mod what_fits;

pub use decide::{Decision, Misfit, PlanError, data, decide, plan, resolved};
pub use machine::{IoProfile, Machine};
