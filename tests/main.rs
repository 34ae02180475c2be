//! The `tune` binary and the repository from outside. One binary, so that everything links once.
//!
//! In:    the built program, `tests/fixtures/`, the sources.
//! Out:   facts, as sentences.
//! Never: a mock of the thing under test.
#![allow(clippy::unwrap_used)]

mod bigger_than_memory;
mod checkpoints;
mod cli;
mod control_group;
mod data;
mod doctor;
mod export;
mod export_gguf;
mod export_refused;
mod gguf_export;
mod killed_anywhere;
mod memory_grid;
mod offload;
mod parity;
mod plan_cli;
mod plan_show;
mod plans;
mod report;
mod smollm2;
mod survival;
mod talk;
mod tidy;
mod tiers;
