//! The `tune` binary: arguments in, exit code out.
//!
//! In:    the command line.
//! Out:   results on stdout, progress and errors on stderr, an exit code (see [`failure`]).
//! Never: decides anything about training; every sub-command is one thin file.

mod args;
mod bench;
mod bench_kernels;
mod bench_matmul;
mod card_state;
mod chat;
mod checkpoint;
mod data;
mod described;
mod doctor;
mod eval;
mod export;
mod failure;
mod hardware;
mod io_profile;
mod machine;
mod markup;
mod migrate;
mod opened;
mod paint;
mod plan;
mod plan_report;
mod prepare;
mod progress;
mod rates;
mod report;
mod run;
mod run_directory;
mod sessions;
mod subject;

use std::process::ExitCode;

use clap::Parser;

/// Tensors from a heap that holds no more than was planned, the rest from mimalloc: repeated allocation costs 1.5 to 2 times as much with
/// the system's allocator.
#[global_allocator]
static ALLOCATOR: offload::heap::CountedHeap<mimalloc::MiMalloc> = offload::heap::CountedHeap(mimalloc::MiMalloc);

/// Stack of a worker. The engine of chat templates recurses; with less than 6 MB left it takes a stack of its own for every row.
const WORKER_STACK_BYTES: usize = 16 << 20;

/// Where in the cache devices keep which kernels are fastest on them.
const DEVICES_FOLDER: &str = "devices";

fn main() -> ExitCode {
    if let Err(error) = rayon::ThreadPoolBuilder::new().stack_size(WORKER_STACK_BYTES).build_global() {
        eprintln!("note: threads with the usual stacks, chat templates will render slower: {error}");
    }
    if let Ok(folder) = prepare::cache_folder() {
        kernels::devices::keep_trials_in(&folder.join(DEVICES_FOLDER));
    }
    let result = match args::Arguments::parse_from(args::joined(std::env::args_os())).command {
        args::Command::Run(arguments) => run::run(&arguments),
        args::Command::Plan(arguments) => plan::print(&arguments),
        args::Command::Hardware { command } => hardware::print(&command),
        args::Command::Doctor(arguments) => doctor::print(&arguments),
        args::Command::Bench { command } => bench::print(&command),
        args::Command::Data { command } => data::run(&command),
        args::Command::Checkpoints { command } => checkpoint::run(&command),
        args::Command::Export(arguments) => export::run(&arguments),
        args::Command::Migrate(arguments) => migrate::print(&arguments),
        args::Command::Chat(arguments) => chat::run(&arguments),
        args::Command::Eval(arguments) => eval::print(&arguments),
        args::Command::Report(arguments) => report::print(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit_code()
        }
    }
}
