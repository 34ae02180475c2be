//! TODO
pub mod adamw;
pub mod map;
