//! `tune bench matmul`: matrix products at the sizes that training has.
//!
//! In:    tokens of a micro-batch.
//! Out:   GFLOP/s of each product, a table or JSON on stdout; on request every rate that plans are made with.
//! Never: changes a file, except the cache on request.

use std::time::Duration;

use anyhow::anyhow;
use kernels::measure::{Format, LinearSize, Operation, seconds};
use serde_json::json;

use crate::args::BenchMatmulArguments;
use crate::failure::{Failure, OrFail};
use crate::rates;

/// Inputs and outputs of layers, from small models to large ones.
const SIZES: [[usize; 2]; 6] = [[576, 1536], [1536, 576], [1024, 1024], [2048, 2048], [2048, 5632], [5632, 2048]];
const TOKENS_MAX: usize = 65_536;
const TIME_EACH: Duration = Duration::from_millis(200);
const TIME_OF_RATES: Duration = Duration::from_secs(15);

/// One layer in one format, GFLOP/s.
struct Row {
    format: &'static str,
    inputs: usize,
    outputs: usize,
    forward: f64,
    input: f64,
    /// `None` where the weight is frozen: in 4 bits it is.
    weight: Option<f64>,
}

/// Measures and prints.
pub fn print(arguments: &BenchMatmulArguments) -> Result<(), Failure> {
    if !(1..=TOKENS_MAX).contains(&arguments.tokens) {
        return Err(anyhow!("--tokens {}: expected 1 to {TOKENS_MAX}", arguments.tokens)).or_input();
    }
    if arguments.rates {
        let rates = rates::measure(&mut |line| eprintln!("{line}"), TIME_OF_RATES)?;
        let file = rates::remember(&rates)?;
        eprintln!("kept in {}", file.display());
        if arguments.json {
            println!("{}", json!(rates));
        }
        return Ok(());
    }
    ::kernels::memory::pack_by_panels();
    // What is compared is measured one after the other: machines are shared.
    let rows: Vec<Row> = SIZES.into_iter().flat_map(|size| rows_of(size, arguments.tokens)).collect();
    match arguments.json {
        true => println!("{:#}", json_of(&rows, arguments.tokens)),
        false => print!("{}", table(&rows, arguments.tokens)),
    }
    Ok(())
}

/// A layer in f32, in bf16 and in 4 bits with activations in bf16.
fn rows_of([inputs, outputs]: [usize; 2], tokens: usize) -> [Row; 3] {
    let size = LinearSize { tokens, inputs, outputs };
    let gflop = 2e-9 * (tokens * inputs * outputs) as f64;
    let rate = |operation, format| gflop / seconds(operation, format, TIME_EACH);
    let dense = |(name, format): (&'static str, Format)| Row {
        format: name,
        inputs,
        outputs,
        forward: rate(Operation::Linear(size), format),
        input: rate(Operation::LinearInput(size), format),
        weight: Some(rate(Operation::LinearWeight(size), format)),
    };
    let [f32, bf16] = [("f32", Format::F32), ("bf16", Format::Bf16)].map(dense);
    let nf4 = Row {
        format: "nf4",
        forward: rate(Operation::Nf4(size), Format::Bf16),
        input: rate(Operation::Nf4Input(size), Format::Bf16),
        weight: None,
        ..bf16
    };
    [f32, bf16, nf4]
}

fn table(rows: &[Row], tokens: usize) -> String {
    let head = format!("GFLOP/s, {tokens} tokens        forward   input's gradient   weight's gradient\n");
    let line = |row: &Row| {
        let layer = format!("{} {}x{}", row.format, row.inputs, row.outputs);
        let weight = row.weight.map_or("frozen".to_string(), |weight| format!("{weight:.0}"));
        format!("{layer:<28} {:>7.0} {:>18.0} {weight:>19}\n", row.forward, row.input)
    };
    head + &rows.iter().map(line).collect::<String>()
}

fn json_of(rows: &[Row], tokens: usize) -> serde_json::Value {
    let row = |row: &Row| {
        json!({
            "format": row.format, "inputs": row.inputs, "outputs": row.outputs, "forward_gflops": row.forward,
            "input_gradient_gflops": row.input, "weight_gradient_gflops": row.weight,
        })
    };
    json!({ "tokens": tokens, "layers": rows.iter().map(row).collect::<Vec<_>>() })
}
