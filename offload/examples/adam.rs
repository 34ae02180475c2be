//! `adam dram|nvme RULE ELEMENTS STEPS [PATH...]`: one JSON object with what an update costs here, see `offload::bench_adam`.
//!
//! RULE: adamw, adamw+bf16 (with a bf16 copy), adamw-8bit, adamw-bf16, lion, sgd.

use offload::bench_adam::{AdamOptions, TRIAD_ELEMENTS, bench_adam};
use offload::rules::{AdamW, Lion, Rule, Sgd};
use offload::{EngineChoice, Place};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [place, rule_name, elements, steps, paths @ ..] = &arguments[..] else {
        return Err("usage: adam dram|nvme RULE ELEMENTS STEPS [PATH...]".into());
    };
    let adamw = AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 };
    let rule = match rule_name.as_str() {
        "adamw" | "adamw+bf16" => Rule::AdamW(adamw),
        "adamw-8bit" => Rule::AdamW8bit(adamw),
        "adamw-bf16" => Rule::AdamWBf16(adamw),
        "lion" => Rule::Lion(Lion { beta1: 0.9, beta2: 0.99, weight_decay: 0.1 }),
        "sgd" => Rule::Sgd(Sgd { momentum: 0.9, weight_decay: 0.01 }),
        other => return Err(format!("no rule `{other}`").into()),
    };
    let options = AdamOptions {
        place: if place == "nvme" { Place::Nvme } else { Place::Dram },
        elements: elements.parse()?,
        steps: steps.parse()?,
        rule,
        working: rule_name.ends_with("+bf16"),
        span_elements: 1 << 20,
        paths: paths.iter().map(Into::into).collect(),
        engine: EngineChoice::Auto,
        triad_elements: TRIAD_ELEMENTS,
    };
    let report = bench_adam(&options)?;
    let json = serde_json::json!({
        "place": place,
        "rule": rule_name,
        "elements": report.elements,
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
    });
    println!("{json}");
    Ok(())
}
