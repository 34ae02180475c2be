//! Facts about pages, charts and tables, each on a plan that the planner made.
#![allow(clippy::unwrap_used)]

mod charts;
mod pages;
mod samples;
mod tables;
