//! `tune bench`: this machine against its limits.
//!
//! In:    directories, sizes.
//! Out:   a table or JSON on stdout.
//! Never: leaves a file behind; compares figures of different runs.

use anyhow::anyhow;
use offload::array::Place;
use offload::bench_adam::{AdamOptions, AdamReport, TRIAD_ELEMENTS, bench_adam};
use offload::bench_io::{Checksums, IoBench, IoReport, bench_io};
use offload::rules::{Adafactor, AdamW, Lion, Rule, Sgd};
use offload::store::EngineChoice;
use planner::units::bytes_text;
use serde_json::json;

use crate::args::{BenchAdamArguments, BenchCommand, BenchEngine, BenchIoArguments, BenchRule, BenchTier};
use crate::failure::{Failure, OrFail};
use crate::{bench_kernels, bench_matmul};

/// Smallest and largest request, bytes.
const CHUNK_MIN: u64 = 4 << 10;
const CHUNK_MAX: u64 = 256 << 20;
const DEPTH_MAX: usize = 4096;

/// Measures and prints.
pub fn print(command: &BenchCommand) -> Result<(), Failure> {
    match command {
        BenchCommand::Io(arguments) => io(arguments),
        BenchCommand::Adam(arguments) => adam(arguments),
        BenchCommand::Matmul(arguments) => bench_matmul::print(arguments),
        BenchCommand::Kernels(arguments) => bench_kernels::print(arguments),
    }
}

fn check_chunk(chunk: u64) -> Result<usize, Failure> {
    if (CHUNK_MIN..=CHUNK_MAX).contains(&chunk) && chunk.is_multiple_of(CHUNK_MIN) {
        return Ok(chunk as usize);
    }
    Err(anyhow!("--chunk {chunk}: expected a multiple of 4 KiB from 4 KiB to 256 MiB")).or_input()
}

fn io(arguments: &BenchIoArguments) -> Result<(), Failure> {
    let chunk_bytes = check_chunk(arguments.chunk)?;
    if !(1..=DEPTH_MAX).contains(&arguments.depth) {
        return Err(anyhow!("--depth {}: expected 1 to {DEPTH_MAX}", arguments.depth)).or_input();
    }
    let report = bench_io(&IoBench {
        engine: match arguments.engine {
            BenchEngine::Auto => EngineChoice::Auto,
            BenchEngine::IoUring => EngineChoice::IoUring,
            BenchEngine::Threads => EngineChoice::Threads,
        },
        total_bytes: arguments.size,
        chunk_bytes,
        queue_depth: arguments.depth,
        checksums: if arguments.no_checksums { Checksums::Off } else { Checksums::On },
        ..IoBench::new(arguments.path.clone())
    });
    let report = report.or_run()?;
    report.notes.iter().for_each(|note| eprintln!("{note}"));
    match arguments.json {
        true => println!("{:#}", io_json(&report)),
        false => print!("{}", io_table(&report)),
    }
    Ok(())
}

fn io_table(report: &IoReport) -> String {
    let direct = report.engine.direct.iter().all(|direct| *direct);
    let cache = if direct { "past the page cache" } else { "through the page cache" };
    let requests =
        format!("{} each, {} in flight per directory", bytes_text(report.chunk_bytes as u64), report.queue_depth);
    let rate = |bytes_per_second: f64| format!("{}/s", bytes_text(bytes_per_second as u64));
    let rows = [
        ("engine", format!("{}, {cache}", report.engine.why)),
        ("requests", requests),
        ("first write", rate(report.first_write.bytes_per_second())),
        ("overwrite", rate(report.write.bytes_per_second())),
        ("read", rate(report.read.bytes_per_second())),
    ];
    rows.into_iter().map(|(name, value)| format!("{name:<12} {value}\n")).collect()
}

fn io_json(report: &IoReport) -> serde_json::Value {
    json!({
        "engine": report.engine.kind.to_string(),
        "direct": report.engine.direct,
        "registered_buffers": report.engine.registered_buffers,
        "chunk_bytes": report.chunk_bytes,
        "queue_depth": report.queue_depth,
        "first_write_bytes_per_second": report.first_write.bytes_per_second(),
        "write_bytes_per_second": report.write.bytes_per_second(),
        "read_bytes_per_second": report.read.bytes_per_second(),
    })
}

fn adam(arguments: &BenchAdamArguments) -> Result<(), Failure> {
    let span_elements = check_chunk(arguments.chunk)? / 4;
    if arguments.tier == BenchTier::Nvme && arguments.path.is_empty() {
        return Err(anyhow!("--tier nvme needs --path DIR")).or_input();
    }
    if arguments.steps == 0 || arguments.parameters == 0 {
        return Err(anyhow!("--steps and --parameters must be at least 1")).or_input();
    }
    let report = bench_adam(&AdamOptions {
        place: match arguments.tier {
            BenchTier::Dram => Place::Dram,
            BenchTier::Nvme => Place::Nvme,
        },
        elements: arguments.parameters,
        steps: arguments.steps,
        rule: rule(arguments.rule),
        working: arguments.bf16_copy,
        span_elements,
        paths: arguments.path.clone(),
        engine: EngineChoice::Auto,
        triad_elements: TRIAD_ELEMENTS,
    });
    let report = report.or_run()?;
    match arguments.json {
        true => println!("{:#}", adam_json(&report)),
        false => print!("{}", adam_table(&report)),
    }
    Ok(())
}

/// Usual constants; they do not change how many bytes move.
fn rule(rule: BenchRule) -> Rule {
    let adamw = AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 };
    match rule {
        BenchRule::Adamw => Rule::AdamW(adamw),
        BenchRule::Adamw8bit => Rule::AdamW8bit(adamw),
        BenchRule::AdamwBf16 => Rule::AdamWBf16(adamw),
        BenchRule::Lion => Rule::Lion(Lion { beta1: 0.9, beta2: 0.99, weight_decay: 0.01 }),
        BenchRule::Sgd => Rule::Sgd(Sgd { momentum: 0.9, weight_decay: 0.01 }),
        BenchRule::Adafactor => Rule::Adafactor(Adafactor { weight_decay: 0.01 }),
    }
}

fn adam_table(report: &AdamReport) -> String {
    let rate = |bytes_per_second: f64| format!("{}/s", bytes_text(bytes_per_second as u64));
    let share = |share: f64| format!("{:.0} %", 100.0 * share);
    let millions = report.elements as f64 / 1e6;
    let mut rows = vec![
        (
            "update",
            format!("{millions:.1} M parameters in {:.1} ms on {} threads", report.seconds * 1e3, report.threads),
        ),
        ("bytes", format!("{:.1} a parameter, {}", report.bytes_per_parameter, rate(report.bytes_per_second))),
        (
            "triad",
            format!(
                "{}; the update moves {} of it",
                rate(report.triad_bytes_per_second),
                share(report.share_of_triad())
            ),
        ),
    ];
    if let (Some(store), Some(of_store)) = (report.store_bytes_per_second, report.share_of_store()) {
        rows.push(("disk alone", format!("{}; the update moves {} of it", rate(store), share(of_store))));
        rows.push(("waiting", format!("{:.1} ms an update", report.stall_seconds * 1e3)));
    }
    if let Some(engine) = &report.engine {
        rows.push(("engine", engine.clone()));
    }
    rows.into_iter().map(|(name, value)| format!("{name:<12} {value}\n")).collect()
}

fn adam_json(report: &AdamReport) -> serde_json::Value {
    json!({
        "parameters": report.elements,
        "threads": report.threads,
        "seconds": report.seconds,
        "bytes_per_parameter": report.bytes_per_parameter,
        "bytes_per_second": report.bytes_per_second,
        "triad_bytes_per_second": report.triad_bytes_per_second,
        "share_of_triad": report.share_of_triad(),
        "stall_seconds": report.stall_seconds,
        "store_bytes_per_second": report.store_bytes_per_second,
        "share_of_store": report.share_of_store(),
        "engine": report.engine,
    })
}
