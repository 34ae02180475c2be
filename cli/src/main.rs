//! The `tune` binary: arguments in, exit code out.
//!
//! In:    the command line.
//! Out:   results on stdout, progress and errors on stderr, an exit code (see [`failure`]).
//! Never: decides anything about training; every sub-command is one thin file.

mod args;
mod bench;
mod bench_matmul;
mod data;
mod described;
mod doctor;
mod export;
mod failure;
mod hardware;
mod io_profile;
mod machine;
mod migrate;
mod opened;
mod paint;
mod plan;
mod prepare;
mod progress;
mod rates;
mod report;
mod run;
mod run_directory;
mod subject;

use std::process::ExitCode;

use clap::Parser;

/// Tensors from a heap that holds no more than was planned, the rest from mimalloc: repeated allocation costs 1.5 to 2 times as much with
/// the system's allocator.
#[global_allocator]
static ALLOCATOR: offload::heap::CountedHeap<mimalloc::MiMalloc> = offload::heap::CountedHeap(mimalloc::MiMalloc);

fn main() -> ExitCode {
    let result = match args::Arguments::parse().command {
        args::Command::Run(arguments) => run::run(&arguments),
        args::Command::Plan(arguments) => plan::print(&arguments),
        args::Command::Hardware { command } => hardware::print(&command),
        args::Command::Doctor(arguments) => doctor::print(&arguments),
        args::Command::Bench { command } => bench::print(&command),
        args::Command::Data { command } => data::run(&command),
        args::Command::Export(arguments) => export::run(&arguments),
        args::Command::Migrate(arguments) => migrate::print(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit_code()
        }
    }
}
