//! Measures directories: `bench_io GIB PATH...`.
//!
//! In:    an amount in GiB and directories.
//! Out:   a line per engine and choice of checksums.
//! Never: leaves files behind.

use offload::EngineChoice;
use offload::bench_io::{Checksums, IoBench, bench_io};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let gibibytes: u64 = arguments.next().ok_or("usage: bench_io GIB PATH...")?.parse()?;
    let paths: Vec<_> = arguments.map(Into::into).collect();
    for engine in [EngineChoice::IoUring, EngineChoice::Threads] {
        for checksums in [Checksums::On, Checksums::Off] {
            let total_bytes = gibibytes << 30;
            let report = bench_io(&IoBench { engine, checksums, total_bytes, ..IoBench::new(paths.clone()) })?;
            let rates = [report.first_write, report.write, report.read].map(|rate| rate.bytes_per_second() / 1048576.0);
            let [first, write, read] = rates;
            println!(
                "{engine:?} checksums {checksums:?}: first write {first:.0} MiB/s, overwrite {write:.0}, read {read:.0}"
            );
            report.notes.iter().for_each(|note| println!("  {note}"));
        }
    }
    Ok(())
}
