//! `tune bench kernels`: does this device compute what training needs, and how fast are its products.
//!
//! In:    a device.
//! Out:   each operation's difference from its slow twin, and product rates, a table or JSON on stdout; exit 1 where one is wrong.
//! Never: compares a device with itself.

use ::kernels::check::{Bounds, Checked, computes_in, operations};
use ::kernels::measure::{Format, product_flops};
use anyhow::anyhow;
use planner::plan::DeviceChoice;
use serde_json::{Value, json};

use crate::args::BenchKernelsArguments;
use crate::failure::{Failure, OrFail};
use crate::{machine, opened};

/// What was found in one number format.
struct Found {
    format: &'static str,
    checked: Vec<Checked>,
    side: usize,
    flops: f64,
}

/// Checks, measures and prints.
pub fn print(arguments: &BenchKernelsArguments) -> Result<(), Failure> {
    let choice = machine::read(Vec::new(), arguments.device).or_run()?.device(arguments.device).or_input()?;
    let device = trainer::device(choice).map_err(opened::failure)?;
    ::kernels::memory::pack_by_panels();
    let mut found = Vec::new();
    for (name, format) in [("f32", Format::F32), ("bf16", Format::Bf16)] {
        if !computes_in(&device, format) {
            eprintln!("{choice} does not compute in {name}");
            continue;
        }
        eprintln!("{choice}: every operation in {name} against its twin on the processor");
        let bounds = match (format, choice) {
            (Format::Bf16, _) => Bounds::BF16,
            (Format::F32, DeviceChoice::Cuda(_)) => Bounds::TF32,
            (Format::F32, _) => Bounds::F32,
        };
        let checked = operations(&device, format, bounds);
        eprintln!("{choice}: products in {name}");
        let (side, flops) = product_flops(&device, format);
        found.push(Found { format: name, checked, side, flops });
    }
    match arguments.json {
        true => println!("{:#}", json_of(&choice, &found)),
        false => print!("{}", table(&found)),
    }
    let wrong: Vec<&Checked> = found.iter().flat_map(|one| &one.checked).filter(|one| !one.holds()).collect();
    match wrong.first() {
        None => Ok(()),
        Some(first) => Err(anyhow!(
            "{} of {} results on {choice} differ from their twins by more than rounding explains; the first: {}, {}: {:.1e}, at most {:.1e}; \
             do not train on it: update its driver, or report this",
            wrong.len(),
            found.iter().map(|one| one.checked.len()).sum::<usize>(),
            first.operation,
            first.result,
            first.error,
            first.bound
        ))
        .or_run(),
    }
}

/// Every operation's worst result.
fn table(found: &[Found]) -> String {
    let mut text = String::new();
    for Found { format, checked, side, flops } in found {
        text += &format!("{:<40} {:>10} {:>10}\n", format!("{format}: operation, worst result"), "error", "at most");
        for group in checked.chunk_by(|a, b| a.operation == b.operation) {
            let share = |one: &Checked| one.error / one.bound;
            let Some(worst) = group.iter().max_by(|a, b| share(a).total_cmp(&share(b))) else { continue };
            let mark = if worst.holds() { "" } else { "  WRONG" };
            text += &format!("{:<40} {:>10.1e} {:>10.1e}{mark}\n", worst.operation, worst.error, worst.bound);
        }
        text += &format!("{:<40} {:>10.1} GFLOP/s\n\n", format!("{format}: products of {side}x{side}"), flops / 1e9);
    }
    text
}

fn json_of(device: &DeviceChoice, found: &[Found]) -> Value {
    let result = |one: &Checked| {
        // JSON has no infinity.
        let error = one.error.is_finite().then_some(one.error);
        json!({
            "operation": one.operation, "result": one.result, "error": error, "bound": one.bound, "holds": one.holds(),
        })
    };
    let formats = found.iter().map(|one| {
        json!({
            "format": one.format,
            "results": one.checked.iter().map(result).collect::<Vec<_>>(),
            "product_side": one.side,
            "product_flops": one.flops,
        })
    });
    json!({ "device": device.to_string(), "formats": formats.collect::<Vec<_>>() })
}
