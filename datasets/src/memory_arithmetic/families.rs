//! The rules the data set asks for: per family its numbers, two phrasings and the answer.
//!
//! In:    nothing.
//! Out:   families, each with its pool of numbers and a function that writes one of them.
//! Never: draws anything; the caller picks numbers and phrasing.

/// One rule of memory arithmetic.
pub(super) struct Family {
    /// Name, stable.
    pub(super) name: &'static str,
    /// All numbers it may ask about.
    pub(super) pool: Vec<[u64; 3]>,
    /// Writes question and answer for some numbers in phrasing 0 or 1.
    pub(super) write: fn([u64; 3], usize) -> (String, String),
}

/// Every family, in a fixed order (held-out counts and random streams go by position).
pub(super) fn all() -> Vec<Family> {
    vec![
        Family { name: "weights", pool: sizes_with(4), write: weights },
        Family { name: "capacity", pool: sizes_with(4), write: capacity },
        Family { name: "optimizer", pool: sizes_with(4), write: optimizer },
        Family { name: "full_fine_tune", pool: sizes_with(4), write: full_fine_tune },
        Family { name: "kv_cache", pool: products(), write: kv_cache },
        Family { name: "kv_token", pool: products(), write: kv_token },
        Family { name: "lora", pool: lora_shapes(), write: lora },
        Family { name: "transfer", pool: products(), write: transfer },
        Family { name: "wear_days", pool: wear_days_numbers(), write: wear_days },
        Family { name: "wear_updates", pool: products(), write: wear_updates },
        Family { name: "energy", pool: energy_numbers(), write: energy },
        Family { name: "cost", pool: cost_numbers(), write: cost },
    ]
}

/// Number formats of weights: name and bytes per parameter times two.
const PRECISIONS: [(&str, u64); 4] = [("fp32", 8), ("bf16", 4), ("int8", 2), ("4-bit", 1)];
/// Optimizers and the bytes of their state per trainable parameter.
const OPTIMIZERS: [(&str, u64); 4] = [("AdamW", 8), ("8-bit AdamW", 2), ("Momentum SGD", 4), ("Lion", 4)];
/// GPUs that share a full fine-tune (weights, gradients, AdamW: 16 bytes per parameter in mixed precision).
const GPUS: [u64; 4] = [2, 4, 8, 16];
/// LoRA ranks.
const RANKS: [u64; 4] = [1, 2, 4, 8];

/// Model sizes as (count, is it billions), each with an index below `variants`.
fn sizes_with(variants: u64) -> Vec<[u64; 3]> {
    let mut sizes = Vec::new();
    for n in (1..=9).chain(11..=19) {
        sizes.extend([(n, 0), (n * 10, 0), (n, 1)]);
        if n < 10 {
            sizes.extend([(n * 100, 0), (n * 10, 1)]);
        }
    }
    sizes.iter().flat_map(|&(count, billions)| (0..variants).map(move |v| [count, billions, v])).collect()
}

/// Pairs whose product needs one fact of the multiplication table, and zeros.
fn products() -> Vec<[u64; 3]> {
    let left = || (2..=12).chain((20..=120).step_by(10)).chain((200..=900).step_by(100));
    let mut pairs: Vec<[u64; 3]> = left().flat_map(|a| (2..=9).map(move |b| [a, b, 0])).collect();
    pairs.extend((2..=12).flat_map(|a| [20, 30, 40, 50].map(|b| [a, b, 0])));
    pairs
}

fn lora_shapes() -> Vec<[u64; 3]> {
    let sides = || (1..=9).flat_map(|a| (1..=9).map(move |b| (a, b)));
    RANKS.iter().flat_map(|&rank| sides().map(move |(a, b)| [rank, a, b])).collect()
}

fn wear_days_numbers() -> Vec<[u64; 3]> {
    let days = || (20..=120).step_by(10).chain((200..=1200).step_by(100));
    days().flat_map(|d| (2..=9).chain([20, 30, 40, 50]).map(move |rate| [d, rate, 0])).collect()
}

fn energy_numbers() -> Vec<[u64; 3]> {
    let hours = || (2..=12).chain((20..=120).step_by(10));
    let mut pool: Vec<[u64; 3]> = (2..=9).flat_map(|kw| hours().map(move |h| [kw, h, 0])).collect();
    pool.extend((2..=9).flat_map(|w| (1..=12).map(move |h| [w * 100, h * 10, 1])));
    pool
}

fn cost_numbers() -> Vec<[u64; 3]> {
    let used = || (20..=120).step_by(10).chain((200..=1200).step_by(100)).chain((2000..=9000).step_by(1000));
    used().flat_map(|kwh| (1..=9).map(move |tenths| [kwh, tenths, 0])).collect()
}

/// `700M` or `7B`.
fn size(count: u64, billions: u64) -> String {
    format!("{count}{}", if billions == 1 { "B" } else { "M" })
}

/// Bytes of a million parameters at one byte each are a megabyte, of a billion a gigabyte.
fn unit(billions: u64) -> &'static str {
    if billions == 1 { "GB" } else { "MB" }
}

/// Half of `doubled`, exactly.
fn half(doubled: u64) -> String {
    if doubled.is_multiple_of(2) { (doubled / 2).to_string() } else { format!("{}.5", doubled / 2) }
}

fn weights([count, billions, index]: [u64; 3], phrasing: usize) -> (String, String) {
    let (name, bytes_doubled) = PRECISIONS[index as usize];
    let (model, unit) = (size(count, billions), unit(billions));
    let question = match phrasing {
        0 => format!("Size of a {model} model in {name}?"),
        _ => format!("How much memory do {model} weights take in {name}?"),
    };
    (question, format!("{count} x {} = {} {unit}", half(bytes_doubled), half(count * bytes_doubled)))
}

fn capacity([count, billions, index]: [u64; 3], phrasing: usize) -> (String, String) {
    let (name, bytes_doubled) = PRECISIONS[index as usize];
    let (memory, unit) = (half(count * bytes_doubled), unit(billions));
    let question = match phrasing {
        0 => format!("How many {name} parameters fit in {memory} {unit}?"),
        _ => format!("Largest {name} model for {memory} {unit}?"),
    };
    (question, format!("{memory} / {} = {}", half(bytes_doubled), size(count, billions)))
}

fn optimizer([count, billions, index]: [u64; 3], phrasing: usize) -> (String, String) {
    let (name, bytes) = OPTIMIZERS[index as usize];
    let (trained, unit) = (size(count, billions), unit(billions));
    let question = match phrasing {
        0 => format!("{name} state for {trained} parameters?"),
        _ => format!("Optimizer state of {name} with {trained} trained?"),
    };
    (question, format!("{count} x {bytes} = {} {unit}", count * bytes))
}

fn full_fine_tune([count, billions, index]: [u64; 3], phrasing: usize) -> (String, String) {
    let gpus = GPUS[index as usize];
    let (model, unit, bytes) = (size(count, billions), unit(billions), 16 / gpus);
    let question = match phrasing {
        0 => format!("Full fine-tune of {model} over {gpus} GPUs, memory each?"),
        _ => format!("{gpus} GPUs share a full fine-tune of {model}. Each holds?"),
    };
    (question, format!("16 / {gpus} = {bytes}; {count} x {bytes} = {} {unit}", count * bytes))
}

fn kv_cache([kilobytes, thousands, _]: [u64; 3], phrasing: usize) -> (String, String) {
    let question = match phrasing {
        0 => format!("KV cache of {thousands}k tokens at {kilobytes} kB per token?"),
        _ => format!("Each token caches {kilobytes} kB. Cache for {thousands}k tokens?"),
    };
    (question, format!("{kilobytes} x {thousands} = {} MB", kilobytes * thousands))
}

fn kv_token([layers, kilobytes, _]: [u64; 3], phrasing: usize) -> (String, String) {
    let question = match phrasing {
        0 => format!("KV per token with {layers} layers of {kilobytes} kB?"),
        _ => format!("{layers} layers keep {kilobytes} kB each. KV per token?"),
    };
    (question, format!("{layers} x {kilobytes} = {} kB", layers * kilobytes))
}

fn lora([rank, inputs, outputs]: [u64; 3], phrasing: usize) -> (String, String) {
    let question = match phrasing {
        0 => format!("LoRA rank {rank} on a {inputs}k x {outputs}k matrix, parameters?"),
        _ => format!("Parameters of a rank {rank} adapter, {inputs}k in, {outputs}k out?"),
    };
    let sides = inputs + outputs;
    (question, format!("{inputs} + {outputs} = {sides}; {sides} x {rank} = {}k", sides * rank))
}

fn transfer([seconds, speed, _]: [u64; 3], phrasing: usize) -> (String, String) {
    let bytes = seconds * speed;
    let question = match phrasing {
        0 => format!("Time to read {bytes} GB at {speed} GB/s?"),
        _ => format!("Offload {bytes} GB over a {speed} GB/s link, how long?"),
    };
    (question, format!("{bytes} / {speed} = {seconds} s"))
}

fn wear_days([days, rate, _]: [u64; 3], phrasing: usize) -> (String, String) {
    let rated = days * rate;
    let question = match phrasing {
        0 => format!("SSD rated {rated} TBW, {rate} TB written a day. Lasts?"),
        _ => format!("Days until {rated} TBW at {rate} TB per day?"),
    };
    (question, format!("{rated} / {rate} = {days} days"))
}

fn wear_updates([thousands, gigabytes, _]: [u64; 3], phrasing: usize) -> (String, String) {
    let rated = thousands * gigabytes;
    let question = match phrasing {
        0 => format!("Updates until {rated} TBW at {gigabytes} GB per update?"),
        _ => format!("An update writes {gigabytes} GB to a {rated} TBW SSD. How many?"),
    };
    (question, format!("{rated} / {gigabytes} = {thousands}k updates"))
}

fn energy([power, hours, in_watts]: [u64; 3], phrasing: usize) -> (String, String) {
    let (unit, used) = if in_watts == 1 { ("W", "Wh") } else { ("kW", "kWh") };
    let question = match phrasing {
        0 => format!("Energy of {power} {unit} for {hours} hours?"),
        _ => format!("A rig draws {power} {unit} for {hours} hours. Energy?"),
    };
    (question, format!("{power} x {hours} = {} {used}", power * hours))
}

fn cost([kwh, tenths, _]: [u64; 3], phrasing: usize) -> (String, String) {
    let question = match phrasing {
        0 => format!("Cost of {kwh} kWh at 0.{tenths} dollars?"),
        _ => format!("A kWh costs 0.{tenths} dollars. Price of {kwh} kWh?"),
    };
    (question, format!("{kwh} x 0.{tenths} = {} dollars", kwh * tenths / 10))
}
